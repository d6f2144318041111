package bridge

import (
	"sync"
	"time"
)

// A silenceTimer runs a function when an answer has sent nothing for a while. Its owner must hold mu
// while it writes.
type silenceTimer struct {
	mu     sync.Mutex    // guards the fields below, those of the owner, and writes
	over   bool          // no keep-alive and no line of progress may follow
	latest time.Time     // time of the last write, or of the request
	wait   time.Duration // the silence after which speak is called
	timer  *time.Timer   // runs onTimer; nil before listen
	speak  func() (wait time.Duration)
}

// listen calls speak whenever nothing was written for the duration wait, until stop. speak is
// called with mu held, and returns the next wait. If speak writes nothing, that wait begins when it
// returns. Only the first call of listen has an effect.
func (q *silenceTimer) listen(wait time.Duration, speak func() time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.over || q.timer != nil {
		return
	}
	q.wait, q.speak = wait, speak
	q.timer = time.AfterFunc(wait-time.Since(q.latest), q.onTimer)
}

func (q *silenceTimer) onTimer() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.over {
		return
	}
	if left := q.wait - time.Since(q.latest); left > 0 {
		q.timer.Reset(left)
		return
	}
	q.wait = q.speak()
	q.timer.Reset(q.wait)
}

// stop ends the calls of speak. When it returns, none is running.
func (q *silenceTimer) stop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.over = true
	if q.timer != nil {
		q.timer.Stop()
	}
}
