package web

import (
	"net/http"

	"github.com/inferd-go/inferd/internal/wire"
)

// LocalOnlyHeader is the header that demands that no other machine gets a request.
const LocalOnlyHeader = "Inferd-Local-Only"

// LocalOnly reads LocalOnlyHeader. A value that is neither true nor false is an error, because the
// client relies on the condition.
func LocalOnly(h http.Header) (localOnly bool, err error) {
	for _, value := range h[LocalOnlyHeader] {
		switch value {
		case "true":
			localOnly = true
		case "false":
		default:
			return false, Invalid("", "the header %s must be true or false", LocalOnlyHeader)
		}
	}
	return localOnly, nil
}

// Traceparent returns the place of a request in its client's trace. As W3C demands, an invalid header,
// and several ones, are ignored.
func Traceparent(h http.Header) string {
	all := h["Traceparent"]
	if len(all) != 1 || wire.CheckTraceparent(all[0]) != nil {
		return ""
	}
	return all[0]
}
