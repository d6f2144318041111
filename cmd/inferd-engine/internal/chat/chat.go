// Package chat renders a conversation as a prompt, with the model's own template or, for a
// model without one, as a transcript. It knows text and the spellings of special tokens; it
// does not know tokens. Text of a message never becomes a special token, even if it spells one.
//
// Before rendering, an unguessable nonce is inserted into every spelling of a special token
// in message text. After rendering the text is cut at the nonces. In the resulting segments
// all special tokens are the template's own. Text without such spellings is not changed and
// is one segment.
//
// A spelling can also form where two texts meet: two messages, or a message and the
// template. A text that could be part of a spelling gets a nonce at that end, which cuts
// only if it ends up inside a spelling. Templates that change the letters of a message are
// not covered.
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

// A Template renders conversations. It may be used by several goroutines at once.
type Template struct {
	compiled *jinja.Template // nil: a transcript
	specials specials
	bos, eos string
	stops    []string
}

// New compiles the template of a model. A source of white space alone means that the model
// has none: its conversations are rendered as transcripts. specials are the spellings of its
// special tokens; bos and eos are two of them, for the template's use, and may be empty.
func New(source string, specials []string, bos, eos string) (*Template, error) {
	t := &Template{specials: index(specials), bos: bos, eos: eos}
	if strings.TrimSpace(source) == "" {
		t.stops = markers()
		return t, nil
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

// guarded turns a panic of the template engine into an error: templates are untrusted, like
// the rest of the model's file.
func guarded(f func() error) (err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("it cannot be rendered")
		}
	}()
	return f()
}

// maxText is the maximum length of a prompt in bytes, marks included: more than fits into
// any context.
const maxText = 32 << 20

// Transcript reports whether the model has no template of its own, so that conversations
// are rendered as transcripts.
func (t *Template) Transcript() bool { return t.compiled == nil }

// Stops are the texts that end a turn, beside the model's own end-of-turn tokens: the
// markers of a transcript. With a template of the model there are none.
func (t *Template) Stops() []string { return t.stops }

// A Segment is a piece of a prompt. Segments are tokenized one by one.
type Segment struct {
	Text    string
	Special bool // spellings of special tokens in it are the template's, and mean the tokens
}

// Render renders a conversation up to the beginning of the model's answer. It returns
// [infer.Invalid] if the template refuses the conversation or exceeds a bound.
func (t *Template) Render(messages []infer.Message) ([]Segment, error) {
	return t.segments(messages, true)
}

// RenderHistory is Render without the beginning of an answer.
func (t *Template) RenderHistory(messages []infer.Message) ([]Segment, error) {
	return t.segments(messages, false)
}

// segments renders a conversation; answer adds the beginning of the model's answer.
func (t *Template) segments(messages []infer.Message, answer bool) ([]Segment, error) {
	nonce := newNonce(messages)
	text, err := t.render(messages, answer, nonce)
	if err == nil && len(text) > maxText {
		err = fmt.Errorf("its text has more than %d bytes", maxText)
	}
	if err != nil {
		return nil, infer.Errorf(infer.Invalid, "chat template: %s", nonce.strip(err.Error()))
	}
	return t.specials.cut(text, nonce), nil
}

// render returns the prompt with its marks.
func (t *Template) render(messages []infer.Message, answer bool, nonce nonce) (text string, err error) {
	if t.compiled == nil {
		return transcript(messages, answer, func(text string) string { return t.specials.guard(text, nonce) }), nil
	}
	list := make([]jinja.Value, len(messages))
	for i, m := range messages {
		d := jinja.NewDict()
		d.AsDict().Set("role", jinja.NewString(string(m.Role)))
		d.AsDict().Set("content", jinja.NewString(t.specials.guard(m.Text(), nonce)))
		if thoughts := thinking(m); thoughts != "" {
			d.AsDict().Set("reasoning_content", jinja.NewString(t.specials.guard(thoughts, nonce)))
		}
		list[i] = d
	}
	err = guarded(func() (err error) {
		text, err = t.compiled.RenderValues(map[string]jinja.Value{
			"messages":              jinja.NewList(list),
			"add_generation_prompt": jinja.NewBool(answer),
			"bos_token":             jinja.NewString(t.bos),
			"eos_token":             jinja.NewString(t.eos),
		})
		return err
	})
	return text, err
}

// thinking returns the thoughts of a message, joined. Templates find them under
// reasoning_content, as those of Qwen and DeepSeek do; most leave out all but the latest.
func thinking(m infer.Message) string {
	var b strings.Builder
	for _, part := range m.Content {
		if t, ok := part.(*infer.ThinkingPart); ok {
			b.WriteString(t.Text)
		}
	}
	return b.String()
}

// A nonce has three marks for places in text.
type nonce struct {
	inside  string // cut here
	literal string // on both sides of text that is never parsed
	edge    string // cut here if it is inside a spelling
}

// newNonce returns a nonce that occurs in no message: random private-use characters, which
// templates do not change.
func newNonce(messages []infer.Message) nonce {
	for {
		n := nonce{draw(), draw(), draw()}
		taken := n.inside == n.literal || n.literal == n.edge || n.edge == n.inside
		for _, m := range messages {
			for _, text := range []string{m.Text(), thinking(m)} {
				taken = taken || n.strip(text) != text
			}
		}
		if !taken {
			return n
		}
	}
}

// draw returns 120 random bits as private-use characters.
func draw() string {
	const first, count = 0xF0000, 1 << 15 // half of a private-use plane
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
	backward trie   // every spelling reversed
	all      string // joined by NULs
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

// guard marks every spelling in text behind its first character, overlapping ones included.
// A spelling of one character has no inside: it is put between literal marks.
func (s *specials) guard(text string, n nonce) string {
	head, tail := s.edges(text)
	var b strings.Builder
	done := 0 // bytes of text already in b
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

// edges returns the beginning and the end of text without surrounding white space, which
// templates trim. An edge is -1 if no spelling can cross it into other text.
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

// cut splits rendered text at the marks. Text between two literal marks is not special.
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

// maxSweep limits the bytes compared with spellings in one prompt, to half a second of CPU
// time. Spellings may be long, and a template may repeat a message millions of times.
const maxSweep = 10_000_000

// A sweep finds the spellings in a text from its beginning to its end.
type sweep struct {
	specials *specials
	text     string
	next     int  // first position not yet searched for a spelling
	reach    int  // end of the spellings that begin before next
	work     *int // remaining bytes to compare
}

// within reports whether text[at:] begins inside a spelling. Calls have ascending at. Beyond
// the limit it reports true: an additional cut does no harm.
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

// A trie is a set of byte strings. The time of a search does not depend on the size of the
// set.
type trie struct {
	next map[int]int // by node<<8 | byte: the child; node 0 is the root
	ends []bool      // by node: whether a string ends there
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

// match returns the length of the longest string that is a prefix of text, 0 if none.
func (t *trie) match(text string) int {
	longest, _ := t.walk(text)
	return longest
}

// walk is match; it also returns the number of compared bytes.
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

// pending reports whether a suffix of text is a prefix of a string.
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
