package store_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/inferd-go/inferd/internal/store"
)

// reference writes a model to the store at home in the form of the reference implementation.
func reference(t *testing.T, home, name string, data []byte) {
	t.Helper()
	digest := digestOf(data)
	dir := filepath.Join(home, "blobs", "sha256", digest[:2], digest)
	for _, d := range []string{dir, filepath.Join(home, "manifests"), filepath.Join(home, "locks")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(dir, "data"), string(data))
	write(t, filepath.Join(home, "locks", name+".lock"), "")
	write(t, filepath.Join(home, "manifests", name+".json"), fmt.Sprintf(`{
  "schema_version": 1,
  "name": %q,
  "format": "gguf",
  "blob": "sha256:%s",
  "size_bytes": %d,
  "license": "gemma",
  "source": {
    "registry": "huggingface.co",
    "repo": "",
    "revision": "",
    "filename": "m.gguf"
  },
  "produced_by": "inferd/0.6.0",
  "produced_at": "2026-05-01T12:00:00Z",
  "later": {"member": [1]}
}
`, name, digest, len(data)))
}

func names(l store.Listing) string {
	var all []string
	for _, e := range l.Models {
		all = append(all, e.Name+" "+string(e.State))
	}
	return strings.Join(all, ", ")
}

func list(t *testing.T, s *store.Store) store.Listing {
	t.Helper()
	l, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestStoreOfTheReference(t *testing.T) {
	s, home := open(t)
	reference(t, home, "gemma", []byte("weights"))
	if got := list(t, s); names(got) != "gemma unverified" || *got.Models[0].License != "gemma" || got.Models[0].Source.Filename != "m.gguf" || len(got.Problems) > 0 {
		t.Errorf("%+v", got)
	}
	m, phases := ensure(t, s, store.Ref{Name: "gemma"})
	if got := content(t, m); got[0] != "weights" || phases != "CheckingLocal Verify" {
		t.Errorf("%q, %s", got, phases)
	}
	if got := names(list(t, s)); got != "gemma ok" {
		t.Errorf("after a launch: %s", got)
	}
	// Unknown members of the manifest are kept when the manifest is written again.
	manifest, err := s.Manifest("gemma")
	if err != nil {
		t.Fatal(err)
	}
	manifest.Asked = []string{"hf:a/b"}
	if err := s.PutManifest(manifest, false); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(home, "manifests", "gemma.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"later": {`, `"produced_by": "inferd/0.6.0"`, `"hf:a/b"`, `"license": "gemma"`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s lacks %s", text, want)
		}
	}
	// An unfinished download and an unfinished import of the reference.
	partial := filepath.Join(home, "blobs", "sha256", "00", ".partial-"+strings.Repeat("0", 64))
	if err := os.MkdirAll(partial, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(partial, "data.tmp"), "half")
	write(t, filepath.Join(home, "locks", ".import-x"), "half")
	if got := list(t, s).Unfinished; len(got) != 1 || got[0].Digest != strings.Repeat("0", 64) || got[0].Done != 4 || got[0].Running {
		t.Errorf("%+v", got)
	}
	in := begin(t, s, store.Want{SHA256: strings.Repeat("0", 64)})
	if got := in.Done(); got != 0 {
		t.Errorf("%d bytes of unknown origin are resumed", got)
	}
}

// The manifest has the members of the reference, in its order and form.
func TestFormOfAManifest(t *testing.T) {
	s, home := open(t)
	put(t, s, "m", []byte("x"))
	got, err := os.ReadFile(filepath.Join(home, "manifests", "m.json"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.Manifest("m")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := time.Parse(time.RFC3339, m.ProducedAt); err != nil {
		t.Error(err)
	}
	want := fmt.Sprintf(`{
  "schema_version": 1,
  "name": "m",
  "format": "gguf",
  "blob": "sha256:%s",
  "size_bytes": 1,
  "license": null,
  "source": {
    "registry": "",
    "repo": "",
    "revision": "",
    "filename": ""
  },
  "produced_by": "",
  "produced_at": %q
}
`, sum("x"), m.ProducedAt)
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
}

func TestDamageIsLocal(t *testing.T) {
	s, home := open(t)
	for _, name := range []string{"good", "torn", "missing", "short", "flipped"} {
		put(t, s, name, []byte("weights of "+name))
	}
	manifests := filepath.Join(home, "manifests")
	write(t, filepath.Join(manifests, "torn.json"), "")
	write(t, filepath.Join(manifests, "other.json"), `{"schema_version":1,"name":"else","format":"gguf","blob":"sha256:`+sum("x")+`","size_bytes":1}`)
	write(t, filepath.Join(manifests, "later.json"), `{"schema_version":2}`)
	write(t, filepath.Join(manifests, "..json"), "a temporary file")
	write(t, filepath.Join(manifests, "evil.json"), `{"schema_version":1,"name":"evil","format":"gguf","blob":"sha256:../../../../etc/passwd","size_bytes":1}`)
	blob := func(name string) string {
		d := sum("weights of " + name)
		return filepath.Join(home, "blobs", "sha256", d[:2], d, "data")
	}
	for _, name := range []string{"short", "flipped", "missing"} {
		if err := os.Remove(blob(name)); err != nil {
			t.Fatal(err)
		}
	}
	write(t, blob("short"), "weights")
	write(t, blob("flipped"), "weights of flopped")
	l := list(t, s)
	if got := names(l); got != "flipped unverified, good ok, missing missing, short damaged" {
		t.Error(got)
	}
	if len(l.Torn) != 4 {
		t.Errorf("%+v", l.Torn)
	}
	for _, p := range l.Torn {
		if !strings.HasPrefix(p.Path, manifests) || p.What == "" {
			t.Errorf("%+v", p)
		}
	}
	ensure(t, s, store.Ref{Name: "good"})
	for _, name := range []string{"torn", "missing", "short", "flipped", "evil", "other"} {
		if _, err := s.Ensure(t.Context(), store.Ref{Name: name}, nil); err == nil || !strings.Contains(err.Error(), home) {
			t.Errorf("%s: %v", name, err)
		}
	}
	l, err := s.Verify(t.Context(), nil, nil)
	if got := names(l); err != nil || got != "flipped damaged, good ok, missing missing, short damaged" {
		t.Errorf("verify: %s, %v", got, err)
	}
	if got := names(list(t, s)); got != "flipped damaged, good ok, missing missing, short damaged" {
		t.Errorf("after verify: %s", got)
	}
	if l, err = s.Verify(t.Context(), []string{"torn", "good"}, nil); err != nil || len(l.Torn) != 1 || len(l.Models) != 1 {
		t.Errorf("%+v, %v", l, err)
	}
	if _, err = s.Verify(t.Context(), []string{"none"}, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	put(t, s, "torn", []byte("new weights")) // a torn manifest may be replaced
	ensure(t, s, store.Ref{Name: "torn"})
}

func TestNameIsTaken(t *testing.T) {
	s, _ := open(t)
	put(t, s, "m", []byte("one"))
	put(t, s, "n", []byte("two"))
	other := &store.Manifest{Name: "m", Blob: "sha256:" + sum("two"), Size: 3}
	if taken, ok := errors.AsType[*store.TakenError](s.PutManifest(other, false)); !ok || taken.Digest != sum("one") {
		t.Errorf("%v", taken)
	}
	if err := s.PutManifest(other, true); err != nil {
		t.Error(err)
	}
	for name, m := range map[string]*store.Manifest{
		"no such blob":  {Name: "x", Blob: "sha256:" + sum("three"), Size: 5},
		"another size":  {Name: "x", Blob: "sha256:" + sum("two"), Size: 4},
		"no digest":     {Name: "x", Blob: "two", Size: 3},
		"another part":  {Name: "x", Blob: "sha256:" + sum("two"), Size: 3, Parts: []store.Part{{Blob: "sha256:" + sum("one"), Size: 3}}},
		"a part astray": {Name: "x", Blob: "sha256:" + sum("two"), Size: 3, Parts: []store.Part{{Blob: "sha256:" + sum("two"), Size: 3}, {Blob: "sha256:" + sum("y"), Size: 1}}},
	} {
		if err := s.PutManifest(m, false); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// On a file system that ignores case, a model is not replaced or removed by a name that differs
// only in case. A hard link imitates such a file system.
func TestNameInAnotherCase(t *testing.T) {
	s, home := open(t)
	put(t, s, "Foo", []byte("one"))
	put(t, s, "n", []byte("two"))
	manifests := filepath.Join(home, "manifests")
	if err := os.Link(filepath.Join(manifests, "Foo.json"), filepath.Join(manifests, "foo.json")); err != nil {
		t.Skip(err)
	}
	for _, replace := range []bool{false, true} {
		err := s.PutManifest(&store.Manifest{Name: "foo", Blob: "sha256:" + sum("two"), Size: 3}, replace)
		if taken, ok := errors.AsType[*store.TakenError](err); !ok || taken.Name != "Foo" || taken.Digest != sum("one") {
			t.Errorf("replace %v: %v", replace, err)
		}
	}
	if _, err := s.Remove("foo", true); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if _, err := s.Ensure(t.Context(), store.Ref{Name: "foo"}, nil); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), `"Foo" is`) {
		t.Error(err)
	}
	if l := list(t, s); names(l) != "Foo ok, n ok" || len(l.Problems) > 0 {
		t.Errorf("%+v", l)
	}
}

// Two models that differ only in a later part are different models.
func TestLaterPartsDiffer(t *testing.T) {
	s, _ := open(t)
	var parts []store.Part
	for _, data := range []string{"first", "second", "third"} {
		b := put(t, s, data, []byte(data))
		parts = append(parts, store.Part{Blob: "sha256:" + b.Digest, Size: b.Size})
	}
	split := func(parts ...store.Part) *store.Manifest {
		return &store.Manifest{Name: "split", Blob: parts[0].Blob, Size: parts[0].Size, Parts: parts}
	}
	if err := s.PutManifest(split(parts[0], parts[1]), false); err != nil {
		t.Fatal(err)
	}
	for _, other := range []*store.Manifest{split(parts[0], parts[2]), split(parts...), {Name: "split", Blob: parts[0].Blob, Size: parts[0].Size}} {
		if _, ok := errors.AsType[*store.TakenError](s.PutManifest(other, false)); !ok {
			t.Errorf("%+v is accepted", other)
		}
	}
	if err := s.PutManifest(split(parts[0], parts[2]), true); err != nil {
		t.Error(err)
	}
}

func TestSplitModelByName(t *testing.T) {
	s, _ := open(t)
	var parts []store.Part
	for _, data := range []string{"first", "second"} {
		b := put(t, s, data, []byte(data))
		parts = append(parts, store.Part{Blob: "sha256:" + b.Digest, Size: b.Size})
	}
	if err := s.PutManifest(&store.Manifest{Name: "split", Blob: parts[0].Blob, Size: 5, Parts: parts}, false); err != nil {
		t.Fatal(err)
	}
	m, _ := ensure(t, s, store.Ref{Name: "split"})
	if got := content(t, m); len(got) != 2 || got[1] != "second" || m.Digest != "" {
		t.Errorf("%q, %+v", got, m)
	}
	for _, name := range []string{"first", "second"} { // their blobs are still needed
		s.Close()
		if _, err := s.Remove(name, false); err != nil {
			t.Fatal(err)
		}
	}
	ensure(t, s, store.Ref{Name: "split"})
}

// A verified file is not read again, not even by another process, unless Paranoid is set.
func TestVerifiedFile(t *testing.T) {
	s, home := open(t)
	state := filepath.Join(t.TempDir(), "state")
	reference(t, home, "m", []byte("weights"))
	digest := sum("weights")
	info, err := os.Stat(filepath.Join(home, "blobs", "sha256", digest[:2], digest, "data"))
	if err != nil {
		t.Fatal(err)
	}
	for time.Since(info.ModTime()) < 50*time.Millisecond { // until the file is not fresh
		runtime.Gosched()
	}
	phases := func(paranoid bool) string {
		s := &store.Store{Home: home, VerifiedFile: filepath.Join(state, "verified.json"), Paranoid: paranoid}
		defer s.Close()
		_, phases := ensure(t, s, store.Ref{Name: "m"})
		return phases
	}
	if got := phases(false); got != "CheckingLocal Verify" {
		t.Errorf("first: %s", got)
	}
	if got := phases(false); got != "CheckingLocal" {
		t.Errorf("second: %s", got)
	}
	if got := phases(true); got != "CheckingLocal Verify" {
		t.Errorf("paranoid: %s", got)
	}
	write(t, filepath.Join(state, "verified.json"), "{torn")
	if got := phases(false); got != "CheckingLocal Verify" {
		t.Errorf("torn: %s", got)
	}
	_ = s
}

// The digest of a file that was changed a moment ago is kept in this process only: a further change
// might leave the times of the file as they are.
func TestFreshFile(t *testing.T) {
	verified := filepath.Join(t.TempDir(), "state", "verified.json")
	ref := store.Ref{Path: filepath.Join(t.TempDir(), "m.gguf"), SHA256: sum("right")}
	write(t, ref.Path, "right")
	if err := os.Chtimes(ref.Path, time.Time{}, time.Now().Add(time.Hour)); err != nil { // fresh for an hour
		t.Fatal(err)
	}
	s := &store.Store{VerifiedFile: verified}
	for _, want := range []string{"CheckingLocal Verify", "CheckingLocal"} {
		if _, got := ensure(t, s, ref); got != want {
			t.Errorf("this process: %s, want %s", got, want)
		}
	}
	if _, got := ensure(t, &store.Store{VerifiedFile: verified}, ref); got != "CheckingLocal Verify" {
		t.Errorf("another process: %s", got)
	}
	now := time.Now()
	for name, test := range map[string]struct {
		age  time.Duration
		want bool
	}{"now": {0, true}, "a tick ago": {10 * time.Millisecond, true}, "before": {30 * time.Millisecond, false}} {
		if got := (store.Identity{MTime: 1, CTime: now.Add(-test.age).UnixNano() | 1}).IsFresh(now); got != test.want {
			t.Errorf("%s: fresh is %v", name, got)
		}
	}
	second := time.Unix(1000, 0)
	if id := (store.Identity{CTime: second.UnixNano()}); !id.IsFresh(second.Add(1900*time.Millisecond)) || id.IsFresh(second.Add(2*time.Second)) {
		t.Error("times in whole seconds")
	}
}

func gc(t *testing.T, s *store.Store, o store.GCOptions) []string {
	t.Helper()
	removed, _, err := s.GC(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	var what []string
	for _, r := range removed {
		what = append(what, r.What)
	}
	return what
}

func TestGC(t *testing.T) {
	s, home := open(t)
	kept := put(t, s, "kept", []byte("kept"))
	for _, name := range []string{"orphan", "spared", "used"} {
		put(t, s, name, []byte(name))
		if err := os.Remove(filepath.Join(home, "manifests", name+".json")); err != nil {
			t.Fatal(err)
		}
	}
	user := &store.Store{Home: home} // another process, such as a daemon
	defer user.Close()
	ensure(t, user, store.Ref{Name: "used", SHA256: sum("used")})
	half := begin(t, s, store.Want{SHA256: sum("half")})
	write1(t, half, []byte("ha"), 0)
	if err := half.Close(); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	o := store.GCOptions{Spare: func(digest string) bool { return digest == sum("spared") }}
	for name, step := range map[string]struct {
		age  time.Duration
		want int
	}{
		"all is young":   {0, 0},
		"for 59 minutes": {59 * time.Minute, 0},
		"for an hour":    {61 * time.Minute, 1},
		"for 6 days":     {6 * 24 * time.Hour, 1},
		"for 8 days":     {8 * 24 * time.Hour, 2},
	} {
		o.DryRun, o.Now = true, now.Add(step.age)
		if got := gc(t, s, o); len(got) != step.want {
			t.Errorf("%s: %q", name, got)
		}
	}
	o.DryRun, o.Now = false, now.Add(2*time.Hour)
	write(t, filepath.Join(home, "manifests", "torn.json"), "")
	_, problems, err := s.GC(t.Context(), o)
	if err != nil || len(problems) != 1 || !strings.Contains(problems[0].What, "no blobs are removed") {
		t.Errorf("with a torn manifest: %+v, %v", problems, err)
	}
	if err := os.Remove(filepath.Join(home, "manifests", "torn.json")); err != nil {
		t.Fatal(err)
	}
	if got := gc(t, s, o); len(got) != 1 {
		t.Errorf("%q", got)
	}
	held := begin(t, s, store.Want{SHA256: sum("half")})
	o.Now = now.Add(30 * 24 * time.Hour)
	if got := gc(t, s, o); len(got) != 0 {
		t.Errorf("what is being written is removed: %q", got)
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	user.Close()
	if got := gc(t, s, o); len(got) != 2 {
		t.Errorf("%q", got)
	}
	if got := len(tree(t, home)); got != 3 { // one blob with its manifest, and the spared one
		t.Errorf("%q", tree(t, home))
	}
	if ok, err := s.Have(t.Context(), kept.Digest, nil); !ok || err != nil {
		t.Error(ok, err)
	}
	empty := &store.Store{Home: filepath.Join(t.TempDir(), "none")}
	if got := gc(t, empty, store.GCOptions{}); len(got) != 0 {
		t.Errorf("%q", got)
	}
	if _, err := os.Stat(empty.Home); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the collection made the store: %v", err)
	}
}

func TestRemove(t *testing.T) {
	s, home := open(t)
	put(t, s, "a", []byte("shared"))
	if err := s.PutManifest(&store.Manifest{Name: "b", Blob: "sha256:" + sum("shared"), Size: 6}, false); err != nil {
		t.Fatal(err)
	}
	remove := func(name string, force bool) error {
		_, err := s.Remove(name, force)
		return err
	}
	if err := remove("a", false); err != nil || names(list(t, s)) != "b ok" {
		t.Errorf("%v, %s", err, names(list(t, s)))
	}
	user := &store.Store{Home: home}
	defer user.Close()
	m, _ := ensure(t, user, store.Ref{Name: "b"})
	if l := list(t, s); len(l.Models[0].PIDs) != 1 || l.Models[0].PIDs[0] != os.Getpid() {
		t.Errorf("%+v", l.Models)
	}
	if inUse, ok := errors.AsType[*store.InUseError](remove("b", false)); !ok || inUse.PID != os.Getpid() {
		t.Errorf("%v", inUse)
	}
	if err := remove("b", true); err != nil {
		t.Error(err)
	}
	if got := content(t, m); got[0] != "shared" {
		t.Errorf("the open file has %q", got)
	}
	if err := remove("b", true); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("again: %v", err)
	}
	// Remove also removes the unfinished and quarantined files of a name.
	in := begin(t, s, store.Want{SHA256: sum("right"), Name: "c", Upstream: store.Upstream{URL: "https://x"}})
	write1(t, in, []byte("wrong"), 0)
	if _, err := in.Commit(t.Context()); err == nil {
		t.Fatal("committed")
	}
	in.Close()
	in = begin(t, s, store.Want{SHA256: sum("other"), Name: "c"})
	write1(t, in, []byte("oth"), 0)
	if busy, ok := errors.AsType[*store.BusyError](remove("c", true)); !ok || busy.PID != os.Getpid() {
		t.Errorf("while it is written: %v", busy)
	}
	in.Close()
	if err := remove("c", false); err != nil {
		t.Error(err)
	}
	write(t, filepath.Join(home, "manifests", "torn.json"), "{")
	if err := remove("torn", false); err != nil {
		t.Error(err)
	}
	if got := tree(t, home); len(got) != 0 {
		t.Errorf("left: %q", got)
	}
}
