package page

import (
	"bytes"
	"net/http"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/status"
	"github.com/inferd-go/inferd/internal/wire/admin"
)

const (
	// writeTimeout bounds the write of one event or answer. The connection of a client that does
	// not read for so long is closed.
	writeTimeout = time.Minute
	// silence is the interval at which the stream of events sends a comment. A client that has
	// received nothing for longer can assume that the connection is broken.
	silence = 15 * time.Second
	// logLines is the number of log records that are sent.
	logLines = 200
)

// events sends the backlog of the admin socket, then each event as it happens, as server-sent
// events. The stream ends when the client hangs up or lags, or after the event [status.Draining].
func (p *Page) events(w http.ResponseWriter, r *http.Request, peer infer.Peer) {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	if r.Method == http.MethodHead {
		w.WriteHeader(http.StatusOK)
		return
	}
	sub := p.Board.Subscribe()
	defer sub.Close()
	s := stream{control: http.NewResponseController(w), w: w, all: p.owns(peer)}
	for _, ev := range sub.Backlog {
		if !s.send(ev) {
			return
		}
	}
	alive := time.NewTicker(silence)
	defer alive.Stop()
	for {
		select {
		case ev, ok := <-sub.Events():
			if !ok || !s.send(ev) {
				return
			}
		case <-alive.C:
			if !s.write([]byte(": alive\n\n")) {
				return
			}
		case <-r.Context().Done():
			return
		}
	}
}

// A stream writes events to one client.
type stream struct {
	control *http.ResponseController
	w       http.ResponseWriter
	all     bool // the client is the daemon's user, and sees everything
}

// send writes an event. It reports whether further events can be sent.
func (s *stream) send(ev status.Event) bool {
	if !s.all {
		ev = public(ev)
	}
	_, last := ev.(status.Draining)
	return s.write(append(append([]byte("data: "), admin.Encode(ev)...), "\n\n"...)) && !last
}

func (s *stream) write(text []byte) bool {
	if s.control.SetWriteDeadline(time.Now().Add(writeTimeout)) != nil {
		return false
	}
	if _, err := s.w.Write(text); err != nil {
		return false
	}
	return s.control.Flush() == nil
}

// stats sends the part of the daemon's load that the client may see.
func (p *Page) stats(w http.ResponseWriter, r *http.Request, peer infer.Peer) {
	body, err := json.Marshal(p.view(p.Stats(r.Context()), peer))
	if err != nil {
		refuse(w, http.StatusInternalServerError, "internal error")
		return
	}
	send(w, http.StatusOK, body)
}

// log sends the newest records of the activity log as an array, oldest first. It omits lines that
// are not JSON: a crash has cut them. Only the daemon's user gets the records, because they are
// about callers of all users.
func (p *Page) log(w http.ResponseWriter, peer infer.Peer) {
	switch {
	case !p.owns(peer):
		refuse(w, http.StatusForbidden, "the log is for the daemon's own user, without a key")
		return
	case p.Log == nil:
		send(w, http.StatusOK, []byte("[]"))
		return
	}
	lines, err := p.Log(logLines)
	if err != nil {
		refuse(w, http.StatusInternalServerError, err.Error())
		return
	}
	lines = slices.DeleteFunc(lines, func(l []byte) bool { return !jsontext.Value(l).IsValid() })
	send(w, http.StatusOK, append(append([]byte("["), bytes.Join(lines, []byte(","))...), ']'))
}
