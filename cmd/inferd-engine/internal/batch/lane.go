package batch

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"
)

// A Lane reads prompts beside the steps of those who write, on a context of its own. A prompt
// that is read in their steps costs each of them its time, and has to come in crumbs; a crumb
// takes two to five times as long for each of its tokens as a whole batch does, for the kernels
// of attention want at least 64 rows. So a Lane reads batches, on threads that give way to
// those of the step: they have the processors while the loop waits before its next step. What it
// has read is handed over piece by piece, as the cache holds it.
//
// A Lane does as its [Loop] tells it, one job at a time, on an OS thread of its own.
type Lane struct {
	room  int // tokens
	model LaneModel

	jobs chan *job // to the lane; closed when the loop ends
	done chan *job // back; has room for one
	over chan struct{}

	mu     sync.Mutex // guards the fields below
	wake   func()     // has the loop look
	flying *job       // whose tokens are being decoded

	// Of the loop's thread.
	job    *job      // that has not come back; nil if there is none
	since  time.Time // when it was given
	urgent bool      // so that those who write wait as long as they may
	lost   bool      // the job is overdue and was abandoned: until it comes back there is no lane
	taken  []bool    // by number of a sequence in the lane: whether somebody has it
	drops  []int     // numbers of those that are to be cleared
}

// A LaneModel is a Model that is given up when the loop ends.
type LaneModel interface {
	Model
	Close()
}

const (
	// LaneBatch is how many tokens a lane reads at once: enough for all kernels, and soon done.
	LaneBatch = 128
	laneKnown = 256 // tokens of what the lane lacks that are handed to it in a job
	laneEnds  = time.Second
)

// A job is what a lane is to do next.
type job struct {
	drops []int // sequences to clear
	parts []*part

	err     error // why nothing was read
	aborted bool  // nobody wants it any more
}

// A part is what a job has of one sequence.
type part struct {
	run    *run
	seq    int     // its number in the lane
	known  []byte  // what is to be added to it first
	to     int     // tokens that it has then
	tokens []Token // to be read behind those
	piece  []byte  // what the cache holds of them then
}

// OpenLane returns a lane whose context open makes, on the thread that will use it: with room
// for so many tokens of so many sequences, and for batches of [LaneBatch]. The lane ends with
// the loop that it is given to.
func OpenLane(tokens, sequences int, open func() (LaneModel, error)) (*Lane, error) {
	n := &Lane{
		room: tokens, taken: make([]bool, sequences),
		jobs: make(chan *job, 1), done: make(chan *job, 1), over: make(chan struct{}),
	}
	opened := make(chan error)
	go n.work(open, opened)
	if err := <-opened; err != nil {
		return nil, err
	}
	return n, nil
}

// work does jobs until there are no more. The thread stays locked while it does, for a context
// belongs to one; that it is unlocked afterwards, whatever its priority, only matters to tests.
func (n *Lane) work(open func() (LaneModel, error), opened chan<- error) {
	defer close(n.over)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	m, err := open()
	n.model = m
	opened <- err
	if err != nil {
		return
	}
	defer m.Close()
	for j := range n.jobs {
		j.err = n.do(j)
		n.done <- j
		n.mu.Lock()
		n.wake()
		n.mu.Unlock()
	}
}

func (n *Lane) do(j *job) error {
	var errs []error
	for _, seq := range j.drops {
		errs = append(errs, n.model.Clear(seq))
	}
	for _, p := range j.parts {
		if p.known != nil {
			errs = append(errs, n.model.Load(p.seq, p.known))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return n.read(j)
}

func (n *Lane) read(j *job) error {
	total := 0
	for _, p := range j.parts {
		for i, tok := range p.tokens {
			if err := n.model.Add(tok, p.to+i, p.seq, false); err != nil {
				return err
			}
			total++
		}
	}
	if total == 0 {
		return nil
	}
	n.flies(j)
	err := n.model.Decode()
	n.flies(nil)
	if err != nil {
		return fmt.Errorf("decode: %w", err)
	}
	for _, p := range j.parts {
		if len(p.tokens) == 0 {
			continue
		}
		if p.piece, err = n.model.Save(p.seq, p.to, p.to+len(p.tokens)); err != nil {
			return err
		}
	}
	return nil
}

func (n *Lane) flies(j *job) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.flying = j
}

// tokens is how many a job reads.
func (j *job) tokens() int {
	n := 0
	for _, p := range j.parts {
		n += len(p.tokens)
	}
	return n
}

// leaves is told that nobody waits for r any more: what is being read of it is called off,
// and of the others that are read with it.
func (n *Lane) leaves(r *run) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.flying != nil && slices.ContainsFunc(n.flying.parts, func(p *part) bool { return p.run == r && len(p.tokens) >= worthAborting }) {
		n.abortLocked()
	}
}

// abort calls off what is being read.
func (n *Lane) abort() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.abortLocked()
}

func (n *Lane) abortLocked() {
	if n.flying != nil && !n.flying.aborted {
		n.flying.aborted = true
		n.model.Abort()
	}
}

// free reports whether a job can be given.
func (n *Lane) free() bool { return n != nil && n.job == nil }

// flight reports whether a job is being done, and waited for.
func (n *Lane) flight() bool { return n != nil && n.job != nil && !n.lost }

// works reports whether there is a lane: it may hang.
func (n *Lane) works() bool { return n != nil && !n.lost }

// give hands a job over.
func (n *Lane) give(parts []*part, urgent bool) {
	n.job, n.since, n.urgent = &job{drops: n.drops, parts: parts}, time.Now(), urgent
	n.jobs <- n.job
	n.drops = nil
}

// back returns the job that has come back, if one has.
func (n *Lane) back() *job {
	select {
	case j := <-n.done:
		n.job, n.lost = nil, false
		return j
	default:
		return nil
	}
}

// enter gives a run a number in the lane. It reports false if there is none.
func (n *Lane) enter(r *run) bool {
	if r.lane < 0 {
		r.lane, r.there = slices.Index(n.taken, false), 0
		if r.lane < 0 {
			return false
		}
		n.taken[r.lane] = true
	}
	return true
}

// leave takes a run out of the lane, if it is there.
func (n *Lane) leave(r *run) {
	if r.lane < 0 {
		return
	}
	n.taken[r.lane] = false
	n.drops = append(n.drops, r.lane)
	r.lane, r.there, r.away = -1, 0, false
}

// begin says how the loop is told that a job has come back.
func (n *Lane) begin(wake func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.wake = wake
}

// stop ends the lane. It is not waited for long: where other programs want all processors, its
// thread takes its time to give the context up.
func (n *Lane) stop() {
	n.abort()
	close(n.jobs)
	select {
	case <-n.over:
	case <-time.After(laneEnds):
	}
}
