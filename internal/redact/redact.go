// Package redact removes secrets from text for logs and records. It matches patterns, and in doubt
// removes too much. Each secret is replaced by a marker that names the rule. Counts such as
// prompt_tokens are left unchanged. The rules do not depend on the source of a text.
package redact

import (
	"regexp"
	"strings"
)

// The markers that replace secrets.
const (
	authHeader = "[REDACTED:auth-header]"
	secretKV   = "[REDACTED:secret-kv]"
	jwt        = "[REDACTED:jwt]"
	apiKey     = "[REDACTED:api-key]" //nolint:gosec // a marker, not a key
	awsAccess  = "[REDACTED:aws-access]"
	awsSession = "[REDACTED:aws-session]"
)

// White space, which may be escaped as \t, \n, \r, \u0020 and the like.
const space = `(?:\s|\\+[tnr]|\\+u00(?:20|09|0a|0d))`

// A quotation mark: one of three characters, escaped any number of times.
const quote = "\\\\*[\"'`]"

// An escape sequence may precede a word, and its last letter must not hide the start of the word. A
// line break, for example, is spelt \n, so "password" after it looks like "npassword".
const escape = `\\(?:[abfnrtv]|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|x[0-9A-Fa-f]{2})`

// nameStart matches the word boundary or the text before the name of a secret, such as password. keyStart
// matches the text before a key that is recognised by its own form, such as sk-….
const (
	nameStart = `(?:\b|_|` + escape + `)`
	keyStart  = `(^|[^A-Za-z0-9]|` + escape + `)`
)

var (
	// A header such as "authorization: bearer …": the scheme and its token are secret.
	header = regexp.MustCompile(`(?i)(authorization(?:` + quote + `)?` + space + `*[:=]` + space + `*(?:` + quote + `)?)(?:bearer|basic|token)` + space + `+[\w.~+/=%-]{8,}`)
	bearer = regexp.MustCompile(`(?i)(` + nameStart + `)bearer` + space + `+[\w.~+/=%-]{8,}`)

	// The name of a secret, the separator, and the opening quote of its value, if any.
	named = regexp.MustCompile(`(?i)` + nameStart + `(?:password|passwd|pwd|api[_-]?key|secret|token)(?:` + quote + `)?` + space + `*[:=]` + space + `*(` + quote + `)?`)

	marked = []struct {
		rule   *regexp.Regexp
		marker string
	}{
		{regexp.MustCompile(keyStart + `eyJ[\w-]+\.[\w-]+\.[\w-]*`), jwt},
		{regexp.MustCompile(keyStart + `sk-[\w-]{16,}`), apiKey},
		{regexp.MustCompile(keyStart + `xox[baps]-[\w-]{10,}`), apiKey},
		{regexp.MustCompile(keyStart + `gh[posu]_\w{20,}`), apiKey},
		{regexp.MustCompile(keyStart + `pat-[\w-]{16,}`), apiKey},
		{regexp.MustCompile(keyStart + `thingspat_[\w-]{16,}`), apiKey},
		{regexp.MustCompile(keyStart + `AKIA[A-Z0-9]{16}`), awsAccess},
		{regexp.MustCompile(keyStart + `ASIA[A-Z0-9]{16}`), awsSession},
	}
)

// signs lists strings by their first letter. Every text that a rule matches contains at least one
// of these strings, so a text that contains none is not searched further.
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

// suspect reports whether a rule may match text. It takes one pass over the text.
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

// Text returns text without secrets. It returns text itself if no rule can match.
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

// values replaces each value that follows the name of a secret by a marker.
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
		n := unquoted(rest)
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

// minUnquoted is the minimum length, in bytes, of an unquoted value that is redacted.
const minUnquoted = 4

// unquoted returns the length of the unquoted value at the start of rest. It returns 0 if the value is
// shorter than minUnquoted.
func unquoted(rest string) int {
	n := strings.IndexAny(rest, " \t\r\n\"',&}")
	if n < 0 {
		n = len(rest)
	}
	if n > 0 && n < len(rest) && (rest[n] == '"' || rest[n] == '\'') { // the backslashes escape the quote
		n = len(strings.TrimRight(rest[:n], `\`))
	}
	if n < minUnquoted {
		return 0
	}
	return n
}

// quoted returns the length of the quoted value at the start of rest, which follows the opening quote
// open. The value ends before a quote with at most as many escapes as open, or at the end of rest.
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
