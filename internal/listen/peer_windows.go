package listen

import (
	"errors"
	"fmt"

	"golang.org/x/sys/windows"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/printable"
)

// identify does nothing: the daemon has no Unix sockets on Windows.
func identify(int, *infer.Peer) {}

// peer identifies the client.
func (p *pipe) peer() infer.Peer {
	peer := infer.Peer{Transport: infer.Pipe}
	_ = p.control(func(h windows.Handle) { identifyPipe(h, &peer) }) // fails if p is closed
	return peer
}

func identifyPipe(pipe windows.Handle, peer *infer.Peer) {
	var pid uint32
	if windows.GetNamedPipeClientProcessId(pipe, &pid) != nil {
		return
	}
	peer.PID = int(pid)
	process, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION, false, pid)
	if err != nil {
		return
	}
	defer windows.CloseHandle(process) //nolint:errcheck // a handle that we have opened
	user := userOf(process)
	exe, program := executable(process)
	// Checked last: while the client's end is open, the client lives and its pid is not reused. (A
	// client may have passed that end to a child and ended, but it gains nothing beyond its own
	// user's share.)
	if there, err := connected(pipe); err == nil && there {
		peer.User, peer.Exe, peer.Program = user, printable.Text(exe), program
	}
}

// userOf returns the SID of the user of a process.
func userOf(process windows.Handle) string {
	var token windows.Token
	if windows.OpenProcessToken(process, windows.TOKEN_QUERY, &token) != nil {
		return ""
	}
	defer token.Close()
	user, err := token.GetTokenUser()
	if err != nil {
		return ""
	}
	return user.User.Sid.String()
}

// executable returns the path of a process's executable, and the identity of that file. Both
// are empty if they are not readable.
func executable(process windows.Handle) (path, program string) {
	name := image(process)
	if len(name) == 0 {
		return "", ""
	}
	const share = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE | windows.FILE_SHARE_DELETE
	file, err := windows.CreateFile(&name[0], 0, share, nil, windows.OPEN_EXISTING, 0, 0) // for its attributes only
	if err != nil {
		return "", ""
	}
	defer windows.CloseHandle(file) //nolint:errcheck // a handle that we have opened
	var info windows.ByHandleFileInformation
	if windows.GetFileInformationByHandle(file, &info) != nil {
		return "", ""
	}
	id := uint64(info.FileIndexHigh)<<32 | uint64(info.FileIndexLow)
	return windows.UTF16ToString(name), fmt.Sprintf("%x:%d", info.VolumeSerialNumber, id)
}

// image returns the path of a process's executable, with a final zero, or nil if it is not
// readable.
func image(process windows.Handle) []uint16 {
	for room := windows.MAX_PATH; ; room *= 8 {
		name, size := make([]uint16, room), uint32(room)
		err := windows.QueryFullProcessImageName(process, 0, &name[0], &size)
		switch {
		case err == nil:
			return name[:size+1]
		case !errors.Is(err, windows.ERROR_INSUFFICIENT_BUFFER) || room > windows.MAX_LONG_PATH:
			return nil
		}
	}
}
