package pull

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// A verdict says how to treat an answer to a request for content.
type verdict int

const (
	partial  verdict = iota // the requested range
	whole                   // the whole content, from byte 0
	complete                // 416: the requested range begins at or beyond the end
	absent                  // the source does not have the file: try the next source
	refused                 // 401 or 403: like absent, but a token may help
	retry                   // a transient failure: ask again later
	misfit                  // another range than requested: ask without a range
)

// A head is the header of an answer to a request for content.
type head struct {
	verdict      verdict
	start, end   int64 // the bytes that follow, up to but not including end; end is -1 if unknown
	total        int64 // -1 if unknown
	etag         string
	lastModified string
	after        time.Duration // the Retry-After; 0 if there is none
	status       string        // for reports
}

// strong returns etag if it may be sent as If-Range, otherwise an empty text.
func strong(etag string) string {
	if len(etag) < 2 || etag[0] != '"' || etag[len(etag)-1] != '"' {
		return ""
	}
	return etag
}

// opaque strips the mark of a weak ETag, for comparisons.
func opaque(etag string) string { return strings.TrimPrefix(etag, "W/") }

// judge reads the header of an answer. If ranged is true, the request was for a range that begins at
// start; otherwise it was for the whole content, and start is 0. A Retry-After with a date is converted
// to the time from now until then.
func judge(resp *http.Response, start int64, ranged bool, now time.Time) head {
	h := head{
		start: start, end: -1, total: -1, status: statusOf(resp),
		etag: resp.Header.Get("ETag"), lastModified: resp.Header.Get("Last-Modified"),
	}
	switch code := resp.StatusCode; {
	case code == http.StatusPartialContent && ranged:
		h.verdict = partial
		from, to, total, ok := contentRange(resp.Header.Get("Content-Range"))
		if !ok || from != start || encoded(resp) {
			h.verdict = misfit
			return h
		}
		h.end, h.total = to, total
	case code == http.StatusOK:
		h.verdict = whole
		if encoded(resp) {
			h.verdict, h.status = absent, "the answer is compressed, although the request did not allow that"
			return h
		}
		h.start, h.total, h.end = 0, resp.ContentLength, resp.ContentLength
	case code == http.StatusRequestedRangeNotSatisfiable && ranged:
		h.verdict = complete
		if text, ok := strings.CutPrefix(resp.Header.Get("Content-Range"), "bytes */"); ok {
			if total, err := strconv.ParseInt(text, 10, 64); err == nil && total >= 0 {
				h.total = total
			}
		}
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		h.verdict = refused
	case code == http.StatusRequestTimeout, code == http.StatusTooEarly, code == http.StatusTooManyRequests, code >= 500:
		h.verdict = retry
		h.after = retryAfter(resp.Header.Get("Retry-After"), now)
	case code == http.StatusPartialContent:
		h.verdict = misfit
	default:
		h.verdict = absent
	}
	return h
}

func statusOf(resp *http.Response) string {
	return strings.TrimSpace(fmt.Sprintf("http status %d %s", resp.StatusCode, http.StatusText(resp.StatusCode)))
}

// encoded reports whether the body is compressed, although the request asked for the plain content.
func encoded(resp *http.Response) bool {
	e := strings.ToLower(resp.Header.Get("Content-Encoding"))
	return e != "" && e != "identity"
}

// contentRange parses "bytes FROM-LAST/TOTAL". to is the end of the range, exclusive; total is -1
// if it is unknown.
func contentRange(text string) (from, to, total int64, ok bool) {
	text, ok = strings.CutPrefix(text, "bytes ")
	if !ok {
		return 0, 0, 0, false
	}
	span, size, ok := strings.Cut(text, "/")
	if !ok {
		return 0, 0, 0, false
	}
	first, last, ok := strings.Cut(span, "-")
	if !ok {
		return 0, 0, 0, false
	}
	total = -1
	var errs [3]error
	from, errs[0] = strconv.ParseInt(first, 10, 64)
	to, errs[1] = strconv.ParseInt(last, 10, 64)
	if size != "*" {
		total, errs[2] = strconv.ParseInt(size, 10, 64)
	}
	for _, err := range errs {
		if err != nil {
			return 0, 0, 0, false
		}
	}
	if from < 0 || to < from || size != "*" && to >= total {
		return 0, 0, 0, false
	}
	return from, to + 1, total, true
}

// retryAfter parses the value of a Retry-After header: a number of seconds, or a date. It returns 0
// if the value is not valid.
func retryAfter(text string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseInt(text, 10, 32); err == nil {
		return max(0, time.Duration(seconds)*time.Second)
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

const (
	firstPause = 500 * time.Millisecond
	maxPause   = 30 * time.Second
	maxFails   = 8       // failures in a row that end the pull
	progressOK = 8 << 20 // bytes of progress that reset the count of failures
	// maxAfter is the longest Retry-After that a pull waits for.
	maxAfter = 10 * time.Minute
	// rotateFails is the number of failures in a row after which the next source is tried.
	rotateFails = 3
)

// pause returns the time before the next try after a number of failures in a row: 0.5 s, doubled
// for each further failure up to 30 s, and multiplied by 0.5 + random, with random in [0, 1). It is
// never less than after, the source's Retry-After.
func pause(fails int, after time.Duration, random float64) time.Duration {
	p := firstPause
	for range min(fails-1, 16) {
		p = min(2*p, maxPause)
	}
	return max(time.Duration(float64(p)*(0.5+random)), after)
}

func random() float64 { return rand.Float64() } //nolint:gosec // it only spreads the load
