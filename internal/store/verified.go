package store

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/status"
	"github.com/inferd-go/inferd/internal/trust"
)

// digests maps files in a given state to their digests. It is saved in [Store.VerifiedFile], which
// other users must not be able to write. That file is valid on one machine only, since device and
// inode numbers mean nothing elsewhere.
type digests struct {
	mu    sync.Mutex // guards the fields below
	read  bool       // the file on disk has been read
	known map[key]known
}

// A key is a file in a given state. Path is set only on platforms without inode numbers.
type key struct {
	Path string `json:"path,omitempty"`
	Identity
}

type known struct {
	SHA256 string    `json:"sha256"`
	At     time.Time `json:"at"` // time of the last hash

	memoryOnly bool // not saved for later processes
}

// A verifiedFile is the content of [Store.VerifiedFile].
type verifiedFile struct {
	Files []verifiedEntry `json:"files"`
}

type verifiedEntry struct {
	key
	known
}

const (
	maxVerified     = 1024    // limit for the number of files
	maxVerifiedFile = 1 << 20 // bytes
)

// keyOf returns the key of an open file.
func keyOf(id Identity, path string) key {
	if id.Ino != 0 {
		path = ""
	}
	return key{path, id}
}

// digestOf returns the digest of an open file. It does not read the file if its digest is known and
// equals want; an empty want matches any known digest. It returns an error if the file changes
// meanwhile.
func (s *Store) digestOf(ctx context.Context, f *os.File, info os.FileInfo, path, want string, phase func(status.Phase)) (string, error) {
	if !s.Paranoid {
		if got, ok := s.knownDigest(keyOf(identityOf(info), path)); ok && (want == "" || got == want) {
			return got, nil
		}
	}
	return s.hashFile(ctx, f, info, path, phase)
}

// Two changes of a file within these times may leave equal timestamps: file systems take timestamps
// from a clock that ticks at least every 10 ms or, if they store whole seconds, every 2 s.
const (
	fineTick   = 20 * time.Millisecond
	coarseTick = 2 * time.Second
)

// isFresh reports whether a file was changed so shortly before now that a further change might not
// change its identity.
func (id Identity) isFresh(now time.Time) bool {
	last, tick := max(id.MTime, id.CTime), fineTick
	if last%int64(time.Second) == 0 {
		tick = coarseTick
	}
	return now.Sub(time.Unix(0, last)) < tick
}

// hashFile reads an open file and records its digest. It saves the digest for later processes only
// if the content is synced, so that a power cut cannot change it under the same identity, and if
// the file is not fresh.
func (s *Store) hashFile(ctx context.Context, f *os.File, info os.FileInfo, path string, phase func(status.Phase)) (string, error) {
	k := keyOf(identityOf(info), path)
	if phase != nil {
		phase(status.Verify{Path: path})
	}
	fresh := k.isFresh(time.Now())
	got, err := digest(ctx, f, info.Size())
	if err != nil {
		return "", fmt.Errorf("verify model: %w", err)
	}
	synced := syncRead(f) == nil
	now, err := f.Stat()
	switch {
	case err != nil:
		return "", fmt.Errorf("verify model: %w", err)
	case keyOf(identityOf(now), path) != k:
		return "", fmt.Errorf("model %s was changed while its SHA-256 was computed", path)
	}
	s.rememberKey(k, got, synced && !fresh)
	return got, nil
}

func (s *Store) knownDigest(k key) (string, bool) {
	s.digests.mu.Lock()
	defer s.digests.mu.Unlock()
	s.loadDigestsLocked()
	got, ok := s.digests.known[k]
	return got.SHA256, ok
}

// remember records the digest of a blob, unless the platform has no inode numbers. persistent means
// that later processes may use the record.
func (s *Store) remember(id Identity, digest string, persistent bool) {
	if id.Ino != 0 {
		s.rememberKey(keyOf(id, ""), digest, persistent)
	}
}

// isPersistent reports whether the digest of a file is saved for later processes.
func (s *Store) isPersistent(k key) bool {
	s.digests.mu.Lock()
	defer s.digests.mu.Unlock()
	got, ok := s.digests.known[k]
	return ok && !got.memoryOnly
}

// rememberKey records the digest of a file, and saves it for later processes if persistent is set.
func (s *Store) rememberKey(k key, digest string, persistent bool) {
	s.digests.mu.Lock()
	defer s.digests.mu.Unlock()
	s.loadDigestsLocked()
	s.digests.known[k] = known{SHA256: digest, At: time.Now().UTC().Truncate(time.Second), memoryOnly: !persistent}
	if persistent {
		s.saveDigestsLocked()
	}
}

// loadDigestsLocked reads [Store.VerifiedFile], once. If the file cannot be used, no digest is
// known, and files are hashed again.
func (s *Store) loadDigestsLocked() {
	if s.digests.read {
		return
	}
	s.digests.read = true
	s.digests.known = make(map[key]known)
	maps.Copy(s.digests.known, s.readDigests())
}

func (s *Store) readDigests() map[key]known {
	if s.VerifiedFile == "" || trust.Folder(filepath.Dir(s.VerifiedFile)) != nil {
		return nil
	}
	f, err := trust.OpenFile(s.VerifiedFile, os.O_RDONLY, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxVerifiedFile))
	var file verifiedFile
	if err != nil || json.Unmarshal(data, &file) != nil {
		return nil
	}
	all := make(map[key]known)
	for _, e := range file.Files {
		all[e.key] = e.known
	}
	return all
}

// saveDigestsLocked merges the digests of this process into the file on disk, which other processes
// also write. If that fails, this process keeps its digests only in memory.
func (s *Store) saveDigestsLocked() {
	if s.VerifiedFile == "" {
		return
	}
	for k, other := range s.readDigests() {
		if mine, ok := s.digests.known[k]; !ok || mine.memoryOnly {
			s.digests.known[k] = other
		}
	}
	var file verifiedFile
	for k, v := range s.digests.known {
		if v.memoryOnly {
			continue
		}
		file.Files = append(file.Files, verifiedEntry{k, v})
	}
	slices.SortFunc(file.Files, func(a, b verifiedEntry) int {
		return cmp.Or(b.At.Compare(a.At), cmp.Compare(a.SHA256, b.SHA256), cmp.Compare(a.CTime, b.CTime))
	})
	for _, e := range file.Files[min(len(file.Files), maxVerified):] {
		delete(s.digests.known, e.key)
	}
	file.Files = file.Files[:min(len(file.Files), maxVerified)]
	data, err := json.Marshal(file, jsontext.Multiline(true))
	if err == nil {
		_ = replaceFile(s.VerifiedFile, append(data, '\n')) // after a failure the file is hashed again
	}
}

// replaceFile writes a temporary file of mode 0600 and renames it to name.
func replaceFile(name string, data []byte) error {
	dir, leaf := filepath.Split(name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	temp := "." + leaf + "." + rand.Text()[:8]
	f, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = root.Rename(temp, leaf)
	}
	if err != nil {
		return errors.Join(err, root.Remove(temp))
	}
	return nil
}
