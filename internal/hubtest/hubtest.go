// Package hubtest is an HTTPS server for tests that answers like hubs of models: it has the API and
// the files of Hugging Face, which redirect to signed links at a second origin, and the registry of
// Ollama. Tests script its faults, and inspect the requests that it received. It is written from
// descriptions of the hubs and was not compared with the real ones. It does not depend on the client
// under test.
package hubtest

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

// A File is a file of a repository or a blob of the registry.
type File struct {
	Content []byte // must not change
	// Digest is announced as the SHA-256 of the content; empty means the true one.
	Digest string
	// Size is announced as the size of the content; 0 means the true one.
	Size int64
	// Small marks a file that is in git itself, for which the listing has no digest.
	Small bool
}

// digest returns the announced SHA-256 of a file.
func (s *Server) digest(f *File) string {
	if f.Digest != "" {
		return f.Digest
	}
	return s.sum(f.Content)
}

// sum is Sum with a cache: hashing large content for each request would delay the answers.
func (s *Server) sum(content []byte) string {
	if len(content) == 0 {
		return Sum(nil)
	}
	s.hashing.Lock()
	defer s.hashing.Unlock()
	key := contentKey{&content[0], len(content)}
	if s.sums[key] == "" {
		s.sums[key] = Sum(content)
	}
	return s.sums[key]
}

// A contentKey is a key of Server.sums: the address of the content's first byte, and the content's size.
// Content is never changed, so the two identify it.
type contentKey struct {
	first *byte
	size  int
}

func (f *File) size() int64 {
	if f.Size != 0 {
		return f.Size
	}
	return int64(len(f.Content))
}

// Sum returns the SHA-256 of content, in hex.
func Sum(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

// The origins of the server.
const (
	Hub = "hub" // the API, the repositories and the registry
	CDN = "cdn" // the content of files
)

// A Request is the record of a request to the server.
type Request struct {
	Origin string // Hub or CDN
	Method string
	Path   string
	Query  string
	Header http.Header
	Remote string // address of the client
	From   int64  // start of its range; -1 if it has none
	To     int64  // end of its range, exclusive; -1 if open
	N      int    // number of earlier requests for the path
	Sent   int64  // bytes of content in the answer
}

// A Fault changes the answer to a request. The zero value changes nothing.
type Fault struct {
	Status      int // if not 0, the answer has only this status, Header and Body
	Body        string
	Header      http.Header   // added to the answer
	IgnoreRange bool          // answer 200 with the whole content
	Content     []byte        // send this content instead
	ETag        string        // announce this ETag instead; "-" means none
	Total       int64         // announce this total in Content-Range instead
	Shift       int64         // announce a Content-Range that is this many bytes too high
	Unranged    bool          // answer 206 without Content-Range
	Extra       int           // send this many bytes beyond the range
	NoLength    bool          // announce no length; used with IgnoreRange
	CutAfter    int64         // if > 0, close the connection after this many bytes of content
	Empty       bool          // send the headers and no body
	StallAfter  int64         // if > 0, stop sending after this many bytes, and wait until the client hangs up
	Delay       time.Duration // wait this long before the answer
}

// A Server is a hub and its CDN.
type Server struct {
	// Script, if not nil, returns the fault for a request, or nil for none. Several goroutines call
	// it at once.
	Script func(Request) *Fault
	// Token, if not empty, is required for repositories of the hub.
	Token string
	// RegistryToken, if not empty, is the token that the registry requires, and issues without a
	// login.
	RegistryToken string
	// PageSize bounds the files on a page of a listing; 0 means that there is one page.
	PageSize int
	// Slow is the time that the server takes to send each MiB of content; 0 means no delay.
	Slow time.Duration
	// Sending, if not nil, is called before each 64 KiB of content with the number of bytes that
	// Sent returns. It may block. Several goroutines call it at once.
	Sending func(sent int64)
	// WriteBuffer bounds, for each connection, the bytes that were sent and have not arrived; 0
	// leaves that to the kernel.
	WriteBuffer int

	tb       testing.TB
	ca       *authority
	hub, cdn string // addresses

	hashing sync.Mutex // guards the field below
	sums    map[contentKey]string

	mu       sync.Mutex // guards the fields below
	repos    map[string]*repo
	images   map[string][]layer
	blobs    map[string]*File // by announced digest
	links    int              // number of signed links so far
	expired  int              // links up to this number are refused
	requests []*Request
	seen     map[string]int // number of requests, by origin and path
}

type repo struct {
	commit  string
	license string
	files   map[string]*File
	order   []string
}

type layer struct {
	kind string
	file *File
}

// New starts a server, which stops at the end of the test. Its two origins have different
// addresses.
func New(tb testing.TB) *Server {
	tb.Helper()
	s := &Server{
		tb: tb, ca: newAuthority(tb), sums: make(map[contentKey]string),
		repos: make(map[string]*repo), images: make(map[string][]layer), blobs: make(map[string]*File), seen: make(map[string]int),
	}
	s.hub = s.serve("127.0.0.1", Hub, s.answerHub)
	s.cdn = s.serve("127.0.0.1", CDN, s.answerCDN)
	return s
}

// serve starts an origin and returns its address.
func (s *Server) serve(ip, origin string, answer func(http.ResponseWriter, *http.Request, *Request, *Fault)) string {
	ln, err := (&net.ListenConfig{}).Listen(s.tb.Context(), "tcp", ip+":0")
	if err != nil {
		s.tb.Fatal(err)
	}
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			req, fault := s.record(origin, r)
			if fault.Delay > 0 {
				select {
				case <-time.After(fault.Delay):
				case <-r.Context().Done():
				}
			}
			maps.Copy(w.Header(), fault.Header)
			if fault.Status != 0 {
				w.WriteHeader(fault.Status)
				_, _ = w.Write([]byte(fault.Body)) //nolint:gosec // scripted by a test; fails if the client has gone
				return
			}
			answer(w, r, req, fault)
		}),
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{s.ca.leaf(s.tb)}, MinVersion: tls.VersionTLS12},
		ReadHeaderTimeout: time.Minute,
		ErrorLog:          quiet(),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			s.mu.Lock() // so that content that the test added before the request is visible
			size := s.WriteBuffer
			s.mu.Unlock()
			if c, ok := c.(*tls.Conn); ok && size > 0 {
				if tcp, ok := c.NetConn().(*net.TCPConn); ok {
					_ = tcp.SetWriteBuffer(size) // otherwise more bytes are on their way than the test expects
				}
			}
			return ctx
		},
	}
	var served sync.WaitGroup
	served.Go(func() {
		if err := server.ServeTLS(ln, "", ""); !errors.Is(err, http.ErrServerClosed) {
			s.tb.Errorf("%s: %v", origin, err)
		}
	})
	s.tb.Cleanup(func() {
		_ = server.Close() // closes its connections, which are no longer needed
		served.Wait()
	})
	return ln.Addr().String()
}

// Serve starts another origin of the CDN at the local address ip, on a free port, and returns its URL.
func (s *Server) Serve(ip string) string { return "https://" + s.serve(ip, CDN, s.answerCDN) }

// URL returns the endpoint of the hub and of the registry.
func (s *Server) URL() string { return "https://" + s.hub }

// CDNURL returns the endpoint of the CDN.
func (s *Server) CDNURL() string { return "https://" + s.cdn }

// Roots returns a pool with the certificate of the server's authority.
func (s *Server) Roots() *x509.CertPool { return s.ca.pool }

// Certificate returns a certificate of the server's authority, for another server of a test.
func (s *Server) Certificate() tls.Certificate { return s.ca.leaf(s.tb) }

// RootsFile writes the certificate of the server's authority to a file, for SSL_CERT_FILE, and
// returns its path.
func (s *Server) RootsFile(tb testing.TB) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "ca.pem")
	if err := os.WriteFile(path, s.ca.pem, 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}

// AddRepo adds a repository "OWNER/NAME" with one commit, on the branch main. Files are listed in
// the order of their paths.
func (s *Server) AddRepo(name, commit, license string, files map[string]*File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &repo{commit: commit, license: license, files: files, order: slices.Sorted(maps.Keys(files))}
	s.repos[name] = r
	for _, f := range files {
		s.blobs[s.digest(f)] = f
	}
}

// AddImage adds an image "NAME:TAG" of Ollama's library with a model, and with a projector if it is
// not nil.
func (s *Server) AddImage(name string, model, projector *File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	layers := []layer{
		{"application/vnd.ollama.image.template", &File{Content: []byte("{{ .Prompt }}")}},
		{"application/vnd.ollama.image.model", model},
		{"application/vnd.ollama.image.params", &File{Content: []byte("{}")}},
	}
	if projector != nil {
		layers = append(layers, layer{"application/vnd.ollama.image.projector", projector})
	}
	s.images[name] = layers
	for _, l := range layers {
		s.blobs[s.digest(l.file)] = l.file
	}
}

// AddFile adds a file to the CDN, at /files/NAME, and returns its address.
func (s *Server) AddFile(name string, f *File) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blobs["files/"+name] = f
	return s.CDNURL() + "/files/" + name
}

// Expire invalidates all signed links that the server has issued so far.
func (s *Server) Expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expired = s.links
}

// Requests returns copies of all requests since the last Forget.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Request, len(s.requests))
	for i, r := range s.requests {
		all[i] = *r
	}
	return all
}

// Sent returns the number of bytes of content that were sent since the last Forget.
func (s *Server) Sent() (bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.requests {
		bytes += r.Sent
	}
	return bytes
}

// Forget drops the recorded requests.
func (s *Server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests, s.seen = nil, make(map[string]int)
}

// record appends a request to the records. It returns the record, and the fault that Script returns
// for it; the fault is never nil.
func (s *Server) record(origin string, r *http.Request) (*Request, *Fault) {
	req := &Request{
		Origin: origin, Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery,
		Header: r.Header.Clone(), Remote: r.RemoteAddr, From: -1, To: -1,
	}
	req.From, req.To = rangeOf(r.Header.Get("Range"))
	s.mu.Lock()
	req.N = s.seen[origin+r.URL.Path]
	s.seen[origin+r.URL.Path]++
	s.requests = append(s.requests, req)
	script, given := s.Script, *req
	s.mu.Unlock()
	if script != nil {
		if fault := script(given); fault != nil {
			return req, fault
		}
	}
	return req, &Fault{}
}
