package pull_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/builtin"
	"github.com/inferd-go/inferd/internal/hubtest"
	"github.com/inferd-go/inferd/internal/modelname"
	"github.com/inferd-go/inferd/internal/pull"
	"github.com/inferd-go/inferd/internal/shortdir"
	"github.com/inferd-go/inferd/internal/status"
	"github.com/inferd-go/inferd/internal/store"
)

const (
	commit  = "0123456789abcdef0123456789abcdef01234567"
	rangeOf = 256 << 10 // bytes of a request in these tests
)

// content returns pseudo-random bytes that begin like a GGUF file.
func content(size int, seed uint64) []byte {
	c := make([]byte, size)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := 0; i+8 <= len(c); i += 8 {
		v := r.Uint64()
		for j := range 8 {
			c[i+j] = byte(v >> (8 * j))
		}
	}
	copy(c, "GGUF")
	return c
}

// A bench is a hub, and a puller with a store of its own.
type bench struct {
	*pull.Puller
	t      *testing.T
	hub    *hubtest.Server
	log    *bytes.Buffer
	mu     sync.Mutex
	pauses []time.Duration
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, hub: hubtest.New(t), log: &bytes.Buffer{}}
	b.Puller = b.puller(filepath.Join(shortdir.InMemory(t), "models"))
	return b
}

// puller returns a puller with a store in the folder home.
func (b *bench) puller(home string) *pull.Puller {
	st := &store.Store{Home: home, VerifiedFile: filepath.Join(b.t.TempDir(), "verified.json")}
	b.t.Cleanup(func() {
		if err := st.Close(); err != nil {
			b.t.Error(err)
		}
	})
	p := &pull.Puller{
		Store: st, Catalog: modelname.Embedded(), Agent: "inferd/test",
		HubEndpoint: b.hub.URL(), OllamaEndpoint: b.hub.URL(), Roots: b.hub.Roots(),
		Log:   slog.New(slog.NewTextHandler(&locked{w: b.log}, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Proxy: noProxy,
	}
	p.SetHooks(pull.Hooks{Sleep: b.sleep, Stall: 20 * time.Second, Ranges: rangeOf, Several: 2 * rangeOf})
	return p
}

func noProxy(*http.Request) (*url.URL, error) { return nil, nil }

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

type locked struct {
	mu sync.Mutex
	w  *bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// sleep records a pause and returns at once.
func (b *bench) sleep(ctx context.Context, d time.Duration) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pauses = append(b.pauses, d)
	return ctx.Err()
}

// repo adds a repository O/R with a file of Q4_K_M for each of contents; several files make a split
// model.
func (b *bench) repo(contents ...[]byte) {
	files := map[string]*hubtest.File{"README.md": {Content: []byte("# R"), Small: true}}
	for i, c := range contents {
		name := "M-Q4_K_M.gguf"
		if len(contents) > 1 {
			name = fmt.Sprintf("M-Q4_K_M-%05d-of-%05d.gguf", i+1, len(contents))
		}
		files[name] = &hubtest.File{Content: c}
	}
	b.hub.AddRepo("O/R", commit, "apache-2.0", files)
}

// phases collects the phases of a pull.
type phases struct{ all []status.Phase }

func (p *phases) add(ph status.Phase) { p.all = append(p.all, ph) }

// downloads returns the reports of the download. It checks that they begin at 0 and do not decrease,
// except after a quarantine, and that no URL has a query or a fragment.
func (p *phases) downloads(t *testing.T) (all []status.Download) {
	t.Helper()
	last := uint64(0)
	for _, ph := range p.all {
		switch ph := ph.(type) {
		case status.Quarantine:
			last = 0
		case status.Download:
			if len(all) == 0 && ph.Done != 0 || ph.Done < last {
				t.Errorf("report %d: %d bytes after %d", len(all), ph.Done, last)
			}
			if strings.ContainsAny(ph.URL, "?#") {
				t.Errorf("a report has the URL %s", ph.URL)
			}
			last = ph.Done
			all = append(all, ph)
		}
	}
	return all
}

// pull pulls a name, and fails the test if that returns an error.
func (b *bench) pull(name string, o pull.Options) (pull.Result, *phases) {
	b.t.Helper()
	var p phases
	r, err := b.Pull(b.t.Context(), name, o, p.add)
	if err != nil {
		b.t.Fatalf("pull %s: %v\n%s", name, err, b.log)
	}
	return r, &p
}

// fails pulls a name. The error must contain want.
func (b *bench) fails(name, want string) error {
	b.t.Helper()
	_, err := b.Pull(b.t.Context(), name, pull.Options{}, nil)
	if err == nil || !strings.Contains(err.Error(), want) {
		b.t.Fatalf("pull %s: got %v, want %q\n%s", name, err, want, b.log)
	}
	return err
}

// holds checks that the store has the model with these contents, and no stray file.
func (b *bench) holds(name string, contents ...[]byte) {
	b.t.Helper()
	m, err := b.Store.Manifest(name)
	if err != nil {
		b.t.Fatal(err)
	}
	for i, part := range m.Blobs() {
		digest := strings.TrimPrefix(part.Blob, "sha256:")
		got, err := os.ReadFile(filepath.Join(b.Store.Home, "blobs/sha256", digest[:2], digest, "data"))
		if err != nil {
			b.t.Fatal(err)
		}
		if !bytes.Equal(got, contents[i]) || hubtest.Sum(got) != digest {
			b.t.Errorf("part %d has other content", i+1)
		}
	}
	if len(m.Blobs()) != len(contents) {
		b.t.Errorf("%d parts", len(m.Blobs()))
	}
	b.tidy()
}

// tidy checks that the store has no stray file: only manifests, locks, quarantined files and blobs.
func (b *bench) tidy() {
	b.t.Helper()
	for _, path := range b.files() {
		ok := strings.HasPrefix(path, "manifests/") && strings.HasSuffix(path, ".json") ||
			strings.HasPrefix(path, "locks/") && strings.HasSuffix(path, ".lock") ||
			strings.HasPrefix(path, "locks/quarantine/") ||
			strings.HasPrefix(path, "blobs/sha256/") && strings.HasSuffix(path, "/data") && !strings.Contains(path, "/.")
		if !ok {
			b.t.Errorf("stray file %s", path)
		}
	}
}

// files returns the paths of the files in the store.
func (b *bench) files() (all []string) {
	b.t.Helper()
	err := filepath.WalkDir(b.Store.Home, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(b.Store.Home, path)
			all = append(all, filepath.ToSlash(rel))
		}
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return all
}

// contentRequests returns the requests for content.
func (b *bench) contentRequests() []hubtest.Request {
	return slices.DeleteFunc(b.hub.Requests(), func(r hubtest.Request) bool { return r.Origin != hubtest.CDN })
}

func TestPull(t *testing.T) {
	b := newBench(t)
	c := content(5*rangeOf+1000, 1)
	b.repo(c)
	r, p := b.pull("O/R", pull.Options{})
	b.holds("m-q4_k_m", c)
	digest := hubtest.Sum(c)
	blob := filepath.Join(b.Store.Home, "blobs/sha256", digest[:2], digest, "data")
	want := pull.Result{Name: "m-q4_k_m", Digest: digest, Size: int64(len(c)), Parts: 1, Path: blob, Fetched: int64(len(c))}
	if r != want {
		t.Errorf("got %+v, want %+v", r, want)
	}
	if b.hub.Sent() != int64(len(c)) {
		t.Errorf("%d bytes were sent", b.hub.Sent())
	}
	m, err := b.Store.Manifest("m-q4_k_m")
	if err != nil {
		t.Fatal(err)
	}
	source := store.Source{Registry: strings.TrimPrefix(b.hub.URL(), "https://"), Repo: "O/R", Revision: commit, Filename: "M-Q4_K_M.gguf"}
	if m.Source != source || m.License == nil || *m.License != "apache-2.0" || m.ProducedBy != "inferd/test" || !slices.Equal(m.Asked, []string{"hf:O/R"}) {
		t.Errorf("manifest %+v", m)
	}
	downloads := p.downloads(t)
	if len(downloads) < 2 || downloads[len(downloads)-1].Done != uint64(len(c)) || downloads[0].Total != uint64(len(c)) {
		t.Errorf("downloads: %+v", downloads)
	}
	var kinds []string
	for _, ph := range p.all {
		kind := fmt.Sprintf("%T", ph)
		if len(kinds) == 0 || kinds[len(kinds)-1] != kind {
			kinds = append(kinds, kind)
		}
	}
	if got := strings.Join(kinds, " "); got != "status.CheckingLocal status.Download status.Verify" {
		t.Errorf("phases: %s", got)
	}
	// Requests have ranges of the right size, and several run at once.
	for _, q := range b.contentRequests() {
		if q.From%rangeOf != 0 || q.To-q.From > rangeOf || q.Header.Get("Accept-Encoding") != "identity" {
			t.Errorf("request %+v", q)
		}
	}
	if n := len(b.contentRequests()); n != 6 {
		t.Errorf("%d requests for content", n)
	}
	// A second pull sends no request.
	b.hub.Forget()
	again, _ := b.pull("hf:O/R", pull.Options{})
	if want.Fetched, want.Already = 0, true; again != want || len(b.hub.Requests()) != 0 {
		t.Errorf("again: %+v, %d requests", again, len(b.hub.Requests()))
	}
	// The name of the manifest stands for the same model.
	if byName, _ := b.pull("m-q4_k_m", pull.Options{}); byName != want || len(b.hub.Requests()) != 0 {
		t.Errorf("by its name: %+v", byName)
	}
	// An update asks the hub, and fetches no content.
	if updated, _ := b.pull("hf:O/R", pull.Options{Update: true}); updated != want || len(b.contentRequests()) != 0 || len(b.hub.Requests()) == 0 {
		t.Errorf("updated: %+v", updated)
	}
}

type modelEntry = modelname.Entry

func cancelable(t *testing.T, reason error) (context.Context, func()) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	return ctx, func() { cancel(reason) }
}

// The manifest of a real model has the members of its header.
func TestHeaderInManifest(t *testing.T) {
	b := newBench(t)
	dir := t.TempDir()
	path, err := builtin.Ensure(dir, "chain")
	if err != nil {
		t.Fatal(err)
	}
	c, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b.repo(c)
	b.pull("O/R", pull.Options{})
	b.holds("m-q4_k_m", c)
	m, err := b.Store.Manifest("m-q4_k_m")
	if err != nil || m.GGUF == nil || m.GGUF.Arch == "" || m.GGUF.NCtx == 0 {
		t.Errorf("%+v, %v", m.GGUF, err)
	}
	if strings.Contains(b.log.String(), "may not be usable") {
		t.Error("a warning for a good model")
	}
	model, err := b.Store.Ensure(t.Context(), store.Ref{Name: "m-q4_k_m"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	model.Close()
}
