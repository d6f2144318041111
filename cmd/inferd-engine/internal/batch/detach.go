package batch

import (
	"time"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/progress"
)

// The loop's side of samples beside the steps. All of it runs on the loop's thread.
//
//	decoded ─Detach─▶ chooses ─collect─▶ lacks one token, as any sequence that is writing
//
// While a run chooses it keeps its cells, and no step feeds it. It may end, pause or lose its
// cache meanwhile. In the last case it decodes its tokens anew, the chosen one included.

// detach has a run's next token chosen beside the steps.
func (l *Loop) detach(r *run) {
	choose, err := r.Detach(r.logits)
	if err != nil {
		l.accept(r, 0, err, 0)
		return
	}
	r.choice = &choice{run: r, choose: choose, expect: seconds(r.chooses.mean)}
	l.chooser.add(r.choice)
}

// collect accepts the tokens that have been chosen since the last call.
func (l *Loop) collect() {
	done := l.chooser.take()
	if len(done) == 0 {
		return
	}
	for _, c := range done {
		r := c.run
		if r.choice != c { // the run has ended
			continue
		}
		r.choice = nil
		r.chooses.add(c.took.Seconds())
		l.accept(r, c.tok, c.err, c.cpu)
	}
	l.Progress.Finish(len(done))
	if l.AfterStep != nil {
		l.AfterStep()
	}
}

// awaitShare is the part of a step for which the loop waits for samples.
const awaitShare = 4

// await waits for samples that should end in a fraction of the time of the next step, so that
// their sequences take part in it. It does not wait for others, nor longer than the pace allows.
func (l *Loop) await(runs []*run) {
	now := time.Now()
	due, outstanding := l.chooser.due(now)
	if !outstanding {
		return
	}
	rows := 0
	for _, r := range runs {
		if r.result.Out > 0 && !r.held {
			rows++
		}
	}
	takes := l.pace.steps.at(max(rows, 1))
	limit := now.Add(seconds(takes / awaitShare))
	if !l.last.IsZero() {
		most := l.pace.most(rows).Seconds()*margin - takes
		if latest := l.last.Add(seconds(most)); latest.Before(limit) {
			limit = latest
		}
	}
	woken := false
	l.Progress.Enter(progress.Sample)
	for outstanding && !due.After(limit) && !l.pause(limit) {
		woken = true
		l.collect()
		due, outstanding = l.chooser.due(time.Now())
	}
	l.collect()
	l.Progress.Enter(progress.Plan)
	if woken { // perhaps by something else, too, which the loop has not seen yet
		l.Wake()
	}
}

// cost returns the whole units of sampling time that a run owes after some more of it. A unit is
// the mean step of one token. While that is not known, the time is carried over.
func (l *Loop) cost(r *run, took time.Duration) int {
	r.owed += took
	unit := seconds(l.pace.base(1).mean)
	if unit <= 0 {
		return 0
	}
	n := r.owed / unit
	r.owed %= unit
	return int(n)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
