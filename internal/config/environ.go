package config

import (
	"slices"
	"strings"

	"github.com/inferd-go/inferd/internal/paths"
	"github.com/inferd-go/inferd/internal/usage"
)

// variablePrefix is the beginning of the names of our variables.
const variablePrefix = "INFERD_"

// environmentOnly are variables without a flag, of this release and of the reference; a name
// that ends in * is a prefix.
var environmentOnly = []string{
	"INFERD_LOG*", "INFERD_ENGINE*", "INFERD_FORCE_BACKEND", "INFERD_CLI_LOG", "INFERD_HTTP_LOG",
}

// A variable is one of the environment without a known meaning, and the nearest known name.
type variable struct{ name, near string }

// unknownVariables lists the variables with our prefix that are neither in known nor in
// environmentOnly.
func unknownVariables(env paths.Env, known []string) (unknown []variable) {
	if env.Environ == nil {
		return nil
	}
	own := make([]string, len(known)) // without the common prefix, which would make all alike
	for i, name := range known {
		own[i] = strings.TrimPrefix(name, variablePrefix)
	}
	for _, set := range env.Environ() {
		name, _, _ := strings.Cut(set, "=")
		if !strings.HasPrefix(name, variablePrefix) || slices.Contains(known, name) || slices.ContainsFunc(environmentOnly, func(pattern string) bool {
			prefix, open := strings.CutSuffix(pattern, "*")
			return name == pattern || open && strings.HasPrefix(name, prefix)
		}) {
			continue
		}
		near := usage.Nearest(strings.TrimPrefix(name, variablePrefix), own)
		if near != "" {
			near = variablePrefix + near
		}
		unknown = append(unknown, variable{name, near})
	}
	slices.SortFunc(unknown, func(a, b variable) int { return strings.Compare(a.name, b.name) })
	return unknown
}

// warnUnknown returns a warning for each unknown variable that is not the name of a key.
func (f *Flags) warnUnknown(keys []string) (warnings []string) {
	for _, v := range f.unknown {
		if slices.Contains(keys, v.name) {
			continue
		}
		warning := "the variable " + v.name + " has no meaning"
		if v.near != "" {
			warning += ": did you mean " + v.near + "?"
		}
		warnings = append(warnings, warning)
	}
	return warnings
}
