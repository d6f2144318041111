package store

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
)

// maxParts bounds the parts of a split model: each costs a descriptor in the daemon while an
// engine starts, and in the engine.
const maxParts = 512

// firstPart matches the name that llama.cpp gives to the first part of a split model.
var firstPart = regexp.MustCompile(`^(.*)-00001-of-([0-9]{5})\.gguf$`)

// anyPart matches the stem of any part of a split model.
var anyPart = regexp.MustCompile(`^(.*)-([0-9]{5})-of-([0-9]{5})$`)

// partsOf returns the paths of all parts of a model, in order. It returns path alone unless its
// name is that of the first of several parts.
func partsOf(path string) []string {
	dir, leaf := filepath.Split(path)
	match := firstPart.FindStringSubmatch(leaf)
	if match == nil {
		return []string{path}
	}
	count, err := strconv.Atoi(match[2])
	if err != nil || count < 2 {
		return []string{path}
	}
	parts := make([]string, count)
	for i := range parts {
		parts[i] = filepath.Join(dir, fmt.Sprintf("%s-%05d-of-%05d.gguf", match[1], i+1, count))
	}
	return parts
}
