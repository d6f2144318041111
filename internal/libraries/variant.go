package libraries

import (
	"slices"
	"strings"
)

// generic is the name of the only CPU variant in a build for one machine.
const generic = "generic"

// Variants returns the CPU variants of an architecture: builds of llama.cpp's kernels for
// processors with certain instructions. They are in the order of the scores that they report on
// a processor with all instructions, the highest first. The generic one is last; a folder with
// it has no other.
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

// VariantOf returns the name of the CPU variant in a file, and false if the file is not one.
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
