package pull

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/inferd-go/inferd/internal/store"
)

// Limits of requests for content.
const (
	rangeBytes   = 64 << 20    // bytes of one request
	connections  = 4           // requests at once
	parallelFrom = 256 << 20   // least size of a file that is fetched by several requests at once
	bufferBytes  = 256 << 10   // bytes read from a connection before they are written
	flushTime    = time.Second // after this time fewer bytes are written, too
	defaultMax   = 256 << 30   // largest file in bytes, unless MaxBytes is set
	maxIdle      = 64          // rounds in a row without a new byte
)

// A source is an address of a file.
type source struct {
	url  *url.URL
	cred *credential
}

// A fetcher brings the missing bytes of one file into its ingest. Each request has a goroutine,
// which sends its outcome to the run. The run makes all decisions, in one goroutine.
type fetcher struct {
	client  *client
	log     *slog.Logger
	sleep   func(context.Context, time.Duration) error
	now     func() time.Time
	stall   time.Duration
	ranges  int64 // bytes of a request
	several int64 // least size of a file that is fetched by several requests at once
	max     int64 // largest size of the file

	file    file
	sources []source
	ingest  *store.Ingest
	meter   *meter

	received int64 // bytes written, including those dropped later; used by the run's goroutine only

	mu           sync.Mutex // guards the fields below
	total        int64      // -1 if unknown
	etag         string     // ETag of the content at the current source; empty if unknown
	lastModified string     // Last-Modified of that content, for sources without ETags
	versionKnown bool       // etag and lastModified were recorded; they may be empty
}

// A run is the state of a fetch. It changes with each outcome of a request.
type run struct {
	*fetcher
	current int     // index of the current source
	dead    []error // by source: why it is no longer used
	link    *target // end of the source's redirects, for further requests; nil: request from the source itself
	plain   bool    // the source does not support ranges
	proven  bool    // the source has answered with a range
	flowed  bool    // the source has answered with content
	denied  int     // refusals since the source last sent bytes
	epoch   int     // number of pauses so far; failures of requests that were sent before the last pause do not count
	fails   int     // failures in a row
	best    int64   // largest number of bytes that the ingest has had
	mark    int64   // value of best when fails was last reset
	changes int     // number of times that the content changed upstream
	restart bool    // the fetch was restarted after an unexpected 416

	// afterRound, if not nil, is called once all requests of the round have ended: it may change fields
	// that requests read.
	afterRound func() error

	pending  []store.Range // not yet requested
	active   []store.Range // being requested
	outcomes chan outcome
	started  chan struct{} // receives a value for each 206
}

// fetch fetches all missing bytes. If the error is a [stopError], it says how many bytes are kept.
func (f *fetcher) fetch(ctx context.Context) error {
	r := &run{
		fetcher: f, dead: make([]error, len(f.sources)),
		outcomes: make(chan outcome), started: make(chan struct{}),
	}
	f.total = -1
	if f.file.size > 0 {
		f.total = f.file.size
	}
	if err := r.resume(ctx); err != nil {
		return err
	}
	r.best = f.ingest.Done()
	r.mark = r.best
	for idle, best := 0, r.best; ; idle++ {
		again, err := r.round(ctx)
		if stop, ok := errors.AsType[*stopError](err); ok {
			stop.kept = bytesOf(r.ingest.Done(), r.total)
		}
		if err != nil || !again {
			return err
		}
		if r.best > best {
			idle, best = 0, r.best
		}
		if idle >= maxIdle {
			return &stopError{display(r.sources[r.current].url), fmt.Errorf("%d rounds of requests in a row brought no new byte", maxIdle), bytesOf(r.ingest.Done(), r.total)}
		}
	}
}

// resume drops the bytes of an earlier try if the size of the file differs, or if a change of the
// content could not be noticed. It can be noticed if the digest is known, or if the ingest has an
// ETag or Last-Modified of the same address and the address has no query.
func (r *run) resume(ctx context.Context) error {
	up := r.ingest.Upstream()
	shownURL := display(r.sources[r.current].url)
	if r.total > 0 && up.Total > 0 && up.Total != r.total {
		r.log.LogAttrs(ctx, slog.LevelWarn, "the size of a partly fetched model has changed: it is fetched again from the start", slog.String("url", shownURL))
		return r.drop()
	}
	if r.total < 0 && up.Total > 0 {
		r.total = up.Total
	}
	if r.file.sha256 == "" && r.sources[r.current].url.RawQuery != "" && r.ingest.Done() > 0 {
		return r.drop() // the query is not saved, and may name another file
	}
	if up.URL == shownURL && (up.ETag != "" || up.LastModified != "") {
		r.etag, r.lastModified, r.versionKnown = up.ETag, up.LastModified, true
		return nil
	}
	if r.file.sha256 == "" && r.ingest.Done() > 0 {
		return r.drop()
	}
	return nil
}

// drop drops all bytes and the recorded version of the content.
func (r *run) drop() error {
	r.mu.Lock()
	r.etag, r.lastModified, r.versionKnown = "", "", false
	r.total = -1
	if r.file.size > 0 {
		r.total = r.file.size
	}
	r.mu.Unlock()
	return r.ingest.Reset(r.upstream(display(r.sources[r.current].url)))
}

// upstream returns the source in the form that the ingest saves. shownURL is its address without the
// query.
func (f *fetcher) upstream(shownURL string) store.Upstream {
	return store.Upstream{URL: shownURL, ETag: f.etag, LastModified: f.lastModified, Total: max(f.total, 0)}
}

// size returns the size of the file; it is -1 if unknown.
func (f *fetcher) size() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.total
}

// missing returns the ranges to request, cut to the size of one request. It leaves out ranges that
// were received or are being requested. If the source does not support ranges, it returns one empty
// range, which stands for the whole file.
func (r *run) missing() []store.Range {
	total := r.size()
	if r.plain && (total < 0 || r.ingest.Done() < total) {
		return []store.Range{{}}
	}
	have := slices.Concat(r.ingest.Ranges(), r.active)
	slices.SortFunc(have, func(a, b store.Range) int { return cmp.Compare(a.Start, b.Start) })
	step := r.ranges
	if total >= 0 && total < r.several {
		step = total
	}
	return gaps(have, total, step)
}

// gaps returns the gaps between sorted ranges up to total, in pieces of at most step bytes. If
// total is -1, it is unknown: gaps returns one piece after the last range, and the answer to that
// request has the total.
func gaps(have []store.Range, total, step int64) (pieces []store.Range) {
	from := int64(0)
	for _, h := range have {
		for total >= 0 && from < h.Start {
			to := min(h.Start, from+step)
			pieces = append(pieces, store.Range{Start: from, End: to})
			from = to
		}
		from = max(from, h.End)
	}
	if total < 0 {
		return []store.Range{{Start: from, End: from + step}}
	}
	for from < total {
		to := min(total, from+step)
		pieces = append(pieces, store.Range{Start: from, End: to})
		from = to
	}
	return pieces
}

// round requests all missing ranges. It returns true if another round must follow, for example with
// another source, and false if no byte is missing.
func (r *run) round(ctx context.Context) (again bool, err error) {
	if again, err := r.choose(); again || err != nil {
		return again, err
	}
	if r.pending = r.missing(); len(r.pending) == 0 {
		return false, nil
	}
	if r.plain && r.ingest.Done() > 0 {
		if err := r.ingest.Reset(r.upstream(display(r.sources[r.current].url))); err != nil {
			return false, err
		}
	}
	inner, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		r.drain()
		if r.afterRound != nil {
			err = errors.Join(err, r.afterRound())
			r.afterRound = nil
		}
	}()
	r.proven = false
	for len(r.pending) > 0 || len(r.active) > 0 {
		for len(r.pending) > 0 && len(r.active) < r.limit() {
			r.start(inner, r.pending[0])
			r.pending = r.pending[1:]
		}
		select {
		case <-r.started:
			r.proven, r.flowed = true, true
			if len(r.pending) == 0 { // the total may be known only now
				r.pending = r.missing()
			}
		case o := <-r.outcomes:
			r.credit(o)
			if again, err := r.decide(ctx, o); again || err != nil {
				return again, err
			}
		}
	}
	return true, nil // the total may have become known
}

// drain waits until all requests have ended. It counts their bytes and ignores their errors.
func (r *run) drain() {
	for len(r.active) > 0 {
		select {
		case <-r.started:
		case o := <-r.outcomes:
			r.credit(o)
		}
	}
}

// limit returns the number of requests that may run at once: one for a small file, and one until
// the source has answered with a range.
func (r *run) limit() int {
	if r.proven && r.size() >= r.several {
		return connections
	}
	return 1
}

// choose switches to another source if the current one is dead, and then returns true. If all
// sources are dead, it returns the reasons as an error.
func (r *run) choose() (again bool, err error) {
	if r.dead[r.current] == nil {
		return false, nil
	}
	for i := range r.sources {
		if next := (r.current + 1 + i) % len(r.sources); r.dead[next] == nil {
			r.switchSource(next)
			return true, nil
		}
	}
	return false, errors.Join(r.dead...)
}

// switchSource switches to another source. The bytes are kept: the digest is known, so all sources must
// have the same content.
func (r *run) switchSource(next int) {
	r.current, r.link, r.plain, r.flowed, r.denied = next, nil, false, false, 0
	r.mu.Lock()
	r.etag, r.lastModified, r.versionKnown = "", "", false
	r.mu.Unlock()
	r.meter.source(display(r.sources[next].url))
}

// start requests a range in a goroutine, which ends when its outcome is received.
func (r *run) start(ctx context.Context, span store.Range) {
	r.active = append(r.active, span)
	t := target{url: r.sources[r.current].url, cred: r.sources[r.current].cred}
	used := r.link != nil
	if used {
		t = *r.link
	}
	epoch, plain := r.epoch, r.plain
	shownURL := display(r.sources[r.current].url)
	first := len(r.active) == 1 && span.Start == 0 && r.ingest.Done() == 0
	go func() {
		o := r.get(ctx, t, span, plain, first, shownURL, r.started)
		o.epoch, o.used = epoch, used
		r.outcomes <- o
	}()
}

// credit removes the range of an outcome from r.active, counts its bytes, and resets the counts of
// failures after progress.
func (r *run) credit(o outcome) {
	if i := slices.Index(r.active, o.r); i >= 0 {
		r.active = slices.Delete(r.active, i, i+1)
	}
	r.received += o.got
	if o.got > 0 {
		r.flowed, r.denied = true, 0
	}
	if done := r.ingest.Done(); done > r.best {
		r.best = done
	}
	if r.best-r.mark >= progressOK {
		r.fails, r.mark = 0, r.best
	}
}
