// Package schema compiles JSON Schemas into grammars for package automaton. Every text of the
// grammar is a JSON value that the schema allows. A schema that cannot be enforced as a whole is
// refused, with the keyword and its JSON pointer; it is never enforced in part. Drafts 4 to 2020-12
// are understood; without $schema, 2020-12 applies. The package reads no file, and follows no
// reference out of the schema.
//
// A schema is represented as a set of values (type set): a regular language of numbers, and a union
// of cases for strings, for arrays and for objects. Such sets are intersected, united and
// complemented, for allOf, anyOf, oneOf, not, if and dependent*. The condition on a member or an
// item is an expression over schemas (type expr), evaluated only when it is reached, so schemas may
// be recursive. Each expression becomes a rule of the grammar.
//
// docs/schemas.md documents which keywords are enforced, which are refused, and how values are
// spelt.
package schema

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/inferd-go/inferd/internal/automaton"
)

// A Schema is a compiled schema.
type Schema struct {
	Grammar *automaton.Grammar
	// Annotations holds the JSON pointers of keywords that restrict nothing, although they may seem
	// to: formats that are not in the standard, content*, and unknown keywords.
	Annotations []string
}

// A Refusal names a keyword that cannot be enforced. If Keyword is empty, the schema at Pointer is
// refused as a whole.
type Refusal struct {
	Pointer string `json:"pointer"` // of the keyword's value, or of the schema
	Keyword string `json:"keyword"`
	Why     string `json:"why"`
}

// RefusedError is the error for a schema that cannot be enforced.
type RefusedError []Refusal

func (r RefusedError) Error() string {
	var s strings.Builder
	for i, f := range r {
		if i == 3 {
			fmt.Fprintf(&s, "; and %d more", len(r)-i)
			break
		}
		if i > 0 {
			s.WriteString("; ")
		}
		at := f.Pointer
		if at == "" {
			at = "the schema"
		}
		fmt.Fprintf(&s, "%s: %s", at, f.Why)
	}
	return s.String()
}

// Reasons to refuse a keyword, or the schema of an expression.
var (
	errCases     = errors.New("too many cases: more than 256 combinations")
	errFormatNot = errors.New("the opposite of this format cannot be enforced")
	errUniqueNot = errors.New("the opposite of uniqueItems cannot be enforced")
	errOthersNot = errors.New("the opposite of a condition on undeclared members cannot be enforced")
	errLengths   = errors.New("the pattern or format is too large for bounds of this length beside it")
	errUnique    = errors.New("unique items can be enforced for scalars only, with one schema for all items and without contains")
	errPositions = errors.New("too many states: the bounds on the number of members or items are too large beside the other conditions")
	errFew       = errors.New("minItems is larger than the number of different items")
	errCycle     = errors.New("a reference leads back to itself without entering a member or an item of the value")
)

// Reasons to refuse a schema as a whole.
const (
	whyNothing = "no value satisfies it"
	whyItems   = "it has too many alternatives at one place"
)

// MaxShortest is the maximum length in bytes of the shortest value of a schema; a schema with only longer
// values is refused.
const MaxShortest = 32 << 10

// Compile compiles a schema within budget b; nil means the default bounds. The error is a
// [*SyntaxError] if source is not a schema, otherwise a [RefusedError].
func Compile(source []byte, b *automaton.Budget) (*Schema, error) {
	return compile(source, nil, false, b)
}

func compile(source []byte, n *Notation, object bool, b *automaton.Budget) (*Schema, error) {
	if b == nil {
		b = &automaton.Budget{}
	}
	b.Spend(8 * len(source))
	root, err := parseJSON(source)
	if err != nil {
		return nil, err
	}
	if root.kind != jsonObject && root.kind != jsonBool {
		return nil, &SyntaxError{Problem: "a schema is an object, true or false"}
	}
	c := newCompiler(root, b)
	c.notation = n
	if object {
		c.style = outermost
	}
	g, err := c.compile()
	switch {
	case b.Err() != nil:
		return nil, RefusedError{{Why: b.Err().Error()}}
	case len(c.refused) > 0:
		slices.SortStableFunc(c.refused, func(x, y Refusal) int { return strings.Compare(x.Pointer, y.Pointer) })
		return nil, RefusedError(slices.Compact(c.refused))
	case errors.Is(err, automaton.ErrNothing):
		return nil, RefusedError{{Why: whyNothing}}
	case err != nil:
		return nil, RefusedError{{Why: err.Error()}}
	}
	a := automaton.New(g)
	start := a.Open()
	defer start.Close()
	if a.Cost(start.State()) > MaxShortest {
		return nil, RefusedError{{Why: fmt.Sprintf("its shortest value has more than %d bytes", MaxShortest)}}
	}
	if _, ok := start.Shortest(MaxShortest); !ok {
		return nil, RefusedError{{Why: whyItems}}
	}
	slices.Sort(c.annotations)
	return &Schema{Grammar: g, Annotations: slices.Compact(c.annotations)}, nil
}

// Empty reports whether err, an error of [Compile] or [CompileObject], means that no value satisfies
// the schema.
func Empty(err error) bool {
	r, ok := errors.AsType[RefusedError](err)
	return ok && len(r) == 1 && r[0].Why == whyNothing
}
