package schema

import (
	"encoding/json"

	"github.com/inferd-go/inferd/internal/automaton"
	"github.com/inferd-go/inferd/internal/regex"
)

// array writes the arrays of case a, followed by end.
func (e *emitter) array(a *arrs, end automaton.Node) (automaton.Node, error) {
	unique := a.unique && (a.most < 0 || a.most > 1)
	if unique {
		e.uniqueArrays = true
		if err := e.checkUnique(a); err != nil {
			return 0, err
		}
	}
	b := e.b
	w := &arrayWriter{emitter: e, a: a, unique: unique && e.markArrays, afterNodes: make(map[string]automaton.Node)}
	w.close = b.Bytes("]", e.mark(e.markArrays, automaton.Close, end))
	w.last = w.ending(end)
	open := automaton.Open
	if w.unique {
		open |= automaton.Begin
	}
	start := w.items(make([]int, len(a.contains)))
	if w.err != nil {
		return 0, w.err
	}
	ways := []automaton.Node{start}
	if w.enough(0, make([]int, len(a.contains))) {
		ways = append(ways, w.close)
	}
	return b.Bytes("[", e.mark(e.markArrays, open, e.ws(b.Alt(ways...)))), nil
}

// checkUnique returns an error if uniqueItems cannot be enforced for a case, or if there are fewer
// different items than it needs.
func (e *emitter) checkUnique(a *arrs) error {
	for _, p := range a.prefix {
		if p != a.rest {
			return errUnique
		}
	}
	s, err := e.eval(a.rest)
	if err != nil {
		return err
	}
	for i := range s.arrs {
		if !e.emptyArrs(&s.arrs[i]) {
			return errUnique
		}
	}
	for i := range s.objs {
		if !e.emptyObjs(&s.objs[i]) {
			return errUnique
		}
	}
	if len(a.contains) > 0 {
		return errUnique
	}
	limit := a.least
	lang, err := e.stringLanguage(s)
	if err != nil {
		return err
	}
	n := regex.And(e.budget, s.nums, e.canonical).Count(limit) + lang.Count(limit)
	for _, ok := range []bool{s.null, s.bools[0], s.bools[1]} {
		if ok {
			n++
		}
	}
	if n < a.least {
		return errFew
	}
	return nil
}

// An arrayWriter writes one case of arrays.
type arrayWriter struct {
	*emitter
	a           *arrs
	unique      bool
	close, last automaton.Node // the end of an empty array; the end after the last item
	afterNodes  map[string]automaton.Node
	err         error
}

// ending writes the end of an array after an item. If the items are unique, its first byte has a
// mark: the spelling of the item has ended before that byte.
func (w *arrayWriter) ending(end automaton.Node) automaton.Node {
	b := w.b
	if !w.unique {
		return w.ws(w.close)
	}
	marked := b.Bytes("]", b.Mark(automaton.End|automaton.Close, end))
	if w.spaced() {
		return marked
	}
	space := b.Rule()
	b.Body(space, b.Bytes(" ", b.End()))
	return b.Alt(marked, b.Bytes(" ", b.Mark(automaton.End, w.close)), b.Bytes("\n", b.Mark(automaton.End, b.Repeat(space, 0, maxIndent, w.close))))
}

// enough reports whether an array may end after i items. counts has, for each contains, the number of
// items that match it.
func (w *arrayWriter) enough(i int, counts []int) bool {
	for k, n := range counts {
		if n < w.a.contains[k].least {
			return false
		}
	}
	return i >= w.a.least
}

// comma writes the comma before a further item.
func (w *arrayWriter) comma(item automaton.Node) automaton.Node {
	return w.b.Bytes(",", w.mark(w.unique, automaton.End|automaton.Begin, w.afterComma(item)))
}

// items writes all items, at least one, and the end of the array. counts has a 0 for each contains.
func (w *arrayWriter) items(counts []int) automaton.Node {
	if len(w.a.contains) > 0 {
		return w.item(0, counts)
	}
	// Without contains: the prefix item by item, then a repetition.
	a, b := w.a, w.b
	call := func(x expr, next automaton.Node) automaton.Node { return b.Nest(w.rule(x, w.unique), next) }
	more := b.Rule()
	b.Body(more, w.comma(call(a.rest, b.End())))
	n := len(a.prefix)
	if a.most >= 0 {
		n = min(n, a.most)
	}
	rest := func(i int) automaton.Node { // the items from index i on, all after the prefix, and the end
		most := automaton.Unlimited
		if a.most >= 0 {
			most = a.most - i
		}
		return b.Repeat(more, max(a.least-i, 0), most, w.last)
	}
	if n == 0 {
		if a.most == 0 {
			return b.Alt()
		}
		return call(a.rest, rest(1))
	}
	next := rest(n)
	for i := n - 1; i >= 0; i-- {
		item := call(a.prefix[i], next)
		if i == 0 {
			return item
		}
		ways := []automaton.Node{w.comma(item)}
		if i >= a.least {
			ways = append(ways, w.last)
		}
		next = b.Alt(ways...)
	}
	return next
}

// item writes item i and the rest of the array. counts has, for each contains, the number of earlier
// items that match it.
func (w *arrayWriter) item(i int, counts []int) automaton.Node {
	a := w.a
	if a.most >= 0 && i >= a.most {
		return w.b.Alt()
	}
	type way struct {
		expr   expr
		counts []int
	}
	ways := []way{{a.at(i), counts}}
	for k, what := range a.contains {
		if i < what.from {
			continue
		}
		var next []way
		for _, x := range ways {
			if what.most < 0 || x.counts[k] < what.most {
				more := append([]int(nil), x.counts...)
				if more[k]++; what.most < 0 {
					more[k] = min(more[k], what.least)
				}
				next = append(next, way{w.and(x.expr, what.what), more})
			}
			if what.most >= 0 { // with a maximum, an item that is not counted must not match
				x.expr = w.and(x.expr, w.not(what.what, &origin{w.root, "contains"}))
			}
			next = append(next, x)
		}
		ways = next
	}
	var nodes []automaton.Node
	for _, x := range ways {
		if !w.empty(x.expr) {
			nodes = append(nodes, w.b.Nest(w.rule(x.expr, false), w.after(i+1, x.counts)))
		}
	}
	return w.b.Alt(nodes...)
}

// after writes the rest of an array after i items. counts has, for each contains, the number of these
// items that match it.
func (w *arrayWriter) after(i int, counts []int) automaton.Node {
	a := w.a
	if a.most < 0 { // without a maximum, items are counted only as far as their number matters
		limit := max(len(a.prefix), a.least)
		for _, k := range a.contains {
			limit = max(limit, k.from)
		}
		i = min(i, limit)
	}
	key, err := json.Marshal(append([]int{i}, counts...))
	if err != nil {
		panic("internal error: " + err.Error())
	}
	if n, ok := w.afterNodes[string(key)]; ok {
		return n
	}
	if len(w.afterNodes) > maxPositions || !w.b.Spend(128) {
		w.err = errPositions
		return w.b.Alt()
	}
	n := w.b.Forward()
	w.afterNodes[string(key)] = n
	ways := []automaton.Node{w.comma(w.item(i, counts))}
	if w.enough(i, counts) {
		ways = append(ways, w.last)
	}
	w.b.Define(n, ways...)
	return n
}
