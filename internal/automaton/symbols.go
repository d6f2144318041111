package automaton

// Symbols are bytes, and tokens by their ids.

// Fits reports whether symbols fit at the cursor, without regard to its guard.
func (c *Cursor) Fits(text []Symbol) bool {
	s := c.state
	for _, x := range text {
		if s = c.a.NextSymbol(s, x); s == Dead {
			return false
		}
	}
	return true
}

// NextSymbol is [Automaton.Next] of a byte, or [Automaton.NextToken] of a token.
func (a *Automaton) NextSymbol(s State, x Symbol) State {
	if x >= 256 {
		return a.NextToken(s, int32(x-256))
	}
	return a.Next(s, byte(x))
}
