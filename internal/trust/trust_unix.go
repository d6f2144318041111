//go:build unix

package trust

import (
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// NoFollow is a set of flags for [os.OpenFile]: opening a symbolic link fails, and opening a named
// pipe does not wait for its other end.
const NoFollow = syscall.O_NOFOLLOW | syscall.O_NONBLOCK

func factsOf(info fs.FileInfo) (Facts, bool) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return Facts{}, false
	}
	return Facts{Mode: info.Mode(), UID: stat.Uid, GID: stat.Gid}, true
}

// self returns the Rule of this process's user.
func self() Rule {
	return Rule{UID: uint32(os.Getuid()), Root: root(), PrimaryGroup: primaryGroup}
}

// primaryGroup looks up a user's primary group in the user database, and reports whether it is known.
// The database of a container may lack users: then the primary group of this process's user is the
// group of the process, and that of uid 0 is 0.
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
