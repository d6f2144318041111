package store

import (
	"context"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// Commit checks the digest and makes the bytes a blob, which is whole on disk from then on. It
// waits until they are hashed as they lie there. Close removes the rest of the ingest. A wrong
// digest is a [MismatchError], after which the bytes are gone; other failures leave them.
//
// A power cut at any time leaves the blob whole or absent: the data is synced before the
// rename, and the folder after it. A manifest follows later ([Store.PutManifest]).
func (i *Ingest) Commit(ctx context.Context) (Blob, error) {
	digest, err := i.finish(ctx)
	if err != nil {
		if _, mismatch := errors.AsType[*MismatchError](err); mismatch {
			return Blob{}, err
		}
		return Blob{}, fmt.Errorf("commit %s: %w", i.disk.path(i.path(tempLeaf)), err)
	}
	blob, err := i.publish(ctx, digest)
	if err != nil {
		return Blob{}, fmt.Errorf("commit %s: %w", i.disk.path(i.path(tempLeaf)), err)
	}
	return blob, nil
}

// maxRehashes is how often the content is hashed again because others have changed it.
const maxRehashes = 3

// finish waits until everything is hashed, and compares the digest.
func (i *Ingest) finish(ctx context.Context) (digest string, err error) {
	i.mu.Lock()
	if i.state.Total == 0 {
		i.state.Total = contiguous(i.state.Ranges)
	}
	total, done := i.state.Total, sum(i.state.Ranges)
	ended := i.stopped || i.committed
	i.mu.Unlock()
	if ended {
		return "", errors.New("the ingest has ended")
	}
	if done != total {
		return "", fmt.Errorf("%d of %d bytes are there", done, total)
	}
	for tries := 0; ; tries++ {
		if err := i.wait(ctx, total); err != nil {
			return "", err
		}
		again, err := i.compare(total)
		if err != nil {
			return "", err
		}
		if !again {
			break
		}
		if tries == maxRehashes {
			return "", errors.New("another program keeps changing it")
		}
	}
	i.mu.Lock()
	h, err := i.state.hash()
	i.mu.Unlock()
	if err != nil {
		return "", err
	}
	digest = hex.EncodeToString(h.Sum(nil))
	if want := i.state.SHA256; want != "" && subtle.ConstantTimeCompare([]byte(digest), []byte(want)) != 1 {
		return "", i.mismatch(digest)
	}
	return digest, nil
}

// compare reports whether others may have changed the data since the last own write. Then all
// of it is to be hashed again.
func (i *Ingest) compare(total int64) (again bool, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := i.compareLocked(); err != nil {
		return false, err
	}
	if i.state.File.Size > total {
		if err := i.disk.truncate(i.file, i.path(tempLeaf), total); err != nil {
			return false, err
		}
		if err := i.noteFile(); err != nil {
			return false, err
		}
		i.unsynced++ // the size has to be synced, too
	}
	if !i.suspicious {
		return false, nil
	}
	if i.firstSum == "" {
		h, err := i.state.hash()
		if err != nil {
			return false, err
		}
		i.firstSum = hex.EncodeToString(h.Sum(nil))
	}
	i.suspicious = false
	i.resets++
	i.state.rehash()
	i.changed.Broadcast()
	return true, nil
}

// publish renames the data to its place.
func (i *Ingest) publish(ctx context.Context, digest string) (Blob, error) {
	blob := Blob{digest, i.state.Total, i.disk.path(blobPath(digest))}
	if digest != i.ref {
		// The same content may be there, from another name of the ingest, and in use.
		if there, err := i.store.Have(ctx, digest, nil); err != nil {
			return Blob{}, err
		} else if there {
			i.stop()
			return blob, i.end()
		}
		i.store.releaseUse(digest)
		lock, err := i.store.lockBlob(i.disk, digest, false)
		if err != nil {
			return Blob{}, err
		}
		defer lock.Release()
	}
	i.stop()
	if err := i.saveDurable(); err != nil {
		return Blob{}, err
	}
	// It may be there by now: an ingest by another name has no lock on the digest.
	if there, err := i.store.check(ctx, i.disk, digest, nil); err != nil {
		return Blob{}, err
	} else if there {
		return blob, i.end()
	}
	if err := i.disk.mkdirAll(blobDir(digest)); err != nil {
		return Blob{}, err
	}
	before := i.state.File
	if err := i.closeFile(); err != nil {
		return Blob{}, err
	}
	if err := i.disk.rename(i.path(tempLeaf), blobPath(digest)); err != nil {
		return Blob{}, err
	}
	// Without the right to change the mode, for the file belongs to another user, it stays as
	// it is.
	if err := i.disk.chmod(blobPath(digest), blobMode); err != nil && !errors.Is(err, fs.ErrPermission) {
		return Blob{}, err
	}
	if err := i.disk.syncDir(blobDir(digest)); err != nil {
		return Blob{}, err
	}
	i.markCommitted()
	// The rename has changed the time of the last change, and nothing else.
	if info, err := i.disk.root.Stat(blobPath(digest)); err == nil {
		now := identityOf(info)
		if before.CTime = now.CTime; before == now {
			i.store.remember(now, digest)
		}
	}
	return blob, nil
}

func (i *Ingest) markCommitted() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.committed = true
}

// end closes the data, which is not needed: Close removes it.
func (i *Ingest) end() error {
	i.markCommitted()
	return i.closeFile()
}

// Have reports whether a blob is there and has its digest. A blob that is damaged is moved to
// the quarantine first. It reads a blob only if it is not known to be unchanged. Phases are
// reported to phase, which may be nil.
func (s *Store) Have(ctx context.Context, digest string, phase func(Phase)) (bool, error) {
	digest, err := ParseDigest(digest)
	if err != nil {
		return false, fmt.Errorf("digest %w", err)
	}
	d, err := s.open(false)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if _, err := d.root.Lstat(blobPath(digest)); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return s.check(ctx, d, digest, phase)
}

// check is Have in an open folder.
func (s *Store) check(ctx context.Context, d *disk, digest string, phase func(Phase)) (bool, error) {
	f, info, err := d.open(blobPath(digest), os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	got, err := s.digestOf(ctx, f, info, d.path(blobPath(digest)), digest, phase)
	if err := errors.Join(err, f.Close()); err != nil {
		return false, err
	}
	if got == digest {
		return true, nil
	}
	_, err = s.quarantine(d, blobPath(digest), Quarantined{Expected: digest, Actual: got, Size: info.Size()}, phase)
	return false, err
}
