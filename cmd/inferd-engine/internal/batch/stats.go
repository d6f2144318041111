package batch

import "time"

// Stats are counters of a loop's past work, and the usage of its cache.
type Stats struct {
	Steps            int64
	Stalls           int64         // steps after which a stream had waited longer than the stall budget
	Prefill          int64         // prompt tokens decoded
	PrefillOffloaded int64         // prompt tokens decoded by the prefill worker
	Decode           int64         // tokens of answers, including those that ended an answer
	Cached           int64         // prompt tokens found in the cache
	Evicted          int64         // evictions of sequences that continue
	Aborted          int64         // aborted steps and prefill jobs
	Step             time.Duration // time of the last step without prompts

	Running, Paused int   // sequences
	Used            int   // cells of running and paused sequences
	Retained        int   // cells of retained sequences only
	Offloaded       int   // tokens of retained sequences in memory
	Dead            int   // dead cells
	Slides, Slid    int64 // slides, and tokens moved by them
	Owners          map[string]Usage
}

// Usage is the usage of the cache by one owner.
type Usage struct {
	Used     int   // tokens of running and paused sequences
	Retained int   // tokens of retained sequences
	Cached   int64 // prompt tokens found in the cache
}

// Stats returns a copy.
func (l *Loop) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stats
}

// addStats changes the stats.
func (l *Loop) addStats(change func(*Stats)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(&l.stats)
}

// countStep counts a step at its end.
func (l *stepper) countStep(streams, prompt int, took time.Duration, now time.Time) {
	gap := took
	if !l.last.IsZero() {
		gap = now.Sub(l.last)
	}
	l.last = time.Time{}
	if streams > 0 {
		l.last = now
	}
	stalled := streams > 0 && gap > l.times.StallBudget(streams)
	l.addStats(func(st *Stats) {
		st.Steps++
		st.Prefill += int64(prompt)
		st.Decode += int64(streams)
		if stalled {
			st.Stalls++
		}
		if streams > 0 && prompt == 0 {
			st.Step = took
		}
	})
}

// publishPause is the time between two updates of the cache's stats while the loop is busy.
const publishPause = 100 * time.Millisecond

// publishStats updates the stats of the cache if they are due, or if the loop will be idle.
func (l *stepper) publishStats() {
	now := time.Now()
	if now.Sub(l.counted) < publishPause && l.running() {
		return
	}
	l.counted = now
	running, paused := 0, 0
	owners := make(map[string]Usage)
	for owner, n := range l.cachedOf {
		owners[owner] = Usage{Cached: n}
	}
	for _, s := range l.live {
		if s.state.Running() {
			running++
		} else {
			paused++
		}
		o := owners[s.Owner]
		o.Used += s.cached()
		owners[s.Owner] = o
	}
	l.cache.RetainedByOwner(func(owner string, tokens int) {
		o := owners[owner]
		o.Retained += tokens
		owners[owner] = o
	})
	l.addStats(func(st *Stats) { st.Running, st.Paused, st.Owners = running, paused, owners })
	l.publishUsage()
}

func (l *stepper) publishUsage() {
	u := l.cache.Usage()
	l.addStats(func(st *Stats) {
		st.Used, st.Retained, st.Offloaded = u.Active, u.Retained, u.Offloaded
		st.Dead, st.Slides, st.Slid = u.Dead, u.Slides, u.Slid
	})
}
