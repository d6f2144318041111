// Package lease watches open files that another process maps: a write to such a file changes what the
// process reads, and a truncation can kill the process. Where the system grants a lease on the file, it
// blocks writers until the lease is given up, which leaves time to stop the process first. Elsewhere a
// change is detected afterwards. The package does not depend on models or engines, and stops no process.
package lease

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// times are the intervals and the time limit of a [Guard]. Tests shorten them.
type times struct {
	compare time.Duration // between two comparisons of a file without a lease
	writer  time.Duration // the longest that Add waits for a lease while the file is open for writing
	poll    time.Duration // between two attempts during that wait
}

var defaultTimes = times{5 * time.Second, 5 * time.Second, 100 * time.Millisecond}

// errWriter means that the system grants no lease because the file is open for writing.
var errWriter = errors.New("the file is open for writing")

// A Guard watches files. Its methods may be called from any goroutine.
type Guard struct {
	times
	changed chan struct{} // closed when a file has changed or is about to change
	quit    chan struct{} // closed by Close
	over    sync.WaitGroup
	once    sync.Once // makes Close idempotent

	mu     sync.Mutex // guards the fields below
	files  []*watchedFile
	reason string // why changed was closed; empty before
}

// A watchedFile is a watched file, open on a descriptor that the guard owns.
type watchedFile struct {
	*os.File
	path      string
	infoAtAdd os.FileInfo // state at the end of Add
	leased    bool        // a lease was taken; it may be broken since
}

// New returns a guard without files. A goroutine watches until [Guard.Close].
func New() *Guard { return newGuard(defaultTimes) }

func newGuard(t times) *Guard {
	g := &Guard{times: t, changed: make(chan struct{}), quit: make(chan struct{})}
	breaks, stop := notify()
	g.over.Go(func() {
		defer stop()
		g.watch(breaks)
	})
	return g
}

// Add watches the open file f; path names it in reasons. Call it before the content is checked, so
// that no change is missed. While the file is open for writing, Add waits up to 5 s for a lease. A
// file without a lease is compared every 5 s. Add fails if ctx ends during the wait, or if the system
// cannot duplicate or stat f. The caller may close f afterwards.
func (g *Guard) Add(ctx context.Context, f *os.File, path string) error {
	own, err := duplicate(f)
	if err != nil {
		return fmt.Errorf("watch %s: %w", path, err)
	}
	leased := take(own)
	for end := time.Now().Add(g.writer); errors.Is(leased, errWriter) && time.Now().Before(end); leased = take(own) {
		if err := sleep(ctx, g.poll); err != nil {
			return errors.Join(err, own.Close())
		}
	}
	info, err := own.Stat()
	if err != nil {
		return errors.Join(fmt.Errorf("watch %s: %w", path, err), own.Close())
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.files = append(g.files, &watchedFile{own, path, info, leased == nil})
	g.checkLocked() // the lease may be broken already
	return nil
}

// Changed returns a channel that is closed when a file has changed or, if the file has a lease, when a
// process opens it for writing. The system blocks that process until [Guard.Close], but no longer than
// its lease-break-time, 45 s by default.
func (g *Guard) Changed() <-chan struct{} { return g.changed }

// Check compares all files now. It returns the reason of the first change since New, or "" if no file
// has changed.
func (g *Guard) Check() (reason string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.checkLocked()
	for _, f := range g.files {
		g.compareLocked(f)
	}
	return g.reason
}

// Leased reports whether the guard has files and each got a lease.
func (g *Guard) Leased() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, f := range g.files {
		if !f.leased {
			return false
		}
	}
	return len(g.files) > 0
}

// Close gives up the leases and closes the guard's descriptors. It may be called more than once.
func (g *Guard) Close() {
	g.once.Do(func() {
		close(g.quit)
		g.over.Wait()
		g.mu.Lock()
		defer g.mu.Unlock()
		for _, f := range g.files {
			giveUp(f.File)
			_ = f.Close() // only read
		}
		g.files = nil
	})
}

// watch checks all leases when the system signals that it breaks one. Every g.compare it checks them
// again, and compares the files without a lease. It returns when the guard is closed.
func (g *Guard) watch(breaks <-chan os.Signal) {
	ticker := time.NewTicker(g.compare)
	defer ticker.Stop()
	for {
		select {
		case <-g.quit:
			return
		case <-breaks:
			g.mu.Lock()
			g.checkLocked()
			g.mu.Unlock()
		case <-ticker.C:
			g.mu.Lock()
			g.checkLocked()
			for _, f := range g.files {
				if !f.leased {
					g.compareLocked(f)
				}
			}
			g.mu.Unlock()
		}
	}
}

// checkLocked reports a change for each lease that is being broken.
func (g *Guard) checkLocked() {
	for _, f := range g.files {
		if f.leased && !held(f.File) {
			g.changeLocked("the model's file " + f.path + " was opened for writing")
		}
	}
}

// compareLocked reports a change if a file's size or modification time differs from that at Add. The
// ctime is not compared, because a new link or mode changes it, too.
func (g *Guard) compareLocked(f *watchedFile) {
	now, err := f.Stat()
	if err != nil {
		g.changeLocked(fmt.Sprintf("the model's file %s cannot be watched: %v", f.path, err))
		return
	}
	if now.Size() != f.infoAtAdd.Size() || !now.ModTime().Equal(f.infoAtAdd.ModTime()) {
		g.changeLocked("the model's file " + f.path + " was changed")
	}
}

// changeLocked keeps the first reason and closes g.changed; later reasons are dropped.
func (g *Guard) changeLocked(reason string) {
	if g.reason == "" {
		g.reason = reason
		close(g.changed)
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
