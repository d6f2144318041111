package libraries

import (
	"slices"
	"strings"
)

// generic is the name of the CPU variant that a build for one machine has.
const generic = "generic"

// Variants returns the CPU variants of an architecture, which are builds of llama.cpp's kernels
// for processors with certain instructions. The one with the most comes first: the order of the
// scores that they give a processor that has all instructions. The generic one comes last; a
// folder that has it has no other.
func Variants(goarch string) []string {
	all := map[string][]string{
		"amd64": {
			"sapphirerapids", "zen4", "cooperlake", "icelake", "cascadelake", "cannonlake", "skylakex",
			"alderlake", "haswell", "piledriver", "ivybridge", "sandybridge", "sse42", "x64",
		},
		"arm64": {
			"armv9.2_2", "armv9.2_1", "armv8.6_2", "armv8.6_1", "armv8.2_3", "armv8.2_2", "armv8.2_1", "armv8.0_1",
		},
	}[goarch]
	return append(all, generic)
}

// variantFile is the name of the library of a variant.
func variantFile(name string) string {
	if name == generic {
		return File("ggml-cpu")
	}
	return File("ggml-cpu-" + name)
}

// VariantOf returns the name of the CPU variant that a file has, and false if it has none.
func VariantOf(file string) (name string, ok bool) {
	before, after, _ := strings.Cut(File("ggml-cpu-*"), "*")
	if name, ok := strings.CutPrefix(file, before); ok {
		if name, ok := strings.CutSuffix(name, after); ok && name != "" {
			return name, true
		}
	}
	return generic, file == File("ggml-cpu")
}

// Remaining returns the variants that are left, in their order.
func Remaining(variants, avoid []string) []string {
	return slices.DeleteFunc(slices.Clone(variants), func(name string) bool { return slices.Contains(avoid, name) })
}
