// Package chat renders conversations with a model's own template. It knows text and the
// spellings of special tokens, not tokens; and it sees to it that nothing a person writes
// is taken for a special token, whatever it spells.
//
// How: before rendering, a nonce that nobody can guess is put inside every spelling of a
// special token in message text. After rendering the text is cut at the nonces. In the
// segments between, all special tokens are the template's own. Text without such spellings
// is rendered as if nothing had happened, in one segment.
package chat

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/ardanlabs/jinja"

	"github.com/inferd-go/inferd/internal/infer"
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
	compiled, err := jinja.Compile(source)
	if err != nil {
		return nil, fmt.Errorf("chat template: %w", err)
	}
	t.compiled = compiled
	return t, nil
}

// Stops are stop sequences that belong to the template: a model that has none does not
// know when its turn has ended.
func (t *Template) Stops() []string { return t.stops }

// A Segment is a piece of a prompt. They are to be tokenized one by one.
type Segment struct {
	Text    string
	Special bool // spellings of special tokens in it are the template's, and mean those
}

// Render renders a conversation, up to where the model's answer begins. What the template
// refuses is [infer.Invalid].
func (t *Template) Render(messages []infer.Message) ([]Segment, error) {
	nonce := newNonce(messages)
	list := make([]jinja.Value, len(messages))
	for i, m := range messages {
		d := jinja.NewDict()
		d.AsDict().Set("role", jinja.NewString(string(m.Role)))
		d.AsDict().Set("content", jinja.NewString(t.specials.guard(m.Text, nonce)))
		list[i] = d
	}
	text, err := t.render(map[string]jinja.Value{
		"messages":              jinja.NewList(list),
		"add_generation_prompt": jinja.NewBool(true),
		"bos_token":             jinja.NewString(t.bos),
		"eos_token":             jinja.NewString(t.eos),
	})
	if err != nil {
		return nil, infer.Errorf(infer.Invalid, "chat template: %s", nonce.strip(err.Error()))
	}
	return nonce.cut(text), nil
}

// render turns a panic of the template engine into an error: templates are as hostile as
// the files that they come with.
func (t *Template) render(data map[string]jinja.Value) (text string, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = errors.New("the template cannot be rendered")
		}
	}()
	return t.compiled.RenderValues(data)
}

// A nonce marks places in text. It comes in two kinds: inside marks a place between two
// pieces of text; literal stands on both sides of text that is never to be parsed.
type nonce struct{ inside, literal string }

// newNonce returns a nonce that occurs in no message: some private-use characters, which
// templates do not look at, drawn at random.
func newNonce(messages []infer.Message) nonce {
	for {
		n := nonce{draw(), draw()}
		taken := false
		for _, m := range messages {
			taken = taken || strings.Contains(m.Text, n.inside) || strings.Contains(m.Text, n.literal)
		}
		if !taken && n.inside != n.literal {
			return n
		}
	}
}

// draw returns 96 random bits in private-use characters.
func draw() string {
	const first, count = 0xF0000, 1 << 15 // a plane that is all private use
	var raw [16]byte
	_, _ = rand.Read(raw[:]) // it never fails
	var b strings.Builder
	for i := 0; i < len(raw); i += 2 {
		b.WriteRune(first + rune(binary.LittleEndian.Uint16(raw[i:])%count))
	}
	return b.String()
}

func (n nonce) strip(text string) string {
	return strings.NewReplacer(n.inside, "", n.literal, "").Replace(text)
}

// cut splits rendered text at the marks. Between two literal marks nothing is special.
func (n nonce) cut(text string) []Segment {
	var all []Segment
	for i, part := range strings.Split(text, n.literal) {
		special := i%2 == 0
		for piece := range strings.SplitSeq(part, n.inside) {
			if piece != "" {
				all = append(all, Segment{Text: piece, Special: special})
			}
		}
	}
	return all
}

// specials finds the spellings of special tokens in text. It looks at each place once per
// length that a spelling has, however many there are.
type specials struct {
	spelt   map[string]bool
	lengths []int // that occur, shortest first
	first   [256]bool
}

func index(spellings []string) specials {
	s := specials{spelt: make(map[string]bool, len(spellings))}
	seen := make(map[int]bool)
	longest := 0
	for _, text := range spellings {
		if text == "" {
			continue
		}
		s.spelt[text] = true
		s.first[text[0]] = true
		seen[len(text)] = true
		longest = max(longest, len(text))
	}
	for n := 1; n <= longest; n++ {
		if seen[n] {
			s.lengths = append(s.lengths, n)
		}
	}
	return s
}

// at returns the length of the longest spelling that begins at text[i], 0 if there is none.
func (s *specials) at(text string, i int) int {
	longest := 0
	for _, n := range s.lengths {
		if i+n > len(text) {
			break
		}
		if s.spelt[text[i:i+n]] {
			longest = n
		}
	}
	return longest
}

// guard puts a mark behind the first character of every spelling, also of those that
// overlap. A spelling of one character has no inside: it is put between literal marks.
func (s *specials) guard(text string, n nonce) string {
	var b strings.Builder
	done := 0 // bytes of text that are in b
	for i := 0; i < len(text); i++ {
		if !s.first[text[i]] {
			continue
		}
		length := s.at(text, i)
		if length == 0 {
			continue
		}
		_, size := utf8.DecodeRuneInString(text[i:])
		if s.spelt[text[i:i+size]] {
			b.WriteString(text[done:i] + n.literal + text[i:i+size] + n.literal)
		} else {
			b.WriteString(text[done:i+size] + n.inside)
		}
		done = i + size
		i += size - 1
	}
	if done == 0 {
		return text
	}
	b.WriteString(text[done:])
	return b.String()
}
