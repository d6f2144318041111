//go:build unix

package store_test

import (
	"crypto/sha256"
	"encoding"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/inferd-go/inferd/internal/store"
)

// forge writes the bytes evil as the data of an unfinished ingest of the bytes genuine. It returns
// the paths of the data and of the durable state, which claim writes.
func forge(t *testing.T, home string, genuine, evil []byte) (data, state string) {
	t.Helper()
	digest := digestOf(genuine)
	dir := filepath.Join(home, "blobs", "sha256", digest[:2], ".partial-"+digest)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	data, state = filepath.Join(dir, "data.tmp"), filepath.Join(dir, "durable.json")
	write(t, data, string(evil))
	return data, state
}

// claim writes the state of a forged ingest: all bytes are there, and their hash is that of
// genuine. It must be called after the last change of the data, because the state contains the
// identity of that file.
func claim(t *testing.T, data, state string, genuine []byte) {
	t.Helper()
	h := sha256.New()
	h.Write(genuine)
	m, ok := h.(encoding.BinaryMarshaler)
	if !ok {
		t.Fatal("no state")
	}
	hashState, err := m.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(data)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(map[string]any{
		"sha256": digestOf(genuine), "total": len(genuine),
		"ranges": []store.Range{{Start: 0, End: int64(len(genuine))}}, "hashed": len(genuine), "hash_state": hashState,
		"file": store.IdentityOf(info),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(state, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// The hash in a state is used only if no other user can have written the state or the data.
// Otherwise the bytes are hashed again.
func TestForgedState(t *testing.T) {
	genuine, evil := []byte("genuine bytes"), []byte("evil bytes !!")
	for name, test := range map[string]struct {
		dataOwner, stateOwner int // added to the uid of this process
		stateMode             os.FileMode
		believed              bool
	}{
		"of another user":               {1, 1, 0o644, false},
		"whose state is another user's": {0, 1, 0o644, false},
		"whose data is another user's":  {1, 0, 0o644, false},
		"whose state others can write":  {0, 0, 0o664, false},
		"of the own user":               {0, 0, 0o644, true}, // shows that nothing but the owner and mode betrays the forged state
	} {
		t.Run(name, func(t *testing.T) {
			if test.dataOwner+test.stateOwner > 0 && os.Getuid() != 0 {
				t.Skip("needs root")
			}
			s, home := open(t)
			data, state := forge(t, home, genuine, evil)
			if err := os.Chown(data, os.Getuid()+test.dataOwner, -1); err != nil {
				t.Fatal(err)
			}
			claim(t, data, state, genuine)
			if err := errors.Join(os.Chown(state, os.Getuid()+test.stateOwner, -1), os.Chmod(state, test.stateMode)); err != nil {
				t.Fatal(err)
			}
			in := begin(t, s, store.Want{SHA256: digestOf(genuine)})
			if in.Done() != int64(len(genuine)) {
				t.Fatalf("%d bytes are resumed", in.Done())
			}
			_, err := in.Commit(t.Context())
			m, ok := errors.AsType[*store.MismatchError](err)
			if test.believed && err != nil || !test.believed && (!ok || m.Actual != digestOf(evil) || !m.Damaged) {
				t.Errorf("%v", err)
			}
		})
	}
}

// Without an expected digest an ingest is resumed only if no other user can have written its state:
// nothing else would reveal wrong bytes.
func TestForgedStateWithoutDigest(t *testing.T) {
	s, home := open(t)
	w := store.Want{Upstream: store.Upstream{URL: "https://a/b"}}
	in := begin(t, s, w)
	write1(t, in, []byte("abc"), 0)
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	all, err := filepath.Glob(filepath.Join(home, "blobs/sha256/*/.partial-*/*.json"))
	if err != nil || len(all) != 2 {
		t.Fatal(all, err)
	}
	for _, state := range all {
		if err := os.Chmod(state, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if in := begin(t, s, w); in.Done() != 0 {
		t.Errorf("%d bytes are resumed", in.Done())
	}
}

// In a shared store, a change of the content by a member of the group between the hash and the
// rename is found.
func TestSharedStoreHashesWhatItPublished(t *testing.T) {
	home := filepath.Join(t.TempDir(), "models")
	if err := errors.Join(os.Mkdir(home, 0o755), os.Chmod(home, 0o775|os.ModeSetgid)); err != nil {
		t.Fatal(err)
	}
	genuine, evil := []byte("genuine bytes"), []byte("evil bytes !!")
	s := &store.Store{Home: home}
	t.Cleanup(func() { s.Close() })
	s.Before = func(op store.Op) error {
		if op.Kind != store.OpRename || filepath.Base(op.To) != "data" {
			return nil
		}
		file := filepath.Join(home, filepath.FromSlash(op.Path))
		info, err := os.Stat(file)
		if err == nil {
			err = errors.Join(os.WriteFile(file, evil, 0o600), os.Chtimes(file, info.ModTime(), info.ModTime()))
		}
		return err
	}
	in := begin(t, s, store.Want{SHA256: digestOf(genuine), Name: "m"})
	write1(t, in, genuine, 0)
	_, err := in.Commit(t.Context())
	if m, ok := errors.AsType[*store.MismatchError](err); !ok || m.Actual != digestOf(evil) || !m.Damaged {
		t.Errorf("%v", err)
	}
	if ok, err := s.Have(t.Context(), digestOf(genuine), nil); ok || err != nil {
		t.Errorf("Have = %v, %v", ok, err)
	}
}

// A change by another program of the same user between the last comparison and the rename is found.
func TestChangeBeforeTheRename(t *testing.T) {
	s, home := open(t)
	s.Before = func(op store.Op) error {
		if op.Kind != store.OpRename || filepath.Base(op.To) != "data" {
			return nil
		}
		return os.WriteFile(filepath.Join(home, filepath.FromSlash(op.Path)), []byte("wrongs"), 0o600)
	}
	in := begin(t, s, store.Want{SHA256: sum("right")})
	write1(t, in, []byte("right"), 0)
	_, err := in.Commit(t.Context())
	if m, ok := errors.AsType[*store.MismatchError](err); !ok || m.Actual != sum("wrongs") {
		t.Errorf("%v", err)
	}
}

// A store is shared if its folder is writable for the group, even if that group is the primary group
// of the user: the folders in it are then writable for the group, too.
func TestStoreOfThePrimaryGroup(t *testing.T) {
	home := filepath.Join(t.TempDir(), "models")
	if err := errors.Join(os.Mkdir(home, 0o755), os.Chmod(home, 0o775)); err != nil {
		t.Fatal(err)
	}
	old := syscall.Umask(0o022)
	defer syscall.Umask(old)
	s := &store.Store{Home: home}
	t.Cleanup(func() { s.Close() })
	put(t, s, "m", []byte("x"))
	for _, name := range []string{"manifests", "blobs/sha256", "locks"} {
		info, err := os.Stat(filepath.Join(home, name))
		if err != nil || info.Mode().Perm() != 0o775 {
			t.Errorf("%s: %s", name, fmt.Sprint(info.Mode(), err))
		}
	}
}
