// Package automaton follows texts through grammars, byte by byte: which bytes may come next,
// whether the text may end here, and how to end it soon. It is the base of constrained
// decoding. Front ends (schema, gbnf) build a [Grammar] with a [Builder]; package vocab turns
// the states of its [Automaton] into masks of tokens. It knows neither JSON Schema nor GBNF
// nor models.
//
// # Grammar
//
// A grammar is a graph of nodes: a byte of a set, a run of a [DFA], the characters of a JSON
// string, a token by id, alternatives, a call of a rule, a counted repetition of a rule, a mark,
// and the end of a rule. Each node names the node that follows it, except alternatives and the end
// of a rule. Rules may call each other and themselves; left recursion is refused by
// [Builder.Build].
//
// # Items, stacks, states
//
// An item is a place in the grammar: a node, a stack of return nodes, a counter, and the marks
// passed since the last byte. The counter belongs to the node: repetitions so far, the state of a
// DFA, or characters so far. Without a maximum it stops at the minimum, so the number of items stays
// finite. A call pushes nothing if its return node only ends the calling rule.
//
// A state is a sorted set of items, at most [MaxItems], and a bit that says whether the text may end
// there. Stacks and states are hash-consed: equal ones have one index. Transitions are computed on
// first use and stored, one for each class of bytes that all sets and DFAs of the grammar treat alike.
// All of this lies in slices without pointers. Beyond [MaxStates] states or 32 MiB, [Automaton.Renew]
// drops all states but those of open cursors.
//
// Every item has a way to the end of the text. [Builder.Build] removes the parts of a grammar that
// match no text, and an item is never made if its stack could not be emptied within the grammar's
// depth. So a state without a next byte may end, and no text leads into a dead end.
// [Automaton.Cost] is the number of bytes to the nearest end.
//
// # Guards
//
// A state cannot remember the names in an object, or the items of an array with unique items. The
// marks [Open], [Begin], [End] and [Close] delimit scopes and the spellings in them; a [Cursor] keeps
// the finished spellings of each open scope in a trie. At a byte that repeats a spelling, the ways that
// passed End are dropped; other ways, of an alternative without unique items, remain. A byte is refused if
// it leaves no way to a new spelling, so guards lead into no dead end either. Guards belong to the cursor,
// not to the state.
//
// # Decisions
//
// The marks [Commit] and [Forbid] decide between several ways to go on, for free text with markers in
// it. At a byte where a way passes Commit, all ways without Commit end: a complete marker takes
// precedence over the text that could also have continued. A byte where a way passes Forbid is refused;
// the grammar must have another way there. The cost of a state ignores decisions: a byte that decides may
// lead to a state of higher cost.
//
// Marks from [User] on have no meaning in this package: a parser of the text reads them with
// [Automaton.Marks] and [Automaton.SureMarks].
package automaton
