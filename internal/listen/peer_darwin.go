package listen

import (
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/inferd-go/inferd/internal/infer"
)

// identify leaves the executable out: proc_pidpath, which names it, needs cgo or unsafe code,
// and a process can change the alternative, kern.procargs2 of sysctl, itself.
func identify(fd int, peer *infer.Peer) {
	cred, err := unix.GetsockoptXucred(fd, unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	if err != nil {
		return
	}
	peer.User = strconv.FormatUint(uint64(cred.Uid), 10)
	if cred.Ngroups > 0 {
		peer.Group = strconv.FormatUint(uint64(cred.Groups[0]), 10)
	}
	if pid, err := unix.GetsockoptInt(fd, unix.SOL_LOCAL, unix.LOCAL_PEERPID); err == nil {
		peer.PID = pid
	}
}
