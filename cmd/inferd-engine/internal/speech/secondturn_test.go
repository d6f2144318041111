package speech_test

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/chat"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialect"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialecttest"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/speech"
	"github.com/inferd-go/inferd/internal/infer"
)

// shortTools are tools with short arguments, for random answers. The values contain what notations spell in different
// ways: quotation marks, backslashes, newlines, letters beyond ASCII, markup, empty strings and lists, nested lists,
// and words of JSON and Python.
var shortTools = []infer.Tool{
	{Name: "get_weather", Description: "d", Schema: []byte(`{"type":"object","properties":{` +
		`"where":{"enum":["Köln","a \"b\"","","it's","'\"","a\\n\nb\tc","f('x')","x', days=3","null","[1, 2]","<b>&amp; 🎈"]},"days":{"type":"integer","minimum":1,"maximum":14},"ok":{"type":"boolean"},` +
		`"deep":{"type":"object","properties":{"zeta":{"type":["boolean","null"]},"alpha":{"enum":[1.5,-2,null,"x","it's \"b\"\n","é\\",["it's",["ü"]]]}},"required":["zeta","alpha"],"additionalProperties":false},` +
		`"list":{"type":"array","items":{"enum":["p","it's","'\"","a\nb","\\","é🎈","",7,0.5,true,null,[],["q",["'"]],{"it's":"\"","n":null}]},"maxItems":3}},"required":["where","days","ok","deep"],"additionalProperties":false}`)},
	{Name: "say", Description: "f", Schema: []byte(`{"type":"object","properties":{"text":{"type":"string","maxLength":6},"more":{"type":"array","items":{"type":"string","maxLength":4},"maxItems":2}},"required":["text"],"additionalProperties":false}`)},
	{Name: "stop", Description: "e", Schema: []byte(`{"type":"object","properties":{"now":{"type":["boolean","null"]}},"additionalProperties":false}`)},
}

// A turnPair is two turns of a conversation, as tokens of bytes and markers: prompt and answer of the first turn, and
// next, the prompt of the second one.
type turnPair struct {
	prompt, answer, next []int32
}

// commonTokens returns the length in tokens of the common prefix of both turns.
func (x *turnPair) commonTokens() int {
	all := slices.Concat(x.prompt, x.answer)
	n := 0
	for n < min(len(all), len(x.next)) && all[n] == x.next[n] {
		n++
	}
	return n
}

// lost returns the number of tokens of the first turn behind the common prefix.
func (x *turnPair) lost() int { return len(x.prompt) + len(x.answer) - x.commonTokens() }

// difference returns the text of the first turn, and of the second one, from the first difference on.
func (x *turnPair) difference(m model) (first, second string) {
	n := x.commonTokens()
	end := func(list []int32) string { return m.text(list[min(n, len(list)):min(n+40, len(list))]) }
	return end(slices.Concat(x.prompt, x.answer)), end(x.next)
}

// segments returns the tokens of a prompt, and the text of its last segment if that is the template's own text, not a
// client's.
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

// An introduction is the part of an answer in front of its calls.
type introduction struct {
	thoughts, text bool
	usual          bool   // calls are spelt as the models do it, not as the template does: gpt-oss has two spellings
	front, lead    string // white space in front of the text, and in front of the calls, as the model may choose it
}

func (s introduction) String() string {
	kind := map[[2]bool]string{{}: "calls", {false, true}: "text", {true, false}: "thoughts", {true, true}: "thoughts and text"}[[2]bool{s.thoughts, s.text}]
	if s.usual {
		return "usual " + kind
	}
	return kind
}

// introductions returns the possible introductions in a dialect at the position where the prompt ends.
func introductions(d *dialect.Dialect, position dialect.Position) (all []introduction) {
	for _, s := range []introduction{{}, {text: true}, {thoughts: true}, {thoughts: true, text: true}} {
		switch {
		case s.text && (d.Calls.Alone || d.Next != ""):
		case s.thoughts && (!d.Thinking.Has() || position == dialect.Behind), !s.thoughts && position == dialect.Inside:
		default:
			all = append(all, s)
			if s.usual = true; d.Next != "" {
				all = append(all, s)
			}
		}
	}
	return all
}

// firstPrompt returns a question, and its prompt with the position where the answer begins.
func firstPrompt(t *testing.T, m model, tmpl *chat.Template) (c *chat.Conversation, prompt []int32, position dialect.Position) {
	t.Helper()
	c = &chat.Conversation{Tools: shortTools, Messages: []infer.Message{infer.TextMessage(infer.User, "Weather?")}}
	prompt, tail := m.segments(t, tmpl, c)
	return c, prompt, tmpl.Dialect().Thinking.Position(tail)
}

// introduce writes the part of an answer in front of its calls, with the marker in front of a text, and the beginning
// of the first call, up to the symbol that makes it certain.
func (s introduction) introduce(run *run, d *dialect.Dialect, position dialect.Position, tool string, write func(text string)) {
	if s.thoughts {
		if position == dialect.Before {
			write(d.Thinking.Begin)
		}
		write("Let me see." + d.Thinking.End + d.Next)
	}
	switch {
	case d.Next != "" || !s.text && !d.Calls.Alone:
	case d.Text.End != "" && !s.thoughts: // the template writes the marker only behind thoughts
	case len(d.Text.Begins) > 0:
		write(d.Text.Begins[0])
	case d.Calls.Alone:
		write(d.Text.Lead)
	}
	if s.text {
		write(s.front + "I look.")
		if s.thoughts && d.Text.End != "" && d.Next == "" {
			write(d.Text.End)
		}
	}
	at := slices.IndexFunc(d.Calls.Call, func(p dialect.Piece) bool { return p.Kind == dialect.Name })
	begin := strings.TrimPrefix(run.beginning(), d.Calls.Lead)
	if d.Next != "" {
		begin = d.Calls.Call[0].Text
	}
	if at == 0 || at == 1 && d.Calls.Call[0].Kind == dialect.Fixed {
		begin += tool
		if next := d.Calls.Call[at+1]; next.Kind == dialect.Fixed {
			begin += next.Text
		}
	}
	write(s.lead + begin)
}

// secondTurn renders a question, writes an answer with random calls that the mask allows, and renders the next turn.
func secondTurn(t *testing.T, m model, tmpl *chat.Template, r *rand.Rand, intro introduction) *turnPair {
	t.Helper()
	usual := *tmpl.Dialect()
	d := &usual
	if d.Calls.Others = nil; d.Next != "" && !intro.usual {
		d.Calls.Call = tmpl.Dialect().Calls.Others[0]
	}
	c, prompt, position := firstPrompt(t, m, tmpl)
	x := &turnPair{prompt: prompt}
	run := begin(t, m, speech.Options{Dialect: d, Tools: shortTools, Choice: required, Position: position})
	intro.introduce(run, d, position, shortTools[r.IntN(len(shortTools))].Name, func(text string) {
		if rest := run.feed(text, run.drain); rest != "" {
			t.Fatalf("%s: %q of %q does not fit behind %q", d.Name, rest, text, m.text(x.answer))
		}
		x.answer = append(x.answer, m.tokens(text)...)
	})
	ends := m.ids()["<|im_end|>"]
	for range 4000 {
		run.answer.Force(run.parser.NextID())
		mask, err := run.answer.Mask()
		if err != nil {
			t.Fatal(err)
		}
		id := drawLearnt(withoutChars(mask, d.Calls.Param.Wrap.Of), r)
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
		t.Fatalf("%s: %q has no call", d.Name, m.text(x.answer))
	}
	c.Messages = append(c.Messages, answer, results)
	x.next, _ = m.segments(t, tmpl, c)
	return x
}

// withoutChars returns a mask without the given characters, if it is the mask of free text: a model has learnt
// to wrap a value that contains one of them.
func withoutChars(mask []uint64, chars string) []uint64 {
	n := 0
	for _, w := range mask {
		n += bits.OnesCount64(w)
	}
	if n < 100 || chars == "" {
		return mask
	}
	mask = slices.Clone(mask)
	for i := range len(chars) {
		mask[chars[i]>>6] &^= 1 << (chars[i] & 63)
	}
	return mask
}

// drawLearnt is draw for a model that has learnt two things from the template: if a raw argument can only end, with or
// without the newline that the template writes in front of the end tag, it ends with the newline; and lists and
// mappings are not wrapped.
func drawLearnt(mask []uint64, r *rand.Rand) int32 {
	for _, other := range []byte("\n[{") {
		ways := make([]uint64, len(mask))
		for _, c := range []byte{other, '<'} {
			ways[c>>6] |= 1 << (c & 63)
		}
		if slices.Equal(mask, ways) {
			return int32(other)
		}
	}
	return draw(mask, r)
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

// markersIn returns a model with the markers of a dialect, and the end of an answer, as control tokens.
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

// A loss is a kind of answer after which the prompt of the second turn does not begin with all
// tokens of the first one.
type loss struct {
	intro         introduction
	lost, total   int    // tokens, of the worst of several turns
	first, second string // texts from the first difference on
}

// lossesOf returns the losses of a template, and all kinds of turns. A model has learnt from the template which white
// space to write in front of a text and of the first call, so of several choices the one with the least loss counts.
func lossesOf(t *testing.T, source string) (lost []loss, all []introduction) {
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
	d := tmpl.Dialect()
	_, _, position := firstPrompt(t, m, tmpl)
	all = introductions(d, position)
	for _, intro := range all {
		best := loss{lost: -1}
		for _, way := range intro.spaced(d) {
			if l := lossOf(t, m, tmpl, way, 1); best.lost < 0 || l.lost < best.lost {
				best = l
			}
		}
		if worst := lossOf(t, m, tmpl, best.intro, 10); worst.lost > 0 {
			lost = append(lost, worst)
		}
	}
	return lost, all
}

// spaced returns the introduction with each choice of white space that a model may have learnt.
func (s introduction) spaced(d *dialect.Dialect) (all []introduction) {
	leads, fronts := []string{"", "\n", "\n\n", " "}, []string{"", "\n", " "}
	if d.Next != "" || d.Calls.Alone {
		leads = leads[:1]
	}
	if !s.text {
		fronts = fronts[:1]
	}
	for _, s.front = range fronts {
		for _, s.lead = range leads {
			all = append(all, s)
		}
	}
	return all
}

// lossOf returns the loss of the worst of several turns.
func lossOf(t *testing.T, m model, tmpl *chat.Template, intro introduction, turns int) (worst loss) {
	t.Helper()
	r := rand.New(rand.NewPCG(3, 4))
	for range turns {
		x := secondTurn(t, m, tmpl, r, intro)
		if n := x.lost(); worst.total == 0 || n > worst.lost {
			worst = loss{intro: intro, lost: n, total: len(x.prompt) + len(x.answer)}
			worst.first, worst.second = x.difference(m)
		}
	}
	return worst
}

// losses are, by template, the kinds of second turns that lose tokens. These templates leave out thoughts, or a text
// beside calls; or write no beginning of an answer; or write an empty pair of markers where the model has not thought;
// or write JSON in calls of Python.
var losses = map[string][]string{
	"hermes": {"thoughts", "thoughts and text"}, "mistral-nemo": {"text"}, "gemma4": {"text", "thoughts and text"},
	"deepseek-v3.1": {"thoughts", "thoughts and text"}, "gpt-oss": {"usual calls", "usual thoughts"}, "generic": {"calls"},
	"lfm2": {"calls", "text", "thoughts", "thoughts and text"}, "command-r7b": {"text", "thoughts and text"},
	"glm": {"calls", "text"}, "llama4-pythonic": {"calls"},
}

// After a tool result the prompt begins with all tokens of the turn before, whatever calls the mask has allowed, so
// that their KV is found in the cache. The exceptions are losses.
func TestSecondTurn(t *testing.T) {
	for i, name := range dialecttest.Names(testing.Short()) {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && i%3 > 0 {
				t.Skip("one template in three")
			}
			lost, _ := lossesOf(t, dialecttest.Templates()[name])
			var got []string
			for _, l := range lost {
				got = append(got, l.intro.String())
			}
			if !slices.Equal(got, losses[name]) {
				t.Errorf("lost %q, want %q: %+v", got, losses[name], lost)
			}
		})
	}
}
