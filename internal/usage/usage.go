// Package usage rewords the errors of package flag, with two dashes before flags, and suggests the
// existing name that is nearest to a misspelt flag or setting. It contains no flag or setting, and
// prints nothing.
package usage

import (
	"errors"
	"flag"
	"regexp"
	"strings"
)

// The texts of package flag's errors, which spell names of flags with one dash.
var (
	undefined = regexp.MustCompile(`^flag provided but not defined: -(.*)$`)
	noValue   = regexp.MustCompile(`^flag needs an argument: -(.*)$`)
	badValue  = regexp.MustCompile(`^(invalid (?:boolean )?value "(?s:.*)" for) (?:flag )?-([^\s:]*): (?s:(.*))$`)
)

// Explain rewords an error of fs.Parse for the user of the command line. It returns other errors,
// including [flag.ErrHelp] and nil, unchanged.
func Explain(fs *flag.FlagSet, err error) error {
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return err
	}
	text := err.Error()
	if m := undefined.FindStringSubmatch(text); m != nil {
		var names []string
		fs.VisitAll(func(f *flag.Flag) { names = append(names, f.Name) })
		said := "no flag is called " + Dashed(m[1])
		if near := Nearest(m[1], names); near != "" {
			said += ": did you mean " + Dashed(near) + "?"
		}
		return errors.New(said)
	}
	if m := noValue.FindStringSubmatch(text); m != nil {
		return errors.New(Dashed(m[1]) + " needs a value")
	}
	if m := badValue.FindStringSubmatch(text); m != nil {
		return errors.New(m[1] + " " + Dashed(m[2]) + ": " + m[3])
	}
	return err
}

// Dashed returns the name of a flag as it is written on a command line.
func Dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// Nearest returns the element of names that is nearest to a misspelt name. It returns "" if each
// element differs in more than a third of the name's letters, or if the name is longer than
// longest. It ignores case.
func Nearest(name string, names []string) string {
	name = strings.ToLower(name)
	best, least := "", len(name)/3+1 // up to a third of the letters may differ
	if len(name) > longest {
		return ""
	}
	for _, n := range names {
		if d := distance(name, strings.ToLower(n)); d < least {
			best, least = n, d
		}
	}
	return best
}

// longest bounds the length of a misspelt name, and with it the work of distance. No flag or setting
// has a longer name.
const longest = 64

// distance returns the number of edits that turn a into b: a letter is inserted, deleted or replaced,
// or swapped with the next one.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			replaced := rows[i-1][j-1]
			if a[i-1] != b[j-1] {
				replaced++
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, replaced)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
