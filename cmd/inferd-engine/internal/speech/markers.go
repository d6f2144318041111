package speech

import (
	"slices"
	"strings"

	"github.com/inferd-go/inferd/internal/automaton"
)

// Markers holds the control tokens of a vocabulary by spelling. It is immutable.
type Markers struct {
	ids      map[string]int32
	byLength []string  // spellings, the longest first
	first    [256]bool // whether a spelling begins with the byte
}

// NewMarkers returns the markers of a vocabulary, given token ids by spelling. A vocabulary may have thousands of them,
// so NewMarkers is called once, not for each answer.
func NewMarkers(ids map[string]int32) *Markers {
	m := &Markers{ids: ids}
	for text := range ids {
		if text != "" {
			m.byLength = append(m.byLength, text)
			m.first[text[0]] = true
		}
	}
	slices.SortFunc(m.byLength, func(x, y string) int {
		if len(x) != len(y) {
			return len(y) - len(x)
		}
		return strings.Compare(x, y)
	})
	return m
}

// prefix returns the longest marker that text begins with, or an empty string.
func (m *Markers) prefix(text string) string {
	if text == "" || !m.first[text[0]] {
		return ""
	}
	for _, marker := range m.byLength {
		if strings.HasPrefix(text, marker) {
			return marker
		}
	}
	return ""
}

// symbols returns the bytes of text as symbols; each marker becomes its token.
func (m *Markers) symbols(text string) (out []automaton.Symbol) {
	for text != "" {
		if marker := m.prefix(text); marker != "" {
			out = append(out, automaton.Symbol(256+m.ids[marker]))
			text = text[len(marker):]
			continue
		}
		out = append(out, automaton.Symbol(text[0]))
		text = text[1:]
	}
	return out
}

// spelling returns symbols as text, and spells tokens out.
func (m *Markers) spelling(list []automaton.Symbol) string {
	var b strings.Builder
	for _, x := range list {
		if x < 256 {
			b.WriteByte(byte(x))
			continue
		}
		for _, text := range m.byLength {
			if m.ids[text] == int32(x-256) {
				b.WriteString(text)
			}
		}
	}
	return b.String()
}
