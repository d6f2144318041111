package batch

import (
	"slices"
	"time"
)

// Stats are what a loop has done, and what is in its cache.
type Stats struct {
	Steps   int64
	Stalls  int64         // steps that held up somebody's next token for longer than they may
	Prefill int64         // tokens of prompts that were read
	Lane    int64         // of those, by the lane
	Decode  int64         // tokens that were written, those that ended an answer included
	Cached  int64         // tokens of prompts that were known already
	Dropped int64         // times that a sequence lost its cache
	Aborted int64         // steps that were called off
	Step    time.Duration // the last one without prompts

	Running, Held int // sequences
	Used          int // cells that those need
	Kept          int // cells that only sequences that have ended stand on
	Stored        int // tokens of such that are in memory
	Owners        map[string]Owned
}

// Owned is what an owner has of the cache.
type Owned struct {
	Used   int   // tokens of sequences that run or are paused
	Kept   int   // tokens of sequences that have ended
	Cached int64 // tokens of prompts that were known already
}

// Stats returns a copy.
func (l *Loop) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stats
}

// tally changes the stats.
func (l *Loop) tally(change func(*Stats)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(&l.stats)
}

// often is how far apart the stats tell of the cache while the loop is busy.
const often = 100 * time.Millisecond

// count tells of the cache, if it is time or the loop will rest.
func (l *Loop) count(runs []*run) {
	now := time.Now()
	if now.Sub(l.counted) < often && slices.ContainsFunc(runs, (*run).goesOn) {
		return
	}
	l.counted = now
	running, held := 0, 0
	owners := make(map[string]Owned)
	for owner, n := range l.cachedOf {
		owners[owner] = Owned{Cached: n}
	}
	for _, r := range runs {
		if r.held {
			held++
		} else {
			running++
		}
		o := owners[r.Owner]
		o.Used += r.cached
		owners[r.Owner] = o
	}
	for _, e := range l.cache.kept {
		o := owners[e.owner]
		o.Kept += len(e.tokens)
		owners[e.owner] = o
	}
	l.tally(func(st *Stats) { st.Running, st.Held, st.Owners = running, held, owners })
	l.countCells()
}

func (l *Loop) countCells() {
	cells := l.cache.cells
	l.tally(func(st *Stats) {
		st.Used, st.Kept, st.Stored = cells.needed, cells.used()-cells.needed, l.cache.stored
	})
}
