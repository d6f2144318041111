package batch

import (
	"context"
	"errors"
	"time"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/kv"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/schedule"
)

// Token is an index into a model's vocabulary.
type Token = kv.Token

// A Sequence is a prompt to continue. Its functions are called on the loop's thread, one at a
// time; every microsecond in them delays the tokens of all sequences.
type Sequence struct {
	// Call is the number of the call, for [progress.Progress]; 0 means none.
	Call uint64
	// A sequence uses only cached prefixes of sequences with the same Owner and Part, and pinned ones. A
	// sequence that is Uncached, or has neither an owner nor a part, uses only pinned prefixes, and is
	// retained only if it is Pinned. Owner is also the unit of fairness between sequences.
	Owner, Part string
	Uncached    bool
	Prompt      []Token // at least one token, and fewer tokens than Loop.Room
	Max         int     // maximum of tokens of the answer, at least 1; with the prompt at most Loop.Room
	// Sample chooses the next token from the logits of entry i of the batch.
	Sample func(i int) (Token, error)
	// Begin is called once, before the first step, with the number of tokens of the prompt that were
	// found in the cache. It may be nil.
	Begin func(cached int)
	// Emit receives a token of the answer, and the cost of choosing it: the time in whole units of the
	// mean step of one token. The remaining time is carried over to the next token. A result of false
	// ends the sequence.
	Emit func(tok Token, cost int) bool
	// Ends reports whether a token ends the answer. Such a token is not emitted.
	Ends func(tok Token) bool
	// Paused reports whether the sequence must pause. It may be nil. [Loop.Wake] must be called after
	// each change of its result.
	Paused func() bool
	// Repeats requests logits that are the same whenever the same prompt is sent while no other sequence
	// runs, whatever is in the cache. For that, some cached tokens are computed again; see
	// [schedule.Reusable].
	Repeats bool
	// Spent is the time spent on the request before Do, for example on compiling; it is part of the cost
	// of the first token.
	Spent time.Duration
	// Pinned retains the prompt until the loop ends, as a prefix for all owners.
	Pinned bool
}

// cacheOwner returns the name under which the cache keeps the sequence's tokens: the owner, and the part
// if it has one. It is empty if the sequence is Uncached, or has neither an owner nor a part.
func (s *Sequence) cacheOwner() string {
	switch {
	case s.Uncached:
		return ""
	case s.Part == "":
		return s.Owner
	}
	return s.Owner + partMark + s.Part
}

// partMark separates an owner from a part. An owner is a uid or a SID, so it has no NUL.
const partMark = "\x00"

// End is the reason for the end of a sequence. The set is closed.
type End int

// Reasons for an end.
const (
	Ended   End = iota // the model chose a token that ends the answer
	Reached            // Sequence.Max was reached
	Stopped            // Emit reported false
)

// A Result is the result of a sequence.
type Result struct {
	End    End
	Out    int // tokens of the answer, without the token that ended it
	Cached int // tokens of the prompt found in the cache
}

// ErrStopped is the error of a sequence that is unfinished when the loop ends, or is submitted later.
var ErrStopped = errors.New("the engine is stopping")

// A sequence is a [Sequence] in the loop. After its submission only the loop uses it, until done
// is closed.
type sequence struct {
	Sequence
	ctx    context.Context //nolint:containedctx // a sequence lives as long as its call
	done   chan struct{}   // closed when result and err are final
	result Result
	err    error
	ending bool // result and err are set: settle ends it

	state    schedule.State // changed by stepper.transition only
	pausedAt time.Time      // in states Paused and Suspended
	tokens   []Token        // prompt and answer
	cells    *kv.Sequence   // in states with cells, the cells of the first tokens; otherwise nil

	prefillLen int // length of tokens when cells were last allocated; 0 before
	// In states at the prefill worker: the sequence's number there, and the number of its tokens
	// there.
	workerSeq, workerLen int
	noOffload            bool // a chunk has failed at the worker

	uncharged time.Duration // time not yet reported as cost
}

// end marks a sequence as ending, with an error or nil. Only the first call of end or endAs counts.
func (s *sequence) end(err error) {
	if !s.ending {
		s.err, s.ending = err, true
	}
}

// endAs marks a sequence as ending, with a reason.
func (s *sequence) endAs(end End) {
	if !s.ending {
		s.result.End, s.ending = end, true
	}
}

// cached is the number of tokens with cells.
func (s *sequence) cached() int {
	if s.cells == nil {
		return 0
	}
	return s.cells.Len()
}

// pending is the number of tokens without cells.
func (s *sequence) pending() int { return len(s.tokens) - s.cached() }

// active is the state of a sequence that is neither paused nor at the prefill worker.
func (s *sequence) active() schedule.State {
	switch {
	case s.cells == nil:
		return schedule.Waiting
	case s.result.Out > 0 && s.pending() == 1:
		return schedule.Decoding
	default:
		return schedule.Prefilling
	}
}

// A sequence may be evicted for another owner once it has decoded evictableAfter tokens since its last
// prefill, and at least 1/evictableShare of its cached tokens. The next prefill then costs little in
// comparison.
const (
	evictableAfter = 32
	evictableShare = 16
)

func (s *sequence) evictable() bool {
	return len(s.tokens)-s.prefillLen >= max(evictableAfter, s.cached()/evictableShare)
}

// transition is the only function that changes the state of a sequence; [schedule.State] has the
// diagram. It allocates cells for states with cells. In Waiting it frees them, in Suspended and Done it
// retains them for the owner. It reserves and releases a number at the prefill worker. If cells cannot
// be allocated, or the worker has no free number, the state does not change. If cells cannot be
// allocated, retained or freed, the sequence is marked as ending.
func (l *stepper) transition(s *sequence, to schedule.State) {
	from := s.state
	if to.HasCells() && !from.HasCells() {
		if err := l.allocate(s); err != nil {
			s.end(err)
			return
		}
	}
	if to.AtWorker() && !from.AtWorker() {
		seq, ok := l.Prefill.Reserve()
		if !ok {
			return
		}
		s.workerSeq, s.workerLen = seq, 0
	}
	s.state = to
	if from.AtWorker() && !to.AtWorker() {
		l.Prefill.Release(s.workerSeq)
	}
	if from.HasCells() && !to.HasCells() {
		if err := l.releaseCells(s); err != nil {
			s.err, s.ending = errors.Join(s.err, err), true
		}
	}
}

// allocate allocates cells to a sequence, beginning with the cached prefix that lookup returns. The
// first time, it calls Begin.
func (l *stepper) allocate(s *sequence) error {
	// The prefix is looked up again, because the one in the plan may have been evicted since.
	allocate := l.cache.Allocate
	if l.repeats(s) {
		allocate = l.cache.AllocateAsEmpty
	}
	cells, err := allocate(s.cacheOwner(), l.lookup(s))
	if err != nil {
		return err
	}
	s.cells = cells
	if s.prefillLen == 0 {
		n := cells.Len()
		s.result.Cached = n
		l.cachedByOwner[s.Owner] += int64(n)
		l.addStats(func(st *Stats) { st.CachedTokens += int64(n) })
		if s.Begin != nil {
			s.Begin(n)
		}
	}
	s.prefillLen = len(s.tokens)
	return nil
}

// repeats reports whether the loop must ensure that the logits of a sequence are the same every time.
// With exact kernels they always are. If sequences can be copied only whole, the loop cannot ensure it,
// because their cells have no order.
func (l *stepper) repeats(s *sequence) bool { return s.Repeats && !l.Exact && !l.Whole }

// lookup returns the cached prefix that s, a sequence without cells, should reuse.
func (l *stepper) lookup(s *sequence) kv.Prefix {
	longest, freshest := l.cache.Lookup(s.cacheOwner(), s.tokens)
	if !l.repeats(s) || s.result.Out > 0 || !l.cache.Idle() { // a resumed answer continues on its own cells
		return longest
	}
	if n := schedule.Reusable(longest.N, freshest.Fresh, len(s.tokens), l.Limits.Batch); n <= freshest.Fresh {
		return freshest.First(n)
	}
	return longest
}

// releaseCells takes the cells from a sequence that has entered a state without cells. In Suspended and Done
// it retains them, otherwise it frees them.
func (l *stepper) releaseCells(s *sequence) error {
	cells := s.cells
	s.cells = nil
	switch s.state {
	case schedule.Suspended:
		return l.cache.Retain(cells, false)
	case schedule.Done:
		err := l.cache.Retain(cells, s.Pinned)
		_, pinned := l.cache.Pinned()
		l.pinned.Store(int64(pinned))
		return err
	default: // evicted
		if !s.ending && cells.Len() > 0 {
			l.addStats(func(st *Stats) { st.Dropped++ })
		}
		return l.cache.Free(cells)
	}
}

// evict frees the cells of a sequence. If the sequence continues, it is prefilled again later.
func (l *stepper) evict(s *sequence) {
	switch s.state {
	case schedule.Paused:
		l.transition(s, schedule.Waiting)
		l.transition(s, schedule.Suspended)
	default:
		l.transition(s, schedule.Waiting)
	}
}

// finish ends a sequence and its call.
func (l *stepper) finish(s *sequence) {
	l.transition(s, schedule.Done)
	l.Progress.Finish(1)
	close(s.done)
}

// settle finishes the sequences that are marked as ending, and the sequences of canceled calls.
func (l *stepper) settle() {
	continuing := l.live[:0]
	for _, s := range l.live {
		if s.ctx.Err() != nil {
			s.end(context.Cause(s.ctx))
		}
		if s.ending {
			l.finish(s)
		} else {
			continuing = append(continuing, s)
		}
	}
	clear(l.live[len(continuing):])
	l.live = continuing
}
