// Package bridge serves the daemon's models over HTTP, in the dialects of other servers. For each
// dialect a package below wire decodes requests and encodes answers. The bridge has the common
// parts: routes, keys, origins, limits, the time at which headers are sent, and keep-alives. The
// queue of requests and the source of answers are behind [exchange.Runner].
//
// A request passes these checks in order,
//
//	host ─▶ origin ─▶ access ─▶ body ─▶ ready? ─▶ decode ─▶ exchange
//
// and ends at the first check that refuses it. Pure functions make the decisions; this file and the
// files for bodies and replies carry them out.
package bridge

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inferd-go/inferd/internal/exchange"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/listen"
	"github.com/inferd-go/inferd/internal/quota"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// A Bridge is an [http.Handler] over the daemon's models. It can serve before the models are known:
// requests wait until [Bridge.Open]. It stops with its Runner, and cannot be used again.
type Bridge struct {
	// Runner answers the requests. The bridge also uses its Log and its Journal.
	Runner *exchange.Runner
	// Access holds the rules for clients.
	Access Access
	// Hosts are further names that the header Host of a request may have. Localhost, names below it
	// and loopback addresses are always allowed; other hosts are refused.
	Hosts []string
	// Origins are the origins of the web pages that may use the bridge, in addition to its own
	// pages. An element is an origin, or a scheme with any name, such as chrome-extension://*.
	Origins []string
	// AnyModel sends requests with an unknown model to the default entry.
	AnyModel bool
	// Page serves browsers; nil means that there is no page.
	Page Page
	// ReadyTimeout bounds two times: how long a request waits until the daemon is ready, and how
	// long a loading engine delays the status of an answer. 0 means 30 s.
	ReadyTimeout time.Duration
	// WriteTimeout bounds the time that a client may take to read a piece of its answer; 0 means no
	// limit.
	WriteTimeout time.Duration

	// Pull brings models into the model store. It may be set until Open; nil pulls nothing.
	Pull Pull

	// RetryAfter estimates the time after which a refused request is likely to succeed, for the
	// header Retry-After. The request has no task if it was refused before it was decoded. A nil
	// function, and an estimate below 1 s, mean 1 s.
	RetryAfter func(*infer.Request) time.Duration

	// UserOf identifies TCP clients; nil means that they are unknown.
	UserOf func(*net.TCPConn) (uid uint32, err error)
	// Conns, Slots and Memory limit connections and bodies together with those of the sockets; nil
	// means no limit.
	Conns  *quota.Quota
	Slots  *listen.Slots
	Memory *quota.Quota

	draining atomic.Bool
	entries  atomic.Pointer[func() []Entry] // nil until Open
	once     sync.Once                      // guards the creation of ready
	ready    chan struct{}                  // closed by Open
	started  time.Time                      // time of Open
}

// An Entry is a model that the daemon serves. A field is 0 or empty if its value is unknown.
type Entry struct {
	Name         string
	Aliases      []string
	Can          infer.Abilities
	Slots        int    // requests that can run at once
	NCtx         int    // size of the context in tokens
	Params, Size uint64 // number of weights, and their size in bytes
	OnGPU        bool   // some layers are computed on a GPU
	Digest       string // digest of the model's content

	Architecture, Quantization string
	Template                   string // chat template, in Jinja
	Loading                    bool   // the engine does not answer at present, and requests wait
}

func (e *Entry) hasName(name string) bool { return name == e.Name || slices.Contains(e.Aliases, name) }

// Time limits and sizes of requests.
const (
	headerTimeout  = 10 * time.Second
	bodyTimeout    = time.Minute
	idleTimeout    = 2 * time.Minute
	maxHeader      = 64 << 10 // bytes
	maxBody        = 64 << 20 // bytes
	defaultTimeout = 30 * time.Second
)

// Open begins to answer requests. entries returns the daemon's models in the order of the config.
func (b *Bridge) Open(entries func() []Entry) {
	b.started = time.Now()
	b.entries.Store(&entries)
	close(b.readyChannel())
}

func (b *Bridge) readyChannel() chan struct{} {
	b.once.Do(func() { b.ready = make(chan struct{}) })
	return b.ready
}

// The errors of requests that arrive before the daemon is ready, or during its shutdown.
var (
	errLoading  = infer.Errorf(infer.Unavailable, "the models are still being loaded")
	errDraining = infer.Errorf(infer.Unavailable, "daemon is shutting down")
)

// isOpen reports whether Open has been called.
func (b *Bridge) isOpen() bool { return b.entries.Load() != nil }

func (b *Bridge) readyTimeout() time.Duration {
	if b.ReadyTimeout <= 0 {
		return defaultTimeout
	}
	return b.ReadyTimeout
}

// await waits until the bridge is open. It returns an error after readyTimeout, or when the runner
// stops or ctx ends.
func (b *Bridge) await(ctx context.Context) error {
	ready := b.readyChannel()
	timer := time.NewTimer(b.readyTimeout())
	defer timer.Stop()
	select {
	case <-ready:
		return nil
	case <-timer.C:
		return errLoading
	case <-b.Runner.Closed():
		return errDraining
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// A call is a request in the bridge, with the identity of its client.
type call struct {
	bridge *Bridge
	w      http.ResponseWriter
	r      *http.Request
	at     route
	below  string // the path below the route's path
	id     string // 24 hex digits
	reqID  string // id with its prefix
	conn   *conn  // nil if the request did not come through [Bridge.Serve]
	peer   infer.Peer
	local  bool  // the peer is on this machine
	held   int64 // bytes taken from Memory

	// These are parts of the call, because separate allocations would cost a noticeable part of the
	// time of a short answer.
	request infer.Request
	reply   reply
	values  [3]string // values of headers
}

// header sets a header. i is the index in values at which the value is stored.
func (c *call) header(i int, name, value string) {
	c.values[i] = value
	c.w.Header()[name] = c.values[i : i+1 : i+1]
}

// Indices in values.
const (
	idPlace = iota
	typePlace
	lengthPlace
)

// ServeHTTP answers a request.
func (b *Bridge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{bridge: b, w: w, r: r, reqID: newID(), conn: connOf(r.Context())}
	c.id = c.reqID[len(idPrefix):]
	c.at, c.below = find(r)
	c.at = b.pageOr(c.at, r)
	c.peer, c.local = c.conn.client()
	defer c.release()
	h := w.Header()
	c.header(idPlace, "Request-Id", c.reqID)
	h["X-Request-Id"] = h["Request-Id"]
	h["X-Content-Type-Options"], h["Cross-Origin-Resource-Policy"], h["Vary"] = nosniff, sameOrigin, varyOrigin
	if b.draining.Load() || b.Runner.Draining() {
		h["Connection"] = []string{"close"}
	}
	if err := c.screen(); err != nil {
		c.refuse(err) //nolint:contextcheck // the call has the context of the request
		return
	}
	if preflight(r) {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	c.route() //nolint:contextcheck // as above
}

// Values of headers in all answers.
var (
	nosniff    = []string{"nosniff"}
	sameOrigin = []string{"same-origin"}
	varyOrigin = []string{"Origin"}
	noCache    = []string{"no-cache"}
)

// idPrefix is the prefix of request IDs.
const idPrefix = "req_"

// newID returns a unique ID for a request, with its prefix. It is not a secret.
func newID() string {
	var raw [12]byte
	binary.LittleEndian.PutUint64(raw[:], rand.Uint64())  //nolint:gosec // no secret
	binary.LittleEndian.PutUint32(raw[8:], rand.Uint32()) //nolint:gosec // no secret
	var text [len(idPrefix) + 2*len(raw)]byte
	hex.Encode(text[copy(text[:], idPrefix):], raw[:])
	return string(text[:])
}

// requestID returns the ID of the request in headers and in the activity log.
func (c *call) requestID() string { return c.reqID }

// screen checks the host, the origin and the access of a request. It returns the error that refuses
// the request, or nil.
func (c *call) screen() error {
	b, r := c.bridge, c.r
	if !fileDecides(c.peer) {
		if err := checkHost(r.Host, b.Hosts); err != nil {
			return err
		}
	}
	origin, err := checkOrigin(r, b.Origins)
	if err != nil {
		return err
	}
	allowOrigin(c.w.Header(), r, origin)
	if preflight(r) || c.at.public {
		return nil // a preflight or a public path needs no key
	}
	if c.peer, err = b.Access.admit(c.peer, c.local, r.Header); err != nil {
		return err
	}
	if fromBrowser(r) && r.Method == http.MethodPost && !isJSON(r.Header.Get("Content-Type")) {
		return web.Refused(http.StatusUnsupportedMediaType, "", "a page must send Content-Type: application/json")
	}
	if coding := r.Header.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		return web.Refused(http.StatusUnsupportedMediaType, "", "Content-Encoding %.32q is not supported", coding)
	}
	return nil
}

// health answers GET /health: the bridge is loading, draining or ready.
func (c *call) health() {
	switch {
	case !c.bridge.isOpen():
		c.sendJSON(http.StatusServiceUnavailable, []byte(`{"status":"loading"}`))
	case c.bridge.Runner.Draining():
		c.sendJSON(http.StatusServiceUnavailable, []byte(`{"status":"draining"}`))
	default:
		c.sendJSON(http.StatusOK, []byte(`{"status":"ok"}`))
	}
}

// refuse answers with an error, and records it.
func (c *call) refuse(cause error) {
	b := c.bridge
	if b.Runner.Journal != nil {
		b.Runner.Journal.Request(&exchange.Record{
			Peer: c.peer, Dialect: c.at.dialect.name, Outcome: exchange.Unreadable, Code: infer.CodeOf(cause),
		})
	}
	if infer.CodeOf(cause) == infer.Internal {
		b.Runner.Log.LogAttrs(c.r.Context(), slog.LevelError, "request failed", slog.Any("err", cause))
	}
	c.fail(cause)
}

// fail sends an error as the whole answer, with the headers for clients that retry.
func (c *call) fail(cause error) {
	h := c.w.Header()
	switch infer.CodeOf(cause) {
	case infer.Malformed: // a retry would fail as well
		h["X-Should-Retry"] = []string{"false"}
	case infer.Busy, infer.Unavailable:
		h["Retry-After"] = []string{c.retryAfter()}
	case infer.Invalid, infer.TooLarge, infer.Internal, infer.Unsupported:
	}
	status, body := c.at.dialect.failure(cause, c.requestID())
	if status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer")
	}
	c.sendJSON(status, body)
}

// retryAfter returns the value of the header Retry-After, in seconds.
func (c *call) retryAfter() string {
	wait := time.Second
	if estimate := c.bridge.RetryAfter; estimate != nil {
		wait = max(wait, estimate(&c.request))
	}
	return strconv.FormatInt(int64((wait+time.Second-1)/time.Second), 10)
}

// sendJSON sends a JSON body as the whole answer.
func (c *call) sendJSON(status int, body []byte) { c.send(status, "application/json", body) }

// send sends a whole answer. It ignores a client that has hung up.
func (c *call) send(status int, contentType string, body []byte) {
	c.header(typePlace, "Content-Type", contentType)
	c.header(lengthPlace, "Content-Length", strconv.Itoa(len(body)))
	c.w.WriteHeader(status)
	_, _ = c.w.Write(body)
}

// list returns the daemon's models, or nil before Open.
func (b *Bridge) list() []Entry {
	entries := b.entries.Load()
	if entries == nil {
		return nil
	}
	return (*entries)()
}

// resolve returns the entry for a task, preferably one that can do it, and the name for the router,
// which is empty if the router may use any model. An unknown name is an error, unless AnyModel is
// set. If name is empty and there are no entries, the entry is empty, and the router refuses the
// request.
func (b *Bridge) resolve(name string, task infer.Task) (entry Entry, routed string, err error) {
	var found *Entry
	list := b.list()
	known := false
	for _, anyName := range []bool{false, name == "" || b.AnyModel} {
		for i := range list {
			e := &list[i]
			if !anyName && !e.hasName(name) {
				continue
			}
			known = true
			if found == nil || !found.Can.Do(task) && e.Can.Do(task) {
				found = e
			}
		}
		if found != nil {
			if anyName {
				return *found, "", nil
			}
			return *found, name, nil
		}
	}
	if !known && name != "" {
		return Entry{}, "", web.UnknownModel(name)
	}
	return Entry{}, "", nil // the router gives the reason
}

// loading reports whether a task has to wait: there are entries that can do it, and all of them are
// loading.
func (b *Bridge) loading(task infer.Task) bool {
	name, found := infer.ModelOf(task), false
	for _, e := range b.list() {
		if name != "" && !e.hasName(name) || !e.Can.Do(task) {
			continue
		}
		if !e.Loading {
			return false
		}
		found = true
	}
	return found
}
