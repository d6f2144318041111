// Package printable makes text that came from elsewhere fit for errors, logs and statistics:
// one short line of printable characters. It does not know where a text comes from, and takes
// no secrets out of it.
package printable

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Max is how many bytes of a text are kept.
const Max = 256

// Text returns the beginning of a text, in whole characters. Unprintable characters become
// spaces, invalid UTF-8 becomes U+FFFD; surrounding spaces are cut.
func Text(text string) string {
	text = text[:min(len(text), 16*Max)] // bounds the work on a long text
	text = strings.TrimSpace(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "\uFFFD")))
	if len(text) <= Max {
		return text
	}
	end := Max
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return strings.TrimRight(text[:end], " ")
}
