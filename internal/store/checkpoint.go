package store

import (
	"path"
	"time"
)

// saveDurable syncs the data, and then writes and syncs the state as it was before that sync.
// Unless always is set, it does nothing if no byte was written since the last sync.
func (i *Ingest) saveDurable(always bool) error {
	i.mu.Lock()
	resets, unsynced := i.resets, i.unsynced
	state := i.state.clone()
	i.mu.Unlock()
	if unsynced == 0 && !always {
		return nil
	}
	if err := i.disk.sync(i.file, i.path(tempLeaf)); err != nil {
		return err
	}
	if err := i.writeDurable(&state, resets); err != nil {
		return err
	}
	i.mu.Lock()
	i.unsynced -= unsynced
	i.mu.Unlock()
	return nil
}

// writeDurable writes the durable state s. resets is the value that i.resets had when s was copied:
// if the two differ, s claims bytes that were dropped or replaced since, and is not written. It holds
// i.saving, so that no bytes are dropped meanwhile.
func (i *Ingest) writeDurable(s *state, resets int) error {
	i.saving.Lock()
	defer i.saving.Unlock()
	if i.wasReset(resets) {
		return nil
	}
	if !i.findable { // an earlier process may have been killed between mkdir and sync
		if err := i.disk.syncUp(path.Dir(i.dir)); err != nil {
			return err
		}
		i.findable = true
	}
	return i.disk.writeState(i.path(durableLeaf), s, true)
}

// syncLoop saves a durable state every durableTime, and when i.wake is signalled, until the ingest
// is stopped.
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
		i.note(i.saveDurable(false))
	}
}

// note records the first error of the background tasks; WriteAt and Commit return it.
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
