package link

import (
	"net"
	"slices"
	"sync"
)

// writeBytes is the approximate maximum of one write, in bytes. An engine that does not read blocks
// one write; the other messages stay in the queue, where they can be dropped.
const writeBytes = 64 << 10

// A sendQueue holds messages for the engine, so that an engine that does not read cannot delay the
// end of a canceled call. A call that ends removes its request, so admission also bounds the number
// of requests in the queue.
type sendQueue struct {
	wake chan struct{} // of capacity 1

	mu       sync.Mutex // guards the fields below
	messages []message
	closed   bool
}

func (q *sendQueue) put(m message) {
	q.mu.Lock()
	q.messages = append(q.messages, m)
	q.mu.Unlock()
	q.signal()
}

// drop removes all messages of a call, and reports true. If the first of them, the task, is no
// longer queued, it removes nothing and reports false.
func (q *sendQueue) drop(call uint64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !slices.ContainsFunc(q.messages, func(m message) bool { return m.call == call && m.task }) {
		return false
	}
	q.messages = slices.DeleteFunc(q.messages, func(m message) bool { return m.call == call })
	return true
}

func (q *sendQueue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.signal()
}

func (q *sendQueue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// writeTo writes messages until the queue is closed or a write fails. It closes the connection
// after a failure, which makes the reader end the link.
func (q *sendQueue) writeTo(conn net.Conn) {
	for range q.wake {
		for {
			frames, closed := q.take()
			if closed {
				return
			}
			if len(frames) == 0 {
				break
			}
			if _, err := frames.WriteTo(conn); err != nil {
				_ = conn.Close()
				return
			}
		}
	}
}

// take removes the messages of the next write from the queue. It returns their frames, and whether
// the queue is closed.
func (q *sendQueue) take() (frames net.Buffers, closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := 0
	for size := 0; n < len(q.messages) && (n == 0 || size+q.messages[n].size <= writeBytes); n++ {
		size += q.messages[n].size
		frames = append(frames, q.messages[n].frames...)
	}
	q.messages = slices.Delete(q.messages, 0, n)
	if len(q.messages) == 0 {
		q.messages = nil
	}
	return frames, q.closed
}
