package store

import (
	"context"
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io/fs"
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

	saving sync.Mutex // held while state.json is written, so that the latest stays

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

// Begin starts or resumes an ingest. If another process is at it, the error is a [BusyError];
// its progress is in [Store.Unfinished].
func (s *Store) Begin(w Want) (*Ingest, error) {
	if w.SHA256 == "" && w.URL == "" {
		return nil, errors.New("begin an ingest: neither a digest nor a URL is given")
	}
	if w.SHA256 != "" {
		digest, err := ParseDigest(w.SHA256)
		if err != nil {
			return nil, fmt.Errorf("begin an ingest: digest %w", err)
		}
		w.SHA256 = digest
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

// load opens the data, and finds out which of its bytes are there.
func (i *Ingest) load(w Want) error {
	if err := i.disk.mkdirAll(i.dir); err != nil {
		return err
	}
	last, err := i.lastState(w)
	if err != nil {
		return err
	}
	i.state = state{Upstream: w.Upstream, SHA256: w.SHA256, Name: w.Name, Started: time.Now().UTC().Truncate(time.Second)}
	err = i.openData(last)
	if err != nil {
		return err
	}
	i.claim()
	if err := i.save(); err != nil {
		return errors.Join(err, i.file.Close())
	}
	return nil
}

// openData opens the data of an earlier process if its state is known, else new data.
func (i *Ingest) openData(last *state) error {
	f, info, err := i.disk.open(i.path(tempLeaf), os.O_RDWR)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case last == nil || links(info) != 1: // with another name it is a blob: the end of a commit was lost
		if err := errors.Join(f.Close(), i.disk.remove(i.path(tempLeaf))); err != nil {
			return err
		}
	default:
		i.resume(last, info)
		i.file = f
		return nil
	}
	if err := i.forget(); err != nil {
		return err
	}
	if i.file, err = i.disk.create(i.path(tempLeaf)); err != nil {
		return err
	}
	return i.noteFile()
}

// forget removes the states before the bytes go of which they speak: they must not come back
// after a power cut.
func (i *Ingest) forget() error {
	return errors.Join(i.disk.remove(i.path(stateLeaf)), i.disk.remove(i.path(durableLeaf)), i.disk.syncDir(i.dir))
}

// resume takes over the bytes of an earlier process.
func (i *Ingest) resume(last *state, info os.FileInfo) {
	now := identityOf(info)
	ranges := clip(last.Ranges, info.Size())
	intact := now == last.File
	if !intact && i.state.SHA256 == "" && !now.sameFile(last.File) {
		ranges = nil // nothing would tell that they are not the right ones
	}
	i.state.Ranges = ranges
	i.state.Started = last.Started
	if i.state.URL == "" || i.state.URL == last.URL {
		i.state.Upstream = last.Upstream
	}
	if intact && sum(ranges) == sum(last.Ranges) {
		i.state.Hashed, i.state.HashState = last.Hashed, last.HashState
	}
	i.resumed = !intact
	i.state.File = now
}

// lastState returns the state that holds: of this run of the kernel the latest, else the one
// after the last sync. Nil means that there is none. It fails if the writer lives.
func (i *Ingest) lastState(w Want) (*state, error) {
	latest, err := i.disk.readState(i.path(stateLeaf))
	if err == nil && latest.alive(i.store.boot(), i.age(stateLeaf)) {
		return nil, &BusyError{w.what(), latest.PID}
	}
	if err == nil && latest.Boot != "" && latest.Boot == i.store.boot() {
		return latest, nil
	}
	durable, err := i.disk.readState(i.path(durableLeaf))
	switch {
	case err == nil:
		return durable, nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, errState):
		return nil, nil //nolint:nilnil // no state is no failure
	}
	return nil, err
}

// age is the time since a file of the ingest was written.
func (i *Ingest) age(leaf string) time.Duration {
	info, err := i.disk.root.Stat(i.path(leaf))
	if err != nil {
		return foreignTime
	}
	return time.Since(info.ModTime())
}

// alive reports whether the writer of a state still writes. The caller has the lock, so this
// matters on file systems with locks that do nothing.
func (s *state) alive(boot string, age time.Duration) bool {
	if s.PID == 0 || s.PID == os.Getpid() { // Begin has found that this process is not at it
		return false
	}
	if host, err := os.Hostname(); err == nil && host != s.Host {
		return s.Boot != boot && age < foreignTime
	}
	return s.Boot != "" && s.Boot == boot && s.Birth != 0 && birth(s.PID) == s.Birth
}

// claim makes this process the writer.
func (i *Ingest) claim() {
	i.state.Boot = i.store.boot()
	i.state.Host, _ = os.Hostname() // empty if unknown
	i.state.PID = os.Getpid()
	i.state.Birth = birth(i.state.PID)
}

// noteFile remembers the state of the data after an own write.
func (i *Ingest) noteFile() error {
	info, err := i.file.Stat()
	if err == nil {
		i.state.File = identityOf(info)
	}
	return err
}

// compareLocked notes whether others have written to the data since the last own write.
func (i *Ingest) compareLocked() error {
	info, err := i.file.Stat()
	if err != nil {
		return err
	}
	if now := identityOf(info); now != i.state.File {
		i.suspicious = true
		i.state.File = now
	}
	return nil
}

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
	i.mu.Lock()
	i.resets++ // no durable state is written after this
	i.state.clear()
	i.mu.Unlock()
	if err := i.forget(); err != nil {
		return fmt.Errorf("drop the bytes of an ingest: %w", err)
	}
	i.mu.Lock()
	i.state.clear()
	i.state.Upstream = u
	i.suspicious, i.resumed, i.firstSum = false, false, ""
	err := i.disk.truncate(i.file, i.path(tempLeaf), 0)
	if err == nil {
		err = i.noteFile()
	}
	i.mu.Unlock()
	if err != nil {
		return fmt.Errorf("drop the bytes of an ingest: %w", err)
	}
	return i.Checkpoint()
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

// saveDurable syncs the data, and then the state as it was before the sync.
func (i *Ingest) saveDurable() error {
	i.mu.Lock()
	resets, unsynced := i.resets, i.unsynced
	state := i.state.clone()
	i.mu.Unlock()
	if unsynced == 0 {
		return nil
	}
	if err := i.disk.sync(i.file, i.path(tempLeaf)); err != nil {
		return err
	}
	i.mu.Lock()
	same := resets == i.resets // else the state claims bytes that are gone
	i.mu.Unlock()
	if same {
		if err := i.disk.writeState(i.path(durableLeaf), &state, true); err != nil {
			return err
		}
	}
	i.mu.Lock()
	i.unsynced -= unsynced
	i.mu.Unlock()
	return nil
}

// syncLoop saves durable states until the ingest is stopped.
func (i *Ingest) syncLoop() {
	ticker := time.NewTicker(durableTime)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-i.wake:
		}
		i.mu.Lock()
		stopped := i.stopped
		i.mu.Unlock()
		if stopped {
			return
		}
		i.note(i.saveDurable())
	}
}

// note keeps the first failure of the background work, which the next write returns.
func (i *Ingest) note(err error) {
	if err == nil {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.err == nil {
		i.err = err
	}
	i.changed.Broadcast()
}

// follow hashes the contiguous bytes as they lie on disk, until the ingest is stopped.
func (i *Ingest) follow() {
	var h hash.Hash
	last := -1
	buf := make([]byte, hashChunk)
	for {
		i.mu.Lock()
		for !i.stopped && i.err == nil && i.state.Hashed >= contiguous(i.state.Ranges) {
			i.changed.Wait()
		}
		if i.stopped || i.err != nil {
			i.mu.Unlock()
			return
		}
		from, resets := i.state.Hashed, i.resets
		end := min(contiguous(i.state.Ranges), from+hashChunk)
		var err error
		if resets != last {
			h, err = i.state.hash()
			last = resets
		}
		i.mu.Unlock()
		if err == nil {
			_, err = i.file.ReadAt(buf[:end-from], from)
		}
		if err != nil {
			i.note(fmt.Errorf("read back: %w", err))
			return
		}
		h.Write(buf[:end-from])
		marshaled, err := marshal(h)
		if err != nil {
			i.note(err)
			return
		}
		i.mu.Lock()
		if i.resets == resets {
			i.state.Hashed, i.state.HashState = end, marshaled
			i.changed.Broadcast()
		}
		i.mu.Unlock()
	}
}

func marshal(h hash.Hash) ([]byte, error) {
	m, ok := h.(encoding.BinaryMarshaler)
	if !ok {
		return nil, errors.New("internal error: SHA-256 cannot be suspended")
	}
	return m.MarshalBinary()
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

// settleTime bounds how long Close waits for the hash.
const settleTime = time.Second

// settle waits until the first end bytes are hashed, for a while.
func (i *Ingest) settle(end int64) {
	expired := false
	timer := time.AfterFunc(settleTime, func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		expired = true
		i.changed.Broadcast()
	})
	defer timer.Stop()
	i.mu.Lock()
	defer i.mu.Unlock()
	for i.state.Hashed < end && i.err == nil && !i.stopped && !expired {
		i.changed.Wait()
	}
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
	if err := errors.Join(i.saveDurable(), i.save(), i.closeFile()); err != nil {
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

// wait waits until all total bytes are hashed.
func (i *Ingest) wait(ctx context.Context, total int64) error {
	stop := context.AfterFunc(ctx, func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.changed.Broadcast()
	})
	defer stop()
	i.mu.Lock()
	defer i.mu.Unlock()
	for i.state.Hashed < total && i.err == nil && !i.stopped && ctx.Err() == nil {
		i.changed.Wait()
	}
	if i.err != nil {
		return i.err
	}
	if i.state.Hashed < total {
		return context.Cause(ctx)
	}
	return nil
}
