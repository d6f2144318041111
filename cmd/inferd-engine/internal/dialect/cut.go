package dialect

import (
	"regexp"
	"strings"
)

// marker matches what templates use as markers. A match may be open at its end.
var marker = regexp.MustCompile(`<[^<>\s]*>?|\[/?[A-Z_]+\]`)

// within returns the marker of text that has at strictly inside of it; ok is false if none has.
func within(text string, at int) (from, to int, ok bool) {
	for _, m := range marker.FindAllStringIndex(text, -1) {
		if m[0] < at && at < m[1] {
			return m[0], m[1], true
		}
	}
	return 0, 0, false
}

// commonPrefix returns the length of the common beginning of two texts. It divides no marker of either.
func commonPrefix(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	for range 2 {
		for _, text := range []string{a, b} {
			if from, _, ok := within(text, n); ok {
				n = from
			}
		}
	}
	return n
}

// commonSuffix returns the length of the common end of two texts. It divides no marker of either.
func commonSuffix(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[len(a)-1-n] == b[len(b)-1-n] {
		n++
	}
	for range 2 {
		for _, text := range []string{a, b} {
			if _, to, ok := within(text, len(text)-n); ok {
				n = len(text) - to
			}
		}
	}
	return n
}

// divide cuts the text between two equal parts into the end of the first, a separator, and the beginning
// of the second. before is the text in front of the first part, behind is the text at the end of the last.
func divide(before, between, behind string) (end, separator, begin string) {
	if rest, ok := strings.CutPrefix(between, behind); ok {
		if separator, ok := strings.CutSuffix(rest, before); ok {
			return behind, separator, before
		}
	}
	head, tail := commonPrefix(between, behind), commonSuffix(between, before)
	if head+tail > len(between) {
		tail = len(between) - head
	}
	return between[:head], between[head : len(between)-tail], between[len(between)-tail:]
}
