package bridge

import (
	"net/http"

	"github.com/inferd-go/inferd/internal/infer"
)

// A Page answers requests for the web page.
type Page interface {
	// Takes reports whether a request is for the page.
	Takes(*http.Request) bool
	// Public reports whether a path of the page needs no key.
	Public(path string) bool
	// Serve answers a request of the given client.
	Serve(http.ResponseWriter, *http.Request, infer.Peer)
}

// pageOr returns the route of the page if the request is for the page, otherwise at.
func (b *Bridge) pageOr(at route, r *http.Request) route {
	if b.Page == nil || !b.Page.Takes(r) {
		return at
	}
	return route{
		method: r.Method, dialect: openAI, public: b.Page.Public(r.URL.Path),
		serve: func(c *call) { c.bridge.Page.Serve(c.w, c.r, c.peer) },
	}
}
