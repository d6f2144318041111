package listen

import (
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/inferd-go/inferd/internal/infer"
)

// identify does not set the executable: proc_pidpath, which returns it, needs cgo or unsafe code,
// and the alternative, the sysctl kern.procargs2, returns a value that the process itself can
// change.
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
