package batch

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/inferd-go/inferd/client/stats"
)

// Stats are counters of a loop's work so far, and the usage of its cache. The loop does not set
// KVSize, the size of the requested context.
type Stats struct {
	stats.Engine
	PrefillOffloaded int64 // tokens among PrefillTokens that the prefill worker computed
}

// Stats returns a copy of the stats.
func (l *Loop) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stats
}

// addStats calls change with the stats, under their lock.
func (l *Loop) addStats(change func(*Stats)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(&l.stats)
}

// countStep adds a step to the stats: streams and prompt are the numbers of its tokens, took is its
// duration, and now its end. A step counts as a stall if streams have waited longer than the stall
// budget.
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
		st.PrefillTokens += int64(prompt)
		st.DecodeTokens += int64(streams)
		if stalled {
			st.Stalls++
		}
		if streams > 0 && prompt == 0 {
			st.StepMS = float64(took.Microseconds()) / 1000
		}
	})
}

// publishPause is the time between two updates of the cache's stats while the loop is busy.
const publishPause = 100 * time.Millisecond

// publishStats updates the stats of the cache if they are due, or if the loop will be idle.
func (l *stepper) publishStats() {
	now := time.Now()
	if now.Sub(l.published) < publishPause && l.running() {
		return
	}
	l.published = now
	paused := 0
	for _, s := range l.live {
		if !s.state.Running() {
			paused++
		}
	}
	users, sequences := l.users(), len(l.live)
	l.addStats(func(st *Stats) { st.Sequences, st.Parked, st.Users = sequences, paused, users })
	l.publishUsage()
}

// users returns the usage of the cache by user, sorted by name. Sequences without an owner are not
// counted.
func (l *stepper) users() (all []stats.User) {
	byName := make(map[string]stats.User)
	for owner, n := range l.cachedByOwner {
		byName[owner] = stats.User{CachedTokens: n}
	}
	addTokens := func(owner string, tokens int) {
		u := byName[owner]
		u.KVTokens += tokens
		byName[owner] = u
	}
	for _, s := range l.live {
		addTokens(s.Owner, s.cached())
	}
	l.cache.RetainedByOwner(func(owner string, tokens int) {
		owner, _, _ = strings.Cut(owner, partMark)
		addTokens(owner, tokens)
	})
	delete(byName, "")
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		u := byName[name]
		u.User = name
		all = append(all, u)
	}
	return all
}

func (l *stepper) publishUsage() {
	u := l.cache.Usage()
	l.addStats(func(st *Stats) {
		st.KVUsed, st.KVKept, st.KVStored = u.Active, u.Retained, u.Offloaded
		st.KVDead, st.KVSlides, st.KVSlid = u.Dead, u.Slides, u.Slid
	})
}
