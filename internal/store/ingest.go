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

// How often the state of an ingest is written, and other limits.
const (
	checkpointBytes = 8 << 20         // bytes since the last checkpoint, in any range
	durableBytes    = 256 << 20       // bytes since the last sync
	durableTime     = 5 * time.Second // since the last sync
	hashChunk       = 1 << 20         // bytes that the follower reads at a time
	foreignTime     = 2 * time.Minute // a writer on another machine counts as dead this long after its last checkpoint
)

// A Want describes the blob that an ingest is for.
type Want struct {
	// SHA256 is the expected digest, in lower-case hex. If it is empty, the ingest is named by
	// the hash of the URL, and the blob by the digest of its content.
	SHA256   string
	Upstream        // the source; Total may be set later
	Name     string // name of the model, for reports; may be empty
}

// ref returns the name of the ingest, 64 hex digits.
func (w *Want) ref() string {
	if w.SHA256 != "" {
		return w.SHA256
	}
	sum := sha256.Sum256([]byte(w.URL))
	return hex.EncodeToString(sum[:])
}

// what returns a description of the content, for errors.
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

// An Ingest is a blob on its way into the store. Several goroutines may write its bytes, in any
// order. An ingest outlives its process: the next [Store.Begin] of the same blob continues with the
// bytes on disk.
//
// In the background the ingest reads the bytes back and hashes them. It saves its state every 8
// MiB, and, after a sync, every 256 MiB or 5 s. The caller must call Close.
type Ingest struct {
	store *Store
	disk  *disk
	lock  *Lock
	ref   string // the digest, or the hash of the URL if there is none
	dir   string // folder of the data and the states
	file  *os.File

	tasks sync.WaitGroup // the follower and the syncer; they run until stopped is set
	wake  chan struct{}  // wakes the syncer: a sync is due, or the ingest has stopped

	// saving is held while a state is written, so that an older state never replaces a newer one,
	// and while bytes are dropped, so that no later state claims them.
	saving   sync.Mutex
	findable bool // guarded by saving: the entries of the parent folders are synced

	mu         sync.Mutex // guards the fields below
	changed    *sync.Cond // on mu: bytes were written or hashed, or the ingest stopped
	state      state
	resets     int   // counts drops and replacements of bytes: a chunk read before the latest one is not hashed
	unsaved    int64 // bytes since the last checkpoint
	unsynced   int64 // bytes since the last sync
	suspicious bool  // the file was changed by another program since the last write of this ingest
	resumed    bool  // other programs may have changed the resumed bytes
	// firstSum is the digest that was computed before all bytes were hashed again. It equals the
	// second digest if only the times of the file had changed, but not its content.
	firstSum  string
	stopped   bool // ends the background tasks
	committed bool // committed, quarantined or discarded: Close removes the remaining files
	closed    bool
	err       error // first error of the background tasks
}

// A PresentError means that the store already has a blob with this digest.
type PresentError struct{ Digest string }

func (e *PresentError) Error() string {
	return "blob " + digestPrefix + e.Digest + " is in the model store already"
}

// check normalises the digest. It returns an error if the digest is not valid, or if neither a
// digest nor a URL is given.
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

// Begin starts or resumes an ingest. If this or another process writes the same ingest, the error is
// a [BusyError]; [Store.Unfinished] shows its progress. If the store has the blob, the error is a
// [PresentError]: another process may have committed it since the caller looked. The caller can then
// check the blob with [Store.Have], which moves it to the quarantine if it is damaged.
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

// Upstream returns the source of the bytes.
func (i *Ingest) Upstream() Upstream {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.state.Upstream
}

// SetUpstream changes the source of the missing bytes. The new source must have the same content.
func (i *Ingest) SetUpstream(u Upstream) error {
	i.mu.Lock()
	i.state.Upstream = u
	i.mu.Unlock()
	return i.Checkpoint()
}

// Reset drops all bytes and sets the source, for example because the content of the source has
// changed.
func (i *Ingest) Reset(u Upstream) error {
	if err := i.drop(u); err != nil {
		return fmt.Errorf("drop the bytes of an ingest: %w", err)
	}
	return i.Checkpoint()
}

// drop does the work of Reset. It removes the states before the bytes, so that no state claims
// bytes that are gone.
func (i *Ingest) drop(u Upstream) error {
	i.saving.Lock()
	defer i.saving.Unlock()
	i.mu.Lock()
	i.resets++ // writeDurable discards states that were taken earlier
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

// Ranges returns the ranges that have been written, sorted; no two of them touch or overlap.
func (i *Ingest) Ranges() []Range {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.state.Ranges)
}

// Done returns the number of bytes that have been written.
func (i *Ingest) Done() int64 {
	i.mu.Lock()
	defer i.mu.Unlock()
	return sum(i.state.Ranges)
}

// Hashed returns the number of leading bytes that have been hashed.
func (i *Ingest) Hashed() int64 {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.state.Hashed
}

// ErrTooLong is the error for a write beyond the total.
var ErrTooLong = errors.New("more bytes than the announced total")

// WriteAt writes p at offset off of the blob. Goroutines may call it concurrently for ranges that
// do not overlap.
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

// writeAt does the work of WriteAt, and reports whether a checkpoint is due. It holds mu
// throughout: if the identity of the file changes between two calls, another program wrote to it.
func (i *Ingest) writeAt(p []byte, off int64) (bool, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case i.committed || i.stopped:
		return false, errStopped
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
	if off < i.state.Hashed { // hashed bytes are replaced: hash all bytes again
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
	default: // already woken
	}
}

// Checkpoint saves the state: if the process is killed, the next one continues from there.
// WriteAt calls it every 8 MiB.
func (i *Ingest) Checkpoint() error {
	if err := i.save(); err != nil {
		return fmt.Errorf("save the state of an ingest: %w", err)
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

// stop ends the background tasks and waits for them.
func (i *Ingest) stop() {
	i.mu.Lock()
	i.stopped = true
	i.changed.Broadcast()
	i.mu.Unlock()
	i.wakeSyncer()
	i.tasks.Wait()
}

// Close ends the ingest and releases its lock. Uncommitted bytes are kept for the next Begin.
func (i *Ingest) Close() error {
	i.mu.Lock()
	closed, committed := i.closed, i.committed
	i.closed = true
	end := contiguous(i.state.Ranges)
	i.mu.Unlock()
	if closed {
		return nil
	}
	if !committed { // the next Begin has less to hash
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

// closeFile closes the data, once. The background tasks must have ended.
func (i *Ingest) closeFile() error {
	f := i.file
	if f == nil {
		return nil
	}
	i.file = nil
	return f.Close()
}

// Discard closes the ingest and drops its bytes. After Close it returns an error.
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
