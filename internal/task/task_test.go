package task_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inferd-go/inferd/internal/task"
)

// run starts parts in order, as the daemon does, and stops them in reverse order.
func run(ctx context.Context, log *[]string, part func(context.Context) error) error {
	step := func(s string) { *log = append(*log, s) }
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	step("+lock")
	defer step("-lock")
	admin := task.Go(ctx, fail, func(ctx context.Context) error { <-ctx.Done(); step("-admin"); return nil })
	defer admin.Stop()
	step("+admin")
	engine := task.Go(ctx, fail, part)
	defer engine.Stop()
	step("+engine")
	<-ctx.Done()
	step("-surfaces")
	return context.Cause(ctx)
}

func TestReverseOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log []string
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := run(ctx, &log, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		if got, want := strings.Join(log, " "), "+lock +admin +engine -surfaces -admin -lock"; got != want {
			t.Errorf("\n got %s\nwant %s", got, want)
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

func TestFailureEndsTheOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log []string
		failure := errors.New("engine failed")
		if err := run(t.Context(), &log, func(context.Context) error { return failure }); !errors.Is(err, failure) {
			t.Errorf("run = %v, want %v", err, failure)
		}
	})
}

func TestStopTwice(t *testing.T) {
	part := task.Go(t.Context(), func(err error) { t.Error(err) }, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
	part.Stop()
	part.Stop()
}
