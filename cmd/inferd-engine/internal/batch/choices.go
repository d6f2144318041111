package batch

import (
	"slices"
	"time"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/progress"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/schedule"
)

// The loop's side of samples beside the steps. All of it runs on the loop's thread.
//
// While a token is chosen for a sequence, it keeps its cells and no step feeds it. It may end,
// pause or lose its cells meanwhile. In the last case its tokens are decoded again, the chosen
// one included.

// detach has the next token of a sequence chosen beside the steps.
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

// collectChoices accepts the tokens that have been chosen since the last call.
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
	if woken { // perhaps for another reason too, which the loop has not seen yet
		l.inbox.Wake()
	}
}

// cost returns the whole units of sampling time that a sequence owes after some more of it. A
// unit is the mean step of one token. While that is not known, the time is carried over.
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
