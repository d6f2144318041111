package pull_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/hubtest"
	"github.com/inferd-go/inferd/internal/pull"
	"github.com/inferd-go/inferd/internal/status"
	"github.com/inferd-go/inferd/internal/store"
)

func readFile(t *testing.T, elem ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A split model is pulled with all its parts, and its progress counts the bytes of all parts.
func TestSplitModel(t *testing.T) {
	b := newBench(t)
	parts := [][]byte{content(3*rangeOf, 30), content(100, 31), content(2*rangeOf, 32)}
	b.repo(parts...)
	b.hub.PageSize = 2
	r, p := b.pull("hf:O/R:q4_k_m@main", pull.Options{})
	b.holds("m-q4_k_m", parts...)
	total := int64(5*rangeOf + 100)
	if r.Parts != 3 || r.Size != total || r.Digest != hubtest.Sum(parts[0]) {
		t.Errorf("%+v", r)
	}
	all := p.downloads(t)
	for i, d := range all {
		if d.Total != uint64(total) || d.Parts != 3 || d.Part < 1 || d.Part > 3 || d.Name != "m-q4_k_m" {
			t.Errorf("report %d: %+v", i, d)
		}
	}
	if last := all[len(all)-1]; last.Done != uint64(total) || last.Part != 3 {
		t.Errorf("last report: %+v", last)
	}
	m, err := b.Store.Manifest("m-q4_k_m")
	if err != nil || !slices.Equal(m.Asked, []string{"hf:O/R:Q4_K_M@main"}) {
		t.Errorf("%+v, %v", m, err)
	}
}

// A name that cannot be resolved to a usable model is refused before the first byte of content is
// fetched.
func TestRefusedNames(t *testing.T) {
	c := content(100, 33)
	file := func() *hubtest.File { return &hubtest.File{Content: c} }
	for name, test := range map[string]struct {
		files map[string]*hubtest.File
		typed string
		want  string
	}{
		"a split model that lacks a part": {map[string]*hubtest.File{"m-Q4_K_M-00001-of-00003.gguf": file(), "m-Q4_K_M-00003-of-00003.gguf": file()}, "O/R", "the repository lacks m-Q4_K_M-00002-of-00003.gguf"},
		"an unknown quantisation":         {map[string]*hubtest.File{"m-Q4_K_M.gguf": file(), "m-Q8_0.gguf": file()}, "O/R:Q3", "has no Q3: it has Q4_K_M, Q8_0"},
		"no GGUF":                         {map[string]*hubtest.File{"m.safetensors": file()}, "O/R", "has no GGUF file"},
		"an invalid digest":               {map[string]*hubtest.File{"m.gguf": {Content: c, Digest: "zz"}}, "O/R", "is not a SHA-256"},
		"a path that leads out":           {map[string]*hubtest.File{"../m.gguf": file()}, "O/R", "a bad path or size"},
		"an unknown revision":             {map[string]*hubtest.File{"m.gguf": file()}, "O/R@other", "no such model or revision"},
		"an unknown repository":           {map[string]*hubtest.File{"m.gguf": file()}, "O/S", "no such model or revision"},
		"an unknown name":                 {nil, "gemma-4-e4", "did you mean gemma-4-e4b?"},
		"a model without a source":        {nil, "gemma-3-270m-q4_k_m", "no source is known"},
		"a bad name":                      {nil, "../x/..", "its"},
		"a file":                          {nil, "./m.gguf", "is a file of this machine"},
		"a file that has no name":         {map[string]*hubtest.File{strings.Repeat("x", 140) + ".gguf": file()}, "O/R", "give one with --as NAME"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.hub.AddRepo("O/R", commit, "", test.files)
			if name == "a bad name" {
				test.want = "is a file of this machine"
			}
			b.fails(test.typed, test.want)
			if n := len(b.contentRequests()); n != 0 {
				t.Errorf("%d requests for content", n)
			}
		})
	}
}

// A request to a hub's API is repeated after a transient failure. After any other failure, or an answer
// that is not valid, the pull returns an error.
func TestHubAPI(t *testing.T) {
	c := content(100, 34)
	at := func(suffix string, fault hubtest.Fault) func(hubtest.Request) *hubtest.Fault {
		return func(r hubtest.Request) *hubtest.Fault {
			if strings.Contains(r.Path, suffix) && r.N == 0 {
				return &fault
			}
			return nil
		}
	}
	for name, test := range map[string]struct {
		script func(hubtest.Request) *hubtest.Fault
		want   string
		pauses int
	}{
		"busy":               {at("/revision/", hubtest.Fault{Status: 503}), "", 1},
		"too many requests":  {at("/tree/", hubtest.Fault{Status: 429, Header: http.Header{"Retry-After": {"5"}}}), "", 5},
		"too many for a day": {at("/tree/", hubtest.Fault{Status: 429, Header: http.Header{"Retry-After": {"86400"}}}), "it asks to wait for 24h0m0s", 0},
		"cut":                {at("/tree/", hubtest.Fault{Status: 200, Header: http.Header{"Content-Length": {"10"}}, Body: "["}), "", 1},
		"not JSON":           {at("/revision/", hubtest.Fault{Status: 200, Body: "<html>"}), "the answer is not the expected JSON", 0},
		"no commit":          {at("/revision/", hubtest.Fault{Status: 200, Body: `{"sha":"main"}`}), "names no commit", 0},
		"an endless answer":  {at("/tree/", hubtest.Fault{Status: 200, Body: strings.Repeat(" ", 9<<20)}), "more than 8388608 bytes", 0},
		"endless pages":      {func(r hubtest.Request) *hubtest.Fault { return loop(r) }, "more than 100 pages", 0},
		"a page elsewhere":   {at("/tree/", hubtest.Fault{Status: 200, Body: "[]", Header: http.Header{"Link": {`<https://h.example/x>; rel="next"`}}}), "is at another origin", 0},
		"a negative size":    {at("/tree/", hubtest.Fault{Status: 200, Body: `[{"type":"file","path":"m.gguf","size":-1}]`}), "a bad path or size", 0},
		"a forbidden answer": {at("/tree/", hubtest.Fault{Status: 403}), "set HF_TOKEN", 0},
		"an odd status":      {at("/tree/", hubtest.Fault{Status: 418}), "http status 418", 0},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.repo(c)
			b.hub.Script = test.script
			if test.want != "" {
				b.fails("O/R", test.want)
				return
			}
			b.pull("O/R", pull.Options{})
			b.holds("m-q4_k_m", c)
			b.paused(test.pauses)
		})
	}
}

// loop is a script in which each page of a listing names a further one.
func loop(r hubtest.Request) *hubtest.Fault {
	if !strings.Contains(r.Path, "/tree/") {
		return nil
	}
	return &hubtest.Fault{Status: 200, Body: "[]", Header: http.Header{"Link": {`<` + r.Path + `>; rel="next"`}}}
}

// A name belongs to one model. A pull of another model under that name is refused before its first
// byte.
func TestNames(t *testing.T) {
	b := newBench(t)
	one, two := content(rangeOf, 35), content(rangeOf, 36)
	b.repo(one)
	b.pull("O/R", pull.Options{})
	b.hub.AddRepo("O/S", commit, "", map[string]*hubtest.File{"M-Q4_K_M.gguf": {Content: two}})
	b.hub.Forget()
	err := b.fails("O/S", "belongs to another model")
	if taken, ok := errors.AsType[*store.TakenError](err); !ok || taken.Digest != hubtest.Sum(one) || len(b.contentRequests()) != 0 {
		t.Errorf("%v, %d requests", err, len(b.contentRequests()))
	}
	if r, _ := b.pull("O/S", pull.Options{As: "mine"}); r.Name != "mine" {
		t.Errorf("%+v", r)
	}
	b.holds("mine", two)
	b.holds("m-q4_k_m", one)
	// The same content gets another name without a byte being fetched.
	b.hub.Forget()
	if r, _ := b.pull("O/R", pull.Options{As: "again"}); r.Name != "again" || len(b.contentRequests()) != 0 {
		t.Errorf("%+v", r)
	}
	if _, err := b.Pull(t.Context(), "O/R", pull.Options{As: "../x"}, nil); err == nil {
		t.Error("a bad name was accepted")
	}
	// If a branch has moved, an update replaces the model. Without an update no request is sent.
	moved := "fedcba98" + commit[8:]
	b.hub.AddRepo("O/R", moved, "", map[string]*hubtest.File{"M-Q4_K_M.gguf": {Content: two}})
	if r, _ := b.pull("O/R", pull.Options{}); r.Digest != hubtest.Sum(one) {
		t.Errorf("%+v", r)
	}
	if r, _ := b.pull("O/R", pull.Options{Update: true}); r.Digest != hubtest.Sum(two) {
		t.Errorf("%+v", r)
	}
	b.holds("m-q4_k_m", two)
	// A link without a digest is refused before any request if its name is taken.
	link := b.hub.AddFile("mine.gguf", &hubtest.File{Content: one})
	b.hub.Forget()
	b.fails(link, "belongs to another model")
	if n := len(b.hub.Requests()); n != 0 {
		t.Errorf("%d requests", n)
	}
}

// Models of a configuration are fetched if they are missing, and the errors have the texts of the
// reference.
func TestEnsure(t *testing.T) {
	b := newBench(t)
	c := content(3*rangeOf, 37)
	link := b.hub.AddFile("dir/file.gguf", &hubtest.File{Content: c})
	good := pull.Wanted{Name: "mine", SHA256: hubtest.Sum(c), Size: int64(len(c)), SourceURL: link, License: "mit"}
	for name, test := range map[string]struct {
		change func(*pull.Wanted)
		want   string
	}{
		"without a source": {func(w *pull.Wanted) { w.SourceURL = "" }, `model "mine" has no source_url and no manifest exists`},
		"http":             {func(w *pull.Wanted) { w.SourceURL = "http://h/m.gguf?x" }, "model URL must be https:// (got http://h/m.gguf)"},
		"no digest":        {func(w *pull.Wanted) { w.SHA256 = "" }, "sha256 must be 64 hex characters"},
		"a bad name":       {func(w *pull.Wanted) { w.Name = "../x" }, "model name"},
		"another size":     {func(w *pull.Wanted) { w.Size = 5 }, "it has other content than expected"},
		"404":              {func(w *pull.Wanted) { w.SourceURL += "x" }, "http status 404"},
	} {
		w := good
		test.change(&w)
		if _, err := b.Ensure(t.Context(), w, pull.Options{}, nil); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}
	var p phases
	if _, err := b.Ensure(t.Context(), good, pull.Options{}, p.add); err != nil {
		t.Fatal(err)
	}
	b.holds("mine", c)
	p.downloads(t)
	m, err := b.Store.Manifest("mine")
	want := store.Source{Registry: strings.TrimPrefix(b.hub.CDNURL(), "https://"), Filename: "file.gguf"}
	if err != nil || m.Source != want || *m.License != "mit" || len(m.Asked) != 0 {
		t.Errorf("%+v, %v", m, err)
	}
	// If the blob and the manifest exist, no request is sent and no file is hashed.
	b.hub.Forget()
	p = phases{}
	good.SourceURL = ""
	if _, err := b.Ensure(t.Context(), good, pull.Options{}, p.add); err != nil || len(b.hub.Requests()) != 0 || len(p.all) != 1 {
		t.Errorf("%v, phases %v", err, p.all)
	}
	// If only the manifest is missing, the blob is hashed, not fetched.
	if err := os.Remove(filepath.Join(b.Store.Home, "manifests/mine.json")); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Ensure(t.Context(), good, pull.Options{}, nil); err != nil || len(b.hub.Requests()) != 0 {
		t.Errorf("%v", err)
	}
	// A manifest with another digest is replaced: the configuration decides.
	other := content(rangeOf, 38)
	good.SourceURL, good.SHA256, good.Size = b.hub.AddFile("o.gguf", &hubtest.File{Content: other}), hubtest.Sum(other), 0
	if _, err := b.Ensure(t.Context(), good, pull.Options{}, nil); err != nil {
		t.Fatal(err)
	}
	b.holds("mine", other)
	// A damaged blob is quarantined and fetched again.
	blob := filepath.Join(b.Store.Home, "blobs/sha256", good.SHA256[:2], good.SHA256, "data")
	if err := errors.Join(os.Remove(blob), os.WriteFile(blob, []byte("GGUF bad"), 0o600), os.Remove(filepath.Join(b.Store.Home, "manifests/mine.json"))); err != nil {
		t.Fatal(err)
	}
	p = phases{}
	if _, err := b.Ensure(t.Context(), good, pull.Options{}, p.add); err != nil {
		t.Fatal(err)
	}
	b.holds("mine", other)
	if !slices.ContainsFunc(p.all, func(ph status.Phase) bool { _, ok := ph.(status.Quarantine); return ok }) {
		t.Errorf("phases: %v", p.all)
	}
}

// Five pulls of one model at once fetch it once, and each reports the progress.
func TestFiveAtOnce(t *testing.T) {
	b := newBench(t)
	c := content(8<<20, 39)
	b.repo(c)
	b.hub.Slow = 100 * time.Millisecond
	var all sync.WaitGroup
	var fetched atomic.Int64
	reports := make([]phases, 5)
	for i := range 5 {
		p := b.puller(b.Store.Home)
		p.ReportEvery = time.Millisecond
		all.Go(func() {
			r, err := p.Pull(t.Context(), "O/R", pull.Options{}, reports[i].add)
			if err != nil || r.Digest != hubtest.Sum(c) {
				t.Errorf("%+v, %v", r, err)
			}
			fetched.Add(r.Fetched)
		})
	}
	all.Wait()
	b.holds("m-q4_k_m", c)
	if sent := b.hub.Sent(); float64(sent) > 1.01*float64(len(c)) || fetched.Load() != int64(len(c)) {
		t.Errorf("%d bytes were sent for %d", sent, len(c))
	}
	for i := range reports {
		if n := len(reports[i].downloads(t)); n == 0 {
			t.Errorf("pull %d has not reported a download", i)
		}
	}
}

// With NoWait, the pull of a model that another process is pulling is an error. Without it, the
// pull waits, and continues from the bytes of the other pull if that fails.
func TestFollowerTakesOver(t *testing.T) {
	b := newBench(t)
	c := content(8*rangeOf, 40)
	b.repo(c)
	reached, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	b.hub.Script = func(r hubtest.Request) *hubtest.Fault {
		if r.Origin == hubtest.CDN && r.From >= 4*rangeOf {
			once.Do(func() { close(reached) })
			<-release
		}
		return nil
	}
	ctx, cancel := cancelable(t, errors.New("the first one gives up"))
	var first sync.WaitGroup
	first.Go(func() {
		if _, err := b.Pull(ctx, "O/R", pull.Options{}, nil); err == nil {
			t.Error("the first one ended well")
		}
	})
	<-reached
	second := b.puller(b.Store.Home)
	if _, err := second.Pull(t.Context(), "O/R", pull.Options{NoWait: true}, nil); err == nil || !strings.Contains(err.Error(), `model "m-q4_k_m" is being fetched by another process`) {
		t.Errorf("got %v", err)
	}
	var p phases
	followed := make(chan struct{})
	var seen sync.Once
	done := make(chan error, 1)
	go func() {
		_, err := second.Pull(t.Context(), "O/R", pull.Options{}, func(ph status.Phase) {
			p.add(ph)
			if _, ok := ph.(status.Download); ok {
				seen.Do(func() { close(followed) })
			}
		})
		done <- err
	}()
	<-followed
	cancel()
	close(release)
	first.Wait()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	b.holds("m-q4_k_m", c)
	p.downloads(t)
}

// A write to a full disk fails the pull at once, without a pause and another try. Once there is room,
// the next pull succeeds.
func TestFullDisk(t *testing.T) {
	c := content(24*rangeOf, 41)
	stride := 1
	if testing.Short() {
		stride = 9
	}
	for n := 0; n < 20; n += stride {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			b := newBench(t)
			b.repo(c)
			writes := 0
			b.Store.Before = func(op store.Op) error {
				if op.Kind != store.OpWrite {
					return nil
				}
				if writes++; writes > n {
					return syscall.ENOSPC
				}
				return nil
			}
			b.fails("O/R", "no space left on device")
			b.paused(0)
			kept := b.puller(b.Store.Home)
			b.hub.Forget()
			r, err := kept.Pull(t.Context(), "O/R", pull.Options{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			b.Puller = kept
			b.holds("m-q4_k_m", c)
			if r.Fetched > int64(len(c)) {
				t.Errorf("%d bytes were fetched", r.Fetched)
			}
		})
	}
}

// A pull onto a disk with too little room is refused before the first byte, with the needed and the
// free bytes.
func TestNoRoom(t *testing.T) {
	b := newBench(t)
	c := content(rangeOf, 42)
	b.hub.AddRepo("O/R", commit, "", map[string]*hubtest.File{"M-Q4_K_M.gguf": {Content: c, Digest: hubtest.Sum(c), Size: 1 << 60}})
	b.MaxBytes = 1 << 61
	err := b.fails("O/R", "the model store")
	if space, ok := errors.AsType[*store.NoSpaceError](err); !ok || space.Need < 1<<60 || space.Free <= 0 {
		t.Errorf("got %v", err)
	}
	if n := len(b.contentRequests()); n != 0 {
		t.Errorf("%d requests for content", n)
	}
	b.tidy()
}

// A damaged manifest is replaced without another fetch of the content. A file in place of the
// store's folder is an error.
func TestStoreTroubles(t *testing.T) {
	b := newBench(t)
	c := content(rangeOf, 43)
	b.repo(c)
	b.pull("O/R", pull.Options{})
	if err := os.WriteFile(filepath.Join(b.Store.Home, "manifests/m-q4_k_m.json"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b.hub.Forget()
	b.pull("O/R", pull.Options{})
	b.holds("m-q4_k_m", c)
	if n := len(b.contentRequests()); n != 0 {
		t.Errorf("%d requests for content", n)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p := b.puller(file)
	if _, err := p.Pull(t.Context(), "O/R", pull.Options{}, nil); err == nil {
		t.Error("a file was used as a store")
	}
}

// A model with two equal parts is refused before any content is requested.
func TestEqualParts(t *testing.T) {
	b := newBench(t)
	c := content(100, 90)
	b.repo(c, content(200, 91), c)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := b.Pull(ctx, "O/R", pull.Options{}, nil)
	if err == nil || !strings.Contains(err.Error(), "its parts 1 and 3 have one SHA-256") || len(b.contentRequests()) > 0 {
		t.Errorf("got %v", err)
	}
	b.tidy()
}

// Two addresses that differ only in their query are different files.
func TestLinksWithQueries(t *testing.T) {
	b := newBench(t)
	one, two := content(1000, 92), content(1000, 93)
	link := b.hub.AddFile("m.gguf", &hubtest.File{Content: one})
	b.hub.Script = func(r hubtest.Request) *hubtest.Fault {
		if r.Query == "secret=two" {
			return &hubtest.Fault{Content: two}
		}
		return nil
	}
	b.pull(link+"?secret=one", pull.Options{})
	b.holds("m", one)
	b.hub.Forget()
	for _, other := range []string{"?secret=two", "", "?secret=one&"} {
		b.fails(link+other, "belongs to another model")
	}
	if _, err := b.Pull(t.Context(), link+"?secret=two", pull.Options{As: "m"}, nil); err == nil {
		t.Error("the model of another query was taken")
	}
	if r, _ := b.pull(link+"?secret=one", pull.Options{}); !r.Already || len(b.hub.Requests()) > 0 {
		t.Errorf("the same address again: %+v", r)
	}
	b.pull(link+"?secret=two", pull.Options{As: "two"})
	b.holds("two", two)
	// If the digest is given, the query does not matter.
	b.pull(link+"?secret=one#sha256="+hubtest.Sum(one), pull.Options{})
	b.hub.Forget()
	if r, _ := b.pull(link+"?secret=other#sha256="+hubtest.Sum(one), pull.Options{}); !r.Already || len(b.hub.Requests()) > 0 {
		t.Errorf("by its digest: %+v", r)
	}
	for _, path := range b.files() {
		if strings.Contains(readFile(t, b.Store.Home, path), "secret") {
			t.Errorf("%s has the query", path)
		}
	}
}

// refer writes a manifest that refers to files outside of the store, one for each of contents. It
// returns the paths of the files.
func (b *bench) refer(name, asked string, contents ...[]byte) (paths []string) {
	b.t.Helper()
	m := &store.Manifest{Name: name, Asked: []string{asked}}
	for i, c := range contents {
		path := filepath.Join(b.t.TempDir(), fmt.Sprint(i))
		if err := os.WriteFile(path, c, 0o600); err != nil {
			b.t.Fatal(err)
		}
		paths = append(paths, path)
		m.Parts = append(m.Parts, store.Part{Blob: "sha256:" + hubtest.Sum(c), Size: int64(len(c)), Refers: &store.Refers{Path: path}})
	}
	m.Blob, m.Size, m.Refers = m.Parts[0].Blob, m.Parts[0].Size, m.Parts[0].Refers
	if len(contents) == 1 {
		m.Parts = nil
	}
	if err := b.Store.PutManifest(m, false); err != nil {
		b.t.Fatal(err)
	}
	return paths
}

// A model with files outside of the store is used if all of them exist, and is fetched otherwise.
func TestReferredModels(t *testing.T) {
	for name, parts := range map[string][][]byte{
		"one file": {content(1000, 94)},
		"split":    {content(1000, 94), content(2000, 95)},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.repo(parts...)
			paths := b.refer("m-q4_k_m", "hf:O/R", parts...)
			for _, typed := range []string{"O/R", "m-q4_k_m"} {
				r, _ := b.pull(typed, pull.Options{})
				if !r.Already || r.Path != paths[0] || len(b.hub.Requests()) > 0 {
					t.Errorf("%s: %+v, %d requests", typed, r, len(b.hub.Requests()))
				}
			}
			if err := os.Remove(paths[len(paths)-1]); err != nil {
				t.Fatal(err)
			}
			b.pull("O/R", pull.Options{})
			b.holds("m-q4_k_m", parts...)
		})
	}
}

// A symbolic link in place of a blob fails a pull, as it fails [store.Store.Ensure].
func TestLinkedBlob(t *testing.T) {
	b := newBench(t)
	c := content(1000, 96)
	b.repo(c)
	b.pull("O/R", pull.Options{})
	blob := b.Store.BlobPath(hubtest.Sum(c))
	if err := errors.Join(os.Rename(blob, blob+".away"), os.Symlink(blob+".away", blob)); err != nil {
		t.Fatal(err)
	}
	b.fails("O/R", "is not a regular file")
	b.fails("m-q4_k_m", `no model is called "m-q4_k_m"`)
}

// An update fetches a later part of a split model if only that part has changed.
func TestLaterPartHasChanged(t *testing.T) {
	b := newBench(t)
	one, two, three := content(1000, 97), content(1000, 98), content(1000, 99)
	b.repo(one, two)
	b.pull("O/R", pull.Options{})
	b.repo(one, three)
	if r, _ := b.pull("O/R", pull.Options{}); !r.Already {
		t.Errorf("without an update: %+v", r)
	}
	if r, _ := b.pull("O/R", pull.Options{Update: true}); r.Already || r.Fetched != int64(len(three)) {
		t.Errorf("%+v", r)
	}
	b.holds("m-q4_k_m", one, three)
	// Without an update, another spelling of the name is resolved again, and finds another model.
	b.repo(one, two)
	b.fails("O/R:Q4_K_M", "belongs to another model")
}
