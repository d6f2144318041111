package pull

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"syscall"

	"github.com/inferd-go/inferd/internal/status"
	"github.com/inferd-go/inferd/internal/store"
)

// bring fetches the files that the store lacks, and writes the manifest. Until then it holds locks
// on the blobs, because blobs without a manifest may be removed.
func (s *session) bring(ctx context.Context, model *plan, meter *meter, o Options) (m *store.Manifest, err error) {
	parts := make([]part, len(model.files))
	defer func() {
		for i := range parts {
			err = errors.Join(err, s.release(&parts[i], err != nil))
		}
	}()
	if err := s.fetchAll(ctx, model, parts, meter, o); err != nil {
		return nil, fmt.Errorf("model %q: %w", model.name, explain(err))
	}
	return s.publish(ctx, model, parts, o)
}

// explain adds advice to the error of a full disk. It returns other errors unchanged.
func explain(err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("%w: the fetched bytes are kept; \"inferdctl gc\" and \"inferdctl rm NAME\" make room", err)
	}
	return err
}

// errNoSource returns the error for a model with neither a source nor a manifest.
func errNoSource(name string) error {
	return fmt.Errorf("model %q has no source_url and no manifest exists", name)
}

// A part is a file of a plan on its way into the store.
type part struct {
	file
	blob   store.Blob    // set once the blob is in the store
	held   *store.Lock   // keeps the blob from being removed; nil while the ingest holds the lock
	ingest *store.Ingest // nil if the blob was in the store
}

// release frees the locks of a part and ends its ingest. If the pull has failed, the fetched bytes are
// kept for the next pull.
func (s *session) release(p *part, failed bool) error {
	if p.held != nil {
		p.held.Release()
	}
	switch {
	case p.ingest == nil:
		return nil
	case failed:
		return s.giveBack(p)
	}
	return p.ingest.Close()
}

// fetchAll brings all files into the store. Before it fetches the first byte, it reserves disk space
// for all files of known size.
func (s *session) fetchAll(ctx context.Context, model *plan, parts []part, meter *meter, o Options) error {
	var present, total, done int64
	for i, f := range model.files {
		parts[i].file = f
		if err := s.begin(ctx, model, &parts[i], meter, o); err != nil {
			return err
		}
		size := f.size
		if parts[i].ingest == nil {
			size = parts[i].blob.Size
			present += size
		} else {
			present += parts[i].ingest.Done()
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
			meter.begin(display(p.sources[0].url), present, total)
			if err := s.fetchOne(ctx, model, p, meter, o); err != nil {
				return err
			}
		}
		done += p.blob.Size
	}
	if meter.begun {
		meter.end(done)
	}
	return nil
}

// begin begins the ingest of a file, unless its blob is in the store. While another process fetches
// the file, begin reports the progress of that process and waits.
func (s *session) begin(ctx context.Context, model *plan, p *part, meter *meter, o Options) error {
	for {
		err := s.beginOnce(ctx, model, p, o)
		busy, ok := errors.AsType[*store.BusyError](err)
		if !ok {
			return err
		}
		if err := s.follow(ctx, model, meter, busy, o); err != nil {
			return err
		}
	}
}

// beginOnce does the work of begin, but does not wait: if another process fetches the file, the
// error is a [store.BusyError].
func (s *session) beginOnce(ctx context.Context, model *plan, p *part, o Options) error {
	for {
		if present, err := s.hold(ctx, p); present || err != nil {
			return err
		}
		if len(p.sources) == 0 {
			return errNoSource(model.name)
		}
		if err := s.checkHistory(p, o); err != nil {
			return err
		}
		shownURL := display(p.sources[0].url)
		ingest, err := s.Store.Begin(store.Want{SHA256: p.sha256, Name: model.name, Upstream: store.Upstream{URL: shownURL, Total: p.size}})
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

// hold locks the blob of a file if the store has it, and reports whether it does.
func (s *session) hold(ctx context.Context, p *part) (present bool, err error) {
	if p.sha256 == "" {
		return false, nil
	}
	if present, err := s.Store.Have(ctx, p.sha256, s.report); err != nil || !present {
		return false, err
	}
	p.blob, p.held, err = s.Store.Hold(p.sha256)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // it was removed meanwhile
	}
	return err == nil, err
}

// giveBack ends the ingest of a failed pull. An ingest without bytes is dropped, to free the disk
// space reserved for it.
func (s *session) giveBack(p *part) error {
	ingest := p.ingest
	p.ingest = nil
	if ingest.Done() == 0 {
		return ingest.Discard()
	}
	return ingest.Close()
}

// checkHistory returns an error if the sources of a digest have already sent the same wrong content
// twice. With Options.Update it removes the record of that content instead.
func (s *session) checkHistory(p *part, o Options) error {
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

// A wrongError means that the sources of a model have repeatedly sent content with another digest.
type wrongError struct{ store.Quarantined }

func (e *wrongError) Error() string {
	kept := ""
	if e.MovedTo != "" {
		kept = "; it is kept in " + e.MovedTo
	}
	return fmt.Sprintf("SHA-256 mismatch (expected %s, got %s) %d times from %s%s: it was replaced upstream? Pin its commit, or fetch it once more with inferdctl pull --update",
		e.Expected, e.Actual, e.Times, e.URL, kept)
}

// maxWrong bounds the fetches of one pull that end with a wrong digest.
const maxWrong = 2

// fetchOne fetches a file and commits it. After a wrong digest it fetches the file once more, from
// the next source if there is one, unless another process has committed the file meanwhile.
func (s *session) fetchOne(ctx context.Context, model *plan, p *part, meter *meter, o Options) error {
	for wrong := 1; ; wrong++ {
		err := s.fetchSources(ctx, model, p, meter, o)
		mismatch, ok := errors.AsType[*store.MismatchError](err)
		if !ok {
			return err
		}
		s.report(status.Quarantine{
			Path: s.Store.BlobPath(p.sha256), Expected: mismatch.Expected, Actual: mismatch.Actual, MovedTo: mismatch.MovedTo,
		})
		s.Log.LogAttrs(ctx, slog.LevelWarn, "a model has a wrong SHA-256", slog.String("name", model.name), slog.String("url", mismatch.URL),
			slog.String("expected", mismatch.Expected), slog.String("actual", mismatch.Actual), slog.String("moved_to", mismatch.MovedTo))
		if mismatch.Times >= 2 {
			return &wrongError{mismatch.Quarantined}
		}
		if wrong >= maxWrong {
			return mismatch
		}
		if err := p.ingest.Close(); err != nil {
			return err
		}
		p.ingest = nil
		if !mismatch.Damaged {
			p.sources = append(slices.Clone(p.sources[1:]), p.sources[0])
		}
		again := o
		again.Update = false // an update would clear the record of the first mismatch
		if err := s.begin(ctx, model, p, meter, again); err != nil || p.ingest == nil {
			return err
		}
		meter.again(display(p.sources[0].url), p.ingest.Done())
	}
}

// fetchSources fetches the missing bytes of a file and commits it.
func (s *session) fetchSources(ctx context.Context, model *plan, p *part, meter *meter, o Options) error {
	f := &fetcher{
		client: s.client, log: s.Log, sleep: s.sleep, now: s.now, stall: s.test.stall,
		ranges: s.test.ranges, several: s.test.several, max: s.MaxBytes,
		file: p.file, sources: p.sources, ingest: p.ingest, meter: meter,
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
		return err
	}
	meter.fetched(p.ingest.Done())
	s.report(status.Verify{Path: s.Store.BlobPath(p.sha256)})
	return s.commit(ctx, model, p, meter, o)
}

// commit makes the bytes of a part a locked blob. If the digest was not known before, another
// process may be writing the same blob: then commit waits for it.
func (s *session) commit(ctx context.Context, model *plan, p *part, meter *meter, o Options) error {
	for {
		var err error
		p.blob, err = p.ingest.Commit(ctx)
		if err == nil && p.sha256 == "" {
			p.blob, p.held, err = s.Store.Hold(p.blob.Digest)
		}
		busy, ok := errors.AsType[*store.BusyError](err)
		if !ok {
			return err
		}
		if err := s.follow(ctx, model, meter, busy, o); err != nil {
			return err
		}
	}
}

// bytesOf describes the progress of a fetch in words; a negative total means unknown.
func bytesOf(done, total int64) string {
	if total < 0 {
		return fmt.Sprintf("%d bytes", done)
	}
	return fmt.Sprintf("%d of %d bytes", done, total)
}
