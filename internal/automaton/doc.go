// Package automaton follows texts through grammars, byte by byte: which bytes may come next,
// whether the text may end here, and how to end it soon. It is the base of constrained
// decoding. Front ends (schema, gbnf) build a [Grammar] with a [Builder]; package vocab turns
// the states of its [Automaton] into masks of tokens. It knows neither JSON Schema nor GBNF
// nor models.
//
// # Grammar
//
// A grammar is a graph of nodes: a byte of a set, a run of a [DFA], the characters of a JSON
// string, a token by id, alternatives, a call of a rule, a counted repetition of a rule, a
// mark, and the end of a rule. Each node but the last two kinds names the node that follows
// it. Rules may call each other and themselves; left recursion is refused by [Builder.Build].
//
// # Items, stacks, states
//
// An item is a place in the grammar: a node, a stack of return nodes, a number, and the marks
// that were passed since the last byte. The number is what its node needs: repetitions so
// far, the state of a DFA, or the characters so far. It counts up to the minimum where there is no
// maximum, so the number of items stays finite. A call whose return node only ends its rule
// pushes nothing.
//
// A state is a sorted set of items, at most [MaxItems], with the answer to "may the text end
// here". Stacks and states are hash-consed: equal ones have one index. Transitions are made
// when first needed, one per class of bytes that all sets and DFAs of the grammar treat alike,
// and kept. All of this lies in slices without pointers. At [MaxStates] states or 32 MiB the
// automaton begins anew with the states of its open cursors.
//
// Every item has a way to the end of the text: parts of a grammar that no text satisfies are
// cut off when it is built, and an item whose stack could not be emptied within the depth of
// the grammar is never made. So a state without a next byte may end, and no text leads
// into a dead end. [Automaton.Cost] is the number of bytes to the nearest end.
//
// # Guards
//
// Repeated names in an object, and repeated items in an array of unique ones, need more memory than a
// state has. The marks [Open], [Begin], [End] and [Close] frame the scopes and the spellings
// in them; a [Cursor] keeps the finished spellings of each open scope in a trie. A byte after
// which no new spelling could be finished is refused, so guards lead into no dead end either.
// Guards belong to the cursor and not to the state.
//
// # Decisions
//
// Where a text may go on in several ways, the marks [Commit] and [Forbid] decide. A byte at which
// some way passes Commit ends all ways that do not pass it there: the first marker that is whole wins
// over the text that might have gone on. A byte at which a way passes Forbid is refused; there must
// be other ways on. Such grammars are made of free text with markers in it. The cost of a
// state is that of its own ways: a byte that decides may lead to a higher one.
//
// Marks from [User] up mean nothing here: a parser of the text reads them with [Automaton.Marks]
// and [Automaton.SureMarks].
package automaton
