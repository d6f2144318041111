package store

import "time"

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
