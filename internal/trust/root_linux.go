package trust

import (
	"os"
	"strconv"
	"strings"
	"sync"
)

// root returns the uid that root's files have in the user namespace of this process.
var root = sync.OnceValue(func() uint32 {
	ids, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return 0
	}
	overflow, err := os.ReadFile("/proc/sys/kernel/overflowuid")
	if err != nil {
		return 0
	}
	return rootOf(string(ids), string(overflow))
})

// rootOf returns root's uid, given the contents of uid_map and overflowuid: the overflow uid if the map
// lacks the uid 0, otherwise 0. It also returns 0 if ids is empty or overflow is not a number. A line of
// ids has the first uid inside the namespace, the first uid outside, and the number of uids.
func rootOf(ids, overflow string) uint32 {
	for line := range strings.Lines(ids) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "0" {
			return 0
		}
	}
	uid, err := strconv.ParseUint(strings.TrimSpace(overflow), 10, 32)
	if err != nil || strings.TrimSpace(ids) == "" {
		return 0
	}
	return uint32(uid)
}
