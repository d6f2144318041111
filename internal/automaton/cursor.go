package automaton

// A Cursor is the position of one text in an [Automaton]: a state and the guard. It must be closed
// when the text has ended.
type Cursor struct {
	a     *Automaton
	state State
	guard guard
	ends  ends // the ends found last; used only with a guard
}

// Open returns a cursor before the first byte.
func (a *Automaton) Open() *Cursor {
	c := &Cursor{a: a, state: a.Start()}
	if a.g.guard { // a text may pass marks at its beginning; no spelling is known yet, so nothing is refused
		c.guard.advance(a, c.state, 0)
	}
	a.cursors = append(a.cursors, c)
	return c
}

// Close ends the use of a cursor. A later [Automaton.Renew] no longer keeps its state.
func (c *Cursor) Close() {
	for i, other := range c.a.cursors {
		if other == c {
			c.a.cursors = append(c.a.cursors[:i], c.a.cursors[i+1:]...)
			return
		}
	}
}

// Automaton returns the automaton of the cursor.
func (c *Cursor) Automaton() *Automaton { return c.a }

// State returns the state. It is valid until the next [Automaton.Renew].
func (c *Cursor) State() State { return c.state }

// MayEnd reports whether the text may end here.
func (c *Cursor) MayEnd() bool { return c.a.MayEnd(c.state) }

// Marks is [Automaton.Marks] of the state.
func (c *Cursor) Marks() Mark { return c.a.Marks(c.state) }

// SureMarks is [Automaton.SureMarks] of the state.
func (c *Cursor) SureMarks() Mark { return c.a.SureMarks(c.state) }

// Feed moves the cursor over bytes. If they do not fit, it reports false and the cursor does not
// move.
func (c *Cursor) Feed(p []byte) bool {
	if !c.a.g.guard {
		s := c.run(p)
		if s != Dead {
			c.state = s
		}
		return s != Dead
	}
	from := c.spot()
	c.guard.begin()
	s := c.run(p)
	if s == Dead {
		c.guard.rollback()
		return false
	}
	c.state = s
	c.guard.commit()
	follow(&c.ends, from, c.spot(), p)
	return true
}

// Try reports whether bytes fit. It does not move the cursor.
func (c *Cursor) Try(p []byte) bool {
	if !c.a.g.guard {
		return c.run(p) != Dead
	}
	c.guard.begin()
	ok := c.run(p) != Dead
	c.guard.rollback()
	return ok
}

func (c *Cursor) run(p []byte) State {
	s := c.state
	for _, b := range p {
		if s = c.a.Next(s, b); s != Dead && c.a.g.guard {
			s = c.guard.advance(c.a, s, Symbol(b))
		}
		if s == Dead {
			return Dead
		}
	}
	return s
}

// Behind returns the state after the bytes p, or [Dead] if they do not fit. It does not move the
// cursor.
func (c *Cursor) Behind(p []byte) State {
	if !c.a.g.guard {
		return c.run(p)
	}
	c.guard.begin()
	defer c.guard.rollback()
	return c.run(p)
}

// FeedToken moves the cursor over a token by its id (see [Builder.Token]). If the token does not
// fit, it reports false and the cursor does not move.
func (c *Cursor) FeedToken(id int32) bool {
	s := c.a.NextToken(c.state, id)
	if s == Dead {
		return false
	}
	from := c.spot()
	if c.a.g.guard {
		c.guard.begin()
		if s = c.guard.advance(c.a, s, 256+Symbol(id)); s == Dead {
			c.guard.rollback()
			return false
		}
		c.guard.commit()
	}
	c.state = s
	follow(&c.ends, from, c.spot(), []Symbol{256 + Symbol(id)})
	return true
}

// TryToken reports whether a token fits by its id. It does not move the cursor.
func (c *Cursor) TryToken(id int32) bool {
	s := c.a.NextToken(c.state, id)
	if s != Dead && c.a.g.guard {
		c.guard.begin()
		s = c.guard.advance(c.a, s, 256+Symbol(id))
		c.guard.rollback()
	}
	return s != Dead
}

// Spelling returns the position of the current spelling in the trie of the finished spellings of its
// scope. ok is false if the current spelling cannot become one of them, so that the guard refuses no
// byte before the next mark.
func (c *Cursor) Spelling() (at Spelling, ok bool) {
	if n := len(c.guard.scopes); n > 0 {
		top := &c.guard.scopes[n-1]
		return Spelling{top.at, top.started}, top.recording && top.any && !top.fresh
	}
	return Spelling{}, false
}

// A Spelling is a prefix of finished spellings, as a position in their trie.
type Spelling struct {
	at      int32
	started bool
}

// Follow returns the position after byte b from position p. It reports false if no finished
// spelling continues with b.
func (c *Cursor) Follow(p Spelling, b byte) (Spelling, bool) {
	if !p.started && isSpace(b) {
		return p, true
	}
	at := c.guard.child(p.at, b)
	return Spelling{at, true}, at != 0
}
