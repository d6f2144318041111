// Package redact takes what looks like a secret out of text that is written down. It is pure
// and errs on the side of taking too much; what it takes it replaces by a marker that says
// which rule that was. Counts such as prompt_tokens survive.
package redact

import (
	"regexp"
	"strings"
)

// Markers stand where a secret was.
const (
	authHeader = "[REDACTED:auth-header]"
	secretKV   = "[REDACTED:secret-kv]"
	jwt        = "[REDACTED:jwt]"
	apiKey     = "[REDACTED:api-key]" //nolint:gosec // a marker, not a key
	awsAccess  = "[REDACTED:aws-access]"
	awsSession = "[REDACTED:aws-session]"
)

// A space may have been escaped: \t, \n, \r, \u0020 and the like.
const space = `(?:\s|\\+[tnr]|\\+u00(?:20|09|0a|0d))`

// A quote may be any of three, escaped any number of times.
const quote = "\\\\*[\"'`]"

// An escape may have come to stand before a word, and its last letter must not hide that:
// a line break before a password is \n, which makes it look like "npassword".
const escape = `\\(?:[abfnrtv]|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|x[0-9A-Fa-f]{2})`

// Where the name of a secret begins, and a key that has no name.
const (
	word  = `(?:\b|_|` + escape + `)`
	apart = `(^|[^A-Za-z0-9]|` + escape + `)`
)

var (
	// "authorization: bearer …" and whatever else is a scheme and its token.
	header = regexp.MustCompile(`(?i)(authorization(?:` + quote + `)?` + space + `*[:=]` + space + `*(?:` + quote + `)?)(?:bearer|basic|token)` + space + `+[\w.~+/=%-]{8,}`)
	bearer = regexp.MustCompile(`(?i)(` + word + `)bearer` + space + `+[\w.~+/=%-]{8,}`)

	// The name of a secret, what stands between, and the quote that opens its value, if any.
	named = regexp.MustCompile(`(?i)` + word + `(?:password|passwd|pwd|api[_-]?key|secret|token)(?:` + quote + `)?` + space + `*[:=]` + space + `*(` + quote + `)?`)

	marked = []struct {
		rule   *regexp.Regexp
		marker string
	}{
		{regexp.MustCompile(apart + `eyJ[\w-]+\.[\w-]+\.[\w-]*`), jwt},
		{regexp.MustCompile(apart + `sk-[\w-]{16,}`), apiKey},
		{regexp.MustCompile(apart + `xox[baps]-[\w-]{10,}`), apiKey},
		{regexp.MustCompile(apart + `gh[posu]_\w{20,}`), apiKey},
		{regexp.MustCompile(apart + `pat-[\w-]{16,}`), apiKey},
		{regexp.MustCompile(apart + `thingspat_[\w-]{16,}`), apiKey},
		{regexp.MustCompile(apart + `AKIA[A-Z0-9]{16}`), awsAccess},
		{regexp.MustCompile(apart + `ASIA[A-Z0-9]{16}`), awsSession},
	}
)

// signs are what a text has that any rule may match, by their first letters.
var signs = [256][]string{
	'a': {"authorization", "api_key", "api-key", "apikey", "akia", "asia"},
	'b': {"bearer"},
	'e': {"eyj"},
	'g': {"gho_", "ghp_", "ghs_", "ghu_"},
	'p': {"password", "passwd", "pwd", "pat-"},
	's': {"secret", "sk-"},
	't': {"token", "thingspat_"},
	'x': {"xox"},
}

// suspect reports in one pass whether any rule may match.
func suspect(text string) bool {
	for i := range len(text) {
		for _, sign := range signs[text[i]|0x20] {
			if len(text)-i >= len(sign) && strings.EqualFold(text[i:i+len(sign)], sign) {
				return true
			}
		}
	}
	return false
}

// Text returns text without secrets: text itself, if no rule can match.
func Text(text string) string {
	if !suspect(text) {
		return text
	}
	text = header.ReplaceAllString(text, "${1}"+authHeader)
	text = bearer.ReplaceAllString(text, "${1}"+authHeader)
	text = values(text)
	for _, m := range marked {
		text = m.rule.ReplaceAllString(text, "${1}"+m.marker)
	}
	return text
}

// values replaces what stands after the name of a secret.
func values(text string) string {
	var out strings.Builder
	for {
		m := named.FindStringSubmatchIndex(text)
		if m == nil {
			out.WriteString(text)
			return out.String()
		}
		begin := m[1]
		out.WriteString(text[:begin])
		rest := text[begin:]
		n := bare(rest)
		if m[2] >= 0 {
			n = quoted(rest, text[m[2]:m[3]])
		}
		if n > 0 && !strings.HasPrefix(rest, "[REDACTED:") {
			out.WriteString(secretKV)
			rest = rest[n:]
		}
		text = rest
	}
}

// shortest is how long a value without quotes must be to be one.
const shortest = 4

// bare returns the length of a value that no quote opened.
func bare(rest string) int {
	n := strings.IndexAny(rest, " \t\r\n\"',&}")
	if n < 0 {
		n = len(rest)
	}
	if n > 0 && n < len(rest) && (rest[n] == '"' || rest[n] == '\'') { // the backslashes are the quote's
		n = len(strings.TrimRight(rest[:n], `\`))
	}
	if n < shortest {
		return 0
	}
	return n
}

// quoted returns the length of a value, up to the quote that is escaped as often as the one
// that opened it; without one it is all that is left.
func quoted(rest, open string) int {
	escapes, mark := len(open)-1, open[len(open)-1]
	run := 0
	for i := range len(rest) {
		switch {
		case rest[i] == '\\':
			run++
			continue
		case rest[i] == mark && run <= escapes:
			return i - run
		}
		run = 0
	}
	return len(rest)
}
