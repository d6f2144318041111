package automaton

// An end is a shortest text from a place to an end of the whole text; see [Cursor.Shortest]. Under a guard,
// finding one takes longer than choosing a token. So the ends found last are kept: a text usually goes on
// along the end found before, or within a string, and then the end stays the same.

// A spot identifies a state of a cursor and of its guard.
type spot struct {
	state   State
	stamp   int // of the guard
	renewed int
}

// ends holds two ends: text begins at the spot from; passedEnd begins after the symbols passed, which
// begin at the spot origin. The two spots are usually the same.
type ends struct {
	from spot
	text []Symbol

	origin    spot
	passed    []Symbol
	passedEnd []Symbol
}

func (c *Cursor) spot() spot { return spot{c.state, c.guard.stamp, c.a.renewed} }

// find returns the end that begins after the symbols p, which begin at the spot from. ok is false if
// that end is not kept.
func (e *ends) find(from spot, p []Symbol) (text []Symbol, ok bool) {
	switch {
	case e.from == from && begins(e.text, p):
		return e.text[len(p):], true
	case e.origin == from && len(p) == len(e.passed) && begins(e.passed, p):
		return e.passedEnd, true
	}
	return nil, false
}

// add keeps text as the end that begins after the symbols p, which begin at the spot from.
func (e *ends) add(from spot, p, text []Symbol) {
	if len(p) == 0 {
		e.from, e.text = from, text
		return
	}
	e.origin, e.passed, e.passedEnd = from, append(e.passed[:0:0], p...), text
}

// follow is called when the symbols p have led from one spot to another. A kept end on that way is
// replaced by its remainder, from the second spot on.
func follow[T byte | Symbol](e *ends, from, to spot, p []T) {
	if e.from == from && begins(e.text, p) {
		e.from, e.text = to, e.text[len(p):]
	}
	if e.origin != from || !begins(e.passed, p) {
		return
	}
	if e.origin, e.passed = to, e.passed[len(p):]; len(e.passed) == 0 {
		e.from, e.text = to, e.passedEnd
		e.origin = spot{}
	}
}

// begins reports whether a text begins with symbols p.
func begins[T byte | Symbol](text []Symbol, p []T) bool {
	if len(p) > len(text) {
		return false
	}
	for i, x := range p {
		if text[i] != Symbol(x) {
			return false
		}
	}
	return true
}
