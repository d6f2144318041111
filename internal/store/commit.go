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

// Commit waits until all bytes have been read back and hashed, compares the digest, and turns the
// bytes into a blob. When it returns without an error, the blob is whole on disk; Close then
// removes the remaining files of the ingest. A wrong digest is a [MismatchError] and moves the
// bytes to the quarantine; after any other error they are kept.
//
// A power cut at any time leaves the blob whole or absent: the data is synced before the
// rename, and the folder after it. The caller writes the manifest later ([Store.PutManifest]).
func (i *Ingest) Commit(ctx context.Context) (Blob, error) {
	digest, err := i.finish(ctx)
	var blob Blob
	if err == nil {
		blob, err = i.publish(ctx, digest)
	}
	if err == nil {
		return blob, nil
	}
	if _, mismatch := errors.AsType[*MismatchError](err); !mismatch {
		err = fmt.Errorf("commit %s: %w", i.disk.path(i.path(tempLeaf)), err)
	}
	return Blob{}, err
}

// errStopped is the error of a write or a Commit after, or beside, the end of an ingest.
var errStopped = errors.New("the ingest has ended")

// maxRehashes bounds how often the content is hashed again because another program changed it.
const maxRehashes = 3

// finish waits until all bytes are hashed, and returns their digest. It returns an error if bytes are
// missing; if the digest is not the expected one, the error is a [MismatchError].
func (i *Ingest) finish(ctx context.Context) (digest string, err error) {
	i.mu.Lock()
	if i.state.Total == 0 {
		i.state.Total = contiguous(i.state.Ranges)
	}
	total, done := i.state.Total, sum(i.state.Ranges)
	ended := i.stopped || i.committed
	i.mu.Unlock()
	if ended {
		return "", errStopped
	}
	if done != total {
		return "", fmt.Errorf("only %d of %d bytes were written", done, total)
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
			return "", errors.New("another program keeps changing the file")
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

// compare cuts off data beyond total. If another program may have changed the data since the last
// write of this ingest, compare restarts the hash of all bytes and returns true.
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
		i.unsynced++ // so that saveDurable syncs the new size
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

// publish makes the data a blob, unless another ingest has committed the same content.
func (i *Ingest) publish(ctx context.Context, digest string) (Blob, error) {
	blob := Blob{digest, i.state.Total, i.disk.path(blobPath(digest))}
	if digest != i.ref {
		// The ingest is named by the hash of its URL, and does not hold the lock of the digest. Another
		// ingest may have committed the same content, and the blob may be in use.
		if present, err := i.store.Have(ctx, digest, nil); err != nil {
			return Blob{}, err
		} else if present {
			i.stop()
			return blob, i.endCommitted()
		}
		i.store.releaseUse(digest)
		lock, err := i.store.lockBlob(i.disk, digest, false)
		if err != nil {
			return Blob{}, err
		}
		defer lock.Release()
	}
	i.stop()
	// Sync even if this process has written nothing: an earlier process may have written without a
	// sync.
	if err := i.saveDurable(true); err != nil {
		return Blob{}, err
	}
	// Check again under the lock: an ingest that is named by a URL may have committed the same content
	// meanwhile.
	if present, _, err := i.store.check(ctx, i.disk, digest, true, nil); err != nil {
		return Blob{}, err
	} else if present {
		return blob, i.endCommitted()
	}
	writableByOthers, err := i.renameToBlob(digest)
	if err != nil {
		return Blob{}, err
	}
	return blob, i.confirm(ctx, digest, writableByOthers)
}

// renameToBlob renames the data to the path of its blob. It reports whether other users were
// able to write to it.
func (i *Ingest) renameToBlob(digest string) (writableByOthers bool, err error) {
	info, err := i.file.Stat()
	if err != nil {
		return false, err
	}
	writableByOthers = i.disk.shared || ownersMatter && !isOwn(info)
	if err := i.disk.mkdirAll(blobDir(digest)); err != nil {
		return false, err
	}
	if err := i.closeFile(); err != nil {
		return false, err
	}
	if err := i.disk.rename(i.path(tempLeaf), blobPath(digest)); err != nil {
		return false, err
	}
	// A file of another user keeps its mode, which only the owner may change.
	if err := i.disk.chmod(blobPath(digest), blobMode); err != nil && !errors.Is(err, fs.ErrPermission) {
		return false, err
	}
	return writableByOthers, i.disk.syncDir(blobDir(digest))
}

// confirm records the digest of a new blob as verified if the file is unchanged since it was
// hashed; the rename itself changes only ctime. If other users were able to write to the file,
// the blob is hashed once more: they can set mtime back.
func (i *Ingest) confirm(ctx context.Context, digest string, writableByOthers bool) error {
	i.markCommitted()
	info, err := i.disk.root.Stat(blobPath(digest))
	if err != nil {
		return i.disk.full(err)
	}
	before, now := i.state.File, identityOf(info)
	if before.CTime = now.CTime; before == now && !writableByOthers {
		i.store.remember(now, digest, true)
		return nil
	}
	present, q, err := i.store.check(ctx, i.disk, digest, true, nil)
	switch {
	case err != nil:
		return err
	case q != nil:
		return &MismatchError{*q, true}
	case !present:
		return errors.New("another process has removed the blob")
	}
	return nil
}

func (i *Ingest) markCommitted() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.committed = true
}

// endCommitted closes the data of an ingest if another ingest has made a blob of the same content. Close
// then removes the data.
func (i *Ingest) endCommitted() error {
	i.markCommitted()
	return i.closeFile()
}

// Have reports whether the store has a blob with the given digest. A damaged blob is moved to the
// quarantine, and counts as absent. A blob that is unchanged since it was verified is not read.
// Phases are reported to phase, which may be nil.
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
	present, _, err := s.check(ctx, d, digest, false, phase)
	return present, err
}

// check does the work of Have in an open folder. If it moved the blob to the quarantine, it returns
// the record. held means that the caller holds the exclusive lock of the digest.
func (s *Store) check(ctx context.Context, d *disk, digest string, held bool, phase func(Phase)) (present bool, bad *Quarantined, err error) {
	for range maxLockTries {
		f, info, err := d.open(blobPath(digest), os.O_RDONLY)
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil, nil
		}
		if err != nil {
			return false, nil, err
		}
		got, err := s.digestOf(ctx, f, info, d.path(blobPath(digest)), digest, phase)
		if err != nil {
			replaced := ctx.Err() == nil && !d.isAt(f, blobPath(digest)) // the hash failed because its removal changed ctime
			if err = errors.Join(err, f.Close()); replaced {
				continue
			}
			return false, nil, err
		}
		if got == digest {
			return true, nil, f.Close()
		}
		// While f is open, no other file can get its inode number.
		q, replaced, err := s.expel(d, info, Quarantined{Expected: digest, Actual: got, Size: info.Size()}, held, phase)
		if err := errors.Join(err, f.Close()); err != nil || !replaced {
			return false, q, err
		}
	}
	return false, nil, fmt.Errorf("check %s: other processes keep replacing this blob", d.path(blobPath(digest)))
}

// expel moves a damaged blob to the quarantine. If the file at its path is no longer the hashed one,
// it reports replaced instead; if no file is there, it does nothing. A shared lock, which users of
// the blob may also hold, keeps a writer from renaming a good blob to that path meanwhile. If a
// writer holds the lock, expel does nothing: the writer will find the damage itself.
func (s *Store) expel(d *disk, hashed os.FileInfo, q Quarantined, held bool, phase func(Phase)) (done *Quarantined, replaced bool, err error) {
	name := blobPath(q.Expected)
	if !held {
		lock, err := s.lockBlob(d, q.Expected, true)
		if _, busy := errors.AsType[*BusyError](err); busy {
			return nil, false, nil
		}
		if err != nil {
			return nil, false, err
		}
		defer lock.Release()
	}
	now, err := d.root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, false, nil
	case err != nil:
		return nil, false, d.full(err)
	case !os.SameFile(now, hashed):
		return nil, true, nil
	}
	q, err = s.quarantine(d, name, q, phase)
	return &q, false, err
}
