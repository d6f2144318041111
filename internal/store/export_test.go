package store

import "time"

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
