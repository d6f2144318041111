package page_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/inferd-go/inferd/client/stats"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/page"
	"github.com/inferd-go/inferd/internal/status"
)

const owner = 1000

// The clients of the page in these tests.
var (
	self    = infer.Peer{Transport: infer.TCP, User: "1000", Program: "http"}
	other   = infer.Peer{Transport: infer.TCP, User: "1001", Program: "http"}
	keyed   = infer.Peer{Transport: infer.TCP, User: "1000", Program: "ci", Key: "ci"}
	unknown = infer.Peer{Transport: infer.TCP, Program: "http"}
	remote  = infer.Peer{Transport: infer.TCP, Program: "ci", Key: "ci"}
	proxy   = infer.Peer{Transport: infer.TCP, User: "1001", Program: "http", Relayed: true} // a proxy: it forwards requests of other clients
)

func load(context.Context) *stats.Daemon {
	return &stats.Daemon{
		Version: "1", Running: 3, Waiting: 2,
		Listeners: []stats.Listener{{Surface: "http", Addr: "/run/secret/http.sock"}},
		Callers: []stats.Caller{
			{User: "1000", Program: "8:1", Exe: "/home/owner/bin/editor"},
			{User: "1000", Program: "ci"},
			{User: "1001", Program: "8:2", Exe: "/home/other/bin/flood"},
			{User: "1001", Program: "http", Place: 3},
			{User: "", Program: "ci"},
			{User: "", Program: "http"},
		},
		Backends: []stats.Backend{{
			Name: "gen", PID: 4711, Reason: "open /home/owner/model.gguf: denied", LastKill: "wedged", Inexact: "/lib/x",
			Engine: &stats.Engine{KVSize: 9, Users: []stats.User{{User: "1000", KVTokens: 5}, {User: "1001", KVTokens: 4}}},
		}},
	}
}

func newPage() *page.Page {
	return &page.Page{
		Board: status.NewBoard(status.Starting{}), Stats: load, UID: owner,
		Log: func(int) ([][]byte, error) {
			return [][]byte{[]byte(`{"msg":"a"}`), []byte(`{"msg":`), []byte(`{"msg":"b"}`)}, nil
		},
	}
}

func get(p *page.Page, path string, peer infer.Peer, headers ...string) *httptest.ResponseRecorder {
	return do(p, http.MethodGet, path, peer, headers...)
}

func do(p *page.Page, method, path string, peer infer.Peer, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	p.Serve(w, r, peer)
	return w
}

func TestTakes(t *testing.T) {
	p := newPage()
	for name, test := range map[string]struct {
		method, path, accept string
		want                 bool
	}{
		"a browser":             {http.MethodGet, "/", "text/html,application/xhtml+xml,*/*;q=0.8", true},
		"a program":             {http.MethodGet, "/", "*/*", false},
		"a probe":               {http.MethodHead, "/", "", false},
		"a post":                {http.MethodPost, "/", "text/html", false},
		"a file":                {http.MethodGet, "/inferd/page/main.js", "*/*", true},
		"anything below it":     {http.MethodPost, "/inferd/x", "", true},
		"a name that begins so": {http.MethodGet, "/inferdx", "text/html", false},
		"an inference route":    {http.MethodGet, "/v1/models", "text/html", false},
	} {
		r := httptest.NewRequest(test.method, test.path, nil)
		r.Header.Set("Accept", test.accept)
		if got := p.Takes(r); got != test.want {
			t.Errorf("%s: Takes = %v", name, got)
		}
	}
}

// The document and the files of the page need no key; all other paths do.
func TestPublic(t *testing.T) {
	p := newPage()
	for path, want := range map[string]bool{
		"/": true, "/inferd/page/main.js": true, "/inferd/page/lib/preact.js": true,
		"/inferd/events": false, "/inferd/stats": false, "/inferd/log": false, "/v1/models": false, "/inferd/pages": false,
	} {
		if got := p.Public(path); got != want {
			t.Errorf("Public(%s) = %v", path, got)
		}
	}
}

func TestFiles(t *testing.T) {
	p := newPage()
	w := get(p, "/", other)
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "text/html; charset=utf-8" || !strings.Contains(w.Body.String(), "<title>inferd</title>") {
		t.Fatalf("got %d %v", w.Code, w.Header())
	}
	const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; " +
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
	if got := w.Header().Get("Content-Security-Policy"); !strings.HasPrefix(got, policy) {
		t.Errorf("policy %q", got)
	}
	tag := w.Header().Get("ETag")
	if again := get(p, "/", other, "If-None-Match: "+tag); again.Code != http.StatusNotModified || again.Body.Len() != 0 {
		t.Errorf("with the tag: %d", again.Code)
	}
	zipped := get(p, "/inferd/page/main.js", other, "Accept-Encoding: br, gzip")
	z, err := gzip.NewReader(zipped.Body)
	if err != nil || zipped.Header().Get("Content-Encoding") != "gzip" {
		t.Fatalf("%v, %v", err, zipped.Header())
	}
	text, err := io.ReadAll(z)
	if plain := get(p, "/inferd/page/main.js", other, "Accept-Encoding: gzip;q=0"); err != nil || !bytes.Equal(text, plain.Body.Bytes()) {
		t.Errorf("the compressed file differs: %v", err)
	}
	if head := do(p, http.MethodHead, "/inferd/page/page.css", other); head.Code != http.StatusOK || head.Body.Len() != 0 || head.Header().Get("Content-Length") == "" {
		t.Errorf("HEAD: %d, %d bytes", head.Code, head.Body.Len())
	}
}

func TestRefusals(t *testing.T) {
	p := newPage()
	for name, test := range map[string]struct {
		method, path string
		code         int
		want         string
	}{
		"no such file":         {http.MethodGet, "/inferd/page/none.js", 404, `"message":"there is no \"/inferd/page/none.js\""`},
		"a licence":            {http.MethodGet, "/inferd/page/lib/LICENSES.md", 404, "there is no"},
		"a folder":             {http.MethodGet, "/inferd/page/lib", 404, "there is no"},
		"a way out":            {http.MethodGet, "/inferd/page/../page.go", 404, "there is no"},
		"no such path":         {http.MethodGet, "/inferd/", 404, "there is no"},
		"an unnamed file":      {http.MethodGet, "/inferd/page/", 404, "there is no"},
		"a long path":          {http.MethodGet, "/inferd/" + strings.Repeat("x", 1000), 404, "there is no"},
		"a write":              {http.MethodPost, "/inferd/stats", 405, "needs the method GET"},
		"a write to the files": {http.MethodDelete, "/inferd/page/main.js", 405, "needs the method GET"},
	} {
		w := do(p, test.method, test.path, self)
		if w.Code != test.code || !strings.Contains(w.Body.String(), test.want) || w.Body.Len() > 300 || !strings.HasPrefix(w.Body.String(), `{"error":{"message":`) {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	if w := do(p, http.MethodPut, "/inferd/log", self); w.Header().Get("Allow") != "GET, HEAD" {
		t.Errorf("Allow %q", w.Header().Get("Allow"))
	}
}

// The daemon's user sees everything. Other users see the totals and their own callers, but no
// processes and no paths. A client that belongs to a known caller also gets that caller's stats, with
// its place in the queue.
func TestStats(t *testing.T) {
	p := newPage()
	for name, test := range map[string]struct {
		peer    infer.Peer
		callers []string
		users   int
		own     string
	}{
		"the daemon's user":    {self, []string{"1000 8:1", "1000 ci", "1001 8:2", "1001 http", " ci", " http"}, 2, "none"},
		"another user":         {other, []string{"1001 8:2", "1001 http"}, 1, "1001 http 3"},
		"a key of the user":    {keyed, []string{"1000 ci"}, 0, "1000 ci 0"},
		"an unknown client":    {unknown, nil, 0, "none"},
		"a key from elsewhere": {remote, []string{" ci"}, 0, " ci 0"},
		"a proxy":              {proxy, nil, 0, "none"},
	} {
		w := get(p, "/inferd/stats", test.peer)
		var s struct {
			stats.Daemon

			Owner bool          `json:"owner"`
			Own   *stats.Caller `json:"own"`
		}
		if err := json.Unmarshal(w.Body.Bytes(), &s); err != nil || w.Code != http.StatusOK {
			t.Fatalf("%s: %d, %v", name, w.Code, err)
		}
		var callers []string
		for _, c := range s.Callers {
			callers = append(callers, c.User+" "+c.Program)
		}
		if strings.Join(callers, ",") != strings.Join(test.callers, ",") || len(s.Backends[0].Engine.Users) != test.users || s.Running != 3 {
			t.Errorf("%s: callers %q, %d users", name, callers, len(s.Backends[0].Engine.Users))
		}
		own := "none"
		if s.Own != nil {
			own = fmt.Sprint(s.Own.User, " ", s.Own.Program, " ", s.Own.Place)
		}
		if own != test.own {
			t.Errorf("%s: its own caller is %s", name, own)
		}
		all := test.peer == self
		if s.Owner != all {
			t.Errorf("%s: owner %v", name, s.Owner)
		}
		for _, secret := range []string{"4711", "/home/owner", "wedged", "/run/secret", "/lib/x"} {
			if strings.Contains(w.Body.String(), secret) != all {
				t.Errorf("%s: %s in %s", name, secret, w.Body)
			}
		}
	}
}

// Only the daemon's user gets the log. Lines that are not JSON are left out.
func TestLog(t *testing.T) {
	p := newPage()
	if w := get(p, "/inferd/log", self); w.Code != http.StatusOK || w.Body.String() != `[{"msg":"a"},{"msg":"b"}]` {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	relayed := self
	relayed.Relayed = true
	for _, peer := range []infer.Peer{other, keyed, unknown, remote, proxy, relayed} {
		if w := get(p, "/inferd/log", peer); w.Code != http.StatusForbidden {
			t.Errorf("%+v: %d %s", peer, w.Code, w.Body)
		}
	}
	p.Log = nil
	if w := get(p, "/inferd/log", self); w.Body.String() != "[]" {
		t.Errorf("without a log: %s", w.Body)
	}
	p.Log = func(int) ([][]byte, error) { return nil, errors.New("disk") }
	if w := get(p, "/inferd/log", self); w.Code != http.StatusInternalServerError {
		t.Errorf("a failure: %d %s", w.Code, w.Body)
	}
}

// A watcher is a client that reads the stream of events.
type watcher struct {
	t  *testing.T
	in *bufio.Scanner
}

func watch(t *testing.T, p *page.Page, peer infer.Peer) *watcher {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.Serve(w, r, peer) }))
	t.Cleanup(server.Close)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"/inferd/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	if kind := res.Header.Get("Content-Type"); res.StatusCode != http.StatusOK || kind != "text/event-stream" {
		t.Fatalf("got %d %s", res.StatusCode, kind)
	}
	return &watcher{t, bufio.NewScanner(res.Body)}
}

// next returns the next event, or an empty text at the end of the stream.
func (w *watcher) next() string {
	w.t.Helper()
	for w.in.Scan() {
		if data, ok := strings.CutPrefix(w.in.Text(), "data: "); ok {
			return data
		}
	}
	return ""
}

func TestEvents(t *testing.T) {
	p := newPage()
	p.Board.Publish(status.Loading{Backend: "gen", Phase: status.Mmap{Path: "/home/owner/model.gguf", Progress: 0.25}})
	w := watch(t, p, self)
	if got, want := w.next(), `{"backend":"gen","id":"admin","path":"/home/owner/model.gguf","phase":"mmap","progress":0.25,"status":"loading_model","type":"status"}`; got != want {
		t.Errorf("got %s", got)
	}
	p.Board.Publish(status.Ready{})
	if got := w.next(); !strings.Contains(got, `"ready"`) {
		t.Errorf("got %s", got)
	}
	p.Board.Publish(status.Draining{})
	if got := w.next(); !strings.Contains(got, `"draining"`) {
		t.Errorf("got %s", got)
	}
	if got := w.next(); got != "" {
		t.Errorf("behind the last one: %s", got)
	}
}

// Other users get every event, without paths and reasons.
func TestEventsOfOthers(t *testing.T) {
	const secret = "/home/owner/secret"
	for _, phase := range []status.Phase{
		status.CheckingLocal{Path: secret},
		status.Download{Done: 1, Total: 4, URL: secret, Name: "m"},
		status.Verify{Path: secret},
		status.Quarantine{Path: secret, Expected: secret, Actual: secret, MovedTo: secret},
		status.Mmap{Path: secret, Progress: 0.5},
		status.KVCache{NCtx: 512},
		status.Waiting{Reason: secret},
		status.EngineExited{Reason: secret},
		status.GaveUp{Reason: secret},
	} {
		p := newPage()
		w := watch(t, p, other)
		w.next()
		for _, ev := range []status.Event{
			status.Loading{Backend: "gen", Phase: phase},
			status.Restarting{Backend: "gen", Phase: phase},
			status.Liveness{Backend: "gen", Silent: true, Reason: secret},
			status.Capabilities{Backend: "gen", Inexact: secret},
			status.BackendState{Backend: "gen", State: "open"},
		} {
			p.Board.Publish(ev)
			if got := w.next(); strings.Contains(got, "secret") || !strings.Contains(got, `"backend":"gen"`) {
				t.Errorf("%#v: %s", ev, got)
			}
		}
	}
}

// A hang-up ends the stream. A HEAD request gets no events.
func TestEventsEnd(t *testing.T) {
	p := newPage()
	ctx, cancel := context.WithCancel(t.Context())
	w, ended := httptest.NewRecorder(), make(chan struct{})
	go func() {
		defer close(ended)
		p.Serve(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/inferd/events", nil), self)
	}()
	cancel()
	<-ended
	if head := do(p, http.MethodHead, "/inferd/events", self); head.Code != http.StatusOK || head.Body.Len() != 0 {
		t.Errorf("HEAD: %d %s", head.Code, head.Body)
	}
}

// imported matches the static imports of a module. Its group is the path of the imported module.
var imported = regexp.MustCompile(`(?m)^(?:import|export)\b[^;]*?"(\./[^"]+)"`)

// linked matches the files that the document loads. Its group is the path of the file.
var linked = regexp.MustCompile(`(?:href|src)="(/inferd/page/[^"]+)"`)

// maxTransfer bounds the compressed bytes of the first load.
const maxTransfer = 60 << 10

// The files of the first load have at most maxTransfer compressed bytes. The document links every
// file that the load needs, so that the browser requests all of them at once.
func TestFirstLoad(t *testing.T) {
	p := newPage()
	total, seen := 0, make(map[string]bool)
	named := get(p, "/", other).Body.String()
	var visit func(path string)
	visit = func(path string) {
		if seen[path] {
			return
		}
		seen[path] = true
		w := get(p, path, other, "Accept-Encoding: gzip")
		if w.Code != http.StatusOK {
			t.Fatalf("%s: %d", path, w.Code)
		}
		total += w.Body.Len()
		text := get(p, path, other).Body.String()
		if path == "/" {
			for _, m := range linked.FindAllStringSubmatch(text, -1) {
				visit(m[1])
			}
			return
		}
		for _, m := range imported.FindAllStringSubmatch(text, -1) {
			from := path[:strings.LastIndex(path, "/")+1] + strings.TrimPrefix(m[1], "./")
			if !strings.Contains(named, `href="`+from+`"`) {
				t.Errorf("%s imports %s, which index.html does not name", path, from)
			}
			visit(from)
		}
	}
	visit("/")
	t.Logf("%d files, %d bytes", len(seen), total)
	if total > maxTransfer {
		t.Errorf("the first load has %d bytes, want at most %d", total, maxTransfer)
	}
	if len(seen) < 10 || seen["/inferd/page/code.js"] {
		t.Errorf("files %v", seen)
	}
}
