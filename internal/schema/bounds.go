package schema

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/inferd-go/inferd/internal/automaton"
	"github.com/inferd-go/inferd/internal/regex"
)

func (c *compiler) numberKeyword(v *value, name string, item *value) (expr, error) {
	if item.kind == jsonBool && (name == "exclusiveMinimum" || name == "exclusiveMaximum") {
		return everything, nil // as in draft 4: it belongs to minimum or maximum
	}
	if item.kind != jsonNumber {
		return nothing, wrong("a number")
	}
	d, err := regex.ParseDecimal(item.text)
	if err != nil {
		return nothing, err
	}
	exclusive := func(name string) bool {
		e := v.member(name)
		return e != nil && e.kind == jsonBool && e.truth
	}
	var nums *regex.DFA
	switch name {
	case "minimum":
		nums = regex.Compare(c.budget, d, false, !exclusive("exclusiveMinimum"), true)
	case "maximum":
		nums = regex.Compare(c.budget, d, true, !exclusive("exclusiveMaximum"), false)
	case "exclusiveMinimum":
		nums = regex.Compare(c.budget, d, false, false, true)
	case "exclusiveMaximum":
		nums = regex.Compare(c.budget, d, true, false, false)
	default:
		if nums, err = regex.Multiples(c.budget, d); err != nil {
			return nothing, err
		}
	}
	return c.allBut(func(s *set) { s.nums = nums }), nil
}

// size returns the value of a keyword such as minLength. Any value above automaton.MaxCount is
// returned as automaton.MaxCount + 1.
func size(item *value) (int, error) {
	want := wrong("an integer that is not negative")
	if item.kind != jsonNumber {
		return 0, want
	}
	d, err := regex.ParseDecimal(item.text)
	if err != nil {
		return 0, want
	}
	n, err := strconv.Atoi(d.String())
	switch {
	case errors.Is(err, strconv.ErrRange) && !d.Negative:
		return automaton.MaxCount + 1, nil
	case err != nil || n < 0:
		return 0, want
	}
	return min(n, automaton.MaxCount+1), nil
}

// limit returns the value of a keyword such as maxLength. It returns -1, which means no maximum, for
// a value above automaton.MaxCount.
func limit(item *value) (int, error) {
	n, err := size(item)
	if n > automaton.MaxCount {
		n = -1
	}
	return n, err
}

func (c *compiler) stringKeyword(name string, item *value) (expr, error) {
	x := anyStrs
	var err error
	switch name {
	case "minLength":
		x.least, err = size(item)
	case "maxLength":
		x.most, err = limit(item)
	case "pattern":
		if item.kind != jsonString {
			return nothing, wrong("a string")
		}
		x.lang, err = c.langs.pattern(item.text)
	case "format":
		known, ok := formats[item.text]
		switch {
		case ok:
			l := known()
			c.written[l.lang] = l.quoted
			x.lang, x.narrow = l.lang, narrowFormats[item.text]
		case refusedFormats[item.text]:
			return nothing, fmt.Errorf("the format %q cannot be enforced", item.text)
		default:
			c.annotations = append(c.annotations, item.pointer())
			return everything, nil
		}
	}
	if err != nil {
		return nothing, err
	}
	if x.least > automaton.MaxCount {
		return c.allBut(func(s *set) { s.strs = nil }), nil
	}
	return c.allBut(func(s *set) { s.strs = []strs{x} }), nil
}
