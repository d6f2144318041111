package wire

import (
	"regexp"
	"strings"
)

// maxTraceparent bounds a traceparent, in bytes: later versions may have more than 55.
const maxTraceparent = 128

// traceparent is the form in W3C's Trace Context: version, trace, parent and flags. Versions after 00
// may have more behind it.
var traceparent = regexp.MustCompile(`^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?$`)

// CheckTraceparent refuses a text that is no traceparent; an empty one is none.
func CheckTraceparent(text string) error {
	const (
		version = len("00")
		whole   = len("00-0123456789abcdef0123456789abcdef-0123456789abcdef-00")
	)
	valid := func() bool {
		if len(text) > maxTraceparent || !traceparent.MatchString(text) {
			return false
		}
		parts := strings.SplitN(text, "-", 4)
		zero := strings.Trim(parts[1], "0") == "" || strings.Trim(parts[2], "0") == ""
		return !zero && text[:version] != "ff" && (text[:version] != "00" || len(text) == whole)
	}
	if text != "" && !valid() {
		return Invalid("traceparent has not the form of W3C's Trace Context, such as 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	}
	return nil
}
