//go:build unix && !linux

package proc

import "syscall"

// attributes puts the child into a process group of its own. There is no Pdeathsig here: the
// child notices the end of this process only by the end of its connection.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// forbidDumps bounds core files. There is no PR_SET_DUMPABLE here: another process of the
// same user may still trace this one.
func forbidDumps() error { return noCoreFiles() }

// keepDescriptors does nothing: if the parent of this process left descriptors open, children of
// this process inherit them, too.
func keepDescriptors() {}
