package batch

import (
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/budget"
)

// A choice is the sampling of the next token of one sequence, beside the steps.
type choice struct {
	seq    *sequence
	choose func() (Token, error)
	expect time.Duration // mean of the sequence's choices; 0 is unknown

	began time.Time // guarded by chooser.mu; zero while it waits

	// Final once the choice is done.
	tok  Token
	err  error
	took time.Duration
	cpu  time.Duration
}

// A queue holds the waiting choices. Owners take turns, one choice each: an owner with many
// slow choices delays another owner by one. The owner of the choice under way comes last.
type queue struct {
	owners  []string // of waiting choices, in the order of their turns
	waiting map[string][]*choice
}

func (q *queue) add(c *choice) {
	owner := c.seq.Owner
	if q.waiting == nil {
		q.waiting = make(map[string][]*choice)
	}
	q.waiting[owner] = append(q.waiting[owner], c)
	if !slices.Contains(q.owners, owner) {
		q.owners = append(q.owners, owner)
	}
}

// next returns the next choice, nil if the queue is empty.
func (q *queue) next() *choice {
	if len(q.owners) == 0 {
		return nil
	}
	return q.waiting[q.owners[0]][0]
}

// begin removes the choice to make next, and moves its owner behind all others.
func (q *queue) begin(c *choice) {
	q.remove(c)
	q.end(c.seq.Owner)
}

// end moves an owner behind all others again when its choice ends, because other owners may have
// arrived during the choice.
func (q *queue) end(owner string) {
	if i := slices.Index(q.owners, owner); i >= 0 {
		q.owners = append(slices.Delete(q.owners, i, i+1), owner)
	}
}

// remove removes a choice, if it is queued.
func (q *queue) remove(c *choice) {
	owner := c.seq.Owner
	rest := slices.DeleteFunc(q.waiting[owner], func(w *choice) bool { return w == c })
	if len(rest) > 0 {
		q.waiting[owner] = rest
		return
	}
	delete(q.waiting, owner)
	q.owners = slices.DeleteFunc(q.owners, func(o string) bool { return o == owner })
}

// A chooser makes choices on an OS thread of its own, one at a time. A choice over its budget
// of CPU time fails; its thread is abandoned, and a new thread continues.
type chooser struct {
	budget *budget.CPU
	wake   func() // called when a choice is done

	mu      sync.Mutex // guards the fields below
	queue   queue
	current *choice
	done    []*choice     // not yet taken by the loop
	work    chan struct{} // has room for one: something below or in the queue has changed
	closed  bool
	over    chan struct{} // closed when the thread has ended; nil before the first choice
	ended   chan struct{} // closed when the loop has
}

// add queues a choice. The first one starts the thread.
func (c *chooser) add(ch *choice) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue.add(ch)
	if c.over == nil {
		c.work, c.ended = make(chan struct{}, 1), make(chan struct{})
		c.startLocked()
	}
	select {
	case c.work <- struct{}{}:
	default:
	}
}

// niceness of the sampling thread: beside a thread of the step it gets a tenth of a processor.
// While the loop waits for fast choices before a step, the processors are free.
const niceness = 10

// setNice sets the niceness of an OS thread, if that is allowed.
func setNice(thread, nice int) { _ = unix.Setpriority(unix.PRIO_PROCESS, thread, nice) }

func (c *chooser) startLocked() {
	over := make(chan struct{})
	c.over = over
	go c.run(over) // ends when the loop does, or when a choice over its budget returns
}

func (c *chooser) run(over chan<- struct{}) {
	defer close(over)
	runtime.LockOSThread()
	// Unlocked, so that the thread does not end: the end of a thread crashes the process (seen
	// with purego 0.10.0).
	defer runtime.UnlockOSThread()
	thread := unix.Gettid()
	setNice(thread, niceness)
	defer setNice(thread, 0) // fails without privileges; but then the loop has ended, and the process ends soon
	for {
		ch, ok := c.begin()
		switch {
		case !ok:
			return
		case ch == nil:
			<-c.work
		case !c.make(ch):
			<-c.ended // no other goroutine may run on a thread of low priority
			return
		}
	}
}

// begin returns the next choice, nil if none waits. It reports false when the loop has ended.
func (c *chooser) begin() (*choice, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, false
	}
	ch := c.queue.next()
	if ch != nil {
		c.queue.begin(ch)
		c.current, ch.began = ch, time.Now()
	}
	return ch, true
}

// make makes a choice. It reports false if another thread has replaced this one meanwhile.
func (c *chooser) make(ch *choice) bool {
	w := c.budget.Begin(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.doneLocked(ch, 0, budget.ErrExceeded, 0)
		if !c.closed {
			c.startLocked()
		}
	})
	tok, err := ch.choose()
	cpu, exceeded := w.End()
	if exceeded {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.doneLocked(ch, tok, err, cpu)
	return true
}

func (c *chooser) doneLocked(ch *choice, tok Token, err error, cpu time.Duration) {
	ch.tok, ch.err, ch.cpu, ch.took = tok, err, cpu, time.Since(ch.began)
	c.current = nil
	c.queue.end(ch.seq.Owner)
	c.done = append(c.done, ch)
	c.wake()
}

// take returns the choices made since the last call.
func (c *chooser) take() []*choice {
	c.mu.Lock()
	defer c.mu.Unlock()
	done := c.done
	c.done = nil
	return done
}

// drop gives up a choice. A choice under way continues, but its result is dropped.
func (c *chooser) drop(ch *choice) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue.remove(ch)
}

// due returns the expected end of the next choice. It reports false if none is outstanding.
func (c *chooser) due(now time.Time) (time.Time, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch next := c.queue.next(); {
	case len(c.done) > 0:
		return now, true
	case c.current != nil:
		return c.current.began.Add(c.current.expect), true
	case next != nil:
		return now.Add(next.expect), true
	}
	return time.Time{}, false
}

// stopTimeout bounds the wait of stop for the thread: a choice may hang.
const stopTimeout = time.Second

// stop ends the thread.
func (c *chooser) stop() {
	c.mu.Lock()
	c.closed, c.queue = true, queue{}
	over := c.over
	if over != nil {
		close(c.ended)
		select {
		case c.work <- struct{}{}:
		default:
		}
	}
	c.mu.Unlock()
	if over == nil {
		return
	}
	select {
	case <-over:
	case <-time.After(stopTimeout):
	}
}
