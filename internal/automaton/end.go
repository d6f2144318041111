package automaton

import "math/bits"

// A Symbol is a byte, or 256 plus the id of a token that is taken by its id.
type Symbol int32

// NextSymbol is [Automaton.Next] of a byte, or [Automaton.NextToken] of a token.
func (a *Automaton) NextSymbol(s State, x Symbol) State {
	if x >= 256 {
		return a.NextToken(s, int32(x-256))
	}
	return a.Next(s, byte(x))
}

// Shortest returns the shortest text from the cursor to an end of the whole text; under a guard it is
// short, but not always the shortest. ok is false if limit symbols do not suffice. The caller must not
// change the text. If the cursor moves along the text, the next result is the remainder of the text.
func (c *Cursor) Shortest(limit int) (text []Symbol, ok bool) { return c.ShortestBehind(nil, limit) }

// ShortestBehind is Shortest from the position after the symbols p; it does not move the cursor. ok is
// also false if the symbols do not fit.
func (c *Cursor) ShortestBehind(p []Symbol, limit int) (text []Symbol, ok bool) {
	if !c.a.g.guard {
		return c.a.ShortestFrom(c.runSymbols(p), limit)
	}
	from := c.spot()
	if text, ok = c.ends.find(from, p); ok {
		return text, len(text) <= limit
	}
	c.guard.begin()
	defer c.guard.rollback()
	s := c.runSymbols(p)
	if text, ok = c.ends.find(spot{s, c.guard.stamp, c.a.renewed}, nil); ok {
		return text, len(text) <= limit
	}
	if text, ok = c.a.shortest(s, limit, c.nearest); ok {
		c.ends.add(from, p, text)
	}
	return text, ok
}

// ShortestFrom is [Cursor.Shortest] from a state. It ignores guards.
func (a *Automaton) ShortestFrom(s State, limit int) (text []Symbol, ok bool) {
	return a.shortest(s, limit, a.Nearest)
}

// runSymbols returns the state after the symbols p. With a guard it must be called between begin and
// rollback of the guard.
func (c *Cursor) runSymbols(p []Symbol) State {
	s := c.state
	for _, x := range p {
		if s = c.a.NextSymbol(s, x); s != Dead && c.a.g.guard {
			s = c.guard.advance(c.a, s, x)
		}
	}
	return s
}

func (a *Automaton) shortest(state State, limit int, nearest func(State) (Symbol, State)) (text []Symbol, ok bool) {
	if state == Dead || a.Cost(state) > limit {
		return nil, false
	}
	for !a.MayEnd(state) {
		if len(text) == limit {
			return nil, false
		}
		x, next := nearest(state)
		if next == Dead {
			return nil, false
		}
		text, state = append(text, x), next
		if a.Full() {
			live := [1]State{state}
			a.Renew(live[:])
			state = live[0]
		}
	}
	return text, true
}

// Nearest returns the byte or token after which the cost is lowest, and the state after it, or -1 and
// Dead if nothing fits. It ignores guards.
func (a *Automaton) Nearest(s State) (Symbol, State) {
	if a.states[s].near == 0 {
		x := a.findNearest(s)
		a.states[s].near = int32(x+2) << 2
	}
	x := Symbol(a.states[s].near>>2) - 2
	if x < 0 {
		return -1, Dead
	}
	return x, a.NextSymbol(s, x)
}

// Low bits of state.near: the result of the method alone.
const (
	alone    = 1
	notAlone = 2
)

// alone reports whether every other byte that fits leads to a state of higher cost than the byte of
// Nearest. It is called only if Nearest returns a byte.
func (a *Automaton) alone(s State) bool {
	if a.states[s].near&(alone|notAlone) == 0 {
		result := int32(notAlone)
		if a.findAlone(s) {
			result = alone
		}
		a.states[s].near |= result
	}
	return a.states[s].near&alone != 0
}

func (a *Automaton) findAlone(s State) bool {
	x, to := a.Nearest(s)
	for class, b := range a.g.bytes {
		next := a.Next(s, b)
		if next == Dead || a.Cost(next) > a.Cost(to) {
			continue
		}
		single := Set{}
		if single.Add(byte(x), byte(x)); a.g.members[class] != single {
			return false
		}
	}
	return true
}

// findNearest returns the symbol of Nearest.
func (a *Automaton) findNearest(s State) Symbol {
	best, cost, least := Symbol(-1), never, a.Cost(s)-1
	for _, b := range a.g.bytes {
		if next := a.Next(s, b); next != Dead && a.Cost(next) < cost {
			best, cost = Symbol(b), a.Cost(next)
			if cost <= least { // nothing is nearer
				return best
			}
		}
	}
	a.Tokens(s, func(id int32, other bool) {
		x := tokenOf(id, other)
		if next := a.NextSymbol(s, x); next != Dead && a.Cost(next) < cost {
			best, cost = x, a.Cost(next)
		}
	})
	return best
}

// tokenOf returns the symbol of one token that a way takes. id and other are as in [Automaton.Tokens].
func tokenOf(id int32, other bool) Symbol {
	if other {
		id = 1 - min(id, 1)
	}
	return 256 + Symbol(id)
}

// nearest is [Automaton.Nearest] under the guard.
func (c *Cursor) nearest(s State) (Symbol, State) {
	x, next := c.a.Nearest(s)
	if x < 0 {
		return x, next
	}
	if x >= 256 || c.a.alone(s) || !c.repeats(byte(x)) {
		if to := c.guard.attempt(c.a, next, x); to != Dead {
			return x, to
		}
	}
	return c.search(s)
}

// repeats reports whether a byte continues a finished spelling.
func (c *Cursor) repeats(b byte) bool {
	at, ok := c.Spelling()
	if ok {
		_, ok = c.Follow(at, b)
	}
	return ok
}

// search is nearest for the case that the guard may refuse the symbol of [Automaton.Nearest], or raise the
// cost after it. Of symbols with equal cost it prefers one that does not continue a finished spelling.
func (c *Cursor) search(s State) (best Symbol, to State) {
	a := c.a
	best, to = -1, Dead
	cost, off, least := 0, false, a.Cost(s)-1
	farther := func(s State, fresh bool) bool {
		return to != Dead && (a.Cost(s) > cost || a.Cost(s) == cost && (off || !fresh))
	}
	_, spelling := c.Spelling()
	for class, b := range a.g.bytes {
		next := a.Next(s, b)
		if next == Dead || to != Dead && a.Cost(next) > cost {
			continue
		}
		all := a.g.members[class]
		if !spelling { // the guard treats them alike
			all = Set{}
			all.Add(b, b)
		}
		all.each(func(b byte) bool {
			fresh := !c.repeats(b)
			if farther(next, fresh) {
				return true
			}
			if next := c.guard.try(a, next, Symbol(b)); next != Dead && !farther(next, fresh) {
				best, to, cost, off = Symbol(b), next, a.Cost(next), fresh
			}
			return to == Dead || !off // the others are no nearer
		})
		if to != Dead && off && cost <= least { // nothing is nearer
			break
		}
	}
	a.Tokens(s, func(id int32, other bool) {
		x := tokenOf(id, other)
		next := a.NextSymbol(s, x)
		if next == Dead || to != Dead && a.Cost(next) >= cost {
			return
		}
		if next = c.guard.try(a, next, x); next != Dead {
			best, to, cost = x, next, a.Cost(next)
		}
	})
	if best >= 0 {
		to = c.guard.advance(a, a.NextSymbol(s, best), best)
	}
	return best, to
}

// each calls yield for each byte of a set, in order, until it returns false.
func (s *Set) each(yield func(b byte) bool) {
	for i, w := range s {
		for ; w != 0; w &= w - 1 {
			if !yield(byte(i<<6 + bits.TrailingZeros64(w))) {
				return
			}
		}
	}
}
