package pull_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/hubtest"
	"github.com/inferd-go/inferd/internal/pull"
	"github.com/inferd-go/inferd/internal/status"
	"github.com/inferd-go/inferd/internal/store"
)

// other returns a store in the same folder, which stands for that of another process.
func (b *bench) other() *store.Store {
	return b.puller(b.Store.Home).Store
}

// begun begins the ingest of c in another process.
func (b *bench) begun(c []byte) *store.Ingest {
	b.t.Helper()
	i, err := b.other().Begin(store.Want{SHA256: hubtest.Sum(c), Name: "others"})
	if err != nil {
		b.t.Error(err)
	}
	return i
}

// bring writes c to the ingest of another process, and commits it.
func (b *bench) bring(i *store.Ingest, c []byte) {
	_, err := i.WriteAt(c, 0)
	if err == nil {
		_, err = i.Commit(context.WithoutCancel(b.t.Context()))
	}
	if err := errors.Join(err, i.Close()); err != nil {
		b.t.Error(err)
	}
}

// age makes the blob of c two hours old.
func (b *bench) age(c []byte) {
	b.t.Helper()
	past := time.Now().Add(-2 * time.Hour)
	if err := os.Chtimes(b.Store.BlobPath(hubtest.Sum(c)), past, past); err != nil {
		b.t.Error(err)
	}
}

// The parts that have been pulled are not removed while other parts are being fetched, although no
// manifest names them yet.
func TestCollectionDuringPull(t *testing.T) {
	for name, small := range map[string]bool{"parts with a digest": false, "parts without a digest": true} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			parts := [][]byte{content(1000, 80), content(2000, 81), content(3000, 82)}
			b.hub.AddRepo("O/R", commit, "", map[string]*hubtest.File{
				"M-00001-of-00003.gguf": {Content: parts[0], Small: small},
				"M-00002-of-00003.gguf": {Content: parts[1], Small: small},
				"M-00003-of-00003.gguf": {Content: parts[2], Small: small},
			})
			if !small { // an earlier pull, which failed, has brought the first part
				b.bring(b.begun(parts[0]), parts[0])
			}
			var once sync.Once
			b.hub.Script = func(r hubtest.Request) *hubtest.Fault {
				if r.Origin == hubtest.CDN && strings.HasSuffix(r.Path, hubtest.Sum(parts[2])) {
					once.Do(func() {
						b.age(parts[0])
						b.age(parts[1])
						removed, problems, err := b.other().GC(t.Context(), store.GCOptions{})
						if err != nil || len(removed)+len(problems) > 0 {
							t.Errorf("removed %v, problems %v, %v", removed, problems, err)
						}
					})
				}
				return nil
			}
			b.pull("O/R", pull.Options{})
			b.holds("m", parts...)
			// After the pull no blob is locked.
			if _, err := b.other().Remove("m", false); err != nil {
				t.Error(err)
			}
			if _, err := b.Store.Blob(hubtest.Sum(parts[1])); err == nil {
				t.Error("a blob is locked after the pull")
			}
		})
	}
}

// before calls f before the store makes the n-th change of the given kind to a path with the suffix.
// The store must not have been used before.
func (b *bench) before(kind store.OpKind, suffix string, n int, f func()) {
	b.Store.Before = func(op store.Op) error {
		if op.Kind == kind && strings.HasSuffix(op.Path, suffix) {
			if n--; n == 0 {
				f()
			}
		}
		return nil
	}
}

// If another process commits a blob after the pull has looked for it and before it begins its
// ingest, the blob is not fetched.
func TestCommittedBeforeBegin(t *testing.T) {
	b := newBench(t)
	c := content(3*rangeOf, 83)
	b.repo(c)
	b.before(store.OpCreate, ".blob-"+hubtest.Sum(c)+".lock", 1, func() { b.bring(b.begun(c), c) })
	r, _ := b.pull("O/R", pull.Options{})
	b.holds("m-q4_k_m", c)
	if n := len(b.contentRequests()); n > 0 || r.Fetched > 0 {
		t.Errorf("%d requests for content", n)
	}
}

// If another process begins the ingest after this process got a wrong digest, this process waits and
// takes the content of the other, or fetches the content itself if the other process gives up.
func TestOtherBeginsAfterMismatch(t *testing.T) {
	for name, whole := range map[string]bool{"and ends it": true, "and gives up": false} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			c, flipped := content(3*rangeOf, 84), content(3*rangeOf, 85)
			b.repo(c)
			b.hub.Script = once(0, hubtest.Fault{Content: flipped, ETag: hubtest.ETag(c)})
			var other *store.Ingest
			b.before(store.OpCreate, ".blob-"+hubtest.Sum(c)+".lock", 2, func() { other = b.begun(c) })
			wrong := false
			follows := sync.OnceFunc(func() {
				if whole {
					b.bring(other, c)
				} else if err := other.Close(); err != nil {
					t.Error(err)
				}
			})
			b.SetHooks(pull.Hooks{Sleep: b.sleep, Ranges: rangeOf, Several: 2 * rangeOf, Follow: func() {
				if !wrong {
					t.Error("it follows another process before the wrong digest")
				}
				follows()
			}})
			_, err := b.Pull(t.Context(), "O/R", pull.Options{}, func(p status.Phase) {
				_, mismatch := p.(status.Quarantine)
				wrong = wrong || mismatch
			})
			if err != nil || other == nil {
				t.Fatalf("%v, other: %v", err, other)
			}
			b.holds("m-q4_k_m", c)
			if sent, want := b.hub.Sent(), map[bool]int64{true: 1, false: 2}[whole]*int64(len(c)); sent != want {
				t.Errorf("%d bytes were sent, want %d", sent, want)
			}
		})
	}
}

// While the digest is unknown, another process may write the same content. The pull then waits for
// that process.
func TestOtherWritesTheSame(t *testing.T) {
	b := newBench(t)
	c := content(3*rangeOf, 86)
	link := b.hub.AddFile("m.gguf", &hubtest.File{Content: c})
	other := b.begun(c)
	end := sync.OnceFunc(func() { b.bring(other, c) })
	b.SetHooks(pull.Hooks{Sleep: b.sleep, Ranges: rangeOf, Several: 2 * rangeOf, Follow: end})
	b.pull(link, pull.Options{})
	b.holds("m", c)
	if sent := b.hub.Sent(); sent != int64(len(c)) {
		t.Errorf("%d bytes were sent", sent)
	}
}

// note adds an asked name to a manifest, as another process would.
func (b *bench) note(name, asked string) {
	file := filepath.Join(b.Store.Home, "manifests", name+".json")
	text, err := os.ReadFile(file)
	var m map[string]any
	if err == nil {
		err = json.Unmarshal(text, &m)
	}
	if err == nil {
		m["asked"] = append(m["asked"].([]any), asked)
		text, err = json.Marshal(m)
	}
	if err := errors.Join(err, os.WriteFile(file, text, 0o600)); err != nil {
		b.t.Error(err)
	}
}

// If another process adds an asked name to the manifest at the same time, neither name is lost.
func TestNotedAtOnce(t *testing.T) {
	b := newBench(t)
	b.repo(content(1000, 87))
	b.pull("O/R", pull.Options{})
	if err := os.Remove(filepath.Join(b.Store.Home, "locks/m-q4_k_m.lock")); err != nil {
		t.Fatal(err)
	}
	b.Puller = b.puller(b.Store.Home)
	b.before(store.OpCreate, "m-q4_k_m.lock", 1, func() { b.note("m-q4_k_m", "hf:O/other") })
	b.pull("O/R:Q4_K_M", pull.Options{})
	m, err := b.Store.Manifest("m-q4_k_m")
	if want := []string{"hf:O/R", "hf:O/other", "hf:O/R:Q4_K_M"}; err != nil || !slices.Equal(m.Asked, want) {
		t.Errorf("%v, %v, want %v", m, err, want)
	}
}

// The asked name is added even if another process has pulled the model while this one waited.
func TestNotedAfterFollowing(t *testing.T) {
	b := newBench(t)
	b.repo(content(1000, 88))
	follows := make(chan struct{})
	b.hub.Script = func(r hubtest.Request) *hubtest.Fault {
		if r.Origin == hubtest.CDN {
			<-follows
		}
		return nil
	}
	second := b.puller(b.Store.Home)
	second.SetHooks(pull.Hooks{Follow: sync.OnceFunc(func() { close(follows) })})
	var both sync.WaitGroup
	both.Go(func() {
		if _, err := b.Pull(t.Context(), "O/R", pull.Options{}, nil); err != nil {
			t.Error(err)
		}
	})
	looks := b.other()
	for { // until the first pull has the lock of the name
		lock, err := looks.LockName("m-q4_k_m")
		if err != nil {
			break
		}
		lock.Release()
		time.Sleep(time.Millisecond)
	}
	if _, err := second.Pull(t.Context(), "O/R:Q4_K_M", pull.Options{}, nil); err != nil {
		t.Error(err)
	}
	both.Wait()
	m, err := b.Store.Manifest("m-q4_k_m")
	if err != nil || !slices.Equal(m.Asked, []string{"hf:O/R", "hf:O/R:Q4_K_M"}) {
		t.Errorf("%v, %v", m, err)
	}
}
