package listen

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/printable"
)

func identify(fd int, peer *infer.Peer) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return
	}
	peer.User = strconv.FormatUint(uint64(cred.Uid), 10)
	peer.Group = strconv.FormatUint(uint64(cred.Gid), 10)
	if cred.Pid <= 0 { // the process is in a pid namespace that is invisible here
		return
	}
	peer.PID = int(cred.Pid)

	process, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
		return // without the pidfd, the pid proves nothing
	}
	if err != nil {
		// Linux before 6.5 has no pidfd of a peer, so the pid may have been reused. A client
		// that connects and ends at once could pass for the new process, and would gain only
		// that caller's share.
		process = -1
	} else {
		defer unix.Close(process)
	}
	exe, program := executable(peer.PID)
	// Checked last: a process that is running now was running when its executable was read.
	if process < 0 || lives(process) {
		peer.Exe, peer.Program = printable.Text(exe), program
	}
}

// executable returns the path of a process's executable, and the identity of that file. Both
// are empty if they are not readable, as for processes of other users.
func executable(pid int) (path, program string) {
	name := fmt.Sprintf("/proc/%d/exe", pid)
	info, err := os.Stat(name)
	if err != nil {
		return "", ""
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", ""
	}
	path, err = os.Readlink(name)
	if err != nil {
		return "", ""
	}
	return path, fmt.Sprintf("%x:%d", stat.Dev, stat.Ino)
}

// lives reports whether the process of a pidfd is running.
func lives(process int) bool {
	fds := []unix.PollFd{{Fd: int32(process), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if !errors.Is(err, unix.EINTR) {
			return err == nil && n == 0
		}
	}
}
