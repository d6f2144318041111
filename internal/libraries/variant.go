package libraries

import (
	"slices"
	"strings"
)

// generic is the name of the only CPU variant in a build for one machine.
const generic = "generic"

// Variants returns the CPU variants of an architecture: builds of llama.cpp's kernels for
// processors with certain instruction sets. They are in descending order of the score that llama.cpp
// gives them on a processor with all instruction sets. The generic variant is last; a folder with that
// variant has no other.
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

// variantFile returns the file name of a variant's library.
func variantFile(name string) string {
	if name == generic {
		return File("ggml-cpu")
	}
	return File("ggml-cpu-" + name)
}

// VariantOf returns the name of the CPU variant with the library of that file name. ok is false if the
// file is not the library of a CPU variant.
func VariantOf(file string) (name string, ok bool) {
	before, after, _ := strings.Cut(File("ggml-cpu-*"), "*")
	if name, ok := strings.CutPrefix(file, before); ok {
		if name, ok := strings.CutSuffix(name, after); ok && name != "" {
			return name, true
		}
	}
	return generic, file == File("ggml-cpu")
}

// Remaining returns the variants without those in avoid, in the same order.
func Remaining(variants, avoid []string) []string {
	return slices.DeleteFunc(slices.Clone(variants), func(name string) bool { return slices.Contains(avoid, name) })
}
