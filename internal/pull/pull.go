// Package pull brings models into the store by name: it resolves a name to files with digests,
// fetches them over https in ranges that survive cuts and restarts, and has the store verify
// them. Docs: docs/models.md. It does not know the use of a model, and chooses no
// model that was not named.
package pull

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
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
	// EndpointOnly refuses every address that is not at one of the endpoints.
	EndpointOnly bool
	// MaxBytes bounds a file; 0 means 256 GiB.
	MaxBytes int64
	// Roots are the authorities that certificates are checked with; nil means the system's.
	Roots *x509.CertPool
	// Proxy chooses the proxy of a request; nil means the one of the environment.
	Proxy func(*http.Request) (*url.URL, error)
	// ReportEvery is the longest time between two reports of a running download; 0 means 5 s.
	ReportEvery time.Duration

	test testHooks
}

// testHooks replace what tests cannot wait for. Zero values mean the real thing.
type testHooks struct {
	sleep           func(context.Context, time.Duration) error
	isPublic        func(netip.Addr) bool
	dial            dialer // for addresses that need not be public
	stall           time.Duration
	ranges, several int64
	follow          time.Duration
}

// Options change one pull.
type Options struct {
	As     string // name of the manifest; empty: by the file
	Update bool   // ask the source also for a name that was resolved before
	NoWait bool   // fail if another process pulls the model
}

// A Result is a model that is in the store.
type Result struct {
	Name    string
	Digest  string // of the first part
	Size    int64  // of all parts
	Parts   int
	Path    string // of the first part's blob
	Fetched int64  // bytes that this pull has fetched, also those that were dropped
	// Already means that nothing was to be done.
	Already bool
	// Projector is a name that pulls the model's projector; empty: none is known.
	Projector string
}

// A Wanted is a model that a configuration describes.
type Wanted struct {
	Name, SHA256, License string
	Size                  int64  // 0: unknown
	SourceURL             string // https; empty: it has to be in the store
}

// A session is one call of a method.
type session struct {
	*Puller
	client      *client
	hub, ollama *url.URL
	hubCred     *credential
	report      func(status.Phase)
	fetched     int64
}

// Endpoints by default.
const (
	defaultHub    = "https://huggingface.co"
	defaultOllama = "https://registry.ollama.ai"
)

func (p *Puller) session(report func(status.Phase)) (*session, error) {
	s := &session{Puller: p, report: report}
	if report == nil {
		s.report = func(status.Phase) {}
	}
	var configured []*url.URL
	for _, e := range []struct {
		what, given, usual string
		to                 **url.URL
	}{{"hub", p.HubEndpoint, defaultHub, &s.hub}, {"registry of Ollama", p.OllamaEndpoint, defaultOllama, &s.ollama}} {
		text := e.usual
		if e.given != "" {
			text = strings.TrimRight(e.given, "/")
		}
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" {
			return nil, fmt.Errorf("the endpoint of the %s must be an https:// address without user and query (HF_ENDPOINT, OLLAMA_ENDPOINT)", e.what)
		}
		*e.to = u
		if e.given != "" {
			configured = append(configured, u)
		}
	}
	if p.Token != "" {
		s.hubCred = &credential{originOf(s.hub), "Bearer " + p.Token}
	}
	proxy := p.Proxy
	if proxy == nil {
		proxy = http.ProxyFromEnvironment
	}
	public := p.test.isPublic
	if public == nil {
		public = isPublic
	}
	s.client = newClient(p.Agent, configured, p.EndpointOnly, p.Roots, proxy, public, p.test.dial)
	return s, nil
}

func (p *Puller) now() time.Time { return time.Now() }

func (p *Puller) sleep(ctx context.Context, d time.Duration) error {
	if p.test.sleep != nil {
		return p.test.sleep(ctx, d)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Pull brings the model of a typed name into the store. Phases are reported to report, which
// may be nil; they come one at a time. If the context ends, the bytes that are there are kept,
// and the next pull goes on from them.
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
			return s.already(m), nil
		}
	}
	made, err := s.resolve(ctx, ref)
	if err != nil {
		return Result{}, err
	}
	if o.As != "" {
		if made.asked == "" {
			made.asked = ref.String()
		}
		made.name = o.As
	}
	if made.name == "" {
		return Result{}, fmt.Errorf("model %s: its file has no name that the store could use: give one with --as NAME", shown(ref))
	}
	return s.get(ctx, made, o)
}

// shown returns a name for errors: an address without its query.
func shown(ref modelname.Ref) string {
	if u, err := url.Parse(ref.URL); ref.Kind == modelname.Link && err == nil {
		return display(u)
	}
	return ref.String()
}

// Ensure brings a model that a configuration describes into the store.
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
	made := &plan{name: w.Name, license: w.License, files: []file{{name: w.Name, size: max(w.Size, 0), sha256: digest}}}
	s.report(status.CheckingLocal{Path: s.blob(digest)})
	if m := s.whole(w.Name); m != nil && m.Digest() == digest {
		return s.already(m), nil
	}
	if w.SourceURL != "" {
		src, err := s.sourceOf(w.SourceURL)
		if err != nil {
			return Result{}, fmt.Errorf("model %q: %w", w.Name, err)
		}
		if src.url.Scheme != "https" {
			return Result{}, fmt.Errorf("model %q: model URL must be https:// (got %s)", w.Name, display(src.url))
		}
		made.files[0].sources = []source{src}
		made.files[0].name = filepath.Base(src.url.Path)
		made.source = store.Source{Registry: src.url.Host, Filename: made.files[0].name}
	}
	if e, ok := p.bySHA(digest); ok && e.SizeBytes > 0 && made.files[0].size == 0 {
		made.files[0].size = e.SizeBytes
	}
	return s.get(ctx, made, o)
}

func (p *Puller) bySHA(digest string) (modelname.Entry, bool) {
	i := slices.IndexFunc(p.Catalog, func(e modelname.Entry) bool { return e.SHA256 == digest })
	if i < 0 {
		return modelname.Entry{}, false
	}
	return p.Catalog[i], true
}

// blob is where the blob of a digest lies. It is empty for an unknown digest.
func (p *Puller) blob(digest string) string {
	if len(digest) < 2 {
		return ""
	}
	return filepath.Join(p.Store.Home, "blobs", "sha256", digest[:2], digest, "data")
}

// whole returns the manifest of a name if all of its blobs are there. Nothing is hashed.
func (s *session) whole(name string) *store.Manifest {
	m, err := s.Store.Manifest(name)
	if err != nil || !s.present(m) {
		return nil
	}
	return m
}

func (s *session) present(m *store.Manifest) bool {
	for _, part := range m.Blobs() {
		path := s.blob(strings.TrimPrefix(part.Blob, "sha256:"))
		if m.Refers != nil {
			path = m.Refers.Path
		}
		if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() || info.Size() != part.Size {
			return false
		}
	}
	return true
}

// known returns the manifest of a name without a request: by the name itself, or by a name that
// it was resolved from.
func (s *session) known(ref modelname.Ref, as string) *store.Manifest {
	asked := ref.String()
	if ref.Kind == modelname.Link {
		if u, err := url.Parse(ref.URL); err == nil {
			asked = display(u)
			if ref.SHA256 != "" {
				asked += "#sha256=" + ref.SHA256
			}
		}
	}
	if as != "" {
		if m := s.whole(as); m != nil && slices.Contains(m.Asked, asked) {
			return m
		}
		return nil
	}
	if ref.Kind == modelname.Plain {
		return s.whole(ref.Name)
	}
	listing, err := s.Store.List()
	if err != nil {
		return nil // get fails with the reason
	}
	for i := range listing.Models {
		m := &listing.Models[i].Manifest
		if slices.Contains(m.Asked, asked) && s.present(m) {
			return m
		}
	}
	return nil
}

// already is the result of a model that is there.
func (s *session) already(m *store.Manifest) Result {
	r := Result{Name: m.Name, Digest: m.Digest(), Size: m.TotalSize(), Parts: len(m.Blobs()), Path: s.blob(m.Digest()), Fetched: s.fetched, Already: s.fetched == 0}
	if m.Refers != nil {
		r.Path = m.Refers.Path
	}
	return r
}

// get brings the files of a plan into the store and writes the manifest.
func (s *session) get(ctx context.Context, made *plan, o Options) (Result, error) {
	if made.files[0].sha256 != "" {
		s.report(status.CheckingLocal{Path: s.blob(made.files[0].sha256)})
	}
	if m, err := s.takeable(ctx, made, o); m != nil || err != nil {
		if err != nil {
			return Result{}, err
		}
		return s.already(m), nil
	}
	meter := &meter{report: s.report, every: s.ReportEvery, frame: status.Download{Name: made.name}}
	if meter.every == 0 {
		meter.every = reportTime
	}
	if len(made.files) > 1 {
		meter.frame.Parts = len(made.files)
	}
	lock, err := s.lockName(ctx, made, meter, o)
	if err != nil {
		return Result{}, err
	}
	defer lock.Release()
	// The other process may have finished it.
	if m, err := s.takeable(ctx, made, o); m != nil || err != nil {
		if err != nil {
			return Result{}, err
		}
		if meter.begun {
			meter.end(m.TotalSize())
		}
		return s.already(m), nil
	}
	blobs, err := s.fetchAll(ctx, made, meter, o)
	if err != nil {
		return Result{}, fmt.Errorf("model %q: %w", made.name, explain(err))
	}
	m, err := s.publish(ctx, made, blobs, o)
	if err != nil {
		return Result{}, err
	}
	r := s.already(m)
	r.Projector = made.projector
	return r, nil
}

// explain adds what to do about a full disk.
func explain(err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("%w: the bytes that are there are kept; \"inferdctl gc\" and \"inferdctl rm NAME\" make room", err)
	}
	return err
}

// takeable returns the manifest of the plan's name if it is what the plan wants: nothing is
// fetched then. It refuses a name of another model before the first byte.
func (s *session) takeable(ctx context.Context, made *plan, o Options) (*store.Manifest, error) {
	m, err := s.Store.Manifest(made.name)
	if damaged, ok := errors.AsType[*store.DamagedError](err); ok {
		s.Log.LogAttrs(ctx, slog.LevelWarn, "a damaged manifest will be replaced", slog.String("path", damaged.Path))
		return nil, nil // it does not count as one
	}
	if err != nil {
		return nil, nil //nolint:nilerr // no manifest: to be pulled, which fails if the store cannot be used
	}
	asks := made.asked == "" || slices.Contains(m.Asked, made.asked)
	same := made.files[0].sha256 == m.Digest() && len(made.files) == len(m.Blobs())
	switch {
	case same && s.present(m):
		return s.note(m, made.asked)
	case same, asks && (o.Update || made.files[0].sha256 != "" && made.asked == ""):
		return nil, nil // the model of that name is replaced
	case asks && made.files[0].sha256 == "" && s.present(m):
		return m, nil
	case asks:
		return nil, nil // its blobs lack
	}
	return nil, &store.TakenError{Name: m.Name, Digest: m.Digest()}
}

// note adds a name to the asked names of a model.
func (s *session) note(m *store.Manifest, asked string) (*store.Manifest, error) {
	if asked == "" || slices.Contains(m.Asked, asked) {
		return m, nil
	}
	m.Asked = append(m.Asked, asked)
	lock, err := s.Store.LockName(m.Name)
	if err != nil {
		return m, nil // a memory: without it the name is resolved once more
	}
	defer lock.Release()
	return m, s.Store.PutManifest(m, false)
}

// publish writes the manifest.
func (s *session) publish(ctx context.Context, made *plan, blobs []store.Blob, o Options) (*store.Manifest, error) {
	m := &store.Manifest{
		Name: made.name, Format: "gguf", Blob: "sha256:" + blobs[0].Digest, Size: blobs[0].Size,
		Source: made.source, ProducedBy: s.Agent,
	}
	if made.license != "" {
		m.License = &made.license
	}
	if len(blobs) > 1 {
		for _, b := range blobs {
			m.Parts = append(m.Parts, store.Part{Blob: "sha256:" + b.Digest, Size: b.Size})
		}
	}
	if made.asked != "" {
		m.Asked = []string{made.asked}
	}
	replace := made.asked == "" && made.files[0].sha256 != "" // the contract: a warning, and rewritten
	old, err := s.Store.Manifest(made.name)
	if err == nil {
		replace = replace || (o.Update || !s.present(old)) && slices.Contains(old.Asked, made.asked)
		if old.Blob != m.Blob && replace {
			s.Log.LogAttrs(ctx, slog.LevelWarn, "a manifest of another model is replaced", slog.String("name", m.Name), slog.String("old", old.Digest()), slog.String("new", m.Digest()))
		}
		if old.Blob == m.Blob {
			for _, a := range old.Asked {
				if !slices.Contains(m.Asked, a) {
					m.Asked = append(m.Asked, a)
				}
			}
		}
	}
	if warning := s.Store.Describe(m); warning != "" {
		s.Log.LogAttrs(ctx, slog.LevelWarn, "the model is in the store, but may not be usable", slog.String("name", m.Name), slog.String("reason", warning))
	}
	return m, s.Store.PutManifest(m, replace)
}

// errNowhere is the error of a model without a source.
func errNowhere(name string) error {
	return fmt.Errorf("model %q has no source_url and no manifest exists", name)
}

// A part is a file of a plan and its ingest.
type part struct {
	file
	blob   store.Blob    // if it is there
	ingest *store.Ingest // else
}

// fetchAll brings all files into the store. Room for all of them is made before the first byte.
func (s *session) fetchAll(ctx context.Context, made *plan, meter *meter, o Options) (blobs []store.Blob, err error) {
	parts := make([]part, len(made.files))
	defer func() {
		for i := range parts {
			switch {
			case parts[i].ingest == nil:
			case err != nil:
				err = errors.Join(err, s.giveBack(&parts[i]))
			default:
				err = parts[i].ingest.Close()
			}
		}
	}()
	var there, total, done int64
	for i, f := range made.files {
		parts[i].file = f
		if err := s.begin(ctx, made, &parts[i], meter, o); err != nil {
			return nil, err
		}
		size := f.size
		if parts[i].ingest == nil {
			size = parts[i].blob.Size
			there += size
		} else {
			there += parts[i].ingest.Done()
			if size == 0 {
				size = parts[i].ingest.Upstream().Total
			}
		}
		if total >= 0 && size > 0 {
			total += size
		} else {
			total = -1
		}
	}
	for i := range parts {
		p := &parts[i]
		meter.part(i+1, done)
		if p.ingest != nil {
			meter.begin(display(p.sources[0].url), there, total)
			if p.blob, err = s.fetchOne(ctx, made, p, meter); err != nil {
				return nil, err
			}
		}
		done += p.blob.Size
		blobs = append(blobs, p.blob)
	}
	if meter.begun {
		meter.end(done)
	}
	return blobs, nil
}

// begin finds out whether a file is in the store, and begins its ingest if it is not.
func (s *session) begin(ctx context.Context, made *plan, p *part, meter *meter, o Options) error {
	for {
		if p.sha256 != "" {
			have, err := s.Store.Have(ctx, p.sha256, s.report)
			if err != nil {
				return err
			}
			if have {
				info, err := os.Stat(s.blob(p.sha256))
				if err != nil {
					return err
				}
				p.blob = store.Blob{Digest: p.sha256, Size: info.Size(), Path: s.blob(p.sha256)}
				return nil
			}
		}
		if len(p.sources) == 0 {
			return errNowhere(made.name)
		}
		if err := s.judgeHistory(p, o); err != nil {
			return err
		}
		here := display(p.sources[0].url)
		ingest, err := s.Store.Begin(store.Want{SHA256: p.sha256, Name: made.name, Upstream: store.Upstream{URL: here, Total: p.size}})
		if busy, ok := errors.AsType[*store.BusyError](err); ok {
			if err := s.follow(ctx, made, meter, busy, o); err != nil {
				return err
			}
			continue
		}
		if _, present := errors.AsType[*store.PresentError](err); present {
			continue // another process has just committed it
		}
		if err != nil {
			return err
		}
		p.ingest = ingest
		if err := ingest.Reserve(); err != nil {
			return errors.Join(err, s.giveBack(p))
		}
		return nil
	}
}

// giveBack ends an ingest of a pull that has failed. Without bytes it is dropped, with the room
// that was reserved for it.
func (s *session) giveBack(p *part) error {
	ingest := p.ingest
	p.ingest = nil
	if ingest.Done() == 0 {
		return ingest.Discard()
	}
	return ingest.Close()
}

// judgeHistory refuses a digest if the sources have sent the same other content in its place
// twice.
func (s *session) judgeHistory(p *part, o Options) error {
	if p.sha256 == "" {
		return nil
	}
	if o.Update {
		return s.Store.Forgive(p.sha256)
	}
	q, err := s.Store.Refused(p.sha256)
	if err != nil {
		return err
	}
	if q != nil {
		return &wrongError{*q}
	}
	return nil
}

// A wrongError means that the sources of a model send other content than its digest says, again
// and again.
type wrongError struct{ store.Quarantined }

func (e *wrongError) Error() string {
	kept := ""
	if e.MovedTo != "" {
		kept = "; it is kept in " + e.MovedTo
	}
	return fmt.Sprintf("SHA-256 mismatch (expected %s, got %s) %d times from %s%s: it was replaced upstream? Pin its commit, or fetch it once more with inferdctl pull --update",
		e.Expected, e.Actual, e.Times, e.URL, kept)
}

// maxWrong is the most fetches of one pull that end with a wrong digest.
const maxWrong = 2

// fetchOne fetches a file and commits it. After a wrong digest it is fetched once more, from the
// next source if there is one.
func (s *session) fetchOne(ctx context.Context, made *plan, p *part, meter *meter) (store.Blob, error) {
	sources := p.sources
	for wrong := 1; ; wrong++ {
		blob, err := s.fetchSources(ctx, p, sources, meter)
		mismatch, ok := errors.AsType[*store.MismatchError](err)
		if !ok {
			return blob, err
		}
		s.report(status.Quarantine{
			Path: s.blob(p.sha256), Expected: mismatch.Expected, Actual: mismatch.Actual, MovedTo: mismatch.MovedTo,
		})
		s.Log.LogAttrs(ctx, slog.LevelWarn, "a model has a wrong SHA-256", slog.String("name", made.name), slog.String("url", mismatch.URL),
			slog.String("expected", mismatch.Expected), slog.String("actual", mismatch.Actual), slog.String("moved_to", mismatch.MovedTo))
		if mismatch.Times >= 2 {
			return store.Blob{}, &wrongError{mismatch.Quarantined}
		}
		if wrong >= maxWrong {
			return store.Blob{}, mismatch
		}
		if err := p.ingest.Close(); err != nil {
			return store.Blob{}, err
		}
		p.ingest = nil
		if !mismatch.Damaged {
			sources = append(slices.Clone(sources[1:]), sources[0])
		}
		if p.ingest, err = s.Store.Begin(store.Want{SHA256: p.sha256, Name: made.name, Upstream: store.Upstream{URL: display(sources[0].url), Total: p.size}}); err != nil {
			return store.Blob{}, err
		}
		if err := p.ingest.Reserve(); err != nil {
			return store.Blob{}, err
		}
		meter.again()
		meter.begin(display(sources[0].url), 0, p.size)
	}
}

// fetchSources fetches the missing bytes of a file and commits it.
func (s *session) fetchSources(ctx context.Context, p *part, sources []source, meter *meter) (store.Blob, error) {
	f := &fetcher{
		client: s.client, log: s.Log, sleep: s.sleep, now: s.now, stall: s.test.stall,
		ranges: s.test.ranges, several: s.test.several, max: s.MaxBytes,
		file: p.file, sources: sources, ingest: p.ingest, meter: meter,
	}
	for _, d := range []struct {
		to    *int64
		usual int64
	}{{(*int64)(&f.stall), int64(stallTimeout)}, {&f.ranges, rangeBytes}, {&f.several, parallelFrom}, {&f.max, defaultMax}} {
		if *d.to == 0 {
			*d.to = d.usual
		}
	}
	err := f.fetch(ctx)
	s.fetched += f.received
	if err != nil {
		return store.Blob{}, err
	}
	meter.fetched(p.ingest.Done())
	s.report(status.Verify{Path: s.blob(p.sha256)})
	return p.ingest.Commit(ctx)
}

// followTime is the time between two looks at the pull of another process.
const followTime = 500 * time.Millisecond

// lockName locks the name of the model. While another process pulls it, its progress is shown.
func (s *session) lockName(ctx context.Context, made *plan, meter *meter, o Options) (*store.Lock, error) {
	for {
		lock, err := s.Store.LockName(made.name)
		busy, ok := errors.AsType[*store.BusyError](err)
		if !ok {
			return lock, err
		}
		if err := s.follow(ctx, made, meter, busy, o); err != nil {
			return nil, err
		}
	}
}

// follow reports the progress of another process once, and waits a little.
func (s *session) follow(ctx context.Context, made *plan, meter *meter, busy *store.BusyError, o Options) error {
	if o.NoWait {
		by := ""
		if busy.PID > 0 {
			by = fmt.Sprintf(" (pid %d)", busy.PID)
		}
		return fmt.Errorf("model %q is being fetched by another process%s", made.name, by)
	}
	done, total := s.progressOf(made)
	meter.begin(firstURL(made), done, total)
	meter.note(done)
	every := s.test.follow
	if every == 0 {
		every = followTime
	}
	return s.wait(ctx, every)
}

// wait waits between two looks. Unlike sleep, tests do not replace it.
func (s *session) wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func firstURL(made *plan) string {
	if f := made.files[0]; len(f.sources) > 0 {
		return display(f.sources[0].url)
	}
	return ""
}

// progressOf returns the bytes of a plan that are there, and the total; -1 if it is unknown.
func (s *session) progressOf(made *plan) (done, total int64) {
	unfinished, err := s.Store.Unfinished()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		unfinished = nil // nothing to show
	}
	for _, f := range made.files {
		size := f.size
		i := slices.IndexFunc(unfinished, func(u store.Unfinished) bool {
			return f.sha256 != "" && u.Digest == f.sha256 || f.sha256 == "" && u.Name == made.name
		})
		if i >= 0 {
			done += unfinished[i].Done
			size = max(size, unfinished[i].Total)
		} else if info, err := os.Stat(s.blob(f.sha256)); err == nil {
			done, size = done+info.Size(), info.Size()
		}
		if size == 0 || total < 0 {
			total = -1
		} else {
			total += size
		}
	}
	return done, total
}

// bytesOf writes a number of bytes of a total for reports.
func bytesOf(done, total int64) string {
	if total < 0 {
		return fmt.Sprintf("%d bytes", done)
	}
	return fmt.Sprintf("%d of %d bytes", done, total)
}
