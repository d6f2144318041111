package dialect

import (
	"regexp"
	"strings"
)

// marker matches the markers of templates. The closing > of a tag may be missing.
var marker = regexp.MustCompile(`<[^<>\s]*>?|\[/?[A-Z_]+\]`)

// markerAt returns the offsets of the marker that offset at divides; ok is false if it divides none.
func markerAt(text string, at int) (from, to int, ok bool) {
	for _, m := range marker.FindAllStringIndex(text, -1) {
		if m[0] < at && at < m[1] {
			return m[0], m[1], true
		}
	}
	return 0, 0, false
}

// commonPrefix returns the length in bytes of the longest common prefix that divides no marker of either text.
func commonPrefix(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	for range 2 {
		for _, text := range []string{a, b} {
			if from, _, ok := markerAt(text, n); ok {
				n = from
			}
		}
	}
	return n
}

// commonSuffix returns the length in bytes of the longest common suffix that divides no marker of either text.
func commonSuffix(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[len(a)-1-n] == b[len(b)-1-n] {
		n++
	}
	for range 2 {
		for _, text := range []string{a, b} {
			if _, to, ok := markerAt(text, len(text)-n); ok {
				n = len(text) - to
			}
		}
	}
	return n
}

// divide cuts between, the text between two parts of the same spelling, into the end of the first part, a separator,
// and the beginning of the second part. before is the text in front of the first part; behind is the text that follows
// the last part.
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
