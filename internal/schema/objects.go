package schema

import (
	"math"
	"slices"
	"strings"

	"github.com/inferd-go/inferd/internal/automaton"
	"github.com/inferd-go/inferd/internal/regex"
)

// object writes the objects of case o, followed by end. object is the expression that has the case; root
// is set for the outermost object.
func (e *emitter) object(o *objs, object expr, root bool, end automaton.Node) (automaton.Node, error) {
	w := &objectWriter{emitter: e, o: o, root: root && e.notation != nil && e.notation.Bare, afterNodes: make(map[position]automaton.Node), nextNodes: make(map[position]automaton.Node)}
	if len(o.needs) > maxNeeds {
		return 0, errCases
	}
	for _, p := range o.props {
		w.declared = append(w.declared, p.name)
		if !e.empty(p.value) {
			w.props = append(w.props, p)
		} else {
			w.start.met |= w.absent(p.name)
		}
	}
	w.sort()
	w.checkNames(object)
	w.counted = o.least > 0 || o.most >= 0
	w.classes = e.otherClasses(o)
	if err := w.checkNeeds(); err != nil {
		return 0, err
	}
	w.spare = math.MaxInt
	if o.least > 0 {
		if n := e.others(o, o.least+1); n <= o.least {
			w.spare = n
		}
	}
	if len(w.classes) > 0 && (o.most < 0 || o.most > 0) {
		e.openObjects = true
	}
	w.required, w.absences = make([]bool, len(w.props)+1), make([]uint32, len(w.props)+1)
	for i := len(w.props) - 1; i >= 0; i-- {
		w.required[i] = w.required[i+1] || w.props[i].required
		w.absences[i] = w.absences[i+1] | w.absent(w.props[i].name)
	}
	b := e.b
	if w.root {
		w.close, w.last = end, end
	} else {
		w.close = b.Bytes("}", e.mark(e.markObjects, automaton.Close, end))
		w.last = e.ws(w.close)
	}
	ways := []automaton.Node{w.next(w.start)}
	switch {
	case !w.enough(w.start):
	case w.root && w.notation.None != "":
		ways = append(ways, w.notation.Write(b, w.notation.None, 0, w.close))
	default:
		ways = append(ways, w.close)
	}
	if w.err != nil {
		return 0, w.err
	}
	if w.root { // an object without braces has no mark at its end, so the next one closes its scopes
		return e.mark(e.markObjects, automaton.Outer|automaton.Close|automaton.Open, b.Alt(ways...)), nil
	}
	return b.Bytes("{", e.mark(e.markObjects, automaton.Open|automaton.Begin, e.ws(b.Alt(ways...)))), nil
}

// A position in an object is the index of the next prop, the number of members so far (if they are
// counted), the number of undeclared members so far (if their names are limited), and the needs that
// are met, one bit each.
type position struct {
	prop, members, others int
	met                   uint32
}

// maxNeeds is the maximum number of needs of one case.
const maxNeeds = 16

// An objectWriter writes one case of objects.
type objectWriter struct {
	*emitter
	o                     *objs
	root                  bool // the outermost object of a notation with Bare
	start                 position
	declared              []string // names of all props
	props                 []prop   // the props that some value meets
	classes               []class  // of undeclared members
	counted               bool
	spare                 int      // the number of undeclared names, or MaxInt if it does not matter
	required              []bool   // for each prop, whether it or a later one is required
	absences              []uint32 // for each prop, the needs that are met if it and all later ones are absent
	close, last           automaton.Node
	afterNodes, nextNodes map[position]automaton.Node
	err                   error
}

// full reports whether another member would be too many.
func (w *objectWriter) full(p position) bool { return w.o.most >= 0 && p.members >= w.o.most }

// add returns the position after another member.
func (w *objectWriter) add(p position) position {
	if w.counted {
		if p.members++; w.o.most < 0 {
			p.members = min(p.members, w.o.least)
		}
	}
	return p
}

// enough reports whether an object may end at position p.
func (w *objectWriter) enough(p position) bool {
	return !w.required[p.prop] && p.members >= w.o.least && p.met|w.absences[p.prop] == 1<<len(w.o.needs)-1
}

// checkNeeds returns an error if undeclared members with finitely many names can meet a need. Names
// do not repeat, so an object could use up all of these names without meeting the need.
func (w *objectWriter) checkNeeds() error {
	for _, n := range w.o.needs {
		for _, x := range n.ways {
			for _, k := range w.classes {
				if !x.others {
					continue
				}
				if both := w.both(k.names, x.names); both != nil && both.Finite() && !both.Empty() {
					return errOthersNot
				}
			}
		}
	}
	return nil
}

// absent returns the needs that the absence of a member meets.
func (w *objectWriter) absent(name string) (met uint32) {
	for i, n := range w.o.needs {
		if slices.ContainsFunc(n.ways, func(x way) bool { return x.absent && x.name == name }) {
			met |= 1 << i
		}
	}
	return met
}

// both returns the names that are in both languages; nil stands for all names.
func (c *compiler) both(x, y *regex.DFA) *regex.DFA {
	switch {
	case x == nil:
		return y
	case y == nil || x == y:
		return x
	}
	return c.langs.and(x, y)
}

// undeclared writes all names except those in but, followed by next.
func (e *emitter) undeclared(but []string, next automaton.Node) automaton.Node {
	switch {
	case len(but) == 0:
		return e.text(0, automaton.Unlimited, next)
	case e.ascii():
		return e.quoted(e.langs.without(nil, but), next)
	}
	words := make([]string, len(but))
	for i, name := range but {
		words[i] = inner(name)
	}
	slices.Sort(words)
	key := strings.Join(words, `"`) // unambiguous: in a word, a quote follows a backslash
	d, ok := e.names[key]
	if !ok {
		e.b.Spend(64 * len(key))
		d = automaton.TextBut(words)
		e.names[key] = d
	}
	return e.b.DFA(d, next)
}

// A meeting is a class of members. met holds the needs that are met after such a member, one bit
// each.
type meeting struct {
	class
	met uint32
}

// meetings divides the members of class k by the needs that they meet. met holds the needs that
// were met before. name is the name of a prop, or nil for undeclared members; then a way may also
// narrow the names of the class.
func (w *objectWriter) meetings(k class, name *string, met uint32) []meeting {
	all := []meeting{{k, met}}
	for i, n := range w.o.needs {
		if met>>i&1 != 0 {
			continue
		}
		for k := range all {
			if slices.ContainsFunc(n.ways, func(x way) bool { return w.surelyMeets(&all[k], &x, name) }) {
				all[k].met |= 1 << i
				continue
			}
			for j := range n.ways {
				if next, ok := w.meet(all[k], &n.ways[j], name); ok {
					next.met |= 1 << i
					all = append(all, next)
				}
			}
		}
	}
	return all
}

// surelyMeets reports whether all members of m certainly meet a need by way x, so the need does not
// divide them.
func (w *objectWriter) surelyMeets(m *meeting, x *way, name *string) bool {
	if name != nil {
		return x.has(*name) && w.surely(m.value, x.value)
	}
	return x.others && (x.names == nil || x.names == m.names) && w.surely(m.value, x.value)
}

// meet returns the part of m that meets a need by way x. It reports false if that part is empty.
func (w *objectWriter) meet(m meeting, x *way, name *string) (meeting, bool) {
	switch {
	case name != nil && !x.has(*name), name == nil && !x.others:
		return m, false
	case name != nil:
	case m.names == nil && x.names != nil:
		m.names = w.langs.without(x.names, w.declared)
	default:
		m.names = w.both(m.names, x.names)
	}
	m.value = w.and(m.value, x.value)
	return m, (m.names == nil || !m.names.Empty()) && !w.empty(m.value)
}

// member writes a member, followed by next. name writes the name of the member, followed by its
// argument.
func (w *objectWriter) member(name func(automaton.Node) automaton.Node, value expr, next automaton.Node) automaton.Node {
	b := w.b
	if w.root {
		return w.notationMember(name, value, next)
	}
	next = b.Nest(w.rule(value, false), next)
	if w.bare() {
		return name(b.Bytes(":", w.mark(w.markObjects, automaton.End, next)))
	}
	if w.innerStyle == repr {
		return name(b.Bytes(":", w.mark(w.markObjects, automaton.End, w.afterColon(next))))
	}
	next = b.Bytes(`":`, w.mark(w.markObjects, automaton.End, w.afterColon(next)))
	return b.Bytes(`"`, name(next))
}

// next writes at least one further member and the rest of the object, from position p on.
func (w *objectWriter) next(p position) automaton.Node {
	if w.full(p) {
		return w.b.Alt()
	}
	if n, ok := w.nextNodes[p]; ok {
		return n
	}
	if len(w.nextNodes) > maxPositions || !w.b.Spend(128) {
		w.err = errPositions
		return w.b.Alt()
	}
	n := w.b.Forward()
	w.nextNodes[p] = n
	w.b.Define(n, w.members(p)...)
	return n
}

// members writes each member that may come at position p, with the rest of the object after it.
func (w *objectWriter) members(p position) (ways []automaton.Node) {
	if p.prop < len(w.props) {
		prop := &w.props[p.prop]
		q := p
		q.prop++
		for _, m := range w.meetings(class{value: prop.value}, &prop.name, p.met) {
			next := w.add(q)
			next.met = m.met
			ways = append(ways, w.member(func(next automaton.Node) automaton.Node { return w.declaredName(prop.name, next) }, m.value, w.after(next)))
		}
		if !prop.required {
			q.met |= w.absent(prop.name)
			ways = append(ways, w.next(q))
		}
		return ways
	}
	if p.others >= w.spare {
		return nil
	}
	q := w.add(p)
	if w.spare != math.MaxInt {
		q.others++
	}
	for _, k := range w.classes {
		for _, m := range w.meetings(k, nil, p.met) {
			q.met = m.met
			ways = append(ways, w.member(func(next automaton.Node) automaton.Node {
				if w.root || w.bare() {
					return w.bareNames(m.names, next)
				}
				if w.innerStyle == repr {
					return w.reprName(m.names, w.declared, next)
				}
				if m.names == nil {
					return w.undeclared(w.declared, next)
				}
				return w.quoted(m.names, next)
			}, m.value, w.after(q)))
		}
	}
	return ways
}

// after writes the rest of an object from position p, which follows a member.
func (w *objectWriter) after(p position) automaton.Node {
	if n, ok := w.afterNodes[p]; ok {
		return n
	}
	n := w.b.Forward()
	w.afterNodes[p] = n
	ways := []automaton.Node{w.comma(w.next(p))}
	if w.enough(p) {
		ways = append(ways, w.last)
	}
	w.b.Define(n, ways...)
	return n
}

// comma writes the separator of two members.
func (w *objectWriter) comma(next automaton.Node) automaton.Node {
	if w.root {
		return w.notation.Write(w.b, w.notation.Separator, 0, next)
	}
	return w.b.Bytes(",", w.mark(w.markObjects, automaton.Begin, w.afterComma(next)))
}

// declaredName writes a declared name, with quotation marks where repr has them.
func (w *objectWriter) declaredName(name string, next automaton.Node) automaton.Node {
	if !w.root && w.innerStyle == repr {
		return w.reprName(regex.Words(w.budget, []string{name}), nil, next)
	}
	return w.b.Bytes(w.nameOf(name), next)
}

// nameOf returns a declared name as the object spells it, without quotes.
func (w *objectWriter) nameOf(name string) string {
	if w.root || w.bare() {
		return name
	}
	if w.ascii() {
		return innerASCII(name)
	}
	return inner(name)
}
