package pull

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/inferd-go/inferd/internal/store"
)

// Sizes of requests for content.
const (
	rangeBytes   = 64 << 20  // of one request
	connections  = 4         // requests at once
	parallelFrom = 256 << 20 // bytes of a file from which on there are several
	bufferBytes  = 256 << 10 // of a connection: read before they are written
	flushTime    = time.Second
	defaultMax   = 256 << 30 // bytes of a file, if no other limit is given
	maxIdle      = 64        // rounds in which no byte came that was not there before
)

// A source is an address of a file.
type source struct {
	url  *url.URL
	cred *credential
}

// A fetcher brings the missing bytes of one file into its ingest. run decides, in one
// goroutine; each request has a goroutine of its own, which reports its outcome to run.
type fetcher struct {
	client  *client
	log     *slog.Logger
	sleep   func(context.Context, time.Duration) error
	now     func() time.Time
	stall   time.Duration
	ranges  int64 // bytes of a request
	several int64 // bytes of a file from which on there are several requests at once
	max     int64 // bytes of the file

	file    file
	sources []source
	ingest  *store.Ingest
	meter   *meter

	received int64 // bytes that were written, also those that were dropped; for run's goroutine

	mu    sync.Mutex // guards the fields below
	total int64      // -1: unknown
	etag  string     // of the bytes of this source; empty: unknown
	last  string     // Last-Modified of them, where there is no ETag
	bound bool       // the two are known
}

// The outcomes of a request, beside errors of the disk and of the context.
var (
	errCut     = errors.New("the connection was cut")
	errStall   = errors.New("no byte came for too long")
	errEmpty   = errors.New("an empty answer")
	errMoved   = errors.New("it was changed upstream")
	errTooLong = errors.New("more bytes came than were announced")
	errNotGGUF = errors.New("it is not a GGUF file")
	errOther   = errors.New("it has other content than expected")
)

// An outcome is the end of a request.
type outcome struct {
	r     store.Range // that was asked for
	next  int64       // first byte of r that has not been written
	got   int64       // bytes that were written
	head  head        // of the answer, if there was one
	end   *target     // of the redirects, if there was an answer
	err   error       // nil: all of r, or as much as the source sent, is there
	epoch int
	used  bool // a link that an earlier request had found was used
}

// A run is the state of a fetch between the outcomes of its requests.
type run struct {
	*fetcher
	at      int     // source
	dead    []error // by source: why it is not asked any longer
	link    *target // where the redirects of the source ended; nil: ask the source
	plain   bool    // the source does not know ranges
	proven  bool    // the source has answered with a range
	flowed  bool    // it has sent bytes
	denied  int     // refusals since it has sent bytes
	epoch   int     // of failures: those of requests before the last pause do not count
	fails   int     // in a row
	best    int64   // most bytes that were there
	mark    int64   // best when fails was 0 last
	changes int     // of the content upstream
	restart bool    // after a 416 that fits nothing

	// then changes what requests depend on, after all requests of the round have ended.
	then func() error

	pending  []store.Range // to be asked for
	active   []store.Range // asked for at present
	outcomes chan outcome
	started  chan struct{} // an answer with a range
}

// fetch brings all missing bytes. Its error says whether the bytes were kept.
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
			return &stopError{display(r.sources[r.at].url), errors.New("its answers lead nowhere"), bytesOf(r.ingest.Done(), r.total)}
		}
	}
}

// resume decides whether the bytes of an earlier try are of use: they are if the digest is
// known, or if the source says which version of the content they are of.
func (r *run) resume(ctx context.Context) error {
	up := r.ingest.Upstream()
	here := display(r.sources[r.at].url)
	if r.total > 0 && up.Total > 0 && up.Total != r.total {
		r.log.LogAttrs(ctx, slog.LevelWarn, "the size of a model that was begun has changed: begun again", slog.String("url", here))
		return r.drop()
	}
	if r.total < 0 && up.Total > 0 {
		r.total = up.Total
	}
	if r.file.sha256 == "" && r.sources[r.at].url.RawQuery != "" && r.ingest.Done() > 0 {
		return r.drop() // the query, which is not remembered, may name another file
	}
	if up.URL == here && (up.ETag != "" || up.LastModified != "") {
		r.etag, r.last, r.bound = up.ETag, up.LastModified, true
		return nil
	}
	if r.file.sha256 == "" && r.ingest.Done() > 0 {
		return r.drop()
	}
	return nil
}

// drop forgets all bytes and the version that they were of.
func (r *run) drop() error {
	r.mu.Lock()
	r.etag, r.last, r.bound = "", "", false
	r.total = -1
	if r.file.size > 0 {
		r.total = r.file.size
	}
	r.mu.Unlock()
	return r.ingest.Reset(r.upstream(display(r.sources[r.at].url)))
}

// upstream is what the ingest remembers of a source.
func (f *fetcher) upstream(here string) store.Upstream {
	return store.Upstream{URL: here, ETag: f.etag, LastModified: f.last, Total: max(f.total, 0)}
}

// size is the total; -1 if it is unknown.
func (f *fetcher) size() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.total
}

// missing returns the ranges that are neither there nor asked for, as they are asked for.
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
// the total is unknown (-1), it is one piece after the last range: the answer has the total.
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

// round asks for all that is missing, until it is there or something about the source has to
// change first: then it returns true.
func (r *run) round(ctx context.Context) (again bool, err error) {
	if again, err := r.choose(); again || err != nil {
		return again, err
	}
	if r.pending = r.missing(); len(r.pending) == 0 {
		return false, nil
	}
	if r.plain && r.ingest.Done() > 0 {
		if err := r.ingest.Reset(r.upstream(display(r.sources[r.at].url))); err != nil {
			return false, err
		}
	}
	inner, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		r.drain()
		if r.then != nil {
			err = errors.Join(err, r.then())
			r.then = nil
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
			r.proven = true
			if len(r.pending) == 0 { // the total may be new
				r.pending = r.missing()
			}
		case o := <-r.outcomes:
			r.credit(o)
			if again, err := r.decide(ctx, o); again || err != nil {
				return again, err
			}
		}
	}
	return true, nil // looks once more: the total may be known by now
}

// drain waits for the end of all requests. Their bytes count, their failures do not.
func (r *run) drain() {
	for len(r.active) > 0 {
		select {
		case <-r.started:
		case o := <-r.outcomes:
			r.credit(o)
		}
	}
}

// limit is the number of requests at once: one until the source has shown that it knows ranges.
func (r *run) limit() int {
	if r.proven && r.size() >= r.several {
		return connections
	}
	return 1
}

// choose finds the source to ask. Without one it fails with the reasons.
func (r *run) choose() (again bool, err error) {
	if r.dead[r.at] == nil {
		return false, nil
	}
	for i := range r.sources {
		if next := (r.at + 1 + i) % len(r.sources); r.dead[next] == nil {
			r.turn(next)
			return true, nil
		}
	}
	return false, errors.Join(r.dead...)
}

// turn goes to another source. The bytes that are there are of the same content.
func (r *run) turn(next int) {
	r.at, r.link, r.plain, r.flowed, r.denied = next, nil, false, false, 0
	r.mu.Lock()
	r.etag, r.last, r.bound = "", "", false
	r.mu.Unlock()
	r.meter.source(display(r.sources[next].url))
}

// start sends a request in a goroutine, which ends with its outcome.
func (r *run) start(ctx context.Context, span store.Range) {
	r.active = append(r.active, span)
	t := target{url: r.sources[r.at].url, cred: r.sources[r.at].cred}
	used := r.link != nil
	if used {
		t = *r.link
	}
	epoch, plain := r.epoch, r.plain
	here := display(r.sources[r.at].url)
	first := len(r.active) == 1 && span.Start == 0 && r.ingest.Done() == 0
	go func() {
		o := r.get(ctx, t, span, plain, first, here, r.started)
		o.epoch, o.used = epoch, used
		r.outcomes <- o
	}()
}

// credit counts the bytes of an outcome.
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

// decide acts on an outcome. It returns true if the round has to end, to begin another one.
func (r *run) decide(ctx context.Context, o outcome) (again bool, err error) {
	here := display(r.sources[r.at].url)
	if o.err == nil && o.end != nil {
		r.link = o.end
		if total := r.size(); o.head.verdict == partial && o.next < o.r.End && (total < 0 || o.next < total) {
			r.pending = append(r.pending, store.Range{Start: o.next, End: o.r.End})
		}
		if o.head.verdict == whole {
			return true, nil // all is there, or round finds what is missing
		}
		return false, nil
	}
	switch {
	case ctx.Err() != nil:
		return false, context.Cause(ctx)
	case o.err == nil:
		return false, errors.New("internal error: a request without an outcome")
	}
	if denied, ok := errors.AsType[*deniedError](o.err); ok {
		r.refusal(o, denied)
		return true, nil
	}
	if refused, ok := errors.AsType[*refusedError](o.err); ok {
		r.dead[r.at] = refused
		return true, nil
	}
	if refused, ok := errors.AsType[*addressError](o.err); ok {
		r.dead[r.at] = fmt.Errorf("%s: %w", here, refused)
		return true, nil
	}
	if reason := hopeless(o.err); reason != "" {
		r.dead[r.at] = fmt.Errorf("%w%s", o.err, reason)
		return true, nil
	}
	switch {
	case errors.Is(o.err, errMoved):
		if r.changes++; r.changes > 1 {
			return false, r.stop(here, errors.New("it keeps being changed upstream while it is fetched"), true)
		}
		r.log.LogAttrs(ctx, slog.LevelWarn, "a model was changed upstream while it was fetched: begun again", slog.String("url", here))
		r.link, r.then = nil, r.drop
		return true, nil
	case errors.Is(o.err, errMisfit):
		if r.plain {
			r.dead[r.at] = fmt.Errorf("%s: its ranges do not fit, and it does not send the whole file", here)
			return true, nil
		}
		r.plain = true
		return true, nil
	case errors.Is(o.err, errComplete):
		return r.beyond(ctx, o)
	case errors.Is(o.err, errOther):
		if r.changes++; r.changes == 1 {
			r.link = nil
			return true, nil
		}
		r.dead[r.at] = fmt.Errorf("%s: %w", here, o.err)
		return true, nil
	case errors.Is(o.err, errTooLong), errors.Is(o.err, errNotGGUF), errors.Is(o.err, errMax):
		return false, r.stop(here, o.err, true)
	case errors.Is(o.err, errLocal):
		return false, o.err
	}
	return r.failure(ctx, o, here)
}

// hopeless returns a hint if a failure would be the same again.
func hopeless(err error) string {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return ": if a proxy or a mirror has a certificate of its own, SSL_CERT_FILE names the file of its authority"
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok && dns.IsNotFound {
		return ": no such host, or no network"
	}
	return ""
}

// A stopError ends a fetch and keeps its bytes.
type stopError struct {
	url    string
	reason error
	kept   string // bytes; set at the end, for other requests may still bring some
}

func (e *stopError) Error() string {
	return fmt.Sprintf("%s: %v; %s are kept, and the next try goes on from there", e.url, e.reason, e.kept)
}

func (e *stopError) Unwrap() error { return e.reason }

// stop ends the fetch. The bytes are of no use if drop is set, else they are kept.
func (r *run) stop(here string, reason error, drop bool) error {
	if !drop {
		return &stopError{url: here, reason: reason}
	}
	r.then = r.drop
	return fmt.Errorf("%s: %w", here, reason)
}

// refusal acts on 401, 403, 404, 410 and other answers that a source gives for good. A link that
// worked before has expired: the source is asked for another one.
func (r *run) refusal(o outcome, denied *deniedError) {
	r.denied++
	if (o.used || r.flowed) && r.denied <= 1 {
		r.link = nil
		return
	}
	r.dead[r.at] = denied
}

// beyond acts on a 416.
func (r *run) beyond(ctx context.Context, o outcome) (again bool, err error) {
	here := display(r.sources[r.at].url)
	done := r.ingest.Done()
	ranges := r.ingest.Ranges()
	if o.head.total > 0 && o.head.total == done && len(ranges) == 1 && ranges[0].Start == 0 && (r.file.size <= 0 || r.file.size == done) {
		r.mu.Lock()
		r.total = done
		up := r.upstream(here)
		r.mu.Unlock()
		return true, r.ingest.SetUpstream(up)
	}
	if r.restart {
		return false, r.stop(here, fmt.Errorf("it keeps refusing the range (%s)", o.head.status), true)
	}
	r.restart = true
	what := "the source refuses the rest of a model"
	if a, err := r.client.do(ctx, http.MethodHead, target{url: r.sources[r.at].url, cred: r.sources[r.at].cred}, nil); err == nil {
		if a.StatusCode == http.StatusOK && (a.ContentLength != r.total || r.bound && opaque(a.Header.Get("ETag")) != opaque(r.etag)) {
			what = "a model was changed upstream"
		}
		_ = a.Body.Close() // a HEAD has none
	}
	r.log.LogAttrs(ctx, slog.LevelWarn, what+": begun again", slog.String("url", here)) //nolint:sloglint // one of two constants
	r.link, r.then = nil, r.drop
	return true, nil
}

// failure acts on a transient failure: it pauses, and queues the rest of the range again.
func (r *run) failure(ctx context.Context, o outcome, here string) (again bool, err error) {
	if o.next < o.r.End || o.r.End == 0 {
		r.pending = append(r.pending, store.Range{Start: o.next, End: o.r.End})
	}
	if o.epoch < r.epoch {
		return false, nil // it was sent before the last pause
	}
	r.fails++
	r.epoch++
	reason := strings.TrimSuffix(o.err.Error(), "\n")
	switch {
	case o.head.after > maxAfter:
		return false, r.stop(here, fmt.Errorf("%s: it asks to wait for %v", reason, o.head.after.Round(time.Second)), false)
	case r.fails >= maxFails:
		return false, r.stop(here, fmt.Errorf("%d failures in a row, the last one: %s", r.fails, reason), false)
	}
	wait := pause(r.fails, o.head.after, random())
	r.log.LogAttrs(ctx, slog.LevelInfo, "a download failed, and is tried again", slog.String("url", here), slog.String("reason", reason),
		slog.Int("failures", r.fails), slog.Duration("pause", wait))
	if err := r.sleep(ctx, wait); err != nil {
		return false, err
	}
	r.link = nil
	if r.fails%rotateFails == 0 && r.file.sha256 != "" {
		for i := range len(r.sources) - 1 {
			if next := (r.at + 1 + i) % len(r.sources); r.dead[next] == nil {
				r.then = func() error { r.turn(next); return nil }
				return true, nil
			}
		}
	}
	return r.plain || o.r.End == 0, nil
}

var (
	errMisfit   = errors.New("the range in the answer is not the one that was asked for")
	errComplete = errors.New("the range is beyond the end")
	errMax      = errors.New("the file is larger than the limit (--max-bytes)")
	errLocal    = errors.New("local")
)

// A localError is a failure on this machine: the disk, most of all.
type localError struct{ err error }

func (e *localError) Error() string        { return e.err.Error() }
func (e *localError) Unwrap() error        { return e.err }
func (e *localError) Is(target error) bool { return target == errLocal }

// A deniedError means that a source does not have the file, or not for us.
type deniedError struct {
	url, status string
	gated       bool
}

func (e *deniedError) Error() string {
	text := e.url + ": " + e.status
	if e.gated {
		text += ": gated: accept the licence on its page, and set HF_TOKEN"
	}
	return text
}

// get sends a request for a range, and writes its bytes. With plain set it asks for the whole.
// first means that nothing is there and nothing else is asked for: then the whole content is
// accepted in place of the range.
func (f *fetcher) get(ctx context.Context, t target, r store.Range, plain, first bool, here string, started chan<- struct{}) (o outcome) {
	o = outcome{r: r, next: r.Start}
	header := http.Header{}
	if !plain {
		header.Set("Range", fmt.Sprintf("bytes=%d-%d", r.Start, r.End-1))
		f.mu.Lock()
		if f.bound && strong(f.etag) != "" {
			header.Set("If-Range", f.etag)
		}
		f.mu.Unlock()
	}
	inner, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(f.stall+connectTimeout, func() { cancel(errStall) })
	defer watch.Stop()
	a, err := f.client.do(inner, http.MethodGet, t, header)
	if err != nil {
		o.err = cause(inner, err)
		return o
	}
	defer a.Body.Close()
	end := a.end()
	o.end = &end
	o.head = judge(a.Response, r.Start, !plain, f.now())
	f.log.LogAttrs(ctx, slog.LevelDebug, "answer", slog.String("url", display(a.url)), slog.String("status", o.head.status), slog.Int64("from", r.Start), slog.Int64("to", r.End))
	if o.err = f.judged(&o, a, plain, first, here); o.err != nil {
		return o
	}
	if o.head.verdict == partial {
		select {
		case started <- struct{}{}:
		case <-inner.Done():
			o.err = cause(inner, inner.Err())
			return o
		}
	}
	watch.Reset(f.stall)
	o.next = o.head.start
	o.err = f.copy(inner, &o, a.Body, watch)
	return o
}

// cause returns the reason of a canceled request.
func cause(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errStall) {
		return errStall
	}
	return err
}

// judged returns the error of a head, or nil if bytes follow that are to be written.
func (f *fetcher) judged(o *outcome, a *answer, plain, first bool, here string) error {
	h := &o.head
	switch h.verdict {
	case absent:
		return &deniedError{display(a.url), h.status, false}
	case refused:
		return &deniedError{display(a.url), h.status, true}
	case retry:
		return errors.New(h.status)
	case misfit:
		return errMisfit
	case complete:
		return errComplete
	case whole:
		if h.total == 0 {
			return errEmpty
		}
		if err := f.admit(h, a, here); err != nil {
			return err
		}
		if !plain && !first {
			return errMisfit // the range was ignored: from byte 0
		}
	case partial:
		if h.end > o.r.End {
			return errMisfit
		}
		return f.admit(h, a, here)
	}
	return nil
}

// admit compares the version of an answer with the one of the bytes that are there, and
// remembers the first one.
func (f *fetcher) admit(h *head, a *answer, here string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.bound {
		if f.total >= 0 && h.total >= 0 && h.total != f.total ||
			h.etag != "" && f.etag != "" && opaque(h.etag) != opaque(f.etag) ||
			f.etag == "" && h.etag == "" && h.lastModified != f.last {
			return errMoved
		}
	} else if f.file.sha256 == "" && f.total >= 0 && h.total >= 0 && h.total != f.total {
		return errMoved
	}
	if f.file.size > 0 && h.total >= 0 && h.total != f.file.size {
		return fmt.Errorf("%w: %d bytes, not %d", errOther, h.total, f.file.size)
	}
	if linked := digestOf(a.hop("X-Linked-Etag")); linked != "" && f.file.sha256 != "" && linked != f.file.sha256 {
		return fmt.Errorf("%w: SHA-256 %s, not %s", errOther, linked, f.file.sha256)
	}
	if max(h.total, h.end) > f.max {
		return fmt.Errorf("%w: %d bytes", errMax, max(h.total, h.end))
	}
	if f.bound && (f.total >= 0 || h.total < 0) {
		return nil
	}
	f.etag, f.last, f.bound = h.etag, h.lastModified, true
	fresh := f.total < 0 && h.total > 0
	if h.total > 0 {
		f.total = h.total
	}
	if err := f.ingest.SetUpstream(f.upstream(here)); err != nil {
		return &localError{err}
	}
	if fresh {
		f.meter.total(f.total)
		if err := f.ingest.Reserve(); err != nil {
			return &localError{err}
		}
	}
	return nil
}

// digestOf returns the SHA-256 of the header X-Linked-Etag; empty if it has none.
func digestOf(etag string) string {
	digest, err := store.ParseDigest(strings.Trim(opaque(etag), `"`))
	if err != nil {
		return ""
	}
	return digest
}

// copy writes a body to the ingest. The watch ends the request if no byte comes.
func (f *fetcher) copy(ctx context.Context, o *outcome, body io.Reader, watch *time.Timer) error {
	buf := make([]byte, bufferBytes)
	for {
		n, err := f.fill(body, buf, watch)
		if n > 0 {
			if err := f.write(o, buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case err == nil:
			continue
		case ctx.Err() != nil:
			return cause(ctx, ctx.Err())
		case !errors.Is(err, io.EOF):
			return fmt.Errorf("%w: %w", errCut, err)
		case o.got == 0:
			return errEmpty
		case o.head.verdict == whole && o.head.total < 0:
			return f.finished(o.next)
		case o.head.verdict == whole && o.next < o.head.total:
			return errCut
		}
		return nil
	}
}

// finished sets the total of a content without a length: the end is where it ended.
func (f *fetcher) finished(total int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file.size > 0 && total != f.file.size {
		return errCut
	}
	f.total = total
	f.meter.total(total)
	up := f.ingest.Upstream()
	up.Total = total
	if err := f.ingest.SetUpstream(up); err != nil {
		return &localError{err}
	}
	return nil
}

// fill reads until the buffer is full, the body ends, or a second has passed.
func (f *fetcher) fill(body io.Reader, buf []byte, watch *time.Timer) (n int, err error) {
	watch.Reset(f.stall) // a slow disk is no stall of the source
	begin := f.now()
	for n < len(buf) && err == nil && (n == 0 || f.now().Sub(begin) < flushTime) {
		var m int
		m, err = body.Read(buf[n:])
		n += m
		if m > 0 {
			watch.Reset(f.stall)
		}
	}
	return n, err
}

// magic is the begin of a GGUF file.
var magic = []byte("GGUF")

// write writes bytes at their place.
func (f *fetcher) write(o *outcome, p []byte) error {
	limit := o.head.end
	f.mu.Lock()
	switch {
	case o.head.verdict == partial:
		if limit = o.r.End; f.total >= 0 {
			limit = min(limit, f.total)
		}
	case f.total >= 0:
		limit = f.total
	case limit < 0:
		limit = f.max
	}
	f.mu.Unlock()
	switch {
	case o.next+int64(len(p)) > limit && limit == f.max:
		return errMax
	case o.next+int64(len(p)) > limit:
		return errTooLong
	case o.next == 0 && f.file.sha256 == "" && !bytes.HasPrefix(p, magic[:min(len(p), len(magic))]):
		return errNotGGUF
	}
	if _, err := f.ingest.WriteAt(p, o.next); err != nil {
		return &localError{err}
	}
	o.next += int64(len(p))
	o.got += int64(len(p))
	f.meter.note(f.ingest.Done())
	return nil
}
