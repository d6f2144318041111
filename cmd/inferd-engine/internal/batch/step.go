package batch

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/progress"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/schedule"
)

// An entry is the part of one sequence in the batch of a step.
type entry struct {
	seq    *sequence
	n      int // tokens
	logits int // index in the batch of the sequence's last token; -1 if the token is not in it
}

// step plans a step and decodes it. Before the decode it waits while the processors should be left to
// the prefill worker; if anything changes during the wait, it returns without decoding.
func (l *stepper) step() {
	began := time.Now()
	plan := l.plan(began)
	l.apply(plan)
	streams, prompt := l.fill(plan)
	beside := l.handoff.busy()
	if !l.mayDecode(streams, prompt, plan.NoDelay) {
		return
	}
	if beside && prompt == 0 { // mayDecode may have waited
		began = time.Now()
	}
	lockWait, err := l.decode(streams + prompt)
	if err != nil {
		l.rollback(err)
		return
	}
	l.advance()
	now := time.Now()
	l.times.ObserveStep(streams, prompt, beside, now.Sub(began)-lockWait)
	l.unit.Store(int64(l.times.DecodeStep(1)))
	l.countStep(streams, prompt, now.Sub(began), now)
}

// plan makes a snapshot of the sequences, and plans a step that begins at the time now.
func (l *stepper) plan(now time.Time) schedule.Step {
	l.views = l.views[:0]
	streams := 0
	for _, s := range l.live {
		v := l.view(s)
		l.views = append(l.views, v)
		if v.State == schedule.Decoding {
			streams++
		}
	}
	pinned, tokens := l.cache.Pinned()
	limits := schedule.Limits{
		Context: l.Limits.Context - tokens, Batch: l.Limits.Batch,
		Sequences: l.Limits.Sequences, Retained: l.Limits.Retained - pinned,
	}
	return schedule.Plan(limits, l.views, l.cache.Usage().Active-tokens, l.budget(streams, now))
}

// view returns the scheduler's view of a sequence.
func (l *stepper) view(s *sequence) schedule.Sequence {
	v := schedule.Sequence{Owner: s.Owner, State: s.state, Cached: s.cached(), Total: len(s.tokens), NoOffload: s.noOffload}
	switch {
	case s.cells != nil:
		v.Exclusive, v.Evictable = l.cache.Exclusive(s.cells), s.evictable()
	case s.state == schedule.Waiting:
		p := l.lookup(s)
		v.Prefix, v.Shared = p.N, p.Shared
	}
	return v
}

// budget returns the bounds on the prompt tokens of a step that begins at the time now.
func (l *stepper) budget(streams int, now time.Time) schedule.Budget {
	chunk := l.times.Chunk(streams, 0)
	b := schedule.Budget{Chunk: chunk, Now: chunk, Busy: l.handoff.busy()}
	if streams > 0 && !l.last.IsZero() {
		b.Now = l.times.Chunk(streams, now.Sub(l.last))
	}
	if l.Prefill != nil && !l.handoff.abandoned() && l.times.UseWorker(streams, chunk) {
		b.Worker = l.Prefill.Tokens()
	}
	return b
}

// apply evicts sequences, allocates cells and submits the next job of the prefill worker.
func (l *stepper) apply(plan schedule.Step) {
	for _, i := range plan.Evict {
		l.evict(l.live[i])
	}
	for i, s := range l.live {
		if plan.Feed[i]+plan.Offload[i] > 0 && s.state == schedule.Waiting && !s.ending {
			l.transition(s, schedule.Prefilling)
		}
	}
	l.submitPrefill(plan)
}

// fill lists the entries of the batch. It returns the number of streams, which have one token
// each, and the number of prompt tokens.
func (l *stepper) fill(plan schedule.Step) (streams, prompt int) {
	l.batch = l.batch[:0]
	for i, s := range l.live {
		n := plan.Feed[i]
		switch {
		case n == 0 || s.ending:
			continue
		case l.views[i].State == schedule.Decoding:
			streams++
		default:
			n = min(n, s.pending()) // the plan may assume a shorter prefix
			prompt += n
		}
		l.batch = append(l.batch, entry{seq: s, n: n})
	}
	return streams, prompt
}

// mayDecode waits until the step may be decoded. It reports false if a new plan is needed, because
// something has changed or the batch is empty.
func (l *stepper) mayDecode(streams, prompt int, noDelay bool) bool {
	busy := l.handoff.busy()
	switch {
	case len(l.batch) > 0:
		return !busy || prompt > 0 || noDelay || l.last.IsZero() ||
			l.inbox.WaitUntil(l.times.DecodeDeadline(streams, l.last, l.handoff.urgent))
	case busy:
		l.Progress.Enter(progress.Idle)
		l.inbox.WaitUntil(l.prefillDeadline())
	default: // impossible; without this the loop would spin
		for _, s := range l.live {
			s.end(errors.New("internal error: an empty step"))
		}
	}
	return false
}

// decode decodes the batch, which has the given number of tokens. lockWait is the time that it waited
// for the compute lock.
func (l *stepper) decode(tokens int) (lockWait time.Duration, err error) {
	if err := l.addBatch(tokens); err != nil {
		return 0, err
	}
	var abort []*sequence // canceling one of them aborts the step
	l.calls = l.calls[:0]
	for _, e := range l.batch {
		l.calls = append(l.calls, e.seq.Call)
		if e.n >= minAbort && !l.Whole {
			abort = append(abort, e.seq)
		}
	}
	l.decoding.begin(abort, l.Decoder.Abort)
	l.Progress.Begin(l.calls, l.expected(tokens))
	if l.Exclusive != nil {
		began := time.Now()
		l.Progress.Enter(progress.Lock)
		l.Exclusive(func() {
			lockWait = time.Since(began)
			l.Progress.Enter(progress.Decode)
			err = l.Decoder.Decode()
		})
	} else {
		l.Progress.Enter(progress.Decode)
		err = l.Decoder.Decode()
	}
	l.Progress.End()
	return lockWait, err
}

// addBatch reserves cells for the batch, which has the given number of tokens, and adds its tokens
// to the decoder.
func (l *stepper) addBatch(tokens int) error {
	l.decoding.begin(nil, nil)
	if err := l.cache.Reserve(tokens); err != nil {
		return err
	}
	l.Decoder.Pad(l.cache.Room() - tokens)
	at := 0
	for i := range l.batch {
		e := &l.batch[i]
		e.logits = -1
		from := e.seq.cached()
		for pos := from; pos < from+e.n; pos++ {
			last := pos == len(e.seq.tokens)-1
			if err := l.Decoder.Add(e.seq.tokens[pos], pos, e.seq.cells.ID(), last); err != nil {
				return err
			}
			if last {
				e.logits = at
			}
			at++
		}
	}
	return nil
}

// expected estimates the CPU time of a step with the given number of tokens; 0 means unknown. It is
// rounded up to whole milliseconds, so that the steps of a stream have the same estimate.
func (l *stepper) expected(tokens int) time.Duration {
	takes := l.times.Step(tokens)
	if takes == 0 {
		takes = l.FirstToken * time.Duration(tokens)
	}
	ms := takes.Seconds() * float64(max(l.Threads, 1)) * 1000
	return time.Duration(math.Ceil(ms)) * time.Millisecond
}

// rollback undoes a failed step for all of its sequences. After an abort, the sequences that are
// not canceled are decoded again; after another error all fail, because the decoder does not name
// the cause.
func (l *stepper) rollback(err error) {
	aborted := l.decoding.end()
	if aborted {
		l.addStats(func(st *Stats) { st.Aborted++ })
	}
	for _, e := range l.batch {
		s := e.seq
		switch {
		case !aborted:
			s.end(fmt.Errorf("decode: %w", err))
			l.evict(s)
		case s.cached() == 0 || l.cache.Rollback(s.cells) != nil:
			l.evict(s)
		}
	}
}

// advance records the tokens of a decoded batch, and samples the next token of each sequence with its
// last token in the batch.
func (l *stepper) advance() {
	l.decoding.end()
	l.Progress.Enter(progress.Sample)
	for _, e := range l.batch {
		from := e.seq.cached()
		l.cache.Append(e.seq.cells, e.seq.tokens[from:from+e.n])
		if len(l.batch) == 1 && schedule.Fresh(from, e.n, e.seq.cells.Fresh()) && l.cache.Alone(e.seq.cells) {
			e.seq.cells.SetFresh(from + e.n)
		}
	}
	for _, e := range l.batch {
		if e.logits < 0 {
			l.transition(e.seq, e.seq.active())
			continue
		}
		l.sampleNext(e.seq, e.logits)
	}
}

// sampleNext samples the next token of a sequence from the logits of an entry of the batch.
func (l *stepper) sampleNext(s *sequence, logits int) {
	began := time.Now()
	tok, err := s.Sample(logits)
	l.accept(s, tok, err, time.Since(began))
}

// accept processes the result of sampling for a sequence: a token or an error. took is the time of
// sampling.
func (l *stepper) accept(s *sequence, tok Token, err error, took time.Duration) {
	switch {
	case err != nil:
		s.end(fmt.Errorf("sample: %w", err))
		return
	case s.Ends(tok):
		s.endAs(Ended)
		return
	}
	s.tokens = append(s.tokens, tok)
	s.result.Out++
	switch {
	case !s.Emit(tok, l.cost(s, took)):
		s.endAs(Stopped)
	case s.result.Out == s.Max:
		s.endAs(Reached)
	case s.state.Running():
		l.transition(s, s.active())
	}
}

// cost adds sampling time to the uncharged time of a sequence, and returns the number of whole units to
// charge now. A unit is the mean time of a step of one token. The remaining time, or all if the unit is
// unknown, is carried over.
func (l *stepper) cost(s *sequence, took time.Duration) int {
	s.uncharged += took
	unit := l.times.DecodeStep(1)
	if unit <= 0 {
		return 0
	}
	n := s.uncharged / unit
	s.uncharged %= unit
	return int(n)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
