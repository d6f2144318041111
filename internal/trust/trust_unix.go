//go:build unix

package trust

import (
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// NoFollow is a flag of [os.OpenFile]: a symbolic link at the end of a path is an error, and a
// named pipe there is opened without a wait for its other end.
const NoFollow = syscall.O_NOFOLLOW | syscall.O_NONBLOCK

func factsOf(info fs.FileInfo) (Facts, bool) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return Facts{}, false
	}
	return Facts{Mode: info.Mode(), UID: stat.Uid, GID: stat.Gid}, true
}

// self returns the Judge of this process's user.
func self() Judge {
	return Judge{UID: uint32(os.Getuid()), Root: root(), PrimaryGroup: primaryGroup}
}

// primaryGroup looks up a user's primary group in the user database. In a container, the user of this
// process may be missing there; then primaryGroup returns the group of the process.
func primaryGroup(uid uint32) (uint32, bool) {
	if uid == root() && uid != 0 { // the overflow uid stands for several users
		return 0, false
	}
	if u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10)); err == nil {
		if gid, err := strconv.ParseUint(u.Gid, 10, 32); err == nil {
			return uint32(gid), true
		}
	}
	switch {
	case int(uid) == os.Getuid():
		return uint32(os.Getgid()), true
	case uid == 0:
		return 0, true
	}
	return 0, false
}
