package schema

import (
	"cmp"
	"slices"
	"strings"

	"github.com/inferd-go/inferd/internal/regex"
)

// languages caches the results of operations on languages, because the same patterns and names
// occur many times in a schema.
type languages struct {
	budget   *regex.Budget
	patterns map[string]*regex.DFA
	ands     map[[2]*regex.DFA]*regex.DFA
	others   map[otherNames]*regex.DFA
	reprs    map[*regex.DFA]reprs
}

// otherNames is a key of languages.others: the names of lang without those in but. A nil lang has
// all names.
type otherNames struct {
	lang *regex.DFA
	but  string
}

func newLanguages(b *regex.Budget) *languages {
	return &languages{budget: b, patterns: make(map[string]*regex.DFA), ands: make(map[[2]*regex.DFA]*regex.DFA), others: make(map[otherNames]*regex.DFA), reprs: make(map[*regex.DFA]reprs)}
}

// reprs divides a language by the quotation marks that Python's repr sets around its strings.
type reprs struct{ double, single *regex.DFA }

// newReprs divides a language. singles are the strings with single marks in them, doubles those with double marks.
func newReprs(b *regex.Budget, lang, singles, doubles *regex.DFA) reprs {
	double := regex.Minus(b, regex.And(b, lang, singles), doubles)
	return reprs{double: double, single: regex.Minus(b, lang, double)}
}

// reprsOf is newReprs with a cache. It fails if the budget is exhausted.
func (l *languages) reprsOf(lang *regex.DFA) (reprs, error) {
	if lang == constants().any {
		return anyReprs().reprs, nil
	}
	r, ok := l.reprs[lang]
	if !ok {
		singles, err1 := l.pattern("'")
		doubles, err2 := l.pattern(`"`)
		if err := cmp.Or(err1, err2); err != nil {
			return reprs{}, err
		}
		r = newReprs(l.budget, lang, singles, doubles)
		l.reprs[lang] = r
	}
	return r, nil
}

// pattern is [regex.Compile] with a cache.
func (l *languages) pattern(source string) (*regex.DFA, error) {
	if d, ok := l.patterns[source]; ok {
		return d, nil
	}
	d, err := regex.Compile(l.budget, source)
	if err == nil {
		l.patterns[source] = d
	}
	return d, err
}

// and is [regex.And] with a cache.
func (l *languages) and(x, y *regex.DFA) *regex.DFA {
	if x == y {
		return x
	}
	key := [2]*regex.DFA{x, y}
	d, ok := l.ands[key]
	if !ok {
		d = regex.And(l.budget, x, y)
		l.ands[key] = d
	}
	return d
}

// without returns the names of lang that are not in names. A nil lang has all names.
func (l *languages) without(lang *regex.DFA, names []string) *regex.DFA {
	if len(names) == 0 {
		return lang
	}
	sorted := slices.Sorted(slices.Values(names))
	key := otherNames{lang, strings.Join(sorted, "\xff")} // no name contains this byte, because names are UTF-8
	d, ok := l.others[key]
	if !ok {
		if lang == nil {
			lang = regex.Any()
		}
		l.budget.Spend(len(key.but) + 64)
		d = regex.Minus(l.budget, lang, regex.Words(l.budget, sorted))
		l.others[key] = d
	}
	return d
}
