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
	if cred.Pid <= 0 { // it lives in a pid namespace that we do not see
		return
	}
	peer.PID = int(cred.Pid)

	process, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
		return // the kernel would have told: without that the pid is no proof
	}
	if err != nil {
		// Before Linux 6.5 nothing tells whether the pid has been given to another process
		// since. Only one of the same machine that connected and died at once could be
		// taken for another, and gains no more than that one's share.
		process = -1
	} else {
		defer unix.Close(process)
	}
	exe, program := executable(peer.PID)
	// Looked at after: what lives now lived when its executable was read.
	if process < 0 || lives(process) {
		peer.Exe, peer.Program = printable.Text(exe), program
	}
}

// executable returns the path of what a process runs, and which file that is. Both are
// empty if we may not know, as with the processes of others.
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

// lives reports whether the process of a pidfd has not ended.
func lives(process int) bool {
	fds := []unix.PollFd{{Fd: int32(process), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if !errors.Is(err, unix.EINTR) {
			return err == nil && n == 0
		}
	}
}
