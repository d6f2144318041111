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

// rootOf returns root's uid by the content of uid_map: 0 if the map has the uid 0, or cannot be read,
// else the overflow uid. A line of ids has the first uid inside the namespace, the first uid outside,
// and the number of uids.
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
