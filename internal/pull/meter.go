package pull

import (
	"sync"
	"time"

	"github.com/inferd-go/inferd/internal/status"
)

// A download is reported after reportBytes bytes or after reportTime, whichever comes first.
const (
	reportBytes = 32 << 20
	reportTime  = 5 * time.Second
)

// A meter reports the progress of a model in bytes: first 0, then the bytes of an earlier try, then
// bytes at intervals, finally the total. Reports never decrease, except after [meter.again].
type meter struct {
	report func(status.Phase)
	every  time.Duration
	frame  status.Download // the next report; Name, Digest and Parts never change

	mu     sync.Mutex // guards the fields below; held while report runs
	base   int64      // bytes of the parts before the current one
	last   int64      // bytes of the last report
	lastAt time.Time
	begun  bool
}

// begin reports 0 bytes, and then the bytes that are in the store already. Later calls only set the
// address and the total.
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

// part starts part no of the model. base is the number of bytes of the parts before it.
func (m *meter) part(no int, base int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.base = base
	if m.frame.Parts > 1 {
		m.frame.Part = no
	}
}

// total sets the size of the model once it is known.
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

// note reports that the current part has done bytes, if a report is due.
func (m *meter) note(done int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.noteLocked(m.base + done)
}

// follow reports that the model, which another process fetches, has done bytes, if a report is due.
func (m *meter) follow(done int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.noteLocked(done)
}

func (m *meter) noteLocked(done int64) {
	if done <= m.last || done-m.last < reportBytes && time.Since(m.lastAt) < m.every {
		return
	}
	if m.frame.Total > 0 && size(done) >= m.frame.Total {
		return // end reports the total
	}
	m.sendLocked(done)
}

// fetched reports the total if the model is complete with done bytes of the current part.
func (m *meter) fetched(done int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if size(m.base+done) == m.frame.Total {
		m.sendLocked(m.base + done)
	}
}

// end reports the total, unless the last report was the total.
func (m *meter) end(total int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.frame.Total = size(total); m.last != total {
		m.sendLocked(total)
	}
}

// again restarts the reports after bytes of the current part were dropped, so that only done of
// them are left. It reports 0, then done and the bytes of the earlier parts.
func (m *meter) again(url string, done int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.frame.URL = url
	m.sendLocked(0)
	if there := m.base + done; there > 0 {
		m.sendLocked(there)
	}
}

func (m *meter) sendLocked(done int64) {
	m.last, m.lastAt = done, time.Now()
	m.frame.Done = size(done)
	m.report(m.frame)
}

// size converts a number of bytes. An unknown number, below 0, becomes 0.
func size(n int64) uint64 { return uint64(max(n, 0)) }
