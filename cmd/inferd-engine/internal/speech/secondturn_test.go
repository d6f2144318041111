package speech_test

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/chat"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialect"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialecttest"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/speech"
	"github.com/inferd-go/inferd/internal/infer"
)

// closed are tools with short arguments, for random answers.
var closed = []infer.Tool{
	{Name: "get_weather", Description: "d", Schema: []byte(`{"type":"object","properties":{` +
		`"where":{"enum":["Köln","a \"b\"",""]},"days":{"type":"integer","minimum":1,"maximum":14},"ok":{"type":"boolean"},` +
		`"deep":{"type":"object","properties":{"zeta":{"type":["boolean","null"]},"alpha":{"enum":[1.5,-2,null,"x"]}},"required":["zeta","alpha"],"additionalProperties":false},` +
		`"list":{"type":"array","items":{"enum":["p","q",7]},"maxItems":3}},"required":["where","days","ok","deep"],"additionalProperties":false}`)},
	{Name: "stop", Description: "e", Schema: []byte(`{"type":"object","properties":{"now":{"type":["boolean","null"]}},"additionalProperties":false}`)},
}

// A turns is two turns of a conversation, as tokens of bytes and markers.
type turns struct {
	prompt, answer, next []int32
	text                 string // of the answer
}

// known returns how many tokens of the first turn the second one begins with.
func (x *turns) known() int {
	all := slices.Concat(x.prompt, x.answer)
	n := 0
	for n < min(len(all), len(x.next)) && all[n] == x.next[n] {
		n++
	}
	return n
}

// lost says what the second turn does not know of the first; empty is nothing.
func (x *turns) lost(m model) string {
	n := x.known()
	switch {
	case n < len(x.prompt):
		return fmt.Sprintf("the prompt from %q on", m.text(x.prompt[n:min(n+20, len(x.prompt))]))
	case n < len(x.prompt)+len(x.answer):
		at := n - len(x.prompt)
		return fmt.Sprintf("%d of %d tokens of the answer, from %q on; the next prompt has %q", len(x.answer)-at, len(x.answer),
			m.text(x.answer[at:min(at+30, len(x.answer))]), m.text(x.next[min(n, len(x.next)):min(n+30, len(x.next))]))
	}
	return ""
}

// segments are the tokens of a prompt, and its end as far as the template wrote it.
func (m model) segments(t *testing.T, tmpl *chat.Template, c *chat.Conversation) (ids []int32, tail string) {
	t.Helper()
	list, err := tmpl.Prompt(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		if s.Special {
			ids = append(ids, m.tokens(s.Text)...)
		} else {
			ids = append(ids, model{}.tokens(s.Text)...)
		}
	}
	if last := list[len(list)-1]; last.Special {
		tail = last.Text
	}
	return ids, tail
}

// A saying is the part of an answer in front of its calls.
type saying struct {
	thoughts, text bool
	lead           string // white space in front of the calls, which the mask leaves to the model
}

// secondTurn asks a question, answers it with random calls that the mask allows, and renders the next turn.
func secondTurn(t *testing.T, m model, tmpl *chat.Template, r *rand.Rand, say saying) *turns {
	t.Helper()
	usual := *tmpl.Dialect()
	d := &usual
	if d.Calls.Others = nil; d.Name == "gpt-oss" { // the template writes another spelling than models do
		d.Calls.Call = tmpl.Dialect().Calls.Others[0]
	}
	c := &chat.Conversation{Tools: closed, Messages: []infer.Message{infer.TextMessage(infer.User, "Weather?")}}
	x := new(turns)
	var tail string
	x.prompt, tail = m.segments(t, tmpl, c)
	place := d.Thinking.Place(tail)
	run := begin(t, m, speech.Options{Dialect: d, Tools: closed, Choice: required, Place: place})
	write := func(text string) {
		if rest := run.feed(text, run.drain); rest != "" {
			t.Fatalf("%s: %q of %q does not fit behind %q", d.Name, rest, text, m.text(x.answer))
		}
		x.answer = append(x.answer, m.tokens(text)...)
	}
	if d.Thinking.Has() && (place == dialect.Inside || place == dialect.Before && say.thoughts) {
		if place == dialect.Before {
			write(d.Thinking.Begin)
		}
		write("Let me see." + d.Thinking.End + d.Next)
	}
	if say.text {
		write("I look.")
	}
	at := slices.IndexFunc(d.Calls.Call, func(p dialect.Piece) bool { return p.Kind == dialect.Name })
	begin := strings.TrimPrefix(run.beginning(), d.Calls.Lead)
	if d.Next != "" {
		begin = d.Calls.Call[0].Text
	}
	if at == 0 || at == 1 && d.Calls.Call[0].Kind == dialect.Fixed {
		begin += closed[r.IntN(len(closed))].Name
		if next := d.Calls.Call[at+1]; next.Kind == dialect.Fixed {
			begin += next.Text
		}
	}
	write(say.lead + begin)
	ends := m.ids()["<|im_end|>"]
	for range 4000 {
		run.answer.Force(run.parser.Numbered())
		mask, err := run.answer.Mask()
		if err != nil {
			t.Fatal(err)
		}
		id := draw(mask, r)
		if may := mask[ends>>6]>>(ends&63)&1 == 1; id >= 256 && isEnd(m.markers[id-256]) || may && r.IntN(2) == 0 {
			break
		}
		if !run.answer.Take(id) {
			continue
		}
		x.answer = append(x.answer, id)
		run.drain()
	}
	run.parser.End()
	run.drain()
	x.text = m.text(x.answer)
	answer, results := infer.Message{Role: infer.Assistant}, infer.Message{Role: infer.User}
	for _, part := range run.log {
		if text, ok := strings.CutPrefix(part, "thought "); ok {
			answer.Content = append(answer.Content, &infer.ThinkingPart{Text: text})
		} else if text, ok := strings.CutPrefix(part, "text "); ok {
			answer.Content = append(answer.Content, &infer.TextPart{Text: text})
		} else {
			name, input, _ := strings.Cut(strings.TrimPrefix(part, "call "), " ")
			id := fmt.Sprintf("tc-%d", len(results.Content)+1)
			answer.Content = append(answer.Content, &infer.CallPart{ID: id, Name: name, Input: []byte(input)})
			results.Content = append(results.Content, &infer.ResultPart{ID: id, Content: []infer.Part{&infer.TextPart{Text: "sun"}}})
		}
	}
	if len(results.Content) == 0 {
		t.Fatalf("%s: %q has no call", d.Name, x.text)
	}
	c.Messages = append(c.Messages, answer, results)
	x.next, _ = m.segments(t, tmpl, c)
	return x
}

// draw returns a random token of a mask.
func draw(mask []uint64, r *rand.Rand) int32 {
	n := 0
	for _, w := range mask {
		n += bits.OnesCount64(w)
	}
	if n == 0 {
		return 0
	}
	k := r.IntN(n)
	for i, w := range mask {
		if count := bits.OnesCount64(w); k >= count {
			k -= count
			continue
		}
		for ; k > 0; k-- {
			w &= w - 1
		}
		return int32(i*64 + bits.TrailingZeros64(w))
	}
	return 0
}

// markersIn returns the markers of a dialect, and the end of an answer.
func markersIn(d *dialect.Dialect) model {
	var text strings.Builder
	text.WriteString(d.Calls.Begin + d.Calls.End + d.Calls.Separator + d.Calls.Param.Quote + d.Thinking.Begin + d.Thinking.End + strings.Join(d.Text.Begins, "") + d.Text.End + d.Next)
	for _, pieces := range append([][]dialect.Piece{d.Calls.Call}, d.Calls.Others...) {
		for _, p := range pieces {
			text.WriteString(p.Text)
		}
	}
	markers := append([]string{"<|im_end|>"}, tag.FindAllString(text.String(), -1)...)
	slices.Sort(markers)
	if q := d.Calls.Param.Quote; len(q) > 1 && !slices.Contains(markers, q) {
		markers = append(markers, q)
	}
	return model{markers: slices.Compact(markers)}
}

// lossOf returns what the second turns of a template lose: of an answer of calls alone, behind a text, and behind
// thoughts. White space in front of the first call is the best for the template, which a model has learnt.
func lossOf(t *testing.T, source string) (d *dialect.Dialect, lost [3]string) {
	t.Helper()
	bare, err := chat.New(source, nil, "", "")
	if err != nil {
		t.Fatal(err)
	}
	m := markersIn(bare.Dialect())
	tmpl, err := chat.New(source, m.markers, "", "")
	if err != nil {
		t.Fatal(err)
	}
	d = tmpl.Dialect()
	for i, say := range []saying{{}, {text: true}, {thoughts: true}} {
		if say.thoughts && !d.Thinking.Has() || say.text && (d.Calls.Alone || d.Next != "") {
			continue
		}
		best := -1
		for _, say.lead = range []string{"", "\n", "\n\n"} {
			if say.lead != "" && (d.Next != "" || d.Calls.Alone) {
				continue
			}
			r := rand.New(rand.NewPCG(3, 4))
			worst, what := 0, ""
			for range 10 {
				x := secondTurn(t, m, tmpl, r, say)
				if n := len(x.prompt) + len(x.answer) - x.known(); n > worst {
					worst, what = n, x.lost(m)
				}
			}
			if best < 0 || worst < best {
				best, lost[i] = worst, what
			}
		}
	}
	return d, lost
}

// losses are the second turns that the templates of the tests cannot keep: those of calls (0), of text and calls (1), of
// thoughts and calls (2). The templates leave out thoughts, or a text beside calls, or write no beginning of an answer.
var losses = map[string][]int{
	"hermes": {2}, "mistral-nemo": {1}, "gemma4": {1}, "deepseek-v3.1": {0, 1, 2}, "generic": {0}, "lfm2": {0, 1, 2},
}

// After a tool result the prompt begins with all tokens of the turn before, whatever calls the mask has allowed: their
// KV is found in the cache.
func TestSecondTurn(t *testing.T) {
	for name, source := range dialecttest.Templates() {
		t.Run(name, func(t *testing.T) {
			_, lost := lossOf(t, source)
			for i, what := range lost {
				if (what != "") != slices.Contains(losses[name], i) {
					t.Errorf("%d: lost %q", i, what)
				}
			}
		})
	}
}

// The public templates, as in [TestSecondTurn]; make test-templates names the folder.
func TestPublicSecondTurn(t *testing.T) {
	folder := os.Getenv("INFERD_TEST_TEMPLATES")
	if folder == "" {
		t.Skip("make test-templates sets INFERD_TEST_TEMPLATES")
	}
	files, err := filepath.Glob(filepath.Join(folder, "*.jinja"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d templates, %v", len(files), err)
	}
	whole := 0
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			d, lost := lossOf(t, string(source))
			if lost[0] == "" || d.Thinking.Has() && lost[2] == "" {
				whole++
			}
			for i, what := range lost {
				if what != "" {
					t.Logf("%s, %s: lost %s", d.Name, []string{"calls", "text and calls", "thoughts and calls"}[i], what)
				}
			}
		})
	}
	t.Logf("the second turn knows all of the first with %d of %d templates", whole, len(files))
	if whole < 45 {
		t.Errorf("only with %d", whole)
	}
}
