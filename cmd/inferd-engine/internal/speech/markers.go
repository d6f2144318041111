package speech

import (
	"slices"
	"strings"

	"github.com/inferd-go/inferd/internal/automaton"
)

// Markers are the control tokens of a vocabulary by their spelling. They do not change.
type Markers struct {
	ids      map[string]int32
	byLength []string  // spellings, the longest first
	first    [256]bool // bytes that begin one
}

// NewMarkers makes the markers of a vocabulary, which may be thousands: once for all answers.
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

// prefix returns the longest marker with which a text begins; empty is none.
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

// symbols returns a text with its markers as tokens.
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

// spelling returns symbols as text, with the spellings of tokens.
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
