package automaton

import "slices"

// A guard holds the finished spellings of the open scopes of a text. Changes since a call of begin can
// be undone, so that tokens can be tried.
type guard struct {
	scopes []scope
	nodes  []spelling // of all scopes; the nodes of inner scopes come last

	log         []change
	savedScopes []scope // the scopes at begin
	atBegin     int     // nodes at begin
	tentative   bool    // between begin and commit or rollback
	tried       []scope // the scopes at try

	// Equal stamps mean equal contents of the guard; 0 means that no scope is open.
	stamp, atStamp, stamps int // the stamp now; that at begin; the highest one so far

	// closed holds positions from which no way leads to a new spelling, opened holds positions from which
	// one does. Both become invalid when a node is dropped or restored, and opened also when a spelling is
	// finished. They save searches: closed for each token of a mask with white space before a name, opened
	// for each byte of a spelling that begins like a finished one.
	closed, opened map[position]struct{}
	renewed        int // Automaton.Renewed when they were found
}

// A position is a state of the automaton and a node of a trie. started reports whether the spelling
// has more than white space.
type position struct {
	state   State
	at      int32
	started bool
}

// mostPositions is the maximum number of positions in closed, and in opened.
const mostPositions = 4096

// A scope is a trie of spellings, and the node of the current spelling.
type scope struct {
	root, at  int32
	recording bool // a spelling is under way
	started   bool // the spelling has more than white space
	fresh     bool // the spelling is not a prefix of a finished one
	any       bool // the scope has a finished spelling
}

// A spelling is a node of a trie.
type spelling struct {
	child, sibling int32 // 0 if there is none
	b              byte
	final          bool // a spelling ends here
}

// A change holds the index of a node and the former content of the node.
type change struct {
	at  int32
	old spelling
}

// begin marks the state to which rollback returns.
func (g *guard) begin() {
	g.savedScopes = append(g.savedScopes[:0], g.scopes...)
	g.atBegin = len(g.nodes)
	g.log = g.log[:0]
	g.tentative, g.atStamp = true, g.stamp
}

// commit makes the changes since begin final.
func (g *guard) commit() {
	g.tentative = false
	if len(g.scopes) == 0 {
		g.nodes = g.nodes[:0]
		g.forget()
	}
}

// forget drops the closed and the opened positions.
func (g *guard) forget() {
	if len(g.closed) > 0 {
		clear(g.closed)
	}
	if len(g.opened) > 0 {
		clear(g.opened)
	}
}

// rollback undoes everything since begin.
func (g *guard) rollback() {
	g.undo(0, g.atBegin)
	g.scopes = append(g.scopes[:0], g.savedScopes...)
	g.tentative, g.stamp = false, g.atStamp
}

// undo undoes the changes of nodes from log[change] on, and drops the nodes from index node on.
func (g *guard) undo(change, node int) {
	if change < len(g.log) || node < len(g.nodes) {
		g.forget()
	}
	for _, c := range slices.Backward(g.log[change:]) {
		g.nodes[c.at] = c.old
	}
	g.log, g.nodes = g.log[:change], g.nodes[:node]
}

// try returns the result of advance, and undoes it. It is called between begin and rollback.
func (g *guard) try(a *Automaton, s State, x Symbol) State {
	change, node, stamp := g.remember()
	s = g.advance(a, s, x)
	g.restore(change, node, stamp)
	return s
}

// attempt is advance if that leads to a state of the same cost; else it returns Dead, and changes nothing. It is
// called between begin and rollback.
func (g *guard) attempt(a *Automaton, s State, x Symbol) State {
	if !g.acts(a, s) {
		return s
	}
	change, node, stamp := g.remember()
	to := g.advance(a, s, x)
	if to != Dead && a.Cost(to) == a.Cost(s) {
		return to
	}
	g.restore(change, node, stamp)
	return Dead
}

// remember marks the state to which restore returns.
func (g *guard) remember() (change, node, stamp int) {
	g.tried = append(g.tried[:0], g.scopes...)
	return len(g.log), len(g.nodes), g.stamp
}

func (g *guard) restore(change, node, stamp int) {
	g.undo(change, max(node, min(1, len(g.nodes))))
	g.scopes, g.stamp = append(g.scopes[:0], g.tried...), stamp
}

func (g *guard) node(at int32) *spelling {
	if g.tentative {
		g.log = append(g.log, change{at, g.nodes[at]})
	}
	return &g.nodes[at]
}

func isSpace(b byte) bool { return b == ' ' || b == '\n' }

// child returns the node that follows node at for byte b, or 0.
func (g *guard) child(at int32, b byte) int32 {
	for c := g.nodes[at].child; c != 0; c = g.nodes[c].sibling {
		if g.nodes[c].b == b {
			return c
		}
	}
	return 0
}

// acts reports whether a symbol that led to state s changes the guard.
func (g *guard) acts(a *Automaton, s State) bool {
	n := len(g.scopes)
	return a.states[s].marks&guards != 0 || n > 0 && g.scopes[n-1].recording
}

// advance moves the guard over symbol x, after which the automaton is in state s. It returns s
// without the ways on which x completes a repeated spelling, or [Dead] if no way is left or none
// leads to a new spelling.
func (g *guard) advance(a *Automaton, s State, x Symbol) State {
	if !g.acts(a, s) {
		return s
	}
	s = g.act(a, s, x)
	if g.stamps++; len(g.scopes) > 0 {
		g.stamp = g.stamps
	} else {
		g.stamp = 0
	}
	return s
}

func (g *guard) act(a *Automaton, s State, x Symbol) State {
	m := a.states[s].marks & guards
	if len(g.nodes) == 0 {
		g.nodes = append(g.nodes, spelling{}) // index 0 means none
		g.atBegin = max(g.atBegin, 1)
	}
	if n := len(g.scopes); n > 0 && g.scopes[n-1].recording {
		if m&End == 0 {
			g.spell(&g.scopes[n-1], x)
		} else if !g.finish(&g.scopes[n-1]) {
			if s = a.without(s, End); s == Dead {
				return Dead
			}
			m = a.states[s].marks & guards
		}
	}
	if m&Outer != 0 && len(g.scopes) > 1 {
		g.scopes = g.scopes[:1]
	}
	if n := len(g.scopes); m&Close != 0 && n > 0 {
		g.scopes = g.scopes[:n-1]
	}
	if m&Open != 0 {
		if n := len(g.scopes); n > 0 {
			g.scopes[n-1].recording = false // a spelling that contains a scope is not compared
		}
		g.nodes = append(g.nodes, spelling{})
		g.scopes = append(g.scopes, scope{root: int32(len(g.nodes) - 1)})
	}
	n := len(g.scopes)
	if n == 0 {
		return s
	}
	top := &g.scopes[n-1]
	if m&Begin != 0 {
		top.recording, top.at, top.started, top.fresh = true, top.root, false, false
	}
	if top.recording && !top.fresh && top.any {
		if g.renewed != a.renewed {
			g.renewed = a.renewed
			g.forget()
		}
		if !g.open(a, position{s, top.at, top.started}) {
			return Dead
		}
	}
	return s
}

// spell appends a symbol to the current spelling of a scope. A token that is taken by its id ends the
// recording, because a spelling with such a token is not compared.
func (g *guard) spell(top *scope, x Symbol) {
	if x >= 256 {
		top.recording = false
		return
	}
	b := byte(x)
	if !top.started && isSpace(b) {
		return
	}
	top.started = true
	next := g.child(top.at, b)
	if next == 0 {
		next = int32(len(g.nodes))
		g.nodes = append(g.nodes, spelling{b: b, sibling: g.nodes[top.at].child})
		g.node(top.at).child = next
		top.fresh = true
	}
	top.at = next
}

// finish ends the spelling of a scope. It reports false if the spelling is a repetition.
func (g *guard) finish(top *scope) bool {
	top.recording = false
	if !top.started {
		return true
	}
	if g.nodes[top.at].final {
		return false
	}
	g.node(top.at).final = true
	top.any = true
	if len(g.opened) > 0 {
		clear(g.opened)
	}
	return true
}

// open reports whether a way leads from a position to the end of a spelling that is not a repetition,
// or to an end of the text.
func (g *guard) open(a *Automaton, p position) bool {
	if a.states[p.state].end {
		return true
	}
	if _, closed := g.closed[p]; closed {
		return false
	}
	if _, opened := g.opened[p]; opened {
		return true
	}
	if g.openByToken(a, p) || g.opens(a, p, false) || !p.started && g.opens(a, p, true) {
		remember(&g.opened, p)
		return true
	}
	remember(&g.closed, p)
	return false
}

// remember adds a position to a set, unless the set has mostPositions already. It makes the set if it
// is nil.
func remember(set *map[position]struct{}, p position) {
	if *set == nil {
		*set = make(map[position]struct{})
	}
	if len(*set) < mostPositions {
		(*set)[p] = struct{}{}
	}
}

// opens is open for the ways that go on with white space in front of the spelling, if space is set, or
// else for the ways that go on with any other byte.
func (g *guard) opens(a *Automaton, p position, space bool) (open bool) {
	for class, b := range a.g.bytes {
		next := a.Next(p.state, b)
		if next == Dead {
			continue
		}
		if a.states[next].marks&(End|Close) != 0 {
			if g.mayFinish(a, p, next) {
				return true
			}
			continue
		}
		a.g.members[class].each(func(b byte) bool {
			switch before := !p.started && isSpace(b); {
			case before != space:
			case before:
				open = g.open(a, position{next, p.at, false})
			default:
				child := g.child(p.at, b)
				open = child == 0 || g.open(a, position{next, child, true})
			}
			return !open
		})
		if open {
			return true
		}
	}
	return false
}

// mayFinish reports whether the spelling at position p may end before the symbol that leads to state
// next: it is empty or not a repetition, or not all ways end it there.
func (g *guard) mayFinish(a *Automaton, p position, next State) bool {
	return !p.started || !g.nodes[p.at].final || a.states[next].sure&End == 0
}

// openByToken is open for the ways that go on with a token taken by its id. Such a token ends the
// spelling, or makes the guard ignore it.
func (g *guard) openByToken(a *Automaton, p position) (open bool) {
	a.Tokens(p.state, func(id int32, other bool) {
		next := a.NextSymbol(p.state, tokenOf(id, other))
		open = open || next != Dead && (a.states[next].marks&(End|Close) == 0 || g.mayFinish(a, p, next))
	})
	return open
}
