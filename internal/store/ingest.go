package store

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"sync"
	"time"
)

// Distances between two writes of an ingest's state.
const (
	checkpointBytes = 8 << 20         // written since the last checkpoint, in any range
	durableBytes    = 256 << 20       // written since the last sync
	durableTime     = 5 * time.Second // since the last sync
	hashChunk       = 1 << 20         // bytes that are read back at once
	foreignTime     = 2 * time.Minute // since the last checkpoint of a writer on another machine
)

// A Want describes a blob that is to come into the store.
type Want struct {
	// SHA256 is the expected digest, in lower-case hex. If it is empty, the URL names the
	// ingest, and its content the blob.
	SHA256   string
	Upstream        // where it comes from; Total may be set later
	Name     string // of the model, for reports; may be empty
}

// ref names the ingest.
func (w *Want) ref() string {
	if w.SHA256 != "" {
		return w.SHA256
	}
	sum := sha256.Sum256([]byte(w.URL))
	return hex.EncodeToString(sum[:])
}

// what names the content in an error.
func (w *Want) what() string {
	if w.SHA256 != "" {
		return "blob " + digestPrefix + w.SHA256
	}
	return "the content of " + w.URL
}

// A Blob is a committed file of the store.
type Blob struct {
	Digest string // in lower-case hex
	Size   int64
	Path   string // absolute if the store's folder is
}

// An Ingest is a blob on its way into the store. Bytes come in any order, from several
// goroutines. The ingest outlives its process: the next [Store.Begin] of the same blob
// continues with the bytes that are there.
//
// It hashes the bytes as they lie on disk, in the background, and writes its state down: every
// 8 MiB, and after a sync every 256 MiB or 5 s. The caller calls Close, in any case.
type Ingest struct {
	store *Store
	disk  *disk
	lock  *Lock
	ref   string // the digest, or a name instead
	dir   string // of the data and the states
	file  *os.File

	tasks sync.WaitGroup // the follower and the syncer; they end when stopped is set
	wake  chan struct{}  // for the syncer: something to sync, or the end

	// saving is held while a state is written, so that the latest stays, and while bytes are
	// dropped, so that no state claims them afterwards.
	saving   sync.Mutex
	findable bool // with saving: the entries of the folders above are on disk

	mu         sync.Mutex // guards the fields below
	changed    *sync.Cond // of mu: bytes, hashed bytes, or the end
	state      state
	resets     int   // a chunk that was read before a reset does not count after it
	unsaved    int64 // bytes since the last checkpoint
	unsynced   int64 // bytes since the last sync
	suspicious bool  // the data is not as the last own write left it
	resumed    bool  // bytes were resumed that others may have changed
	// firstSum is the digest before everything was hashed again. If the bytes did not change, only
	// their times, both are equal.
	firstSum  string
	stopped   bool // no more background work
	committed bool // or quarantined: only the states are left
	closed    bool
	err       error // first failure of the background work
}

// A PresentError means that there is a blob of the digest which was to come.
type PresentError struct{ Digest string }

func (e *PresentError) Error() string {
	return "blob " + digestPrefix + e.Digest + " is in the model store already"
}

// check refuses a want that names no content.
func (w *Want) check() error {
	if w.SHA256 == "" && w.URL == "" {
		return errors.New("begin an ingest: neither a digest nor a URL is given")
	}
	if w.SHA256 == "" {
		return nil
	}
	digest, err := ParseDigest(w.SHA256)
	if err != nil {
		return fmt.Errorf("begin an ingest: digest %w", err)
	}
	w.SHA256 = digest
	return nil
}

// Begin starts or resumes an ingest. If another process is at it, the error is a [BusyError];
// its progress is in [Store.Unfinished]. If the blob is there the error is a [PresentError]:
// another process may have committed it since the caller has looked. [Store.Have] then tells
// whether it is whole, and moves it away if not.
func (s *Store) Begin(w Want) (*Ingest, error) {
	if err := w.check(); err != nil {
		return nil, err
	}
	d, err := s.open(true)
	if err != nil {
		return nil, err
	}
	ref := w.ref()
	if s.isWriting(ref) {
		return nil, &BusyError{w.what(), os.Getpid()}
	}
	s.releaseUse(w.SHA256)
	lock, err := s.lockBlob(d, ref, false)
	if busy, ok := errors.AsType[*BusyError](err); ok {
		busy.What = w.what()
	}
	if err != nil {
		return nil, err
	}
	if _, err := d.root.Lstat(blobPath(ref)); w.SHA256 != "" && err == nil {
		lock.Release()
		return nil, &PresentError{ref}
	}
	i := &Ingest{store: s, disk: d, lock: lock, ref: ref, dir: partialDir(ref), wake: make(chan struct{}, 1)}
	i.changed = sync.NewCond(&i.mu)
	if err := i.load(w); err != nil {
		lock.Release()
		return nil, s.unwritable(fmt.Errorf("begin an ingest: %w", err))
	}
	s.setWriting(ref, 1)
	i.tasks.Go(i.follow)
	i.tasks.Go(i.syncLoop)
	return i, nil
}

func (i *Ingest) path(leaf string) string { return path.Join(i.dir, leaf) }

// Upstream returns the source that the bytes came from so far.
func (i *Ingest) Upstream() Upstream {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.state.Upstream
}

// SetUpstream changes the source for the bytes that are missing, which is to have the same
// content.
func (i *Ingest) SetUpstream(u Upstream) error {
	i.mu.Lock()
	i.state.Upstream = u
	i.mu.Unlock()
	return i.Checkpoint()
}

// Reset drops all bytes: the source has other content now, or the bytes are of no use.
func (i *Ingest) Reset(u Upstream) error {
	if err := i.drop(u); err != nil {
		return fmt.Errorf("drop the bytes of an ingest: %w", err)
	}
	return i.Checkpoint()
}

// drop forgets the states, and then the bytes.
func (i *Ingest) drop(u Upstream) error {
	i.saving.Lock()
	defer i.saving.Unlock()
	i.mu.Lock()
	i.resets++ // no durable state is written after this
	i.state.clear()
	i.mu.Unlock()
	if err := i.forget(); err != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.state.clear()
	i.state.Upstream = u
	i.suspicious, i.resumed, i.firstSum = false, false, ""
	if err := i.disk.truncate(i.file, i.path(tempLeaf), 0); err != nil {
		return err
	}
	return i.noteFile()
}

// Ranges returns the bytes that are there: sorted, and no two touch.
func (i *Ingest) Ranges() []Range {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.state.Ranges)
}

// Done is the number of bytes that are there.
func (i *Ingest) Done() int64 {
	i.mu.Lock()
	defer i.mu.Unlock()
	return sum(i.state.Ranges)
}

// Hashed is the number of bytes that have been hashed, from the first one on.
func (i *Ingest) Hashed() int64 {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.state.Hashed
}

// ErrTooLong is the error of a write beyond the total.
var ErrTooLong = errors.New("more bytes than the announced total")

// WriteAt writes bytes at their place in the blob. It may be called from several goroutines,
// for bytes that are not there yet.
func (i *Ingest) WriteAt(p []byte, off int64) (int, error) {
	due, err := i.writeAt(p, off)
	if err != nil {
		return 0, fmt.Errorf("write %s: %w", i.disk.path(i.path(tempLeaf)), err)
	}
	if due {
		if err := i.Checkpoint(); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// writeAt also reports whether a checkpoint is due. Writes come one at a time, so that a write
// of others is seen between two.
func (i *Ingest) writeAt(p []byte, off int64) (bool, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case i.committed || i.stopped:
		return false, errors.New("the ingest has ended")
	case i.err != nil:
		return false, i.err
	case off < 0:
		return false, errors.New("negative offset")
	case i.state.Total > 0 && off+int64(len(p)) > i.state.Total:
		return false, ErrTooLong
	}
	if err := i.compareLocked(); err != nil {
		return false, err
	}
	if off < i.state.Hashed { // hashed bytes are replaced: that hash is of no use
		i.resets++
		i.state.rehash()
	}
	if err := i.disk.writeAt(i.file, i.path(tempLeaf), p, off); err != nil {
		return false, err
	}
	if err := i.noteFile(); err != nil {
		return false, err
	}
	i.state.Ranges = insert(i.state.Ranges, Range{off, off + int64(len(p))})
	i.unsaved += int64(len(p))
	i.unsynced += int64(len(p))
	i.changed.Broadcast()
	if i.unsynced >= durableBytes {
		i.wakeSyncer()
	}
	if i.unsaved < checkpointBytes {
		return false, nil
	}
	i.unsaved = 0
	return true, nil
}

func (i *Ingest) wakeSyncer() {
	select {
	case i.wake <- struct{}{}:
	default: // it is awake
	}
}

// Checkpoint writes the state down: if the process ends now, the next one continues from
// here. WriteAt does so every 8 MiB.
func (i *Ingest) Checkpoint() error {
	if err := i.save(); err != nil {
		return fmt.Errorf("write the state of an ingest down: %w", err)
	}
	return nil
}

func (i *Ingest) save() error {
	i.saving.Lock()
	defer i.saving.Unlock()
	i.mu.Lock()
	state := i.state.clone()
	i.mu.Unlock()
	return i.disk.writeState(i.path(stateLeaf), &state, false)
}

// stop ends the background work, and waits for it.
func (i *Ingest) stop() {
	i.mu.Lock()
	i.stopped = true
	i.changed.Broadcast()
	i.mu.Unlock()
	i.wakeSyncer()
	i.tasks.Wait()
}

// Close ends the ingest and gives its lock up. Uncommitted bytes stay for the next Begin.
func (i *Ingest) Close() error {
	i.mu.Lock()
	closed, committed := i.closed, i.committed
	i.closed = true
	end := contiguous(i.state.Ranges)
	i.mu.Unlock()
	if closed {
		return nil
	}
	if !committed { // the next Begin has less to read
		i.settle(end)
	}
	i.stop()
	i.store.setWriting(i.ref, -1)
	defer i.lock.Release()
	if committed {
		err := i.disk.removeDir(i.dir)
		if there, look := i.store.exists(i.ref); look == nil && !there {
			i.disk.removeLock(i.ref)
		}
		return err
	}
	i.mu.Lock()
	i.state.PID = 0
	i.mu.Unlock()
	if err := errors.Join(i.saveDurable(false), i.save(), i.closeFile()); err != nil {
		return fmt.Errorf("close an ingest: %w", err)
	}
	return nil
}

// closeFile closes the data, once. The background work has ended.
func (i *Ingest) closeFile() error {
	f := i.file
	if f == nil {
		return nil
	}
	i.file = nil
	return f.Close()
}

// Discard drops the ingest and its bytes.
func (i *Ingest) Discard() error {
	i.mu.Lock()
	closed, committed := i.closed, i.committed
	i.committed = true
	i.mu.Unlock()
	if closed {
		return errors.New("drop an ingest: it is closed")
	}
	var err error
	if !committed {
		i.stop()
		err = i.closeFile()
	}
	return errors.Join(err, i.Close())
}
