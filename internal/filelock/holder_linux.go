package filelock

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// holder returns the pid of a process that holds a lock on the file, by /proc/locks; 0 if unknown.
func holder(file *os.File) int {
	var stat unix.Stat_t
	raw, err := file.SyscallConn()
	if err != nil {
		return 0
	}
	if ctlErr := raw.Control(func(fd uintptr) { err = unix.Fstat(int(fd), &stat) }); ctlErr != nil || err != nil {
		return 0
	}
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		return 0
	}
	want := fmt.Sprintf("%02x:%02x:%d", unix.Major(stat.Dev), unix.Minor(stat.Dev), stat.Ino)
	for line := range strings.Lines(string(locks)) {
		// 1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF; a waiting process has an extra field, an arrow
		if f := strings.Fields(line); len(f) == 8 && f[1] == "FLOCK" && f[5] == want {
			pid, _ := strconv.Atoi(f[4])
			return max(pid, 0)
		}
	}
	return 0
}
