package pull

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/inferd-go/inferd/internal/store"
)

// Errors of a request that the connection or the content of the answer causes. [deniedError] and the
// errors of a mismatch are below.
var (
	errCut     = errors.New("the connection was cut")
	errStall   = errors.New("no byte came for too long")
	errEmpty   = errors.New("an empty answer")
	errMoved   = errors.New("it was changed upstream")
	errTooLong = errors.New("more bytes came than were announced")
	errNotGGUF = errors.New("it is not a GGUF file")
	errOther   = errors.New("it has other content than expected")
	errEndless = errors.New("the answer states no length, so a cut download could not be detected: give the SHA-256 of the file (#sha256=HEX)")
)

// An outcome is the result of a request.
type outcome struct {
	r     store.Range // the requested range
	next  int64       // first byte of r that was not written
	got   int64       // bytes written
	head  head        // header of the answer; zero if there was no answer
	end   *target     // end of the redirects; nil if there was no answer
	err   error       // nil if all bytes of r that the source has were written
	epoch int         // run.epoch when the request was sent
	used  bool        // the request was sent to run.link, where the redirects of an earlier one ended
}

// decide acts on an outcome. It returns true if the round must end and another one must begin.
func (r *run) decide(ctx context.Context, o outcome) (again bool, err error) {
	shownURL := display(r.sources[r.current].url)
	if o.err == nil && o.end != nil {
		r.link = o.end
		if total := r.size(); o.head.verdict == partial && o.next < o.r.End && (total < 0 || o.next < total) {
			r.pending = append(r.pending, store.Range{Start: o.next, End: o.r.End})
		}
		if o.head.verdict == whole {
			return true, nil // the next round requests bytes that are still missing
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
	if reason := fatal(o.err, shownURL); reason != nil {
		r.dead[r.current] = reason
		return true, nil //nolint:nilerr // choose returns it if there is no other source
	}
	switch {
	case errors.Is(o.err, errMoved):
		if r.changes++; r.changes > 1 {
			return false, r.stop(shownURL, errors.New("it keeps being changed upstream while it is fetched"), true)
		}
		r.log.LogAttrs(ctx, slog.LevelWarn, "a model was changed upstream while it was fetched: it is fetched again from the start", slog.String("url", shownURL))
		r.link, r.afterRound = nil, r.drop
		return true, nil
	case errors.Is(o.err, errMisfit):
		if r.plain {
			r.dead[r.current] = fmt.Errorf("%s: it answers with other ranges than requested, and does not send the whole file", shownURL)
			return true, nil
		}
		r.plain = true
		return true, nil
	case errors.Is(o.err, errComplete):
		return r.rangeNotSatisfiable(ctx, o)
	case errors.Is(o.err, errOther):
		if r.changes++; r.changes == 1 {
			r.link = nil
			return true, nil
		}
		r.dead[r.current] = fmt.Errorf("%s: %w", shownURL, o.err)
		return true, nil
	case errors.Is(o.err, errTooLong), errors.Is(o.err, errNotGGUF), errors.Is(o.err, errMax):
		return false, r.stop(shownURL, o.err, true)
	case errors.Is(o.err, errLocal):
		return false, o.err
	}
	return r.failure(ctx, o, shownURL)
}

// fatal returns the reason to give up a source at once, or nil if the request may be tried again.
func fatal(err error, shownURL string) error {
	if refused, ok := errors.AsType[*refusedError](err); ok {
		return refused
	}
	if hint := hopeless(err); hint != "" {
		return fmt.Errorf("%w%s", err, hint)
	}
	if _, ok := errors.AsType[*addressError](err); ok || errors.Is(err, errEndless) {
		return fmt.Errorf("%s: %w", shownURL, err)
	}
	return nil
}

// hopeless returns a hint if a retry cannot mend the error, otherwise an empty text.
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
	kept   string // number of bytes; set at the end, since other requests may still add some
}

func (e *stopError) Error() string {
	return fmt.Sprintf("%s: %v; %s are kept, and the next try continues from there", e.url, e.reason, e.kept)
}

func (e *stopError) Unwrap() error { return e.reason }

// stop returns the error that ends the fetch. If drop is set, the bytes are dropped, otherwise
// kept.
func (r *run) stop(shownURL string, reason error, drop bool) error {
	if !drop {
		return &stopError{url: shownURL, reason: reason}
	}
	r.afterRound = r.drop
	return fmt.Errorf("%s: %w", shownURL, reason)
}

// refusal acts on 401, 403, 404, 410 and other permanent answers. If the link worked before, it has
// probably expired: one request is sent to the source for a new link. Otherwise the source is given up.
func (r *run) refusal(o outcome, denied *deniedError) {
	r.denied++
	if (o.used || r.flowed) && r.denied <= 1 {
		r.link = nil
		return
	}
	r.dead[r.current] = denied
}

// rangeNotSatisfiable acts on a 416. Either all bytes have been received, or the content has changed and is
// fetched again once.
func (r *run) rangeNotSatisfiable(ctx context.Context, o outcome) (again bool, err error) {
	shownURL := display(r.sources[r.current].url)
	done := r.ingest.Done()
	ranges := r.ingest.Ranges()
	r.mu.Lock() // other requests may be setting these fields
	total, versionKnown, etag := r.total, r.versionKnown, r.etag
	r.mu.Unlock()
	if o.head.total > 0 && o.head.total == done && len(ranges) == 1 && ranges[0].Start == 0 && (r.file.size <= 0 || r.file.size == done) {
		r.mu.Lock()
		r.total = done
		up := r.upstream(shownURL)
		r.mu.Unlock()
		return true, r.ingest.SetUpstream(up)
	}
	if r.restart {
		return false, r.stop(shownURL, fmt.Errorf("it keeps refusing the range (%s)", o.head.status), true)
	}
	r.restart = true
	what := "the source refuses the rest of a model"
	if a, err := r.client.do(ctx, http.MethodHead, target{url: r.sources[r.current].url, cred: r.sources[r.current].cred}, nil); err == nil {
		if a.StatusCode == http.StatusOK && (a.ContentLength != total || versionKnown && opaque(a.Header.Get("ETag")) != opaque(etag)) {
			what = "a model was changed upstream"
		}
		_ = a.Body.Close() // a HEAD has none
	}
	r.log.LogAttrs(ctx, slog.LevelWarn, what+": it is fetched again from the start", slog.String("url", shownURL)) //nolint:sloglint // one of two constants
	r.link, r.afterRound = nil, r.drop
	return true, nil
}

// failure acts on a transient error: it queues the missing part of the range again, and pauses. After
// every rotateFails failures in a row it switches to the next source, if the digest is known. After
// maxFails failures in a row, or if a Retry-After is longer than maxAfter, it returns an error.
func (r *run) failure(ctx context.Context, o outcome, shownURL string) (again bool, err error) {
	if o.next < o.r.End || o.r.End == 0 {
		r.pending = append(r.pending, store.Range{Start: o.next, End: o.r.End})
	}
	if o.epoch < r.epoch {
		return false, nil // the request was sent before the last pause
	}
	r.fails++
	r.epoch++
	reason := strings.TrimSuffix(o.err.Error(), "\n")
	switch {
	case o.head.after > maxAfter:
		return false, r.stop(shownURL, fmt.Errorf("%s: it asks to wait for %v", reason, o.head.after.Round(time.Second)), false)
	case r.fails >= maxFails:
		return false, r.stop(shownURL, fmt.Errorf("%d failures in a row, the last one: %s", r.fails, reason), false)
	}
	wait := pause(r.fails, o.head.after, random())
	r.log.LogAttrs(ctx, slog.LevelInfo, "a download failed, and is tried again", slog.String("url", shownURL), slog.String("reason", reason),
		slog.Int("failures", r.fails), slog.Duration("pause", wait))
	if err := r.sleep(ctx, wait); err != nil {
		return false, err
	}
	r.link = nil
	if r.fails%rotateFails == 0 && r.file.sha256 != "" {
		for i := range len(r.sources) - 1 {
			if next := (r.current + 1 + i) % len(r.sources); r.dead[next] == nil {
				r.afterRound = func() error { r.switchSource(next); return nil }
				return true, nil
			}
		}
	}
	return r.plain || o.r.End == 0, nil
}

var (
	errMisfit   = errors.New("the range in the answer is not the requested one")
	errComplete = errors.New("the range is beyond the end")
	errMax      = errors.New("the file is larger than the limit (--max-bytes)")
	errLocal    = errors.New("local")
)

// A localError is an error of this machine, usually of its disk.
type localError struct{ err error }

func (e *localError) Error() string        { return e.err.Error() }
func (e *localError) Unwrap() error        { return e.err }
func (e *localError) Is(target error) bool { return target == errLocal }

// A deniedError means that a source does not have the file, or denies access to it.
type deniedError struct {
	url, status string
	gated       bool // the hub denied access: a token may help
}

func (e *deniedError) Error() string {
	text := e.url + ": " + e.status
	if e.gated {
		text += ": gated: accept the licence on its page, and set HF_TOKEN"
	}
	return text
}

// denied returns the error for an answer that denies access. The error mentions a token only if the
// hub denied access, because the hub's token is valid nowhere else.
func (c *client) denied(a *answer, h *head) *deniedError {
	return &deniedError{display(a.url), h.status, h.verdict == refused && originOf(a.url) == c.hub}
}
