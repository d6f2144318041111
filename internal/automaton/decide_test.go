package automaton_test

import (
	"testing"

	"github.com/inferd-go/inferd/internal/automaton"
)

// free returns the automaton of "[" and free text, which may end in marker, followed by mark and "ok".
func free(t *testing.T, mark automaton.Mark, marker string) *automaton.Automaton {
	t.Helper()
	var b automaton.Builder
	var all automaton.Set
	all.Add(0, 255)
	loop := b.Forward()
	b.Define(loop, b.Set(all, loop), b.End(), b.Bytes(marker, b.Mark(mark, b.Bytes("ok", b.End()))))
	rule := b.Rule()
	b.Body(rule, loop)
	g, err := b.Build(rule)
	if err != nil {
		t.Fatal(err)
	}
	var outer automaton.Builder // the grammar within another one
	whole := outer.Rule()
	outer.Body(whole, outer.Bytes("[", outer.Call(outer.Include(g), outer.End())))
	if g, err = outer.Build(whole); err != nil {
		t.Fatal(err)
	}
	return automaton.New(g)
}

// At a byte where a way passes Commit, the other ways end; a byte where a way passes Forbid is refused.
// Both hold in an included grammar.
func TestDecisions(t *testing.T) {
	for _, test := range []struct {
		mark     automaton.Mark
		text     string
		fits     bool
		mayEnd   bool
		behindIt string // bytes that must not fit after text
	}{
		{automaton.Commit, "[a<c", true, true, ""},
		{automaton.Commit, "[a<call>", true, false, "x"},
		{automaton.Commit, "[a<<call>ok", true, true, "x"},
		{automaton.Forbid, "[a<call", true, true, ">"},
		{automaton.Forbid, "[a<callx>", true, true, ""},
	} {
		c := free(t, test.mark, "<call>").Open()
		if ok := c.Feed([]byte(test.text)); ok != test.fits || c.MayEnd() != test.mayEnd {
			t.Errorf("%q fits: %v, may end: %v", test.text, ok, c.MayEnd())
		}
		if test.behindIt != "" && c.Try([]byte(test.behindIt)) {
			t.Errorf("%q fits behind %q", test.behindIt, test.text)
		}
	}
}
