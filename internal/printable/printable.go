// Package printable converts untrusted text to one short line of printable characters, for errors,
// logs and statistics. It does not depend on the source of a text, and does not remove secrets.
package printable

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Max is the maximum length of the result of [Text], in bytes.
const Max = 256

// Text returns the beginning of a text, at most Max bytes in whole characters. Unprintable
// characters become spaces, invalid UTF-8 becomes U+FFFD, and surrounding spaces are removed.
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
