package store_test

import (
	"errors"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/status"
	"github.com/inferd-go/inferd/internal/store"
)

// If bytes are dropped while a durable state is being written, the state on disk does not claim
// them.
func TestResetDuringADurableState(t *testing.T) {
	s, home := open(t)
	var in *store.Ingest
	var reset sync.WaitGroup
	armed := false
	s.Before = func(op store.Op) error {
		if op.Kind != store.OpCreate || !strings.HasPrefix(path.Base(op.Path), ".durable.json.") || !armed {
			return nil
		}
		armed = false
		reset.Go(func() {
			if err := in.Reset(store.Upstream{Total: 5}); err != nil {
				t.Error(err)
			}
		})
		// Give the reset time to come before the state is written.
		for start := time.Now(); time.Since(start) < 20*time.Millisecond; {
			runtime.Gosched()
		}
		return nil
	}
	in = begin(t, s, store.Want{SHA256: sum("right"), Upstream: store.Upstream{Total: 5}})
	write1(t, in, []byte("wrong"), 0)
	armed = true
	if err := in.SaveDurable(); err != nil {
		t.Fatal(err)
	}
	reset.Wait()
	if armed {
		t.Fatal("no durable state was written")
	}
	killWriters(t, home)
	after := &store.Store{Home: copyOf(t, home), Boot: "another"}
	t.Cleanup(func() { after.Close() })
	states, err := filepath.Glob(filepath.Join(after.Home, "blobs/sha256/*/.partial-*/durable.json"))
	if err != nil || len(states) != 0 {
		t.Errorf("%q claim bytes that are gone, %v", states, err)
	}
}

// A reset while the follower reads does not fail the ingest.
func TestResetWhileItIsHashed(t *testing.T) {
	s, _ := open(t)
	data := random(2<<20, 40)
	in := begin(t, s, store.Want{SHA256: digestOf(data), Upstream: store.Upstream{Total: int64(len(data))}})
	rounds := 300
	if testing.Short() {
		rounds = 60
	}
	for range rounds {
		write1(t, in, data, 0)
		if err := in.Reset(store.Upstream{Total: int64(len(data))}); err != nil {
			t.Fatal(err)
		}
	}
	write1(t, in, data, 0)
	commit(t, in)
}

// Two processes find the same damaged blob. The first replaces it by a good one while the second
// reads the damaged blob, or after that. The second leaves the good blob in place.
func TestDamageIsMendedMeanwhile(t *testing.T) {
	for _, reading := range []bool{true, false} {
		s, home := open(t)
		b := put(t, s, "m", []byte("right"))
		locks, err := filepath.Glob(filepath.Join(home, "locks", ".blob-*"))
		if err != nil || len(locks) != 1 {
			t.Fatal(locks, err)
		}
		if err := errors.Join(os.Chmod(b.Path, 0o600), os.WriteFile(b.Path, []byte("wrong"), 0o600), os.Remove(locks[0])); err != nil {
			t.Fatal(err)
		}
		mended, quarantined := false, 0
		mend := func() {
			if mended {
				return
			}
			mended = true
			other := &store.Store{Home: home}
			t.Cleanup(func() { other.Close() })
			if ok, err := other.Have(t.Context(), b.Digest, nil); ok || err != nil {
				t.Errorf("Have = %v, %v", ok, err)
			}
			in := begin(t, other, store.Want{SHA256: b.Digest})
			write1(t, in, []byte("right"), 0)
			commit(t, in)
		}
		slow := &store.Store{Home: home, Before: func(store.Op) error { mend(); return nil }}
		t.Cleanup(func() { slow.Close() })
		ok, err := slow.Have(t.Context(), b.Digest, func(p store.Phase) {
			if _, is := p.(status.Quarantine); is {
				quarantined++
			}
			if reading {
				mend()
			}
		})
		if !ok || err != nil || quarantined != 0 || !mended {
			t.Errorf("reading: %v: Have = %v, %v, %d quarantined", reading, ok, err, quarantined)
		}
		if text, err := os.ReadFile(b.Path); string(text) != "right" {
			t.Errorf("reading: %v: %q, %v", reading, text, err)
		}
	}
}

// If a blob is committed after another process has looked for it, that process does not fetch it
// again.
func TestBlobIsCommittedMeanwhile(t *testing.T) {
	s, home := open(t)
	if ok, err := s.Have(t.Context(), sum("x"), nil); ok || err != nil {
		t.Fatal(ok, err)
	}
	other := &store.Store{Home: home}
	t.Cleanup(func() { other.Close() })
	put(t, other, "m", []byte("x"))
	_, err := s.Begin(store.Want{SHA256: sum("x")})
	if present, ok := errors.AsType[*store.PresentError](err); !ok || present.Digest != sum("x") {
		t.Errorf("%v", err)
	}
	// An import uses the blob that another process has committed meanwhile.
	file := filepath.Join(t.TempDir(), "m.gguf")
	data := modelFile(t, file, 0, 0)
	lock := ".blob-" + digestOf(data) + ".lock"
	once := false
	racing := &store.Store{Home: home, Before: func(op store.Op) error {
		if op.Kind == store.OpCreate && path.Base(op.Path) == lock && !once {
			once = true
			put(t, other, "first", data)
		}
		return nil
	}}
	t.Cleanup(func() { racing.Close() })
	if got, err := racing.Import(t.Context(), store.Import{Path: file, Name: "second", SHA256: digestOf(data)}, nil); err != nil || got.Manifest.Digest() != digestOf(data) {
		t.Errorf("%+v, %v", got, err)
	}
	if !once {
		t.Error("nothing was committed meanwhile")
	}
	if got := names(list(t, s)); got != "first ok, m ok, second ok" && got != "first unverified, m unverified, second unverified" {
		t.Error(got)
	}
}

// A recent state with a writer on another machine, or in another container of this one, makes Begin
// return a BusyError; an old state does not.
func TestWriterOfAnotherHost(t *testing.T) {
	s, home := open(t)
	w := store.Want{SHA256: sum("right"), Upstream: store.Upstream{Total: 5}}
	in := begin(t, s, w)
	write1(t, in, []byte("ri"), 0)
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	all, err := filepath.Glob(filepath.Join(home, "blobs/sha256/*/.partial-*/state.json"))
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	text, err := os.ReadFile(all[0])
	if err != nil {
		t.Fatal(err)
	}
	other := regexp.MustCompile(`"host": *"[^"]*"`).ReplaceAllString(writerPID.ReplaceAllString(string(text), `"pid":7`), `"host":"elsewhere.invalid"`)
	write(t, all[0], other)
	if busy, ok := errors.AsType[*store.BusyError](func() error { _, err := s.Begin(w); return err }()); !ok || busy.PID != 7 {
		t.Errorf("%v", busy)
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(all[0], old, old); err != nil {
		t.Fatal(err)
	}
	begin(t, s, w)
}
