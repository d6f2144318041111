package pull

import (
	"sync"
	"time"

	"github.com/inferd-go/inferd/internal/status"
)

// Distances between two reports of a download, of which the shorter one decides.
const (
	reportBytes = 32 << 20
	reportTime  = 5 * time.Second
)

// A meter reports the progress of a model in bytes: 0 at first, then the bytes of an earlier
// try, then at distances, at last the total. Reports never go back.
type meter struct {
	report func(status.Phase)
	every  time.Duration
	frame  status.Download // Name and Parts are set

	mu     sync.Mutex // guards the fields below; held while report runs
	base   int64      // bytes of the parts before the present one
	last   int64      // bytes of the last report
	lastAt time.Time
	begun  bool
}

// begin reports 0 bytes, and then the present ones.
func (m *meter) begin(url string, there, total int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.frame.URL, m.frame.Total = url, size(total)
	if m.begun {
		return
	}
	m.begun = true
	m.sendLocked(0)
	m.frame.Resumed = size(there)
	if there > 0 {
		m.sendLocked(there)
	}
}

// part starts another part of the model, after base bytes of the earlier ones.
func (m *meter) part(no int, base int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.base = base
	if m.frame.Parts > 1 {
		m.frame.Part = no
	}
}

// total sets the size of the model when it is known.
func (m *meter) total(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.frame.Total = size(bytes)
}

// source sets the address of the reports.
func (m *meter) source(url string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.frame.URL = url
}

// note reports that done bytes of the present part are there, if a report is due.
func (m *meter) note(done int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	done += m.base
	if done <= m.last || done-m.last < reportBytes && time.Since(m.lastAt) < m.every {
		return
	}
	if m.frame.Total > 0 && size(done) >= m.frame.Total {
		return // end does so
	}
	m.sendLocked(done)
}

// fetched reports the total if done bytes of the present part are all that was missing.
func (m *meter) fetched(done int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if size(m.base+done) == m.frame.Total {
		m.sendLocked(m.base + done)
	}
}

// end reports the total, unless it is the last report.
func (m *meter) end(total int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.frame.Total = size(total); m.last != total {
		m.sendLocked(total)
	}
}

// again starts anew after the bytes were dropped for good: the next report is 0.
func (m *meter) again() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.begun, m.last = false, 0
}

func (m *meter) sendLocked(done int64) {
	m.last, m.lastAt = done, time.Now()
	m.frame.Done = size(done)
	m.report(m.frame)
}

// size converts a number of bytes, of which unknown ones are 0.
func size(n int64) uint64 { return uint64(max(n, 0)) }
