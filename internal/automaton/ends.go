package automaton

// Ends that were found under a guard. To find one takes longer than to choose a token, and texts usually
// follow the end that was found before, or stand within a string, where the end stays the same.

// A spot is a position under a guard.
type spot struct {
	state   State
	stamp   int // of the guard
	renewed int
}

// ends has the end from a spot, and that behind some symbols from a spot. The spots are usually the
// same.
type ends struct {
	from spot
	text []Symbol

	origin spot
	passed []Symbol
	behind []Symbol
}

func (c *Cursor) spot() spot { return spot{c.state, c.guard.stamp, c.a.renewed} }

// find returns the end behind symbols p from a spot.
func (e *ends) find(from spot, p []Symbol) (text []Symbol, ok bool) {
	switch {
	case e.from == from && begins(e.text, p):
		return e.text[len(p):], true
	case e.origin == from && len(p) == len(e.passed) && begins(e.passed, p):
		return e.behind, true
	}
	return nil, false
}

// add keeps the end behind symbols p from a spot.
func (e *ends) add(from spot, p, text []Symbol) {
	if len(p) == 0 {
		e.from, e.text = from, text
		return
	}
	e.origin, e.passed, e.behind = from, append(e.passed[:0:0], p...), text
}

// follow notes that symbols p lead from a spot to another one.
func follow[T byte | Symbol](e *ends, from, to spot, p []T) {
	if e.from == from && begins(e.text, p) {
		e.from, e.text = to, e.text[len(p):]
	}
	if e.origin != from || !begins(e.passed, p) {
		return
	}
	if e.origin, e.passed = to, e.passed[len(p):]; len(e.passed) == 0 {
		e.from, e.text = to, e.behind
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
