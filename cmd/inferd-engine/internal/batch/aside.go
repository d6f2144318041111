package batch

import "time"

// What the loop gives its lane, and takes over from it. All of it runs on the loop's thread.

// overdue is when the lane should have been back.
func (l *Loop) overdue() time.Time {
	return l.Lane.since.Add(l.pace.overdue(l.Lane.job.tokens()))
}

// send gives the lane what the plan has for it, and takes out of the lane who has nothing there
// to do any more.
func (l *Loop) send(runs []*run, s step) {
	if !l.Lane.free() {
		return
	}
	var parts []*part
	lacks := laneKnown
	for i, r := range runs {
		switch {
		case s.aside[i] == 0 || r.finished() || r.slot < 0:
			l.stay(r)
		case l.Lane.enter(r):
			if p := l.partOf(r, s.aside[i], &lacks); p != nil {
				parts = append(parts, p)
			}
		}
	}
	if len(parts) > 0 {
		l.Lane.give(parts, s.urgent)
	}
}

// partOf is what the lane is to do of r: first it gets what it lacks, up to lacks tokens of all,
// then it reads n more. Nil is nothing, this time.
func (l *Loop) partOf(r *run, n int, lacks *int) *part {
	p := &part{run: r, seq: r.lane, to: min(r.cached, r.there+*lacks)}
	if p.to > r.there {
		var err error
		if p.known, err = l.Model.Save(r.slot, r.there, p.to); err != nil {
			l.stay(r)
			r.stays = true
			return nil
		}
		*lacks -= p.to - r.there
	}
	if p.to == r.cached {
		p.tokens = r.tokens[r.cached:min(r.cached+n, len(r.tokens)-1)]
	}
	if p.known == nil && len(p.tokens) == 0 {
		return nil
	}
	r.away = true
	return p
}

// land takes over the job that has come back from the lane, if one has. An overdue job is
// abandoned, once.
func (l *Loop) land() {
	if l.Lane == nil || l.Lane.job == nil {
		return
	}
	took := time.Since(l.Lane.since)
	lost := l.Lane.lost
	j := l.Lane.back()
	switch {
	case j == nil && !lost && !time.Now().Before(l.overdue()):
		l.abandon(l.Lane.job, took)
		return
	case j == nil:
		return
	}
	l.Progress.Finish(1)
	switch {
	case j.aborted:
		l.tally(func(st *Stats) { st.Aborted++ })
	case j.err == nil && !lost:
		l.pace.landed(j.tokens(), took)
	}
	for _, p := range j.parts {
		r := p.run
		if !r.away || r.lane != p.seq { // it has left
			continue
		}
		r.away = false
		if j.err != nil || !l.take(r, p) {
			l.stay(r)
			r.stays = !j.aborted
		}
	}
}

// abandon takes the prompts of an overdue job into the steps. It calls the job off, but the
// lane may not answer: until it does, the loop goes on as if there were none.
func (l *Loop) abandon(j *job, took time.Duration) {
	l.pace.landed(max(j.tokens(), LaneBatch/2), took)
	l.Lane.lost = true
	l.Lane.abort()
	for _, p := range j.parts {
		if p.run.away && p.run.lane == p.seq {
			l.stay(p.run)
		}
	}
}

// take has a run go on behind a part that was read for it. It reports false if it cannot.
func (l *Loop) take(r *run, p *part) bool {
	if n := len(p.tokens); n > 0 {
		if r.cached != p.to || l.cache.room(n) != nil || l.Model.Load(r.slot, p.piece) != nil {
			return false
		}
		l.cache.cells.grow(r.slot, n)
		r.cached += n
		l.tally(func(st *Stats) {
			st.Prefill += int64(n)
			st.Lane += int64(n)
		})
	}
	r.there = p.to + len(p.tokens)
	return true
}

// stay takes a run out of the lane, if it is there.
func (l *Loop) stay(r *run) {
	if l.Lane != nil {
		l.Lane.leave(r)
	}
}
