package pull

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/inferd-go/inferd/internal/store"
)

// followTime is the time between two checks of the progress of another process.
const followTime = 500 * time.Millisecond

// lockName locks the name of the model. While another process pulls the model, lockName reports the
// progress of that process and waits.
func (s *session) lockName(ctx context.Context, model *plan, meter *meter, o Options) (*store.Lock, error) {
	for {
		lock, err := s.Store.LockName(model.name)
		busy, ok := errors.AsType[*store.BusyError](err)
		if !ok {
			return lock, err
		}
		if err := s.follow(ctx, model, meter, busy, o); err != nil {
			return nil, err
		}
	}
}

// follow reports the progress of another process once, and pauses. With Options.NoWait it returns
// an error instead.
func (s *session) follow(ctx context.Context, model *plan, meter *meter, busy *store.BusyError, o Options) error {
	if o.NoWait {
		by := ""
		if busy.PID > 0 {
			by = fmt.Sprintf(" (pid %d)", busy.PID)
		}
		return fmt.Errorf("model %q is being fetched by another process%s", model.name, by)
	}
	if s.test.beforeFollow != nil {
		s.test.beforeFollow()
	}
	done, total := s.progressOf(model)
	meter.begin(firstURL(model), done, total)
	meter.follow(done)
	every := s.test.followPause
	if every == 0 {
		every = followTime
	}
	return wait(ctx, every)
}

// wait waits for d, or until ctx ends. Unlike sleep, it has no test hook.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func firstURL(model *plan) string {
	if f := model.files[0]; len(f.sources) > 0 {
		return display(f.sources[0].url)
	}
	return ""
}

// progressOf returns how many bytes of a plan are in the store, and the total number; total is -1
// if it is unknown.
func (s *session) progressOf(model *plan) (done, total int64) {
	unfinished, err := s.Store.Unfinished()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		unfinished = nil // there is no progress to report
	}
	for _, f := range model.files {
		size := f.size
		i := slices.IndexFunc(unfinished, func(u store.Unfinished) bool {
			return f.sha256 != "" && u.Digest == f.sha256 || f.sha256 == "" && u.Name == model.name
		})
		if i >= 0 {
			done += unfinished[i].Done
			size = max(size, unfinished[i].Total)
		} else if blob, err := s.Store.Blob(f.sha256); err == nil {
			done, size = done+blob.Size, blob.Size
		}
		if size == 0 || total < 0 {
			total = -1
		} else {
			total += size
		}
	}
	return done, total
}
