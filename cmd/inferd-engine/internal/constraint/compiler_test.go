package constraint_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/constraint"
	"github.com/inferd-go/inferd/internal/automaton"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/vocab"
)

// schemaOf returns the source of a schema.
func schemaOf(source string) constraint.Format {
	return constraint.Format{Format: &infer.Format{Schema: []byte(source)}}
}

// numbered returns a schema that differs for each number.
func numbered(i int) string {
	return fmt.Sprintf(`{"type":"object","properties":{"a%d":{"type":"string","pattern":"^[a-f0-9]{1,40}$"}}}`, i)
}

// compile returns a constraint, which the caller must release.
func compile(t *testing.T, c *constraint.Compiler, owner, source string) *constraint.Constraint {
	t.Helper()
	k, _, err := c.Compile(t.Context(), owner, schemaOf(source))
	if err != nil {
		t.Fatalf("%s: %v", source, err)
	}
	return k
}

// A constraint is cached for its owner only; without an owner it is dropped after its use.
func TestOwners(t *testing.T) {
	c := &constraint.Compiler{Model: bytesOnly{}, Time: time.Minute}
	first := compile(t, c, "a", numbered(1))
	if again := compile(t, c, "a", numbered(1)); again != first {
		t.Error("it was compiled again for the same owner")
	}
	if other := compile(t, c, "b", numbered(1)); other == first {
		t.Error("owners share it")
	}
	used := c.Used()
	nobody := compile(t, c, "", numbered(1))
	if nobody == first || nobody == compile(t, c, "", numbered(1)) {
		t.Error("without an owner it is shared")
	}
	if nobody.Release(); c.Used() <= used {
		t.Error("the other one without an owner is in use")
	}
}

// The time of a compile is charged, even that of a refusal; a cached result costs nothing.
func TestSpent(t *testing.T) {
	c := &constraint.Compiler{Model: bytesOnly{}, Time: time.Minute}
	k, spent, err := c.Compile(t.Context(), "a", schemaOf(numbered(1)))
	if err != nil || spent <= 0 {
		t.Errorf("compiled in %v, %v", spent, err)
	}
	k.Release()
	if _, spent, err = c.Compile(t.Context(), "a", schemaOf(numbered(1))); err != nil || spent != 0 {
		t.Errorf("found in %v, %v", spent, err)
	}
	if _, spent, err = c.Compile(t.Context(), "a", schemaOf(refused(1))); err == nil || spent <= 0 {
		t.Errorf("refused in %v, %v", spent, err)
	}
	if _, spent, err = c.Compile(t.Context(), "a", schemaOf(refused(1))); err == nil || spent != 0 {
		t.Errorf("refused again in %v, %v", spent, err)
	}
	if _, spent, err = c.Compile(t.Context(), "a", schemaOf(`{"type":"string","minLength":100000}`)); err == nil || spent <= 0 {
		t.Errorf("too long in %v, %v", spent, err)
	}
}

// Beyond the budget, the least recently used constraints are evicted, but none in use. If those in
// use take up the budget, a new one is refused until they are released.
func TestBudget(t *testing.T) {
	c := &constraint.Compiler{Model: bytesOnly{}, Time: time.Minute}
	one := compile(t, c, "a", numbered(0))
	size := c.Used()
	c.Bytes = 3*size + size/2
	one.Release()
	for i := 1; i < 3; i++ {
		compile(t, c, "a", numbered(i)).Release()
	}
	again := compile(t, c, "a", numbered(0)) // now the most recently used one
	compile(t, c, "a", numbered(3)).Release()
	if again != one {
		t.Fatal("it was dropped within the budget")
	}
	again.Release()
	if c.Used() > c.Bytes {
		t.Errorf("%d bytes of %d", c.Used(), c.Bytes)
	}
	for i, want := range map[int]bool{0: true, 1: false} {
		k, spent, err := c.Compile(t.Context(), "a", schemaOf(numbered(i)))
		if err != nil || (spent == 0) != want {
			t.Errorf("%d: kept %v, want %v (%v)", i, spent == 0, want, err)
		}
		k.Release()
	}
	var held []*constraint.Constraint
	for i := range 3 {
		held = append(held, compile(t, c, "b", numbered(i)))
	}
	_, _, err := c.Compile(t.Context(), "c", schemaOf(numbered(4)))
	if infer.CodeOf(err) != infer.Busy || !strings.Contains(err.Error(), "memory") {
		t.Errorf("beside three in use: %v", err)
	}
	if c.Used() > c.Bytes {
		t.Errorf("%d bytes of %d", c.Used(), c.Bytes)
	}
	for _, k := range held {
		k.Release()
	}
	compile(t, c, "c", numbered(4)).Release()
}

// States and masks that an answer adds count against the budget. Unused constraints are evicted to
// make room for them.
func TestAnswersGrow(t *testing.T) {
	c := &constraint.Compiler{Model: bytesOnly{}, Time: time.Minute}
	compile(t, c, "a", numbered(1)).Release()
	k := compile(t, c, "a", `{"type":"string","pattern":"^([ab]{3}|[bc]{2})*$"}`)
	before := c.Used()
	c.Bytes = before + 1<<10
	answer, err := k.Open(500)
	if err != nil {
		t.Fatal(err)
	}
	text := write(t, answer, func(mask []uint64) int32 { return least(mask, "abc\"") })
	if c.Used() > c.Bytes {
		t.Errorf("%d bytes of %d behind %q", c.Used(), c.Bytes, text)
	}
	c.Bytes = 0
	if _, spent, err := c.Compile(t.Context(), "a", schemaOf(numbered(1))); err != nil || spent == 0 {
		t.Errorf("the unused one is kept: %v", err)
	}
	answer.Close()
	k.Release()
}

// least returns the first byte of wish that a mask has, or else the first token of the mask; -1 if
// the mask is empty.
func least(mask []uint64, wish string) int32 {
	for i := range len(wish) {
		if id := int32(wish[i]); vocab.Has(mask, id) {
			return id
		}
	}
	for id := range int32(64 * len(mask)) {
		if vocab.Has(mask, id) {
			return id
		}
	}
	return -1
}

// write writes an answer to its end; choose chooses each token from the mask.
func write(t *testing.T, a *constraint.Answer, choose func(mask []uint64) int32) string {
	t.Helper()
	var text []byte
	for range 10_000 {
		mask, err := a.Mask()
		if err != nil {
			t.Fatal(err)
		}
		for {
			id := choose(mask)
			if id < 0 {
				t.Fatalf("no token fits behind %q", text)
			}
			if !a.Take(id) {
				continue
			}
			if id == 256 {
				return string(text)
			}
			text = append(text, byte(id))
			break
		}
	}
	t.Fatalf("no end of %.100q", text)
	return ""
}

// An answer is complete within its limit of tokens, even if the model never chooses to end it. With
// a limit below the shortest answer, Open fails.
func TestAnswersEnd(t *testing.T) {
	c := &constraint.Compiler{Model: bytesOnly{}, Time: time.Minute}
	for name, test := range map[string]struct {
		schema, shortest, wish string
		whole                  func(string) bool
	}{
		"a string":      {`{"type":"string"}`, `""`, "abc", func(s string) bool { return strings.HasSuffix(s, `"`) }},
		"nested arrays": {`{"$defs":{"a":{"type":"array","items":{"$ref":"#/$defs/a"}}},"$ref":"#/$defs/a"}`, `[]`, "[", func(s string) bool { return strings.Count(s, "[") == strings.Count(s, "]") }},
		"an object":     {`{"type":"object","properties":{"n":{"type":"integer"}},"required":["n"],"additionalProperties":false}`, `{"n":0}`, "123", func(s string) bool { return strings.HasSuffix(s, "}") }},
		"unique items":  {`{"type":"array","items":{"type":"integer"},"uniqueItems":true,"minItems":3}`, `[0,1,2]`, "1", func(s string) bool { return strings.HasSuffix(s, "]") }},
		"unique items, white space": {
			`{"type":"array","items":{"type":"string","pattern":"^(a{100})*$"},"uniqueItems":true,"minItems":3}`,
			`["","` + strings.Repeat("a", 100) + `","` + strings.Repeat("a", 200) + `"]`, "\n ", func(s string) bool { return strings.HasSuffix(s, "]") },
		},
		"an open object": {`{"type":"object","properties":{"n":{"type":"integer"}},"required":["n"]}`, `{"n":0}`, `,"b`, func(s string) bool { return strings.HasSuffix(s, "}") }},
	} {
		t.Run(name, func(t *testing.T) {
			k := compile(t, c, "a", test.schema)
			defer k.Release()
			if k.Least() != len(test.shortest) {
				t.Errorf("the shortest answer has %d tokens, want those of %s", k.Least(), test.shortest)
			}
			if _, err := k.Open(k.Least() - 1); !errors.Is(err, constraint.ErrShort) {
				t.Errorf("with one too few: %v", err)
			}
			for most := k.Least(); most < k.Least()+60; most++ {
				a, err := k.Open(most)
				if err != nil {
					t.Fatal(err)
				}
				text := write(t, a, func(mask []uint64) int32 { return least(mask, test.wish) })
				a.Close()
				if len(text) > most || !test.whole(text) {
					t.Errorf("%q in %d tokens", text, most)
				}
			}
		})
	}
}

// marked is a source of answers that are empty, or the values of a format between two control tokens.
type marked struct{ constraint.Format }

const beginMarked, endMarked = 257, 258

func (m marked) Grammar(model constraint.Vocabulary, b *automaton.Budget) (*automaton.Grammar, error) {
	g, err := m.Format.Grammar(model, b)
	if err != nil {
		return nil, err
	}
	w := &automaton.Builder{Budget: b}
	whole, value := w.Rule(), w.Include(g)
	w.Body(whole, w.Alt(w.End(), w.Token(beginMarked, w.Call(value, w.Token(endMarked, w.End())))))
	return w.Build(whole)
}

// markedModel is bytesOnly with the control tokens of marked.
type markedModel struct{ bytesOnly }

func (m markedModel) Vocabulary(yield func()) ([]vocab.Token, []int32) {
	tokens, ends := m.bytesOnly.Vocabulary(yield)
	return append(tokens, vocab.Token{Control: true}, vocab.Token{Control: true}), ends
}

// Try takes a control token exactly if the answer behind it can be completed within the token limit, with and
// without guards in the format.
func TestControlTokensEnd(t *testing.T) {
	c := &constraint.Compiler{Model: markedModel{}, Time: time.Minute}
	for source, shortest := range map[string]int{
		`{"type":"object","properties":{"n":{"type":"integer"}},"required":["n"],"additionalProperties":false}`: len(`{"n":0}`) + 2,
		`{"type":"object","properties":{"n":{"type":"integer"}},"required":["n"]}`:                              len(`{"n":0}`) + 2,
		`{"type":"object","minProperties":3}`:                                                                   len(`{"":0,"!":0,"#":0}`) + 2,
		`{"type":"array","items":{"type":"integer"},"uniqueItems":true,"minItems":12}`:                          len(`[0,1,2,3,4,5,6,7,8,9,10,11]`) + 2,
	} {
		k, _, err := c.Compile(t.Context(), "a", marked{schemaOf(source)})
		if err != nil {
			t.Fatal(err)
		}
		for most := k.Least(); most < shortest+60; most++ {
			a, err := k.Open(most)
			if err != nil {
				t.Fatal(err)
			}
			if got := a.Try(beginMarked); got != (most >= shortest) {
				t.Errorf("%s within %d tokens: taken %v", source, most, got)
			}
			a.Close()
		}
		k.Release()
	}
}

// counted is a model that counts the calls of Vocabulary.
type counted struct {
	bytesOnly
	read atomic.Int32
}

func (m *counted) Vocabulary(yield func()) ([]vocab.Token, []int32) {
	m.read.Add(1)
	return m.bytesOnly.Vocabulary(yield)
}

// The vocabulary is read once, by Load or by the first compile.
func TestLoad(t *testing.T) {
	m := new(counted)
	c := &constraint.Compiler{Model: m, Time: time.Minute}
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			if i%2 == 0 {
				c.Load()
			}
			k, _, err := c.Compile(context.Background(), "a", schemaOf(numbered(i)))
			if err != nil {
				t.Error(err)
				return
			}
			k.Release()
		})
	}
	all.Wait()
	if n := m.read.Load(); n != 1 {
		t.Errorf("read %d times", n)
	}
}

// A compile waits for another one only until its context ends.
func TestCompileWaits(t *testing.T) {
	c := &constraint.Compiler{Model: bytesOnly{}, Time: time.Minute}
	c.Load()
	slow := &slowSource{Format: schemaOf(`{}`), begun: make(chan struct{}), end: make(chan struct{})}
	done := make(chan error)
	go func() {
		_, _, err := c.Compile(context.Background(), "a", slow)
		done <- err
	}()
	<-slow.begun
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("gone")
	cancel(gone)
	if _, _, err := c.Compile(ctx, "b", schemaOf(`{}`)); !errors.Is(err, gone) {
		t.Errorf("beside a compile: %v", err)
	}
	close(slow.end)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// slowSource is a source with a compile that lasts until the test closes end.
type slowSource struct {
	constraint.Format
	begun, end chan struct{}
}

func (h *slowSource) Digest() [sha256.Size]byte { return sha256.Sum256([]byte("held")) }

func (h *slowSource) Grammar(m constraint.Vocabulary, b *automaton.Budget) (*automaton.Grammar, error) {
	close(h.begun)
	<-h.end
	return h.Format.Grammar(m, b)
}
