package proc

import "syscall"

// attributes puts the child into a group of its own and binds it to our life.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
