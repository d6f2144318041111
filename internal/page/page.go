// Package page serves the web page: a chat and the state of the daemon. Its files, in the folder
// files, are embedded without a build step. Its live paths send the events of the admin socket, the
// stats of the control socket, and the activity log. The chat sends its requests to the HTTP
// interface, like any other client, so this package handles no models and no requests for
// inference. Package bridge controls access.
package page

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/inferd-go/inferd/client/stats"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/status"
)

// A Page serves / to browsers, and all paths below /inferd/. Its fields must not change while it
// serves. Board and Stats must not be nil.
type Page struct {
	Board *status.Board
	// Stats returns the present load of the daemon. It must not block for long, because the answer
	// waits for it.
	Stats func(context.Context) *stats.Daemon
	// Log returns the newest lines of the activity log, oldest first; nil means that there is no
	// log.
	Log func(lines int) ([][]byte, error)
	// UID is the daemon's user. Only clients of this user without a key see everything.
	UID int
}

// The paths of the page.
const (
	root      = "/"
	below     = "/inferd/"
	fileRoot  = below + "page/"
	eventPath = below + "events"
	statsPath = below + "stats"
	logPath   = below + "log"
)

// Takes reports whether a request is for the page. A request for / is for the page only if the
// client accepts HTML, since programs other than browsers also request /.
func (p *Page) Takes(r *http.Request) bool {
	if r.URL.Path == root {
		return isRead(r) && strings.Contains(r.Header.Get("Accept"), "text/html")
	}
	return strings.HasPrefix(r.URL.Path, below)
}

// Public reports whether a path needs no key. The files of the page need none: users type their key
// into the page, and the files are the same for all clients.
func (p *Page) Public(path string) bool {
	return path == root || strings.HasPrefix(path, fileRoot)
}

func isRead(r *http.Request) bool {
	return r.Method == http.MethodGet || r.Method == http.MethodHead
}

// Serve answers a request of peer for the page.
func (p *Page) Serve(w http.ResponseWriter, r *http.Request, peer infer.Peer) {
	if !isRead(r) {
		w.Header().Set("Allow", "GET, HEAD")
		refuse(w, http.StatusMethodNotAllowed, r.URL.Path+" needs the method GET")
		return
	}
	switch path := r.URL.Path; path {
	case eventPath:
		p.events(w, r, peer)
	case statsPath:
		p.stats(w, r, peer)
	case logPath:
		p.log(w, peer)
	default:
		name := strings.TrimPrefix(path, fileRoot)
		if path == root {
			name = "index.html"
		}
		if f := files()[name]; f != nil {
			f.serve(w, r)
			return
		}
		refuse(w, http.StatusNotFound, "there is no "+cut(path))
	}
}

// cut returns the first 64 bytes of path, quoted for a message.
func cut(path string) string {
	const most = 64
	if len(path) > most {
		path = path[:most]
	}
	return strconv.QuoteToASCII(path)
}

// refuse sends an error in the form of the inference routes.
func refuse(w http.ResponseWriter, code int, message string) {
	var body struct {
		Error struct {
			Message string  `json:"message"`
			Type    string  `json:"type"`
			Param   *string `json:"param"`
			Code    *string `json:"code"`
		} `json:"error"`
	}
	body.Error.Message, body.Error.Type = message, "invalid_request_error"
	if code >= http.StatusInternalServerError {
		body.Error.Type = "api_error"
	}
	text, err := json.Marshal(body)
	if err != nil {
		text = []byte("{}") // cannot happen: strings are always encoded
	}
	send(w, code, text)
}

// send sends a whole answer as JSON. It ignores a client that has hung up.
func send(w http.ResponseWriter, code int, body []byte) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout)) // a recorder in tests has no deadlines
	w.WriteHeader(code)
	_, _ = w.Write(body)
}
