// Package automaton follows texts through grammars, byte by byte. It computes which bytes may come
// next, whether the text may end, and how to end it soon. It is the base of constrained decoding.
// Front ends (schema, gbnf) build a [Grammar] with a [Builder]; package vocab turns the states of
// its [Automaton] into masks of tokens. The package does not depend on JSON Schema, GBNF or models.
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
// An item is a position in the grammar: a node, a stack of return nodes, a counter, and the marks
// passed since the last byte. The meaning of the counter depends on the node: repetitions so far,
// the state of a DFA, or characters so far. If a repetition has no maximum, the counter stops at
// the minimum, so the number of items is finite. A call that does not nest pushes nothing if its return
// node only ends the calling rule.
//
// A state is a sorted set of at most [MaxItems] items, and a bit that is set if the text may
// end there. Stacks and states are hash-consed: equal ones have one index. Transitions are computed
// on first use and stored, one for each class of bytes that all sets and DFAs of the grammar treat
// alike. All of them are stored in slices without pointers. Beyond [MaxStates] states or 32 MiB the
// automaton is full, and [Automaton.Renew] drops all states except those of open cursors.
//
// Every item has a way to the end of the text: an item is not made if its node leads to no end, or if
// it could not reach the end of the text within the grammar's depth. So a text in a state without a next
// byte or token may end, and no text leads into a dead end. [Automaton.Cost] is the number of bytes to
// the nearest end.
//
// # Guards
//
// A state cannot remember the names in an object, or the items of an array with unique items. The
// marks [Open], [Begin], [End] and [Close] delimit scopes and the spellings in them; a [Cursor] keeps
// the finished spellings of each open scope in a trie. At a byte after which a spelling would be
// repeated, the ways that passed End are removed. Other ways, such as those of an alternative without
// unique items, remain. A byte is refused if no way to a new spelling remains, so guards do not lead
// into a dead end either. Guards belong to the cursor, not to the state. A text may pass these marks
// at a token that is taken by its id, too, but such a token is never part of a spelling.
//
// If a scope belongs to one of several ways, and that way ends without passing Close, the scope
// stays open. [Outer], at a later place where that way has certainly ended, ends it: it ends all
// scopes but the outermost one. With Outer, Close and Open at one place, a new outermost scope takes
// the place of one that has not been closed.
//
// # Decisions
//
// The marks [Commit] and [Forbid] decide between several ways to continue. They are for free text
// that contains markers. At a byte where a way passes Commit, all ways that do not pass it end: a
// complete marker takes precedence over free text. A byte where a way passes Forbid is refused; the
// grammar must have another way there. The cost of a state ignores decisions: a byte that decides
// may lead to a state of higher cost.
//
// Marks from [User] on have no meaning in this package: a parser of the text reads them with
// [Automaton.Marks] and [Automaton.SureMarks].
package automaton
