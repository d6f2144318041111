package gate

import (
	"math"
	"time"
)

// Bounds of a [Delay]. The SDKs of OpenAI and Anthropic ignore a Retry-After above 60 s, and retry
// after some seconds instead.
const (
	minDelay = time.Second
	maxDelay = time.Minute
)

// Delay estimates how long a request that comes now waits for a slot of a backend: waiting requests
// are in the queue before it, and each request holds one of the slots for a mean time, which is 0 if
// it is unknown. The result is in whole seconds, from 1 s to 60 s.
func Delay(waiting, slots int, mean time.Duration) time.Duration {
	seconds := mean.Seconds() * float64(waiting+1) / float64(max(slots, 1))
	seconds = min(max(math.Ceil(seconds), minDelay.Seconds()), maxDelay.Seconds())
	return time.Duration(seconds) * time.Second
}

// Delay returns the [Delay] of the backend with the given name, or the longest one of all backends
// if the name is empty. It is 1 s for an unknown name, and after Close.
func (m *Machine[T]) Delay(name string) time.Duration {
	longest := minDelay
	for at, a := range m.backends {
		if m.closed || name != "" && name != at {
			continue
		}
		slots := a.slots
		if m.Limits.Active > 0 {
			slots = min(slots, m.Limits.Active)
		}
		longest = max(longest, Delay(a.waiting, slots, a.held.time))
	}
	return longest
}

// A mean is a moving average of times, in which the latest one counts for an eighth. It is 0 before
// the first time.
type mean struct {
	time  time.Duration
	count bool // a time was added
}

func (m *mean) add(d time.Duration) {
	if !m.count {
		m.time, m.count = d, true
		return
	}
	m.time += (d - m.time) / 8
}
