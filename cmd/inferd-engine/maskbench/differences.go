package main

import (
	"cmp"
	"fmt"
	"maps"
	"math/bits"
	"os"
	"slices"
	"strings"

	"github.com/inferd-go/inferd/internal/automaton"
	"github.com/inferd-go/inferd/internal/schema"
	"github.com/inferd-go/inferd/internal/vocab"
)

// differences compares our masks with those of llguidance. Each token that is in only one of the
// two masks is counted in a class, by its bytes and its position in the JSON text; differences.md
// explains the classes.
type differences struct {
	v       *vocab.Vocab
	schemas int // number of compared schemas
	masks   int
	equal   int
	classes map[class]*difference
}

// A class is a kind of difference.
type class struct {
	ours bool // the tokens are only in our mask, otherwise only in theirs
	what string
}

type difference struct {
	tokens, masks, schemas int
	example                string
	last                   *problem
}

func newDifferences(v *vocab.Vocab) *differences {
	return &differences{v: v, classes: make(map[class]*difference)}
}

// compare compares our masks with theirs at each token of the first valid instance of a problem, up
// to the first token that our mask lacks. theirs has one mask of llguidance for each token. A problem
// without a valid instance, or with a schema that we refuse, is left out.
func (d *differences) compare(p *problem, j *judge, theirs [][]byte) {
	i := slices.IndexFunc(p.instances, func(x instance) bool { return x.valid })
	s, err := schema.Compile(p.schema, nil)
	if i < 0 || err != nil {
		return
	}
	d.schemas++
	a := automaton.New(s.Grammar)
	c, masks := a.Open(), vocab.NewMasks(d.v, a)
	mask := make([]uint64, d.v.Words())
	text := ""
	for n, id := range j.tokens(p.instances[i].text) {
		if n >= len(theirs) || masks.Mask(c, mask) != nil {
			return
		}
		d.masks++
		d.step(p, c, text, mask, theirs[n])
		if !masks.Next(c, id) {
			return
		}
		text += string(d.v.Bytes(id))
	}
}

// step compares our mask with theirs for the token behind text.
func (d *differences) step(p *problem, c *automaton.Cursor, text string, ours []uint64, theirs []byte) {
	met := make(map[class]bool)
	forced := 0 // number of tokens in their mask; if it is 1, that token is forced
	for _, b := range theirs {
		forced += bits.OnesCount8(b)
	}
	for w, word := range ours {
		var other uint64
		for k := range 8 {
			if at := w*8 + k; at < len(theirs) {
				other |= uint64(theirs[at]) << (8 * k)
			}
		}
		for left := word ^ other; left != 0; left &= left - 1 {
			bit := bits.TrailingZeros64(left)
			id := int32(w*64 + bit)
			if int(id) >= d.v.Len() || d.v.Control(id) || len(d.v.Bytes(id)) == 0 {
				continue // ends and markers are not compared
			}
			token := d.v.Bytes(id)
			k := class{ours: word>>bit&1 != 0}
			if k.what = classify(c, text, token, k.ours); k.ours && forced == 1 {
				k.what = "forced text"
			}
			x := d.classes[k]
			if x == nil {
				x = &difference{example: fmt.Sprintf("%.60q behind %q (%s)", token, text[max(0, len(text)-30):], p.name)}
				d.classes[k] = x
			}
			x.tokens++
			if !met[k] {
				met[k] = true
				x.masks++
			}
			if x.last != p {
				x.last = p
				x.schemas++
			}
		}
	}
	if len(met) == 0 {
		d.equal++
	}
}

// classify returns the class of a token that is in only one mask. A token of their mask is
// classified by the position at which our grammar refuses it, a token of our mask by its bytes and
// the position at its end.
func classify(c *automaton.Cursor, text string, token []byte, ours bool) string {
	n := len(token)
	if !ours {
		for n = 0; n < len(token)-1 && c.Try(token[:n+1]); n++ {
		}
	}
	l := lexer{}
	for i := range len(text) {
		l.next(text[i])
	}
	space := false
	for _, b := range token[:n] {
		space = space || l.position != inName && l.position != inString && isSpace(b)
		l.next(b)
	}
	if ours {
		switch {
		case space:
			return "white space"
		case slices.Contains(token, 0x7f):
			return "characters in strings"
		case l.exponent:
			return "numbers with an exponent"
		case l.position == number && token[n-1] == '-':
			return "minus zero"
		}
		return l.position.String()
	}
	b := token[n]
	switch {
	case space || l.position != inName && l.position != inString && isSpace(b):
		return "white space"
	case l.position != between && l.position != number && (b == '\\' || l.escape > 0):
		return "escapes in strings"
	case l.position != between && (b >= 0x80 || b == 0x7f || b < 0x20):
		return "characters in strings"
	case l.position == number && (b == 'e' || b == 'E' || l.exponent):
		return "numbers with an exponent"
	case n > 0 && l.position == between && isSpace(token[n-1]):
		return "white space" // our grammar accepts the white space, but not what follows it
	}
	return l.position.String()
}

func isSpace(b byte) bool { return b == ' ' || b == '\n' || b == '\t' || b == '\r' }

// A position is the kind of JSON token around a point of a JSON text.
type position uint8

const (
	between position = iota // between two tokens of JSON
	inName
	inString
	number
	word // true, false or null
)

func (p position) String() string {
	return [...]string{"the next token", "names of members", "strings", "numbers", "words"}[p]
}

// A lexer follows JSON text to find the kind of position at its end. It does not validate the text.
type lexer struct {
	position position
	escape   int    // characters of an escape that are still to come
	open     []byte // open brackets
	value    bool   // behind a colon
	exponent bool
}

func (l *lexer) next(b byte) {
	switch l.position {
	case inName, inString:
		switch {
		case l.escape > 0:
			if l.escape--; b == 'u' && l.escape == 0 {
				l.escape = 4
			}
		case b == '\\':
			l.escape = 1
		case b == '"':
			l.position = between
		}
		return
	case number, word:
		l.exponent = l.exponent || l.position == number && (b == 'e' || b == 'E')
		if strings.IndexByte(",]} \n\t\r", b) < 0 {
			return
		}
	case between:
	}
	l.position, l.exponent = between, false
	switch {
	case isSpace(b):
	case b == '{' || b == '[':
		l.open, l.value = append(l.open, b), false
	case b == '}' || b == ']':
		l.open, l.value = l.open[:max(0, len(l.open)-1)], false
	case b == ',':
		l.value = false
	case b == ':':
		l.value = true
	case b == '"':
		l.position = inString
		if k := len(l.open); k > 0 && l.open[k-1] == '{' && !l.value {
			l.position = inName
		}
	case b == '-' || b >= '0' && b <= '9':
		l.position = number
	default:
		l.position = word
	}
}

// write writes the classes to a file, as a Markdown table.
func (d *differences) write(file string) error {
	var s strings.Builder
	fmt.Fprintf(&s, "Schemas: %d. Masks: %d, of which alike: %d.\n\n", d.schemas, d.masks, d.equal)
	fmt.Fprintf(&s, "| in the mask of | class | tokens | masks | schemas | first one |\n|---|---|---|---|---|---|\n")
	for _, k := range slices.SortedFunc(maps.Keys(d.classes), func(x, y class) int { return cmp.Compare(d.classes[y].masks, d.classes[x].masks) }) {
		maskOf := "llguidance"
		if k.ours {
			maskOf = "inferd"
		}
		x := d.classes[k]
		fmt.Fprintf(&s, "| %s | %s | %d | %d | %d | %s |\n", maskOf, k.what, x.tokens, x.masks, x.schemas, strings.NewReplacer("|", `\|`, "`", "'").Replace(x.example))
	}
	return os.WriteFile(file, []byte(s.String()), 0o600)
}
