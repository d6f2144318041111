package store

import (
	"os"
	"time"
)

// The rules of ranges, for their tests, the identity of a file for forged ones, and the save of a
// durable state at a given time.
var (
	Insert     = insert
	Clip       = clip
	Valid      = valid
	IdentityOf = identityOf
)

func (i *Ingest) SaveDurable() error { return i.saveDurable(false) }

func (id Identity) IsFresh(now time.Time) bool { return id.isFresh(now) }

// SetLocks replaces the file locks of a store that is not open yet.
func (s *Store) SetLocks(lock func(f *os.File, shared bool) error) { s.lockFile = lock }
