package config

import (
	"slices"
	"strings"

	"github.com/inferd-go/inferd/internal/paths"
	"github.com/inferd-go/inferd/internal/usage"
)

// variablePrefix begins the name of every variable of inferd.
const variablePrefix = "INFERD_"

// environmentOnly lists the variables without a flag that the programs of this release or of the
// reference implementation read. A name that ends in * stands for every name with that prefix.
var environmentOnly = []string{
	"INFERD_LOG*", "INFERD_ENGINE*", "INFERD_FORCE_BACKEND", "INFERD_CLI_LOG", "INFERD_HTTP_LOG", "INFERD_HTTP_KEY",
}

// A variable is the name of an unknown variable of the environment. near is the most similar known
// name, or empty.
type variable struct{ name, near string }

// unknownVariables lists the variables with variablePrefix that are neither in known nor in
// environmentOnly.
func unknownVariables(env paths.Env, known []string) (unknown []variable) {
	if env.Environ == nil {
		return nil
	}
	own := make([]string, len(known)) // without the common prefix, which would make all names similar
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

// warnUnknown returns a warning for each unknown variable that is not in keys, the variables that
// hold keys.
func (f *Flags) warnUnknown(keys []string) (warnings []string) {
	for _, v := range f.unknown {
		if slices.Contains(keys, v.name) {
			continue
		}
		warning := "the variable " + v.name + " is unknown and has no effect"
		if v.near != "" {
			warning += ": did you mean " + v.near + "?"
		}
		warnings = append(warnings, warning)
	}
	return warnings
}
