package store

import (
	"crypto/sha256"
	"encoding"
	"errors"
	"fmt"
	"hash"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// An Upstream is the source of an ingest's bytes, and the version of the content there.
type Upstream struct {
	URL          string `json:"url"` // without user and query, which may hold secrets
	ETag         string `json:"etag"`
	LastModified string `json:"last_modified"`
	Total        int64  `json:"total"` // size of the content in bytes; 0 means unknown
}

// A state describes an ingest on disk, in two files. state.json is replaced often and not synced,
// so it is valid only until the machine reboots. durable.json is written after a sync of the data,
// so it is valid even after a power cut.
type state struct {
	Upstream
	SHA256  string    `json:"sha256"` // expected digest; empty means unknown
	Name    string    `json:"name"`   // name of the model, for reports
	Started time.Time `json:"started"`

	Ranges []Range `json:"ranges"`
	// HashState is the internal state of SHA-256 after the first Hashed bytes: with it, a resumed
	// ingest need not read them again.
	Hashed    int64  `json:"hashed"`
	HashState []byte `json:"hash_state"`
	// File is the identity of the data after the writer's last write. If the file now has another
	// identity, another program wrote to it, or the writer was killed before it saved its state;
	// then all bytes are hashed again.
	File Identity `json:"file"`

	Boot string `json:"boot_id"` // identifies the boot of the machine; empty means unknown
	Host string `json:"host"`
	PID  int    `json:"pid"` // process ID of the writer; 0 if there is none
	// Birth is the start time of that process in the units of the kernel; 0 means unknown.
	Birth uint64 `json:"pid_birth"`

	// own means that the file of the state belongs to this user, and no other user can write to it.
	// It is false on platforms where this is unknown.
	own bool
}

const maxState = 1 << 20 // bytes

var errState = errors.New("invalid state of an unfinished model")

// readState reads state.json or durable.json. If the content is not a valid state, the error wraps
// errState.
func (d *disk) readState(name string) (*state, error) {
	data, info, err := d.readFile(name, maxState)
	if err != nil {
		return nil, err
	}
	var s state
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", errState, d.path(name), err)
	}
	if _, err := s.hash(); err != nil { // written by another version of crypto/sha256
		s.rehash()
	}
	if !valid(s.Ranges) || s.Hashed < 0 || s.Hashed > contiguous(s.Ranges) || s.Total < 0 {
		return nil, fmt.Errorf("%w: %s", errState, d.path(name))
	}
	s.own = isOwn(info) && info.Mode()&0o022 == 0
	return &s, nil
}

func (d *disk) writeState(name string, s *state, durable bool) error {
	data, err := json.Marshal(s, jsontext.Multiline(true))
	if err != nil {
		return err
	}
	return d.replace(name, append(data, '\n'), fileMode, durable)
}

// hash returns a SHA-256 that has read the first Hashed bytes.
func (s *state) hash() (hash.Hash, error) {
	h := sha256.New()
	if s.Hashed == 0 {
		return h, nil
	}
	u, ok := h.(encoding.BinaryUnmarshaler)
	if !ok {
		return nil, errors.New("internal error: SHA-256 cannot be resumed")
	}
	return h, u.UnmarshalBinary(s.HashState)
}

// rehash marks all bytes as not hashed.
func (s *state) rehash() { s.Hashed, s.HashState = 0, nil }

// clear marks all bytes as missing.
func (s *state) clear() {
	s.Ranges = nil
	s.rehash()
}

func (s *state) clone() state {
	c := *s
	c.Ranges = slices.Clone(s.Ranges)
	c.HashState = slices.Clone(s.HashState)
	return c
}
