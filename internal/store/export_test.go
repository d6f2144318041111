package store

import (
	"context"
	"os"
	"time"
)

// Functions on ranges and on the identity of a file, for the tests.
var (
	Insert     = insert
	Clip       = clip
	Valid      = valid
	IdentityOf = identityOf
)

func (i *Ingest) Wait(ctx context.Context, total int64) error { return i.wait(ctx, total) }

func (i *Ingest) SaveDurable() error { return i.saveDurable(false) }

func (id Identity) IsFresh(now time.Time) bool { return id.isFresh(now) }

// SetLocks replaces the file locks of the store. It must be called before the store is used.
func (s *Store) SetLocks(lock func(f *os.File, shared bool) error) { s.lockFile = lock }
