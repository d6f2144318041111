package libraries

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
)

// A Processor identifies a kind of processor, as the system describes it.
type Processor struct {
	Model string // name; empty if unknown
	Flags string // digest of the instruction sets in /proc/cpuinfo; without that file, the architecture
}

// ThisProcessor returns the processor of this machine. On other systems than Linux only the
// architecture is known.
func ThisProcessor() Processor {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return Processor{Flags: runtime.GOARCH}
	}
	return ParseProcessor(string(info))
}

// ParseProcessor reads the first processor of /proc/cpuinfo.
func ParseProcessor(cpuinfo string) Processor {
	first, _, _ := strings.Cut(cpuinfo, "\n\n")
	var p Processor
	var flags []string
	for line := range strings.Lines(first) {
		name, value, ok := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch name = strings.TrimSpace(name); {
		case !ok:
		case name == "model name":
			p.Model = value
		case name == "CPU implementer", name == "CPU part", name == "CPU variant": // arm64 has no name
			p.Model = strings.TrimSpace(p.Model + " " + value)
		case name == "flags", name == "Features":
			flags = strings.Fields(value)
		}
	}
	slices.Sort(flags)
	sum := sha256.Sum256([]byte(strings.Join(flags, " ")))
	p.Flags = hex.EncodeToString(sum[:])
	return p
}

// key returns the key in a [Memory] for this processor and the set of libraries with the digest.
func (p Processor) key(digest string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%s\n", p.Model, p.Flags, digest))
	return hex.EncodeToString(sum[:])
}
