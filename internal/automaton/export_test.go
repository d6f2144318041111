package automaton

// Calls returns the number of calls of Spend, which measures the work of a compilation.
func (b *Budget) Calls() int { return b.calls }
