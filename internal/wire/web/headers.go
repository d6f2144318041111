package web

import (
	"net/http"

	"github.com/inferd-go/inferd/internal/wire"
)

// LocalOnlyHeader is a header. If its value is true, the request must stay on this machine.
const LocalOnlyHeader = "Inferd-Local-Only"

// LocalOnly reports whether LocalOnlyHeader is true. A value other than true and false is an error,
// because the client relies on the header.
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

// Traceparent returns the value of the header Traceparent, which assigns a request to a trace of
// the client. An invalid header, or more than one, is ignored, as W3C's Trace Context requires.
func Traceparent(h http.Header) string {
	all := h["Traceparent"]
	if len(all) != 1 || wire.CheckTraceparent(all[0]) != nil {
		return ""
	}
	return all[0]
}
