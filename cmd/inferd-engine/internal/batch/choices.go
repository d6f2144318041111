package batch

import (
	"slices"
	"time"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/progress"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/schedule"
)

// The loop's side of choices. All of it runs on the loop's thread.
//
// While its next token is chosen, a sequence keeps its cells and takes part in no step. It may
// end, pause or lose its cells meanwhile. If it loses them, its tokens are decoded again, the
// chosen one included.

// detach starts the choice of a sequence's next token.
func (l *stepper) detach(s *sequence, logits int) {
	choose, err := s.Detach(logits)
	if err != nil {
		l.accept(s, 0, err, 0)
		return
	}
	s.choice = &choice{seq: s, choose: choose, expect: seconds(s.chooses.Mean())}
	l.transition(s, schedule.Choosing)
	l.chooser.add(s.choice)
}

// choosing reports whether a choice is outstanding.
func (l *stepper) choosing() bool {
	return slices.ContainsFunc(l.live, func(s *sequence) bool { return s.choice != nil })
}

// collectChoices accepts the tokens chosen since the last call.
func (l *stepper) collectChoices() {
	done := l.chooser.take()
	if len(done) == 0 {
		return
	}
	for _, c := range done {
		s := c.seq
		if s.choice != c || s.ending {
			continue
		}
		s.choice = nil
		s.chooses.Add(c.took.Seconds())
		l.accept(s, c.tok, c.err, c.cpu)
	}
	l.Progress.Finish(len(done))
	if l.AfterStep != nil {
		l.AfterStep()
	}
}

// awaitChoices waits for choices that should be done within a fraction of the time of the next
// step, so that their sequences take part in it.
func (l *stepper) awaitChoices() {
	now := time.Now()
	due, outstanding := l.chooser.due(now)
	if !outstanding {
		return
	}
	streams := 0
	for _, s := range l.live {
		if s.result.Out > 0 && s.state.Running() {
			streams++
		}
	}
	deadline := l.times.ChoiceDeadline(streams, l.last, now)
	woken := false
	l.Progress.Enter(progress.Sample)
	for outstanding && !due.After(deadline) && !l.inbox.WaitUntil(deadline) {
		woken = true
		l.collectChoices()
		due, outstanding = l.chooser.due(time.Now())
	}
	l.collectChoices()
	l.Progress.Enter(progress.Plan)
	if woken { // perhaps for another reason, too, which the loop must still handle
		l.inbox.Wake()
	}
}

// cost adds sampling time to a sequence and returns the whole units of it to charge. A unit is
// the mean time of a step of one token. The rest, or all if the unit is unknown, is carried over.
func (l *stepper) cost(s *sequence, took time.Duration) int {
	s.owed += took
	unit := l.times.DecodeStep(1)
	if unit <= 0 {
		return 0
	}
	n := s.owed / unit
	s.owed %= unit
	return int(n)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
