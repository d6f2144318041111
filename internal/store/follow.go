package store

import (
	"context"
	"encoding"
	"errors"
	"fmt"
	"hash"
	"time"
)

// follow reads the leading contiguous bytes back from disk and hashes them, until the ingest stops
// or a background task fails.
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
			if i.wasReset(resets) { // the file was truncated meanwhile
				continue
			}
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

// wasReset reports whether bytes were dropped or replaced since i.resets had the value resets.
func (i *Ingest) wasReset(resets int) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.resets != resets
}

func marshal(h hash.Hash) ([]byte, error) {
	m, ok := h.(encoding.BinaryMarshaler)
	if !ok {
		return nil, errors.New("internal error: SHA-256 cannot be suspended")
	}
	return m.MarshalBinary()
}

// settleTime bounds the time that Close waits for the hash.
const settleTime = time.Second

// settle waits until the first end bytes are hashed, but at most for settleTime.
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

// wait waits until the first total bytes are hashed. Otherwise it returns the error of a background
// task, errStopped if the ingest was stopped, or the cause of the end of ctx.
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
	switch {
	case i.err != nil:
		return i.err
	case i.state.Hashed >= total:
		return nil
	case i.stopped:
		return errStopped
	default:
		return context.Cause(ctx)
	}
}
