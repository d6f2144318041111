//go:build unix && !linux

package proc

import "syscall"

// attributes returns the attributes that put the child into a process group of its own. These systems
// have no Pdeathsig, so the child notices the end of this process only by the end of its connection.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// forbidDumps prevents core files. These systems have no PR_SET_DUMPABLE, so another process of the
// same user may still trace this one.
func forbidDumps() error { return noCoreFiles() }

// keepDescriptors does nothing: if the parent of this process left descriptors open, children of
// this process inherit them, too.
func keepDescriptors() {}
