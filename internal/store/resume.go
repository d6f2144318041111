package store

import (
	"errors"
	"io/fs"
	"os"
	"time"
)

// load opens the data and determines which of its bytes count as written.
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
		err = errors.Join(err, i.file.Close())
		if len(i.state.Ranges) == 0 { // probably the disk is full: leave no file
			err = errors.Join(err, i.disk.removeDir(i.dir))
		}
		return err
	}
	return nil
}

// openData opens the data of an earlier process if its state is known; else it creates a new file.
func (i *Ingest) openData(last *state) error {
	f, info, err := i.disk.open(i.path(tempLeaf), os.O_RDWR)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case last == nil || links(info) != 1: // its second link is the blob: a power cut left the rename of a commit half done
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
	if i.file, err = i.disk.create(i.path(tempLeaf), sharedFileMode); err != nil {
		return err
	}
	return i.noteFile()
}

// forget removes the states and syncs the folder. It is called before bytes are dropped: otherwise
// a state that claims those bytes could come back after a power cut.
func (i *Ingest) forget() error {
	return errors.Join(i.disk.remove(i.path(stateLeaf)), i.disk.remove(i.path(durableLeaf)), i.disk.syncDir(i.dir))
}

// resume continues with the bytes of an earlier process. All bytes are hashed again if the file has
// changed since the state was saved, or if another user may have written the state or the data.
// Without an expected digest, bytes that another user may have written are dropped.
func (i *Ingest) resume(last *state, info os.FileInfo) {
	now := identityOf(info)
	ranges := clip(last.Ranges, info.Size())
	intact := now == last.File
	doubtful := ownersMatter && !last.own || !intact && (i.disk.shared || !now.sameFile(last.File))
	if i.state.SHA256 == "" && doubtful {
		ranges = nil // without a digest nothing would reveal bytes of another user
	}
	i.state.Ranges = ranges
	i.state.Started = last.Started
	if i.state.URL == "" || i.state.URL == last.URL {
		i.state.Upstream = last.Upstream
	}
	own := last.own && isOwn(info)
	if intact && own && sum(ranges) == sum(last.Ranges) {
		i.state.Hashed, i.state.HashState = last.Hashed, last.HashState
	}
	i.resumed = !intact || ownersMatter && !own
	i.unsynced = sum(ranges) // they may not be synced
	i.state.File = now
}

// lastState returns the state to resume from: the latest one if it was written since the machine
// booted, otherwise the durable one, or nil if there is none. If the writer is alive, the error is
// a [BusyError].
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

// age returns the time since a file of the ingest was written. If that is unknown, it returns
// foreignTime, so that the writer does not count as alive.
func (i *Ingest) age(leaf string) time.Duration {
	info, err := i.disk.root.Stat(i.path(leaf))
	if err != nil {
		return foreignTime
	}
	return time.Since(info.ModTime())
}

// alive reports whether the writer of a state still runs. The caller holds the lock, so this
// matters only on file systems where locks have no effect.
func (s *state) alive(boot string, age time.Duration) bool {
	if s.PID == 0 || s.PID == os.Getpid() { // Begin has checked the ingests of this process
		return false
	}
	if host, err := os.Hostname(); err == nil && host != s.Host {
		return age < foreignTime // another machine, or another container on this one
	}
	return s.Boot != "" && s.Boot == boot && s.Birth != 0 && birth(s.PID) == s.Birth
}

// claim records this process as the writer in the state.
func (i *Ingest) claim() {
	i.state.Boot = i.store.boot()
	i.state.Host, _ = os.Hostname() // empty if unknown
	i.state.PID = os.Getpid()
	i.state.Birth = birth(i.state.PID)
}

// noteFile records the identity of the data. It is called after each write of this ingest.
func (i *Ingest) noteFile() error {
	info, err := i.file.Stat()
	if err == nil {
		i.state.File = identityOf(info)
	}
	return err
}

// compareLocked sets suspicious if the file has changed since the last write of this ingest. The
// caller holds i.mu.
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
