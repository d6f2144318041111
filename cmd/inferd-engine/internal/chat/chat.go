// Package chat renders conversations with a model's own template. It knows text and the
// spellings of special tokens, not tokens; and it sees to it that nothing a person writes
// is taken for a special token, whatever it spells.
//
// How: before rendering, a nonce that nobody can guess is put inside every spelling of a
// special token in message text. After rendering the text is cut at the nonces. In the
// segments between, all special tokens are the template's own. Text without such spellings
// is rendered as if nothing had happened, in one segment.
//
// A spelling can also come together where two texts meet: of two messages, or of a message
// and the template. A text that could be a part of one gets a nonce at that end, which cuts
// only if it turns out to stand in a spelling. Templates that change the letters of a
// message are beyond this.
package chat

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/jinja"
)

// transcript is the template of models that have none: plain text that they can go on
// with, as a person would note down a conversation.
const transcript = `{%- for m in messages -%}
{%- if m['role'] == 'system' -%}{{ m['content'] + '\n\n' }}
{%- elif m['role'] == 'user' -%}{{ 'User: ' + m['content'] + '\n' }}
{%- else -%}{{ 'Assistant: ' + m['content'] + '\n' }}
{%- endif -%}
{%- endfor -%}
Assistant:`

// A Template renders conversations. It may be used by several goroutines at once.
type Template struct {
	compiled *jinja.Template
	specials specials
	bos, eos string
	stops    []string
}

// New compiles the template of a model. An empty source means that the model has none: a
// plain transcript is used then. specials are the spellings of its special tokens, bos and
// eos two of them that templates ask for; they may be empty.
func New(source string, specials []string, bos, eos string) (*Template, error) {
	t := &Template{specials: index(specials), bos: bos, eos: eos}
	if source == "" {
		source = transcript
		t.stops = []string{"\nUser:"}
	}
	err := guarded(func() (err error) {
		t.compiled, err = jinja.Compile(source)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("chat template: %w", err)
	}
	return t, nil
}

// guarded turns a panic of the template engine into an error: templates are as hostile as
// the files that they come with.
func guarded(f func() error) (err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("it cannot be rendered")
		}
	}()
	return f()
}

// maxText is the most bytes of a prompt: more than fit into any context. Marks are a part of them.
const maxText = 32 << 20

// Stops are stop sequences that belong to the template: a model that has none does not
// know when its turn has ended.
func (t *Template) Stops() []string { return t.stops }

// A Segment is a piece of a prompt. They are to be tokenized one by one.
type Segment struct {
	Text    string
	Special bool // spellings of special tokens in it are the template's, and mean those
}

// Render renders a conversation, up to where the model's answer begins. What the template
// refuses is [infer.Invalid]; so is a conversation with which it exceeds a bound.
func (t *Template) Render(messages []infer.Message) ([]Segment, error) {
	nonce := newNonce(messages)
	list := make([]jinja.Value, len(messages))
	for i, m := range messages {
		d := jinja.NewDict()
		d.AsDict().Set("role", jinja.NewString(string(m.Role)))
		d.AsDict().Set("content", jinja.NewString(t.specials.guard(m.Text(), nonce)))
		list[i] = d
	}
	var text string
	err := guarded(func() (err error) {
		text, err = t.compiled.RenderValues(map[string]jinja.Value{
			"messages":              jinja.NewList(list),
			"add_generation_prompt": jinja.NewBool(true),
			"bos_token":             jinja.NewString(t.bos),
			"eos_token":             jinja.NewString(t.eos),
		})
		return err
	})
	if err == nil && len(text) > maxText {
		err = fmt.Errorf("its text has more than %d bytes", maxText)
	}
	if err != nil {
		return nil, infer.Errorf(infer.Invalid, "chat template: %s", nonce.strip(err.Error()))
	}
	return t.specials.cut(text, nonce), nil
}

// A nonce marks places in text, in three ways.
type nonce struct {
	inside  string // here text is cut
	literal string // on both sides of text that is never to be parsed
	edge    string // here text is cut if that is inside a spelling
}

// newNonce returns a nonce that occurs in no message: some private-use characters, which
// templates do not look at, drawn at random.
func newNonce(messages []infer.Message) nonce {
	for {
		n := nonce{draw(), draw(), draw()}
		taken := n.inside == n.literal || n.literal == n.edge || n.edge == n.inside
		for _, m := range messages {
			taken = taken || n.strip(m.Text()) != m.Text()
		}
		if !taken {
			return n
		}
	}
}

// draw returns 120 random bits in private-use characters.
func draw() string {
	const first, count = 0xF0000, 1 << 15 // half of a plane that is all private use
	var raw [16]byte
	_, _ = rand.Read(raw[:]) // it never fails
	var b strings.Builder
	for i := 0; i < len(raw); i += 2 {
		b.WriteRune(first + rune(binary.LittleEndian.Uint16(raw[i:])%count))
	}
	return b.String()
}

// strip returns text without marks.
func (n nonce) strip(text string) string {
	for _, mark := range []string{n.inside, n.literal, n.edge} {
		text = strings.ReplaceAll(text, mark, "")
	}
	return text
}

// specials are the spellings of special tokens.
type specials struct {
	forward  trie
	backward trie   // every spelling from its end to its beginning
	all      string // one after the other
	longest  int    // bytes
	first    [256]bool
}

func index(spellings []string) specials {
	s := specials{forward: newTrie(), backward: newTrie(), all: strings.Join(spellings, "\x00")}
	for _, text := range spellings {
		if text == "" {
			continue
		}
		s.forward.add(text)
		s.backward.add(reversed(text))
		s.longest = max(s.longest, len(text))
		s.first[text[0]] = true
	}
	return s
}

// guard marks every spelling in text behind its first character, also those that overlap.
// One of a single character has no inside: it is put between literal marks.
func (s *specials) guard(text string, n nonce) string {
	head, tail := s.edges(text)
	var b strings.Builder
	done := 0 // bytes of text that are in b
	mark := func(i int, mark string) {
		b.WriteString(text[done:i])
		b.WriteString(mark)
		done = i
	}
	for i := 0; i < len(text); i++ {
		if i == head || i == tail {
			mark(i, n.edge)
		}
		if !s.first[text[i]] || s.forward.match(text[i:]) == 0 {
			continue
		}
		_, size := utf8.DecodeRuneInString(text[i:])
		if s.forward.match(text[i:i+size]) == size {
			mark(i, n.literal)
			mark(i+size, n.literal)
		} else {
			mark(i+size, n.inside)
		}
		i += size - 1
	}
	if tail == len(text) {
		mark(tail, n.edge)
	}
	if b.Len() == 0 {
		return text
	}
	b.WriteString(text[done:])
	return b.String()
}

// edges returns where text begins and ends, but for white space, which templates trim. -1
// stands for an end where a spelling cannot go on in other text.
func (s *specials) edges(text string) (head, tail int) {
	head, tail = -1, -1
	core := strings.TrimSpace(text)
	if core == "" {
		return head, tail
	}
	begin := strings.Index(text, core)
	middle := len(core) < s.longest && strings.Contains(s.all, core)
	if middle || s.backward.pending(reversed(core[:min(len(core), s.longest)])) {
		head = begin
	}
	if s.forward.pending(core[max(0, len(core)-s.longest):]) {
		tail = begin + len(core)
	}
	return head, tail
}

// cut splits rendered text at the marks. Between two literal ones nothing is special.
func (s *specials) cut(text string, n nonce) []Segment {
	var all []Segment
	add := func(text string, special bool) {
		if text != "" {
			all = append(all, Segment{Text: text, Special: special})
		}
	}
	work := maxSweep
	for i, part := range strings.Split(text, n.literal) {
		for piece := range strings.SplitSeq(part, n.inside) {
			whole := strings.ReplaceAll(piece, n.edge, "")
			spans := sweep{specials: s, text: whole, work: &work}
			done, at := 0, 0
			for between := range strings.SplitSeq(piece, n.edge) {
				if spans.within(at) {
					add(whole[done:at], i%2 == 0)
					done = at
				}
				at += len(between)
			}
			add(whole[done:], i%2 == 0)
		}
	}
	return all
}

// maxSweep bounds the bytes that are compared with spellings in one prompt: half a second's
// worth. Spellings may be long, and a template may repeat a message millions of times.
const maxSweep = 10_000_000

// A sweep goes through a text from its beginning to its end and finds the spellings in it.
type sweep struct {
	specials *specials
	text     string
	next     int  // where the next spelling may begin
	reach    int  // the end of the spellings that begin before next
	work     *int // bytes that may still be compared
}

// within reports whether text[at:] begins inside a spelling. The calls are in the order of
// at. Beyond the bound the answer is yes: a cut too many does no harm.
func (w *sweep) within(at int) bool {
	for w.next = max(w.next, at-w.specials.longest+1); w.next < at; w.next++ {
		if !w.specials.first[w.text[w.next]] {
			continue
		}
		if *w.work <= 0 {
			return true
		}
		length, compared := w.specials.forward.walk(w.text[w.next:])
		*w.work -= compared + 1
		w.reach = max(w.reach, w.next+length)
	}
	return w.reach > at
}

// A trie is a set of byte strings. The time to look for them in a text does not depend on
// how many there are.
type trie struct {
	next map[int]int // by node<<8 | byte: the node behind it; node 0 is the root
	ends []bool      // by node: a string ends there
}

func newTrie() trie { return trie{next: make(map[int]int), ends: make([]bool, 1)} }

func (t *trie) add(text string) {
	node := 0
	for i := range len(text) {
		key := node<<8 | int(text[i])
		next, ok := t.next[key]
		if !ok {
			next = len(t.ends)
			t.next[key] = next
			t.ends = append(t.ends, false)
		}
		node = next
	}
	t.ends[node] = true
}

// match returns the length of the longest string that text begins with, 0 if none.
func (t *trie) match(text string) int {
	longest, _ := t.walk(text)
	return longest
}

// walk is match, and returns also how many bytes it has compared.
func (t *trie) walk(text string) (longest, compared int) {
	node := 0
	for compared < len(text) {
		next, ok := t.next[node<<8|int(text[compared])]
		if !ok {
			break
		}
		compared++
		if node = next; t.ends[node] {
			longest = compared
		}
	}
	return longest, compared
}

// pending reports whether a string begins in text and is not at odds with what follows, up
// to the end of text.
func (t *trie) pending(text string) bool {
	for begin := range len(text) {
		node, ok := 0, true
		for i := begin; i < len(text) && ok; i++ {
			node, ok = t.next[node<<8|int(text[i])]
		}
		if ok {
			return true
		}
	}
	return false
}

func reversed(text string) string {
	b := []byte(text)
	slices.Reverse(b)
	return string(b)
}
