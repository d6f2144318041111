package wire

import (
	"regexp"
	"strings"
)

// maxTraceparent bounds a traceparent, in bytes. Version 00 has 55 bytes; later versions may have
// more.
const maxTraceparent = 128

// traceparent matches the form of W3C's Trace Context: version, trace ID, parent ID and flags.
// Versions after 00 may have further fields.
var traceparent = regexp.MustCompile(`^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?$`)

// CheckTraceparent returns an [infer.Invalid] error if text is neither empty nor a valid
// traceparent.
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
