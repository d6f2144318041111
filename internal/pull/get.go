package pull

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/inferd-go/inferd/internal/store"
)

// get requests a range and writes its bytes. If plain is set, it requests the whole content. first
// means that no byte has been received and no other request runs, so that an answer with the whole
// content is acceptable in place of the range. started receives a value once a range has been
// accepted. shownURL is as in upstream.
func (f *fetcher) get(ctx context.Context, t target, r store.Range, plain, first bool, shownURL string, started chan<- struct{}) (o outcome) {
	o = outcome{r: r, next: r.Start}
	header := http.Header{}
	if !plain {
		header.Set("Range", fmt.Sprintf("bytes=%d-%d", r.Start, r.End-1))
		f.mu.Lock()
		if f.versionKnown && strong(f.etag) != "" {
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
	end := a.finalTarget()
	o.end = &end
	o.head = judge(a.Response, r.Start, !plain, f.now())
	f.log.LogAttrs(ctx, slog.LevelDebug, "answer", slog.String("url", display(a.url)), slog.String("status", o.head.status), slog.Int64("from", r.Start), slog.Int64("to", r.End))
	if o.err = f.headError(&o, a, plain, first, shownURL); o.err != nil {
		return o
	}
	watch.Stop() // only waiting for the source counts as a stall
	if o.head.verdict == partial {
		select {
		case started <- struct{}{}:
		case <-inner.Done():
			o.err = cause(inner, inner.Err())
			return o
		}
	}
	o.next = o.head.start
	o.err = f.copy(inner, &o, a.Body, watch)
	return o
}

// cause returns errStall if a stall has canceled the request, otherwise err.
func cause(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errStall) {
		return errStall
	}
	return err
}

// headError returns the error that an answer's header means, or nil if the body is to be written.
func (f *fetcher) headError(o *outcome, a *answer, plain, first bool, shownURL string) error {
	h := &o.head
	switch h.verdict {
	case absent, refused:
		return f.client.denied(a, h)
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
		if err := f.admit(h, a, shownURL); err != nil {
			return err
		}
		if f.file.sha256 == "" && f.file.size <= 0 && unbounded(a.Response) {
			return errEndless
		}
		if !plain && !first {
			return errMisfit // the source ignored the range: the body begins at byte 0
		}
	case partial:
		if h.end > o.r.End {
			return errMisfit
		}
		return f.admit(h, a, shownURL)
	}
	return nil
}

// unbounded reports whether the body ends only with the connection. Then a cut body looks like a
// complete one.
func unbounded(resp *http.Response) bool {
	return resp.ContentLength < 0 && len(resp.TransferEncoding) == 0
}

// admit compares the version and the size of an answer with the expected ones and with those of the
// bytes received so far. It records the version and the total of the first answer. Once the total is
// known, it reserves the disk space.
func (f *fetcher) admit(h *head, a *answer, shownURL string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.versionKnown {
		if f.total >= 0 && h.total >= 0 && h.total != f.total ||
			h.etag != "" && f.etag != "" && opaque(h.etag) != opaque(f.etag) ||
			f.etag == "" && h.etag == "" && h.lastModified != f.lastModified {
			return errMoved
		}
	} else if f.file.sha256 == "" && f.total >= 0 && h.total >= 0 && h.total != f.total {
		return errMoved
	}
	if f.file.size > 0 && h.total >= 0 && h.total != f.file.size {
		return fmt.Errorf("%w: %d bytes, not %d", errOther, h.total, f.file.size)
	}
	if linked := digestOf(a.headerInChain("X-Linked-Etag")); linked != "" && f.file.sha256 != "" && linked != f.file.sha256 {
		return fmt.Errorf("%w: SHA-256 %s, not %s", errOther, linked, f.file.sha256)
	}
	if max(h.total, h.end) > f.max {
		return fmt.Errorf("%w: %d bytes", errMax, max(h.total, h.end))
	}
	if f.versionKnown && (f.total >= 0 || h.total < 0) {
		return nil
	}
	f.etag, f.lastModified, f.versionKnown = h.etag, h.lastModified, true
	fresh := f.total < 0 && h.total > 0
	if h.total > 0 {
		f.total = h.total
	}
	if err := f.ingest.SetUpstream(f.upstream(shownURL)); err != nil {
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

// digestOf returns the SHA-256 in an X-Linked-Etag header, or an empty text if there is none.
func digestOf(etag string) string {
	digest, err := store.ParseDigest(strings.Trim(opaque(etag), `"`))
	if err != nil {
		return ""
	}
	return digest
}

// copy writes a body to the ingest. watch cancels the request if no byte comes for the stall time.
func (f *fetcher) copy(ctx context.Context, o *outcome, body io.Reader, watch *time.Timer) error {
	buf := make([]byte, bufferBytes)
	for {
		n, err := f.fill(body, buf, watch)
		watch.Stop() // writes to a slow disk do not count as a stall
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

// finished sets the total once a body of unknown length has ended. If the file should have another
// size, it returns errCut.
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

// fill reads until the buffer is full, the body ends, or flushTime has passed since the call and at
// least one byte was read. It returns the number of bytes read.
func (f *fetcher) fill(body io.Reader, buf []byte, watch *time.Timer) (n int, err error) {
	watch.Reset(f.stall)
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

// magic is the first four bytes of a GGUF file.
var magic = []byte("GGUF")

// write checks the next bytes of a body, and writes them at their offset.
func (f *fetcher) write(o *outcome, p []byte) error {
	limit := o.head.end
	f.mu.Lock()
	switch {
	case o.head.verdict == partial: // the header gives the end
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
