package main

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/inferd-go/inferd/client"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/quota"
	"github.com/inferd-go/inferd/internal/wire/refhttp"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// Limits for clients: times, bytes and connections.
const (
	headerTimeout = 10 * time.Second
	bodyTimeout   = time.Minute
	writeTimeout  = time.Minute // for one write of an answer
	idleTimeout   = 2 * time.Minute
	maxHeader     = 64 << 10 // bytes
	maxBody       = 8 << 20  // bytes
	maxConns      = 1024
	maxMemory     = 256 << 20 // bytes of all bodies together
)

// A bridge answers requests over the sockets of a daemon.
type bridge struct {
	client *client.Client
	model  string // name of the model in answers
	token  string // that clients must have; empty means none
	local  bool   // the program listens on a loopback address
	log    *slog.Logger

	bodies   quota.Quota
	decoding sync.Mutex // held while media are decoded, which takes much memory
	once     sync.Once  // guards the making of salt
	salt     [16]byte
}

// bodyBytes is the only caller in the quota for bodies: the bridge does not identify its clients.
var bodyBytes = infer.Caller{}

// ServeHTTP answers a request.
func (b *bridge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if b.local && !web.IsLocal(r.Host, nil) {
		b.fail(w, refhttp.Plain(http.StatusForbidden, "the host is not this machine"))
		return
	}
	route, known := routes[r.URL.Path]
	switch {
	case strings.HasPrefix(r.URL.Path, "/v1/") && !b.authorized(r):
		b.fail(w, refhttp.ErrUnauthorized)
	case !known:
		w.WriteHeader(http.StatusNotFound)
	case r.Method != route.method && (r.Method != http.MethodHead || route.method != http.MethodGet):
		w.Header().Set("Allow", route.method)
		w.WriteHeader(http.StatusMethodNotAllowed)
	default:
		route.serve(b, w, r)
	}
}

// A route answers the requests of a path.
type route struct {
	method string // GET includes HEAD
	serve  func(*bridge, http.ResponseWriter, *http.Request)
}

var routes = map[string]route{
	"/health":              {http.MethodGet, (*bridge).health},
	"/v1/models":           {http.MethodGet, (*bridge).models},
	"/v1/chat/completions": {http.MethodPost, (*bridge).chat},
	"/v1/embeddings":       {http.MethodPost, (*bridge).embeddings},
}

// health reports that the bridge runs. It does not check the daemon.
func (b *bridge) health(w http.ResponseWriter, _ *http.Request) {
	b.send(w, http.StatusOK, []byte(`{"status":"ok"}`))
}

func (b *bridge) models(w http.ResponseWriter, _ *http.Request) {
	b.send(w, http.StatusOK, refhttp.AppendModels(nil, b.model))
}

// bearer returns the token in the Authorization header of a request, or "" if there is none.
func bearer(r *http.Request) string {
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return token
}

// authorized reports whether a request has the token, or none is required. It compares hashes, so
// that the time does not depend on the token.
func (b *bridge) authorized(r *http.Request) bool {
	if b.token == "" {
		return true
	}
	got, want := sha256.Sum256([]byte(bearer(r))), sha256.Sum256([]byte(b.token))
	return subtle.ConstantTimeCompare(got[:], want[:]) == 1
}

// clientOf returns the client name of a request, by which the daemon divides the bridge's share
// fairly. Requests with the same bearer token have the same name, which does not reveal the token.
// Without a token the name is empty.
func (b *bridge) clientOf(r *http.Request) string {
	key := bearer(r)
	if key == "" {
		return ""
	}
	b.once.Do(func() { _, _ = rand.Read(b.salt[:]) }) // cannot fail
	mac := hmac.New(sha256.New, b.salt[:])
	_, _ = io.WriteString(mac, key)
	return "key-" + hex.EncodeToString(mac.Sum(nil)[:8])
}

// read reads the whole body of a request before the answer begins, because net/http notices a
// client's hang-up only after the body has been read. release, if not nil, must be called to free
// the body's share of memory.
func (b *bridge) read(w http.ResponseWriter, r *http.Request) (body []byte, release func(), err error) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	isJSON := kind == "application/json" || strings.HasPrefix(kind, "application/") && strings.HasSuffix(kind, "+json")
	if err != nil || !isJSON {
		return nil, nil, refhttp.Plain(http.StatusUnsupportedMediaType, "Content-Type must be application/json")
	}
	if coding := r.Header.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		return nil, nil, refhttp.Plain(http.StatusUnsupportedMediaType, "Content-Encoding is not supported")
	}
	if r.ContentLength > maxBody {
		w.Header().Set("Connection", "close")
		return nil, nil, errTooLarge
	}
	memory := r.ContentLength
	if memory < 0 {
		memory = maxBody
	}
	ctx, cancel := context.WithTimeout(r.Context(), bodyTimeout)
	defer cancel()
	if b.bodies.Acquire(ctx, bodyBytes, memory, 0) != nil {
		return nil, nil, refhttp.Plain(http.StatusServiceUnavailable, "too many large requests")
	}
	release = func() { b.bodies.Release(bodyBytes, memory) }
	if err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout)); err != nil {
		return nil, release, err
	}
	body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err == nil {
		err = http.NewResponseController(w).SetReadDeadline(time.Time{})
	}
	return body, release, bodyError(err)
}

var errTooLarge = refhttp.Plain(http.StatusRequestEntityTooLarge, "the body has more than %d bytes", maxBody)

// bodyError returns the error to answer when a body could not be read.
func bodyError(err error) error {
	if err == nil {
		return nil
	}
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return errTooLarge
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return refhttp.Plain(http.StatusRequestTimeout, "the body took longer than %s", bodyTimeout)
	}
	return refhttp.Plain(http.StatusBadRequest, "the body cannot be read")
}

// fail sends an error as the whole answer, with the headers that belong to its status.
func (b *bridge) fail(w http.ResponseWriter, f *refhttp.Error) {
	h := w.Header()
	switch f.Status {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		h.Set("Retry-After", "1")
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", "Bearer")
	case http.StatusRequestTimeout:
		h.Set("Connection", "close")
	}
	if f.Plain {
		h.Set("Content-Type", "text/plain; charset=utf-8")
	}
	b.send(w, f.Status, f.Append(nil))
}

// send sends a whole answer. It ignores write errors, because then the client has gone.
func (b *bridge) send(w http.ResponseWriter, status int, body []byte) {
	h := w.Header()
	if h.Get("Content-Type") == "" {
		h.Set("Content-Type", "application/json")
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	_ = limitWrite(w)
	w.WriteHeader(status)
	_, _ = w.Write(body) //nolint:gosec // G705: nosniff, and never of the type of a page
}

// limitWrite sets the deadline of the next writes to writeTimeout from now.
func limitWrite(w http.ResponseWriter) error {
	return http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
}

// limit returns a listener with at most n open connections. Further connections wait until one is
// closed.
func limit(ln net.Listener, n int) net.Listener {
	return &limited{Listener: ln, free: make(chan struct{}, n), closed: make(chan struct{})}
}

type limited struct {
	net.Listener

	free   chan struct{}
	closed chan struct{}
	once   sync.Once
}

// Accept waits until fewer than the maximum number of connections are open, and accepts one.
func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.free <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	nc, err := l.Listener.Accept()
	if err != nil {
		<-l.free
		return nil, err
	}
	return &counted{Conn: nc, release: sync.OnceFunc(func() { <-l.free })}, nil
}

// Close ends Accept, and closes the listener.
func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// A counted is a connection that counts towards the limit of its listener until it is closed.
type counted struct {
	net.Conn

	release func()
}

// Close closes the connection.
func (c *counted) Close() error {
	defer c.release()
	return c.Conn.Close()
}

// CloseWrite closes the sending half, so that the client sees a regular end of the stream.
func (c *counted) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
