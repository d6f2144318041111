package bridge

import (
	"sync"
	"time"
)

// A quiet notices when an answer has sent nothing for a while. Its owner writes with mu held.
type quiet struct {
	mu     sync.Mutex    // guards the fields below, those of the owner, and writes
	over   bool          // no further byte may be sent
	latest time.Time     // time of the last write, or of the request
	wait   time.Duration // the silence after which speak is called
	timer  *time.Timer   // ends the wait; nil until listen
	speak  func() (wait time.Duration)
}

// listen calls speak after a silence of wait, with mu held, until stop. speak returns the next wait.
// If it writes nothing, that begins at its return. Only the first call has an effect.
func (q *quiet) listen(wait time.Duration, speak func() time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.over || q.timer != nil {
		return
	}
	q.wait, q.speak = wait, speak
	q.timer = time.AfterFunc(wait-time.Since(q.latest), q.look)
}

func (q *quiet) look() {
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

// stop lets no further byte be sent.
func (q *quiet) stop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.over = true
	if q.timer != nil {
		q.timer.Stop()
	}
}
