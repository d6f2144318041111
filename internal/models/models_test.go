package models_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/internal/backend"
	"github.com/inferd-go/inferd/internal/hubtest"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/modelname"
	"github.com/inferd-go/inferd/internal/models"
	"github.com/inferd-go/inferd/internal/pull"
	"github.com/inferd-go/inferd/internal/status"
	"github.com/inferd-go/inferd/internal/store"
)

// A bench is a source with a hub. It records the log and the reported phases.
type bench struct {
	*models.Source
	t       *testing.T
	hub     *hubtest.Server
	content []byte
	digest  string
	log     bytes.Buffer
	phases  []string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	content := append([]byte("GGUF"), bytes.Repeat([]byte{1}, 5000)...)
	b := &bench{t: t, hub: hubtest.New(t), content: content, digest: hubtest.Sum(content)}
	b.hub.AddRepo("O/R", strings.Repeat("ab", 20), "mit", map[string]*hubtest.File{"M-Q8_0.gguf": {Content: content}})
	b.Source = &models.Source{AutoPull: true, Puller: &pull.Puller{
		Store: &store.Store{Home: t.TempDir()}, Agent: "test/1", HubEndpoint: b.hub.URL(), Roots: b.hub.Roots(),
		Log:   slog.New(slog.NewTextHandler(&b.log, nil)),
		Proxy: func(*http.Request) (*url.URL, error) { return nil, nil },
		Catalog: modelname.Catalog{{
			Name: "ours", File: "m.gguf", SizeBytes: int64(len(content)), SHA256: b.digest,
			Sources: []string{"https://huggingface.co/O/R/resolve/main/M-Q8_0.gguf"},
		}},
	}}
	t.Cleanup(func() { _ = b.Puller.Store.Close() })
	return b
}

func (b *bench) open(m backend.Model) error {
	b.t.Helper()
	b.phases = nil
	opened, err := b.Open(b.t.Context(), m, func(p status.Phase) {
		b.phases = append(b.phases, typeOf(p))
	})
	if err == nil {
		if opened.Digest != b.digest || len(opened.Files) != 1 {
			b.t.Errorf("opened %+v", opened)
		}
		opened.Close()
	}
	return err
}

func typeOf(p status.Phase) string {
	switch p.(type) {
	case status.CheckingLocal:
		return "local"
	case status.Download:
		return "download"
	case status.Verify:
		return "verify"
	case status.Quarantine:
		return "quarantine"
	case status.Mmap, status.KVCache, status.Waiting, status.EngineExited, status.GaveUp:
	}
	return "other"
}

// put writes content to the store as the blob with the digest b.digest.
func (b *bench) put(content []byte) {
	b.t.Helper()
	path := filepath.Join(b.Puller.Store.Home, "blobs", "sha256", b.digest[:2], b.digest, "data")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// The first Open of a model by name pulls it. Later ones send no request and hash nothing, and succeed
// even if no model can be pulled.
func TestOpen(t *testing.T) {
	for name, model := range map[string]backend.Model{
		"of a hub":     {Name: "hf:O/R"},
		"of a catalog": {Name: "ours"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			if err := b.open(model); err != nil {
				t.Fatal(err)
			}
			if got := slices.Compact(b.phases); !slices.Equal(got, []string{"local", "download", "verify"}) {
				t.Errorf("phases %q", got)
			}
			b.hub.Forget()
			if err := b.open(model); err != nil || !slices.Equal(b.phases, []string{"local"}) || len(b.hub.Requests()) > 0 {
				t.Errorf("%v, phases %q, requests %v", err, b.phases, b.hub.Requests())
			}
			b.AutoPull, b.Unable = false, errors.New("no token")
			if err := b.open(model); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestOpenMissing(t *testing.T) {
	b := newBench(t)
	b.AutoPull = false
	other := strings.Repeat("0a", 32)
	for want, m := range map[string]backend.Model{
		"and auto_pull is false: run inferdctl pull hf:O/R":                                              {Name: "hf:O/R"},
		`model "https://h.example/m.gguf" is not in the model store`:                                     {Name: "https://h.example/m.gguf?sig=hunter2"},
		"and auto_pull is false: run inferdctl pull, which pulls the models of the config":               {Name: "https://h.example/m.gguf?sig=hunter2"},
		"and auto_pull is false: run inferdctl pull ours":                                                {Name: "ours", SHA256: b.digest},
		"run inferdctl pull, which pulls the models of the config, or inferdctl import --name ours FILE": {Name: "ours", SHA256: other},
		"no such file": {Path: filepath.Join(t.TempDir(), "none.gguf")},
	} {
		if err := b.open(m); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", m, err, want)
		}
	}
	b.AutoPull, b.Unable = true, errors.New("HF_TOKEN has no valid token")
	if err := b.open(backend.Model{Name: "hf:O/R"}); err == nil || !strings.Contains(err.Error(), `pull model "hf:O/R": HF_TOKEN has no valid token`) {
		t.Error(err)
	}
	b.Unable = nil
	if err := b.open(backend.Model{Name: "nosource", SHA256: other}); err == nil || !strings.Contains(err.Error(), "has no source_url and no manifest exists") {
		t.Error(err)
	}
	if all := b.hub.Requests(); len(all) > 0 {
		t.Errorf("requests %v", all)
	}
}

// If no manifest can be written, or if AutoPull is false, Open uses a blob with the right digest without a
// manifest. It logs a warning unless AutoPull is false, and refuses a damaged blob.
func TestOpenWithoutManifest(t *testing.T) {
	b := newBench(t)
	b.put(b.content)
	m := backend.Model{Name: "described", SHA256: b.digest}
	b.Puller.Store.Before = func(store.Op) error { return fs.ErrPermission } // read-only
	if err := b.open(m); err != nil || !strings.Contains(b.log.String(), "a model is used without a manifest") {
		t.Errorf("%v, log %s", err, &b.log)
	}
	b.AutoPull = false
	b.log.Reset()
	if err := b.open(m); err != nil || b.log.Len() > 0 {
		t.Errorf("%v, log %s", err, &b.log)
	}
	if err := b.open(backend.Model{Name: "ours"}); err != nil {
		t.Errorf("by the digest of the catalog: %v", err)
	}
	b.put(b.content[:100])
	if err := b.open(m); err == nil || !strings.Contains(err.Error(), "inferdctl verify described") {
		t.Errorf("a damaged blob: %v", err)
	}
}

// If the context ends during the pull, Open returns the cause, and does not try to use a blob without
// a manifest.
func TestOpenCanceled(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("stopped")
	b.hub.Script = func(_ hubtest.Request) *hubtest.Fault {
		cancel(cause)
		return &hubtest.Fault{StallAfter: 1}
	}
	if _, err := b.Open(ctx, backend.Model{Name: "ours"}, func(status.Phase) {}); !errors.Is(err, cause) {
		t.Error(err)
	}
}

func TestCatalog(t *testing.T) {
	file := filepath.Join(t.TempDir(), "catalog.json")
	if err := os.WriteFile(file, []byte(`[{"name":"x","file":"x.gguf","size_bytes":1,"sha256":"`+strings.Repeat("0a", 32)+`"}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := models.Catalog(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"x", "qwen3-0.6b"} {
		if _, ok := c.Find(name); !ok {
			t.Errorf("%s is missing", name)
		}
	}
	if _, err := models.Catalog(file + ".none"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if err := os.WriteFile(file, []byte(`{}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := models.Catalog(file); err == nil || !strings.Contains(err.Error(), file) {
		t.Error(err)
	}
}

// Pull takes the names of Ollama's interface, and works without AutoPull.
func TestPull(t *testing.T) {
	b := newBench(t)
	b.AutoPull = false
	b.Puller.OllamaEndpoint = b.hub.URL()
	for _, image := range []string{"m:latest", "n:8b", "me/n:latest"} {
		b.hub.AddImage(image, &hubtest.File{Content: b.content}, nil)
	}
	phases := 0
	pulled := func(name string) string {
		stored, err := b.Pull(t.Context(), name, func(status.Phase) { phases++ })
		if err != nil {
			return err.Error()
		}
		return stored
	}
	for _, test := range []struct{ name, want string }{
		{"ours", "ours"},
		{"ours:latest", "ours"}, // of the catalog
		{"hf.co/O/R", "m-q8_0"},
		{"hf:O/R:Q8_0", "m-q8_0"},
		{"m-q8_0", "m-q8_0"}, // of the store
		{"m", "m"},
		{"m:latest", "m"},
		{"ollama:m", "m"},
		{"n:8b", "n-8b"},
		{"me/n", "me-n"},
	} {
		if got := pulled(test.name); got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
	if phases == 0 {
		t.Error("no phase was reported")
	}
	for name, want := range map[string]string{"/etc/passwd": "want ollama:NAME", "file:///etc/passwd": "is not a tag", "a b": "is not a name", "http://h/x.gguf": "must be https", "": "is not a name"} {
		_, err := b.Pull(t.Context(), name, nil)
		if infer.CodeOf(err) != infer.Invalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", name, err, want)
		}
	}
	if got := pulled("none"); !strings.Contains(got, "none") {
		t.Errorf("an unknown model: %s", got)
	}
	b.Unable = errors.New("no token")
	if got := pulled("ours"); got != "no token" {
		t.Errorf("unable: %s", got)
	}
}

// Close closes the store only after the running pulls have ended, and no pull begins after that.
func TestCloseWaitsForPulls(t *testing.T) {
	b := newBench(t)
	begun, closed := make(chan struct{}), make(chan error)
	ctx, cancel := context.WithCancel(t.Context())
	ended := false
	go func() {
		<-begun
		cancel()
		err := b.Close()
		if !ended {
			err = errors.Join(err, errors.New("closed before the end of the pull"))
		}
		closed <- err
	}()
	_, err := b.Pull(ctx, "hf:O/R", func(p status.Phase) {
		if _, ok := p.(status.Download); ok && begun != nil {
			close(begun)
			begun = nil
			<-ctx.Done()
			ended = true
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the pull: %v", err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if _, err := b.Pull(t.Context(), "ours", nil); infer.CodeOf(err) != infer.Unavailable {
		t.Errorf("a late pull: %v", err)
	}
}
