// Package lease watches open files that another process maps: a mapped file that is written to, or
// truncated, changes or kills that process. Where the system grants a lease on the file, a writer is
// held until the lease is given up, so that the process can be stopped before; elsewhere a change is
// seen afterwards. The package knows neither models nor engines, and stops no process.
package lease

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// times are the times of a [Guard].
type times struct {
	compare time.Duration // between two comparisons of a file without a lease
	writer  time.Duration // for which Add waits for a lease while the file is open for writing
	poll    time.Duration // between two tries while it is
}

var usual = times{5 * time.Second, 5 * time.Second, 100 * time.Millisecond}

// errWriter means that a file is open for writing, so that there is no lease.
var errWriter = errors.New("the file is open for writing")

// A Guard watches files. Its methods may be called from any goroutine.
type Guard struct {
	times
	changed chan struct{} // closed when a file has changed, or is about to
	quit    chan struct{} // closed by Close
	over    sync.WaitGroup
	once    sync.Once // of Close

	mu     sync.Mutex // guards the fields below
	files  []*guarded
	reason string // of changed
}

// A guarded is a file, through a descriptor of the guard's own.
type guarded struct {
	*os.File
	path   string
	before os.FileInfo
	leased bool
}

// New returns a guard without files. A goroutine watches until [Guard.Close].
func New() *Guard { return newGuard(usual) }

func newGuard(t times) *Guard {
	g := &Guard{times: t, changed: make(chan struct{}), quit: make(chan struct{})}
	breaks, stop := notify()
	g.over.Go(func() {
		defer stop()
		g.watch(breaks)
	})
	return g
}

// Add watches an open file, before its content is judged; path is for reasons. A file that is open
// for writing gets some seconds to be closed. The caller may close f.
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
	g.files = append(g.files, &guarded{own, path, info, leased == nil})
	g.checkLocked() // the lease may be broken already
	return nil
}

// Changed is closed when a file was changed or, if it has a lease, when a process opens it for writing:
// the writer is held until [Guard.Close], or for lease-break-time of the system, 45 s by default.
func (g *Guard) Changed() <-chan struct{} { return g.changed }

// Check compares all files now, and returns the reason if one has changed; empty: none has.
func (g *Guard) Check() (reason string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.checkLocked()
	for _, f := range g.files {
		g.compareLocked(f)
	}
	return g.reason
}

// Leased reports whether every file has a lease.
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

// Close gives up the leases. It may be called more than once.
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

// watch checks all leases when the system signals that it breaks one, and every g.compare; then it
// also compares the files without a lease. It returns when the guard is closed.
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

// checkLocked looks whether a lease is being broken.
func (g *Guard) checkLocked() {
	for _, f := range g.files {
		if f.leased && !held(f.File) {
			g.changeLocked("the model's file " + f.path + " was opened for writing")
		}
	}
}

// compareLocked looks whether a file was written to. Its ctime is not compared: a link or a mode
// changes that, too.
func (g *Guard) compareLocked(f *guarded) {
	now, err := f.Stat()
	if err != nil {
		g.changeLocked(fmt.Sprintf("the model's file %s cannot be watched: %v", f.path, err))
		return
	}
	if now.Size() != f.before.Size() || !now.ModTime().Equal(f.before.ModTime()) {
		g.changeLocked("the model's file " + f.path + " was changed")
	}
}

// changeLocked keeps the first reason.
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
