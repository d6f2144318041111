package pull_test

import (
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/hubtest"
	"github.com/inferd-go/inferd/internal/pull"
	"github.com/inferd-go/inferd/internal/store"
)

// once returns a script that applies the fault once: to the first request for a range of content that
// begins at from.
func once(from int64, fault hubtest.Fault) func(hubtest.Request) *hubtest.Fault {
	var mu sync.Mutex
	used := false
	return func(r hubtest.Request) *hubtest.Fault {
		mu.Lock()
		defer mu.Unlock()
		if used || r.Origin != hubtest.CDN || r.From != from || r.Method != http.MethodGet {
			return nil
		}
		used = true
		return &fault
	}
}

// Each answer of the table is sent once, to the request for the first, a middle or the last range of
// a file. The pull succeeds or fails as the table says.
func TestAnswersOnce(t *testing.T) {
	c := content(6*rangeOf+1000, 2)
	positions := map[string]int64{"first": 0, "middle": 3 * rangeOf, "last": 6 * rangeOf}
	if testing.Short() {
		c = c[:4*rangeOf+1000]
		positions = map[string]int64{"middle": 3 * rangeOf}
	}
	statuses := func(code int, header http.Header) hubtest.Fault { return hubtest.Fault{Status: code, Header: header} }
	for name, test := range map[string]struct {
		fault hubtest.Fault
		// first and later are the errors of the pull if the fault meets the request for the first
		// range, or for a later one. They are empty if the pull succeeds.
		first, later string
		pauses       int
		dropped      bool // no byte of a failed pull is kept
	}{
		"206 as asked":                        {fault: hubtest.Fault{}},
		"206 with another ETag":               {fault: hubtest.Fault{ETag: `"moved"`}},
		"206 with a weak ETag":                {fault: hubtest.Fault{ETag: `W/"moved"`}},
		"206 without an ETag":                 {fault: hubtest.Fault{ETag: "-"}},
		"206 with another total":              {fault: hubtest.Fault{Total: 99_999_999}},
		"206 of another place":                {fault: hubtest.Fault{Shift: 10}},
		"206 without Content-Range":           {fault: hubtest.Fault{Unranged: true}},
		"206 compressed":                      {fault: hubtest.Fault{Header: http.Header{"Content-Encoding": {"gzip"}}}},
		"200":                                 {fault: hubtest.Fault{IgnoreRange: true}},
		"200 without a length":                {fault: hubtest.Fault{IgnoreRange: true, NoLength: true}},
		"200 and cut":                         {fault: hubtest.Fault{IgnoreRange: true, CutAfter: 1000}, pauses: 1},
		"204":                                 {fault: statuses(204, nil), first: "http status 204"},
		"300":                                 {fault: statuses(300, nil), first: "http status 300"},
		"302 without an address":              {fault: statuses(302, nil), first: "its redirect has no valid address", later: "its redirect has no valid address"},
		"302 to http":                         {fault: statuses(302, http.Header{"Location": {"http://h.example/x?secret"}}), first: "a redirect to http://h.example/x is refused", later: "a redirect to http://h.example/x is refused"},
		"302 to a link without its signature": {fault: statuses(302, http.Header{"Location": {"?"}}), first: "http status 403"},
		"400":                                 {fault: statuses(400, nil), first: "http status 400"},
		"401":                                 {fault: statuses(401, nil), first: "http status 401 Unauthorized"},
		"403":                                 {fault: statuses(403, nil), first: "http status 403 Forbidden"},
		"404":                                 {fault: statuses(404, nil), first: "http status 404 Not Found"},
		"410":                                 {fault: statuses(410, nil), first: "http status 410 Gone"},
		"408":                                 {fault: statuses(408, nil), pauses: 1},
		"416":                                 {fault: statuses(416, nil)},
		"416 with a total":                    {fault: statuses(416, http.Header{"Content-Range": {"bytes */5"}})},
		"425":                                 {fault: statuses(425, nil), pauses: 1},
		"429 with seconds":                    {fault: statuses(429, http.Header{"Retry-After": {"77"}}), pauses: 77},
		"429 with a day":                      {fault: statuses(429, http.Header{"Retry-After": {"86400"}}), first: "it asks to wait for 24h0m0s", later: "it asks to wait for 24h0m0s"},
		"500":                                 {fault: statuses(500, nil), pauses: 1},
		"502":                                 {fault: statuses(502, nil), pauses: 1},
		"503":                                 {fault: statuses(503, nil), pauses: 1},
		"504":                                 {fault: statuses(504, nil), pauses: 1},
		"cut":                                 {fault: hubtest.Fault{CutAfter: 500}, pauses: 1},
		"cut before the first byte":           {fault: hubtest.Fault{Empty: true}, pauses: 1},
		"stalled":                             {fault: hubtest.Fault{StallAfter: 500}, pauses: 1},
		"more than the range":                 {fault: hubtest.Fault{Extra: 1}, first: "more bytes came than were announced", later: "more bytes came", dropped: true},
	} {
		for position, from := range positions {
			t.Run(name+", "+position, func(t *testing.T) {
				switch {
				case testing.Short() && test.fault.StallAfter > 0:
					t.Skip("takes a second")
				case testing.Short() && len(name)%2 > 0:
					t.Skip("one answer in two")
				}
				t.Parallel()
				b := newBench(t)
				b.repo(c)
				b.stallSoon(test.fault)
				b.hub.Script = once(from, test.fault)
				want, pauses := test.first, test.pauses
				if from > 0 {
					want = test.later
					if test.fault.IgnoreRange {
						pauses = 0 // its body is not read
					}
				}
				if want == "" {
					b.pull("O/R", pull.Options{})
					b.holds("m-q4_k_m", c)
					b.paused(pauses)
					return
				}
				b.fails("O/R", want)
				kept := b.kept()
				if from > 0 && (kept == 0) != test.dropped {
					t.Errorf("%d bytes are kept", kept)
				}
				// The next pull continues where this one stopped.
				b.hub.Script = nil
				b.hub.Forget()
				b.pull("O/R", pull.Options{})
				b.holds("m-q4_k_m", c)
				b.sent(int64(len(c)) - kept)
			})
		}
	}
}

// paused checks the pauses. If seconds is 0 there must be none; if it is 1, one pause as after a
// first failure, of 0.25 to 0.75 s; otherwise one pause of that many seconds.
func (b *bench) paused(seconds int) {
	b.t.Helper()
	switch {
	case seconds == 0 && len(b.pauses) > 0:
		b.t.Errorf("pauses %v", b.pauses)
	case seconds == 1 && (len(b.pauses) != 1 || b.pauses[0] < 250*time.Millisecond || b.pauses[0] > 750*time.Millisecond):
		b.t.Errorf("pauses %v, want one of 0.5 s, give or take half", b.pauses)
	case seconds > 1 && (len(b.pauses) != 1 || b.pauses[0] != time.Duration(seconds)*time.Second):
		b.t.Errorf("pauses %v, want one of %d s", b.pauses, seconds)
	}
}

// stallSoon shortens the time-out for stalls if the fault is a stall. In other tests a short
// time-out could expire on a busy machine.
func (b *bench) stallSoon(fault hubtest.Fault) {
	if fault.StallAfter > 0 {
		b.SetHooks(pull.Hooks{Sleep: b.sleep, Stall: time.Second, Ranges: rangeOf, Several: 2 * rangeOf})
	}
}

// sent checks that the hub has sent want bytes. A request that was canceled may add the beginning
// of an answer.
func (b *bench) sent(want int64) {
	b.t.Helper()
	if sent := b.hub.Sent(); sent < want || sent > want+rangeOf/4 {
		b.t.Errorf("%d bytes were sent, want %d", sent, want)
	}
}

// kept returns the number of bytes of unfinished models. It fails the test if one of them has no
// bytes.
func (b *bench) kept() (bytes int64) {
	b.t.Helper()
	all, err := b.Store.Unfinished()
	if err != nil {
		b.t.Fatal(err)
	}
	for _, u := range all {
		if u.Done == 0 {
			b.t.Errorf("an ingest without bytes: %+v", u)
		}
		bytes += u.Done
	}
	return bytes
}

// Each fault of the table meets every request for a range in the second half of the file. The pull fails
// with the error in the table, and the next one fetches only the bytes that were not kept.
func TestAnswersForGood(t *testing.T) {
	c := content(6*rangeOf+1000, 3)
	for name, test := range map[string]struct {
		fault   hubtest.Fault
		want    string
		pauses  int
		dropped bool
	}{
		"other ETags":  {hubtest.Fault{ETag: "?"}, "it keeps being changed upstream", 0, true},
		"other totals": {hubtest.Fault{Total: 9_999_999}, "it keeps being changed upstream", 0, true},
		"403":          {hubtest.Fault{Status: 403}, "http status 403 Forbidden", 0, false},
		"404":          {hubtest.Fault{Status: 404}, "http status 404", 0, false},
		"416":          {hubtest.Fault{Status: 416}, "it keeps refusing the range", 0, true},
		"503":          {hubtest.Fault{Status: 503}, "8 failures in a row, the last one: http status 503 Service Unavailable; ", 7, false},
		"stalls":       {hubtest.Fault{StallAfter: 1}, "8 failures in a row, the last one: no byte came for too long; ", 7, false},
		"cuts":         {hubtest.Fault{CutAfter: 1}, "8 failures in a row, the last one: the connection was cut: ", 7, false},
		"empty bodies": {hubtest.Fault{Empty: true}, "8 failures in a row, the last one: the connection was cut: ", 7, false},
	} {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && test.fault.StallAfter > 0 {
				t.Skip("takes eight seconds")
			}
			t.Parallel()
			b := newBench(t)
			b.repo(c)
			b.stallSoon(test.fault)
			b.hub.Script = func(r hubtest.Request) *hubtest.Fault {
				if r.Origin != hubtest.CDN || r.From < 3*rangeOf {
					return nil
				}
				fault := test.fault
				if fault.ETag == "?" {
					fault.ETag = fmt.Sprintf("%q", r.Remote+fmt.Sprint(r.From))
				}
				return &fault
			}
			err := b.fails("O/R", test.want)
			kept := b.kept()
			if test.dropped != (kept == 0) || len(b.pauses) != test.pauses {
				t.Errorf("%d bytes are kept, pauses %v; %v", kept, b.pauses, err)
			}
			for i, p := range b.pauses {
				if middle := min(500*time.Millisecond<<i, 30*time.Second); p < middle/2 || p > middle*3/2 {
					t.Errorf("pause %d is %v", i, p)
				}
			}
			if text := fmt.Sprintf("%d of %d bytes are kept", kept, len(c)); kept > 0 && strings.Contains(test.want, "failures") && !strings.Contains(err.Error(), text) {
				t.Errorf("%v does not say %q", err, text)
			}
			b.hub.Script = nil
			b.hub.Forget()
			b.pull("O/R", pull.Options{})
			b.holds("m-q4_k_m", c)
			b.sent(int64(len(c)) - kept)
		})
	}
}

// After 8 MiB of progress the count of failures in a row starts again.
func TestProgressResetsTheCount(t *testing.T) {
	b := newBench(t)
	size, cuts := 40<<20, 15 // of 19
	if testing.Short() {
		size, cuts = 20<<20, 9 // 8 in a row would end the pull
	}
	c := content(size, 4)
	b.repo(c)
	b.SetHooks(pull.Hooks{Sleep: b.sleep, Ranges: 64 << 20})
	b.hub.Script = func(r hubtest.Request) *hubtest.Fault {
		if r.Origin != hubtest.CDN {
			return nil
		}
		return &hubtest.Fault{CutAfter: 2 << 20}
	}
	b.pull("O/R", pull.Options{})
	b.holds("m-q4_k_m", c)
	if len(b.pauses) < cuts || b.hub.Sent() > int64(len(c))+1<<20 {
		t.Errorf("%d pauses, %d bytes sent", len(b.pauses), b.hub.Sent())
	}
}

// If a body is cut at any of twenty points, no byte is fetched twice.
func TestCutAnywhere(t *testing.T) {
	c := content(4*rangeOf, 5)
	for i := range 20 {
		if testing.Short() && i%5 > 0 {
			continue
		}
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.repo(c)
			b.SetHooks(pull.Hooks{Sleep: b.sleep}) // the file in one request
			b.hub.Script = once(0, hubtest.Fault{CutAfter: int64(len(c) * (i + 1) / 21)})
			b.pull("O/R", pull.Options{})
			b.holds("m-q4_k_m", c)
			b.paused(1)
			if sent := b.hub.Sent(); sent != int64(len(c)) {
				t.Errorf("%d bytes were sent for %d", sent, len(c))
			}
		})
	}
}

// If the file changes upstream during the pull, after any tenth of its bytes, the pull starts again
// and returns the new content.
func TestChangedUpstream(t *testing.T) {
	old, changed := content(10*rangeOf, 6), content(10*rangeOf, 7)
	for i := range 10 {
		if testing.Short() && i%4 > 0 {
			continue
		}
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			link := b.hub.AddFile("m.gguf", &hubtest.File{Content: old})
			var mu sync.Mutex
			moved := false
			b.hub.Script = func(r hubtest.Request) *hubtest.Fault {
				mu.Lock()
				defer mu.Unlock()
				if moved = moved || r.From >= int64(i*rangeOf) && i > 0 || r.From > 0 && i == 0; moved {
					return &hubtest.Fault{Content: changed}
				}
				return nil
			}
			b.pull(link, pull.Options{})
			b.holds("m", changed)
		})
	}
}

// A pull resumes only if the content upstream still has the version of the received bytes.
func TestResumeIsBoundToTheVersion(t *testing.T) {
	old, changed := content(8*rangeOf, 8), content(8*rangeOf, 9)
	for name, etag := range map[string]string{"by its ETag": "", "by nothing": "-", "by a weak ETag": `W/"1"`} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			link := b.hub.AddFile("m.gguf", &hubtest.File{Content: old})
			b.hub.Script = func(r hubtest.Request) *hubtest.Fault {
				if r.From >= 4*rangeOf {
					return &hubtest.Fault{Status: 503}
				}
				return &hubtest.Fault{ETag: etag}
			}
			b.fails(link, "8 failures in a row")
			if etag == `W/"1"` {
				etag = `W/"2"`
			}
			b.hub.Script = func(hubtest.Request) *hubtest.Fault { return &hubtest.Fault{ETag: etag, Content: changed} }
			b.pull(link, pull.Options{})
			b.holds("m", changed)
		})
	}
}

// A file of unknown length ends with the body. MaxBytes limits it, too.
func TestWithoutLength(t *testing.T) {
	b := newBench(t)
	c := content(3*rangeOf+5, 10)
	link := b.hub.AddFile("m.gguf", &hubtest.File{Content: c})
	b.hub.Script = func(hubtest.Request) *hubtest.Fault { return &hubtest.Fault{IgnoreRange: true, NoLength: true} }
	b.MaxBytes = int64(len(c)) - 1
	b.fails(link, "the file is larger than the limit (--max-bytes)")
	if kept := b.kept(); kept > 0 {
		t.Errorf("%d bytes are kept", kept)
	}
	b.MaxBytes = int64(len(c))
	_, p := b.pull(link, pull.Options{})
	b.holds("m", c)
	if all := p.downloads(t); all[0].Total != 0 || all[len(all)-1].Total != uint64(len(c)) {
		t.Errorf("reports: %+v", all)
	}
	// A known length beyond the limit is refused before the first byte.
	big := b.hub.AddFile("big.gguf", &hubtest.File{Content: content(4*rangeOf, 11)})
	b.hub.Script, b.MaxBytes = nil, rangeOf
	b.hub.Forget()
	b.fails(big, "--max-bytes")
}

// Without a digest, a file that is not GGUF is refused by its first bytes.
func TestNotGGUF(t *testing.T) {
	b := newBench(t)
	link := b.hub.AddFile("page.gguf", &hubtest.File{Content: []byte("<html>Sign in</html>")})
	b.fails(link, "it is not a GGUF file")
	b.fails(link+"#sha256="+hubtest.Sum([]byte("other")), "SHA-256 mismatch")
}

// A signed link that has expired is resolved again, and no received byte is fetched twice.
func TestExpiredLink(t *testing.T) {
	b := newBench(t)
	c := content(8*rangeOf, 12)
	b.repo(c)
	var expire sync.Once
	b.hub.Script = func(r hubtest.Request) *hubtest.Fault {
		if r.Origin == hubtest.CDN && r.From >= 4*rangeOf {
			expire.Do(b.hub.Expire)
		}
		return nil
	}
	b.pull("O/R", pull.Options{})
	b.holds("m-q4_k_m", c)
	b.paused(0)
	if sent := b.hub.Sent(); sent > int64(len(c)+3*rangeOf) { // three requests may have been canceled
		t.Errorf("%d bytes were sent for %d", sent, len(c))
	}
	if strings.Contains(b.log.String(), "hunter2") || strings.Contains(b.log.String(), "sig=") {
		t.Error("the log has the query of a signed link")
	}
}

// wrong adds a repository O/R to the hub. Its file is announced with the digest of c, but has the
// content sent.
func (b *bench) wrong(c, sent []byte) {
	b.hub.AddRepo("O/R", commit, "mit", map[string]*hubtest.File{"M-Q4_K_M.gguf": {Content: sent, Digest: hubtest.Sum(c), Size: int64(len(c))}})
}

// One flipped byte is found. The same wrong content is fetched twice at most, even over restarts.
func TestFlippedByte(t *testing.T) {
	b := newBench(t)
	c := content(4*rangeOf, 13)
	flipped := slices.Clone(c)
	flipped[2*rangeOf] ^= 1
	b.wrong(c, flipped)
	err := b.fails("O/R", fmt.Sprintf("SHA-256 mismatch (expected %s, got %s) 2 times", hubtest.Sum(c), hubtest.Sum(flipped)))
	if !strings.Contains(err.Error(), "Pin its commit") {
		t.Errorf("%v", err)
	}
	if sent := b.hub.Sent(); sent != 2*int64(len(c)) {
		t.Errorf("%d bytes were sent, want two fetches of %d", sent, len(c))
	}
	bins, _ := filepath.Glob(filepath.Join(b.Store.Home, "locks/quarantine/*-sha-mismatch.bin"))
	if len(bins) != 1 {
		t.Errorf("quarantined: %v", bins)
	}
	b.tidy()
	for _, start := range []string{"the same process", "after a restart"} {
		b.hub.Forget()
		if start == "after a restart" {
			b.Puller = b.puller(b.Store.Home)
		}
		b.fails("O/R", "SHA-256 mismatch")
		if sent := b.hub.Sent(); sent != 0 {
			t.Errorf("%s: %d bytes were sent", start, sent)
		}
	}
	// An update fetches the content once more, and now it is right.
	b.repo(c)
	b.pull("O/R", pull.Options{Update: true})
	b.holds("m-q4_k_m", c)
}

// If the content has a wrong digest once, it is fetched again at once.
func TestWrongOnce(t *testing.T) {
	b := newBench(t)
	c := content(4*rangeOf, 14)
	b.repo(c)
	flipped := slices.Clone(c)
	flipped[10] ^= 1
	b.hub.Script = once(0, hubtest.Fault{Content: flipped, ETag: hubtest.ETag(c)})
	r, p := b.pull("O/R", pull.Options{})
	b.holds("m-q4_k_m", c)
	if r.Fetched != 2*int64(len(c)) {
		t.Errorf("%d bytes were fetched", r.Fetched)
	}
	p.downloads(t)
}

// If the first source of a model cannot be reached, lacks the file, has other content, or fails half
// way, the next one is used.
func TestNextSource(t *testing.T) {
	c := content(4*rangeOf, 15)
	flipped := slices.Clone(c)
	flipped[10] ^= 1
	for name, test := range map[string]struct {
		first  func(b *bench) string // address of the first source
		pauses int
		sent   int // in units of the size of the content
	}{
		"no listener":  {func(*bench) string { return "https://127.0.0.1:1/m.gguf" }, 3, 1},
		"no such host": {func(*bench) string { return "https://nowhere.invalid/m.gguf" }, 0, 1},
		"not there":    {func(b *bench) string { return b.hub.CDNURL() + "/files/none.gguf" }, 0, 1},
		"not https": {func(b *bench) string {
			return "http" + strings.TrimPrefix(b.hub.CDNURL(), "https") + "/files/good.gguf"
		}, 0, 1},
		"wrong content":    {func(b *bench) string { return b.hub.AddFile("bad.gguf", &hubtest.File{Content: flipped}) }, 0, 2},
		"another size":     {func(b *bench) string { return b.hub.AddFile("bad.gguf", &hubtest.File{Content: c[:100]}) }, 0, 1},
		"fails half way":   {func(b *bench) string { return b.hub.AddFile("half.gguf", &hubtest.File{Content: c}) }, 3, 1},
		"refused half way": {func(b *bench) string { return b.hub.AddFile("gone.gguf", &hubtest.File{Content: c}) }, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			good := b.hub.AddFile("good.gguf", &hubtest.File{Content: c})
			b.Catalog = []modelEntry{{Name: "m", File: "m.gguf", SizeBytes: int64(len(c)), SHA256: hubtest.Sum(c), Sources: []string{test.first(b), good}}}
			b.hub.Script = func(r hubtest.Request) *hubtest.Fault {
				switch {
				case strings.HasSuffix(r.Path, "half.gguf") && r.From >= 2*rangeOf:
					return &hubtest.Fault{Status: 500}
				case strings.HasSuffix(r.Path, "gone.gguf") && r.From >= 2*rangeOf:
					return &hubtest.Fault{Status: 410}
				}
				return nil
			}
			b.pull("m", pull.Options{})
			b.holds("m", c)
			// Requests for the first two ranges may have been canceled when the third was refused.
			if sent := b.hub.Sent(); sent < int64(test.sent*len(c)) || sent > int64(test.sent*len(c)+2*rangeOf) || len(b.pauses) != test.pauses {
				t.Errorf("%d bytes were sent of %d, pauses %v", sent, len(c), b.pauses)
			}
		})
	}
}

func TestPause(t *testing.T) {
	for _, test := range []struct {
		fails  int
		after  time.Duration
		random float64
		want   time.Duration
	}{
		{1, 0, 0.5, 500 * time.Millisecond},
		{1, 0, 0, 250 * time.Millisecond},
		{2, 0, 0.5, time.Second},
		{6, 0, 0.5, 16 * time.Second},
		{7, 0, 0.5, 30 * time.Second},
		{1 << 40, 0, 0.5, 30 * time.Second},
		{1, time.Minute, 0.5, time.Minute},
		{7, time.Second, 0, 15 * time.Second},
	} {
		if got := pull.Pause(test.fails, test.after, test.random); got != test.want {
			t.Errorf("%+v: got %v", test, got)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"": 0, "x": 0, "-5": 0, "5": 5 * time.Second, "99999999999": 0,
		"Fri, 01 May 2026 12:00:30 GMT": 30 * time.Second, "Fri, 01 May 2026 11:00:00 GMT": 0,
	} {
		if got := pull.RetryAfter(text, now); got != want {
			t.Errorf("%q: got %v, want %v", text, got, want)
		}
	}
}

func TestContentRange(t *testing.T) {
	type span struct {
		from, to, total int64
		ok              bool
	}
	for text, want := range map[string]span{
		"bytes 0-0/1": {0, 1, 1, true}, "bytes 5-9/10": {5, 10, 10, true}, "bytes 5-9/*": {5, 10, -1, true},
		"": {}, "bytes": {}, "bytes 5-9": {}, "bytes 9-5/10": {}, "bytes 5-10/10": {}, "bytes -5-9/10": {}, "items 0-0/1": {},
		"bytes 0-99999999999999999999/1": {}, "bytes a-b/c": {}, "bytes */10": {}, "bytes 0-0/-1": {},
	} {
		from, to, total, ok := pull.ContentRange(text)
		if got := (span{from, to, total, ok}); got != want {
			t.Errorf("%q: got %+v, want %+v", text, got, want)
		}
	}
}

func TestGaps(t *testing.T) {
	type r = [2]int64 // from, to
	for name, test := range map[string]struct {
		have        []r
		total, step int64
		want        []r
	}{
		"nothing there":    {nil, 10, 4, []r{{0, 4}, {4, 8}, {8, 10}}},
		"all there":        {[]r{{0, 10}}, 10, 4, nil},
		"a hole":           {[]r{{0, 2}, {5, 10}}, 10, 4, []r{{2, 5}}},
		"holes":            {[]r{{1, 2}, {7, 8}}, 10, 4, []r{{0, 1}, {2, 6}, {6, 7}, {8, 10}}},
		"asked for twice":  {[]r{{0, 6}, {2, 4}}, 8, 4, []r{{6, 8}}},
		"unknown":          {nil, -1, 4, []r{{0, 4}}},
		"unknown, resumed": {[]r{{0, 3}}, -1, 4, []r{{3, 7}}},
		"empty":            {nil, 0, 4, nil},
	} {
		var have []store.Range
		for _, h := range test.have {
			have = append(have, store.Range{Start: h[0], End: h[1]})
		}
		var got []r
		for _, g := range pull.Gaps(have, test.total, test.step) {
			got = append(got, r{g.Start, g.End})
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
}

// The error of a canceled pull is the cause of its context.
func TestCanceled(t *testing.T) {
	b := newBench(t)
	c := content(8*rangeOf, 16)
	b.repo(c)
	reason := errors.New("enough")
	ctx, cancel := cancelable(t, reason)
	b.hub.Script = func(r hubtest.Request) *hubtest.Fault {
		if r.Origin == hubtest.CDN && r.From >= 4*rangeOf {
			cancel()
		}
		return nil
	}
	b.hub.Slow = 20 * time.Millisecond
	if _, err := b.Pull(ctx, "O/R", pull.Options{}, nil); !errors.Is(err, reason) {
		t.Fatalf("got %v", err)
	}
	kept := b.kept()
	if kept < rangeOf {
		t.Errorf("%d bytes are kept", kept)
	}
	b.hub.Script, b.hub.Slow = nil, 0
	b.hub.Forget()
	_, p := b.pull("O/R", pull.Options{})
	b.holds("m-q4_k_m", c)
	b.sent(int64(len(c)) - kept)
	if all := p.downloads(t); all[0].Done != 0 || all[1].Done != uint64(kept) || all[1].Resumed != uint64(kept) {
		t.Errorf("reports: %+v", all)
	}
}

// A body that is longer than its Content-Range fails the pull.
func TestBodyBeyondContentRange(t *testing.T) {
	b := newBench(t)
	c := content(3*rangeOf, 17)
	b.repo(c)
	body := string(c[:100]) + strings.Repeat("x", 50)
	header := http.Header{"Content-Range": {fmt.Sprintf("bytes 0-99/%d", len(c))}, "Etag": {hubtest.ETag(c)}}
	b.hub.Script = once(0, hubtest.Fault{Status: http.StatusPartialContent, Header: header, Body: body})
	b.fails("O/R", "more bytes came than were announced")
	if kept := b.kept(); kept > 0 {
		t.Errorf("%d bytes are kept", kept)
	}
	// An answer with less than the requested range is accepted.
	b.hub.Script = once(0, hubtest.Fault{Status: http.StatusPartialContent, Header: header, Body: body[:100]})
	b.pull("O/R", pull.Options{})
	b.holds("m-q4_k_m", c)
}

// If only the end of the connection ends a body, the content is accepted only if its digest is
// known.
func TestEndOfConnection(t *testing.T) {
	c := content(3*rangeOf, 18)
	script := func(cut int64) func(hubtest.Request) *hubtest.Fault {
		return func(hubtest.Request) *hubtest.Fault {
			return &hubtest.Fault{IgnoreRange: true, NoLength: true, CutAfter: cut, Header: http.Header{"Transfer-Encoding": {"identity"}}}
		}
	}
	for name, cut := range map[string]int64{"whole": 0, "cut": rangeOf} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			link := b.hub.AddFile("m.gguf", &hubtest.File{Content: c})
			b.hub.Script = script(cut)
			b.fails(link, "the answer states no length")
			if kept := b.kept(); kept > 0 {
				t.Errorf("%d bytes are kept", kept)
			}
			b.tidy()
			if cut > 0 {
				b.fails(link+"#sha256="+hubtest.Sum(c), "SHA-256 mismatch")
				b.hub.Script = nil
			}
			b.pull(link+"#sha256="+hubtest.Sum(c), pull.Options{Update: true})
			b.holds("m", c)
		})
	}
}

// The error of a refusal mentions the hub's token only if the hub has refused.
func TestRefusedElsewhere(t *testing.T) {
	b := newBench(t)
	b.repo(content(1000, 19))
	b.hub.AddImage("q:latest", &hubtest.File{Content: content(1000, 19)}, nil)
	b.OllamaEndpoint = b.hub.CDNURL()
	for typed, token := range map[string]bool{
		"O/R":                        true,
		"ollama:q":                   false,
		b.hub.CDNURL() + "/x/m.gguf": false,
	} {
		for _, code := range []int{401, 403} {
			b.hub.Script = func(hubtest.Request) *hubtest.Fault { return &hubtest.Fault{Status: code} }
			err := b.fails(typed, fmt.Sprintf("http status %d", code))
			if got := strings.Contains(err.Error(), "HF_TOKEN") || strings.Contains(err.Error(), "gated"); got != token {
				t.Errorf("%s: %v", typed, err)
			}
		}
	}
}

// A refusal of the second request while the first is running does not disqualify the source: the
// pull repeats the request.
func TestRefusedWhileBytesCome(t *testing.T) {
	b := newBench(t)
	c := content(4*rangeOf, 79)
	b.repo(c)
	b.hub.Script = func(r hubtest.Request) *hubtest.Fault {
		switch {
		case r.Origin == hubtest.CDN && r.N == 0:
			return &hubtest.Fault{StallAfter: 500}
		case r.Origin == hubtest.CDN && r.N == 1:
			return &hubtest.Fault{Status: 400}
		}
		return nil
	}
	b.pull("O/R", pull.Options{})
	b.holds("m-q4_k_m", c)
	b.paused(0)
}

// A write to disk that takes longer than the time-out for stalls does not count as a stall. The
// store holds a mutex meanwhile, so the test cannot use the fake clock of a synctest bubble.
func TestSlowDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("takes four seconds")
	}
	t.Parallel()
	b := newBench(t)
	c := content(3*rangeOf, 71)
	b.repo(c)
	b.SetHooks(pull.Hooks{Sleep: b.sleep, Stall: 3 * time.Second}) // the file in one request
	b.before(store.OpWrite, "/data.tmp", 1, func() { time.Sleep(4 * time.Second) })
	b.pull("O/R", pull.Options{})
	b.holds("m-q4_k_m", c)
	b.paused(0)
	if n := len(b.contentRequests()); n != 1 {
		t.Errorf("%d requests for content", n)
	}
}
