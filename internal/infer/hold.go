package infer

import "sync"

// A Hold keeps a request that has been let in from being worked on for a while, because
// somebody else needs its place. The zero value does not hold.
type Hold struct {
	mu      sync.Mutex // guards the fields below
	held    bool
	changed chan struct{} // closed when held changes; nil while nobody watches
}

// Set holds, or lets go on.
func (h *Hold) Set(held bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.held == held {
		return
	}
	h.held = held
	if h.changed != nil {
		close(h.changed)
		h.changed = nil
	}
}

// Watch reports whether the request is held, and returns a channel that is closed when
// that changes. A nil Hold never does.
func (h *Hold) Watch() (held bool, changed <-chan struct{}) {
	if h == nil {
		return false, nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.changed == nil {
		h.changed = make(chan struct{})
	}
	return h.held, h.changed
}
