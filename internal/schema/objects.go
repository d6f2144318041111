package schema

import (
	"math"

	"github.com/inferd-go/inferd/internal/automaton"
)

// object writes the objects of a case.
func (e *emitter) object(o *objs, root bool, end automaton.Node) (automaton.Node, error) {
	w := &objectWriter{emitter: e, o: o, root: root && e.note != nil && e.note.Bare, behind: make(map[place]automaton.Node), ahead: make(map[place]automaton.Node)}
	for _, p := range o.props {
		if !e.empty(p.value) {
			w.props = append(w.props, p)
		}
	}
	w.counted = o.least > 0 || o.most >= 0
	w.classes = e.otherClasses(o)
	w.spare = math.MaxInt
	if o.least > 0 {
		if n := e.others(o, o.least+1); n <= o.least {
			w.spare = n
		}
	}
	if len(w.classes) > 0 && !w.root && (o.most < 0 || o.most > 0) {
		e.openObjects = true
	}
	w.required = make([]bool, len(w.props)+1)
	for i := len(w.props) - 1; i >= 0; i-- {
		w.required[i] = w.required[i+1] || w.props[i].required
	}
	b := e.b
	if w.root {
		w.close, w.last = end, end
	} else {
		w.close = b.Bytes("}", e.mark(e.markObjects, automaton.Close, end))
		w.last = e.ws(w.close)
	}
	ways := []automaton.Node{w.next(place{})}
	if !w.required[0] && o.least == 0 {
		ways = append(ways, w.close)
	}
	if w.err != nil {
		return 0, w.err
	}
	if w.root {
		return b.Alt(ways...), nil
	}
	return b.Bytes("{", e.mark(e.markObjects, automaton.Open|automaton.Begin, e.ws(b.Alt(ways...)))), nil
}

// A place is a position in an object: the next prop, the members so far as far as they are
// counted, and the undeclared ones among them as far as they are limited.
type place struct{ prop, members, others int }

// An objectWriter writes one case of objects.
type objectWriter struct {
	*emitter
	o             *objs
	root          bool // it is the outermost object of a notation
	props         []prop
	classes       []class // of undeclared members
	counted       bool
	spare         int    // undeclared names that there are, if that matters
	required      []bool // of each place, whether a required prop is left
	close, last   automaton.Node
	behind, ahead map[place]automaton.Node
	err           error
}

// full reports whether another member is too many.
func (w *objectWriter) full(p place) bool { return w.o.most >= 0 && p.members >= w.o.most }

// add returns the place behind another member.
func (w *objectWriter) add(p place) place {
	if w.counted {
		if p.members++; w.o.most < 0 {
			p.members = min(p.members, w.o.least)
		}
	}
	return p
}

// member writes a member: name writes its name in front of a node.
func (w *objectWriter) member(name func(automaton.Node) automaton.Node, value expr, next automaton.Node) automaton.Node {
	b := w.b
	if w.root {
		return w.noted(name, value, next)
	}
	next = b.Nest(w.rule(value, false), next)
	if w.bare() {
		return name(b.Bytes(":", w.mark(w.markObjects, automaton.End, next)))
	}
	next = b.Bytes(`":`, w.mark(w.markObjects, automaton.End, b.DFA(w.gap, next)))
	return b.Bytes(`"`, name(next))
}

// next writes a member that must come, from a place on.
func (w *objectWriter) next(p place) automaton.Node {
	if w.full(p) {
		return w.b.Alt()
	}
	if n, ok := w.ahead[p]; ok {
		return n
	}
	if len(w.ahead) > maxPlaces || !w.b.Spend(128) {
		w.err = errPlaces
		return w.b.Alt()
	}
	n := w.b.Forward()
	w.ahead[p] = n
	var ways []automaton.Node
	if p.prop < len(w.props) {
		prop := &w.props[p.prop]
		q := p
		q.prop++
		ways = append(ways, w.member(func(next automaton.Node) automaton.Node { return w.b.Bytes(w.nameOf(prop.name), next) }, prop.value, w.after(w.add(q))))
		if !prop.required {
			ways = append(ways, w.next(q))
		}
	} else if p.others < w.spare {
		q := w.add(p)
		if w.spare != math.MaxInt {
			q.others++
		}
		for _, k := range w.classes {
			ways = append(ways, w.member(func(next automaton.Node) automaton.Node {
				if w.root || w.bare() {
					return w.bareNames(k.names, next)
				}
				if k.names == nil {
					return w.b.Text(0, automaton.Unlimited, next)
				}
				return w.quoted(k.names, next)
			}, k.value, w.after(q)))
		}
	}
	w.b.Define(n, ways...)
	return n
}

// after writes the rest of an object behind a member.
func (w *objectWriter) after(p place) automaton.Node {
	if n, ok := w.behind[p]; ok {
		return n
	}
	n := w.b.Forward()
	w.behind[p] = n
	ways := []automaton.Node{w.comma(w.next(p))}
	if !w.required[p.prop] && p.members >= w.o.least {
		ways = append(ways, w.last)
	}
	w.b.Define(n, ways...)
	return n
}

// comma writes what stands between two members.
func (w *objectWriter) comma(next automaton.Node) automaton.Node {
	if w.root {
		return w.note.Write(w.b, w.note.Separator, next)
	}
	return w.b.Bytes(",", w.mark(w.markObjects, automaton.Begin, w.ws(next)))
}

// nameOf returns a declared name as it stands in the object, without quotes.
func (w *objectWriter) nameOf(name string) string {
	if w.root || w.bare() {
		return name
	}
	return inner(name)
}
