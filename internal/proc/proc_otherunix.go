//go:build unix && !linux

package proc

import "syscall"

// attributes puts the child into a group of its own. There is no Pdeathsig here: the
// end of its connection is all that tells the child that we have gone.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
