// Package pull brings models into the store by name: it resolves a name to files with digests,
// downloads them over https in ranges, resumes after cuts and restarts, and lets the store verify
// them. Docs: docs/models.md. The choice of the models is left to the callers.
package pull

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"time"

	"github.com/inferd-go/inferd/internal/modelname"
	"github.com/inferd-go/inferd/internal/status"
	"github.com/inferd-go/inferd/internal/store"
)

// A Puller pulls models into a store. Its methods may be called from several goroutines.
type Puller struct {
	Store   *store.Store
	Catalog modelname.Catalog
	Agent   string // program and version, for the manifest and the header User-Agent
	Log     *slog.Logger

	// HubEndpoint replaces https://huggingface.co, OllamaEndpoint https://registry.ollama.ai.
	HubEndpoint, OllamaEndpoint string
	// Token is sent to the origin of the hub's endpoint only.
	Token string
	// EndpointOnly refuses requests and redirects to other origins than those of the configured
	// endpoints; the default of an endpoint does not count as configured.
	EndpointOnly bool
	// MaxBytes bounds a file; 0 means 256 GiB.
	MaxBytes int64
	// Roots are the trusted certificate authorities; nil means those of the system.
	Roots *x509.CertPool
	// Proxy returns the proxy for a request; nil means that of the environment.
	Proxy func(*http.Request) (*url.URL, error)
	// ReportEvery is the longest time between two reports of a running download; 0 means 5 s.
	ReportEvery time.Duration

	test testHooks
}

// testHooks replace delays and addresses in tests. Zero values mean the real ones.
type testHooks struct {
	sleep           func(context.Context, time.Duration) error
	isPublic        func(netip.Addr) bool
	dial            dialer // for any address, public or not
	stall           time.Duration
	ranges, several int64
	followPause     time.Duration
	beforeFollow    func() // called before each check of the progress of another process
}

// Options change one pull.
type Options struct {
	As     string // name of the manifest; empty means a name from the file
	Update bool   // ask the source again for a name that was resolved before
	NoWait bool   // fail if another process is pulling the model
}

// A Result describes a model in the store after a pull.
type Result struct {
	Name    string
	Digest  string // digest of the first part
	Size    int64  // size of all parts
	Parts   int
	Path    string // path of the first part: its blob, or the file that the manifest refers to
	Fetched int64  // bytes that this pull received, including dropped ones
	// Already means that the store had all files of the model, so that no byte was fetched.
	Already bool
	// Projector is a name by which the model's projector can be pulled; empty if none is known.
	Projector string
}

// A Wanted is a model as a configuration describes it.
type Wanted struct {
	Name, SHA256, License string
	Size                  int64  // 0 if unknown
	SourceURL             string // https; empty if the model must be in the store already
}

// Pull brings the model of a typed name into the store. Phases are passed to report, one at a time;
// report may be nil. If the context ends, the bytes received so far are kept, and the next pull
// resumes from them.
func (p *Puller) Pull(ctx context.Context, typed string, o Options, report func(status.Phase)) (Result, error) {
	ref, err := modelname.Parse(typed)
	if err != nil {
		return Result{}, err
	}
	if o.As != "" {
		if err := store.CheckName(o.As); err != nil {
			return Result{}, err
		}
	}
	s, err := p.session(report)
	if err != nil {
		return Result{}, err
	}
	defer s.client.close()
	if !o.Update {
		if m := s.known(ref, o.As); m != nil {
			return s.presentResult(m), nil
		}
	}
	model, err := s.resolve(ctx, ref)
	if err != nil {
		return Result{}, err
	}
	if o.As != "" {
		if model.asked == "" {
			model.asked = askedOf(ref)
		}
		model.name = o.As
	}
	if model.name == "" {
		return Result{}, fmt.Errorf("model %s: its file has no name that the store could use: give one with --as NAME", shown(ref))
	}
	return s.get(ctx, model, o)
}

// shown returns a name for errors. The query of an address is left out: it may be a secret.
func shown(ref modelname.Ref) string {
	if u, err := url.Parse(ref.URL); ref.Kind == modelname.Link && err == nil {
		return display(u)
	}
	return ref.String()
}

// Ensure brings a model of a configuration into the store.
func (p *Puller) Ensure(ctx context.Context, w Wanted, o Options, report func(status.Phase)) (Result, error) {
	digest, err := store.ParseDigest(w.SHA256)
	if err != nil {
		return Result{}, fmt.Errorf("model %q: sha256 %w", w.Name, err)
	}
	if err := store.CheckName(w.Name); err != nil {
		return Result{}, err
	}
	s, err := p.session(report)
	if err != nil {
		return Result{}, err
	}
	defer s.client.close()
	model := &plan{name: w.Name, license: w.License, files: []file{{name: w.Name, size: max(w.Size, 0), sha256: digest}}}
	s.report(status.CheckingLocal{Path: s.Store.BlobPath(digest)})
	if m := s.completeManifest(w.Name); m != nil && model.matches(m) {
		return s.presentResult(m), nil
	}
	if w.SourceURL != "" {
		src, err := s.sourceOf(w.SourceURL)
		if err != nil {
			return Result{}, fmt.Errorf("model %q: %w", w.Name, err)
		}
		if src.url.Scheme != "https" {
			return Result{}, fmt.Errorf("model %q: model URL must be https:// (got %s)", w.Name, display(src.url))
		}
		model.files[0].sources = []source{src}
		model.files[0].name = filepath.Base(src.url.Path)
		model.source = store.Source{Registry: src.url.Host, Filename: model.files[0].name}
	}
	if e, ok := p.bySHA(digest); ok && e.SizeBytes > 0 && model.files[0].size == 0 {
		model.files[0].size = e.SizeBytes
	}
	return s.get(ctx, model, o)
}

func (p *Puller) bySHA(digest string) (modelname.Entry, bool) {
	i := slices.IndexFunc(p.Catalog, func(e modelname.Entry) bool { return e.SHA256 == digest })
	if i < 0 {
		return modelname.Entry{}, false
	}
	return p.Catalog[i], true
}

// get brings the files of a plan into the store and writes the manifest.
func (s *session) get(ctx context.Context, model *plan, o Options) (Result, error) {
	if err := model.check(); err != nil {
		return Result{}, fmt.Errorf("model %q: %w", model.name, err)
	}
	if model.files[0].sha256 != "" {
		s.report(status.CheckingLocal{Path: s.Store.BlobPath(model.files[0].sha256)})
	}
	if m, err := s.takeable(ctx, model, o, false); m != nil || err != nil {
		if err != nil {
			return Result{}, err
		}
		return s.presentResult(m), nil
	}
	meter := &meter{report: s.report, every: s.ReportEvery, frame: status.Download{Name: model.name, Digest: model.files[0].sha256}}
	if meter.every == 0 {
		meter.every = reportTime
	}
	if len(model.files) > 1 {
		meter.frame.Parts = len(model.files)
	}
	lock, err := s.lockName(ctx, model, meter, o)
	if err != nil {
		return Result{}, err
	}
	defer lock.Release()
	// Another process may have pulled the model while this one waited for the lock.
	if m, err := s.takeable(ctx, model, o, true); m != nil || err != nil {
		if err != nil {
			return Result{}, err
		}
		if meter.begun {
			meter.end(m.TotalSize())
		}
		return s.presentResult(m), nil
	}
	m, err := s.bring(ctx, model, meter, o)
	if err != nil {
		return Result{}, err
	}
	r := s.presentResult(m)
	r.Projector = model.projector
	return r, nil
}
