package exchange_test

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inferd-go/inferd/internal/exchange"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
)

// waits is a handler that answers after a duration, which is the ID of the request.
func waits(ctx context.Context, req *infer.Request, emit infer.Sink) error {
	d, err := time.ParseDuration(req.ID)
	if err != nil {
		return err
	}
	select {
	case <-time.After(d):
		return emit(&infer.Done{})
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// A draining runner stops when its last request ends, or when the grace is over. Until then
// requests may begin; after that they are refused.
func TestDrain(t *testing.T) {
	const (
		answered = "done"
		cut      = "backend_unavailable: daemon is shutting down"
	)
	for name, test := range map[string]struct {
		grace  time.Duration
		before []string          // IDs of running requests; each is the duration of the request
		after  map[string]string // outcomes by ID; the request "1s" begins 1 s after Drain
		stops  time.Duration     // duration from Drain to the stop
	}{
		"no request":       {time.Hour, nil, map[string]string{"1s": cut}, 0},
		"no grace":         {0, []string{"3s", "5s"}, map[string]string{"3s": cut, "5s": cut, "1s": cut}, 0},
		"within the grace": {time.Hour, []string{"3s", "5s"}, map[string]string{"3s": answered, "5s": answered, "1s": answered}, 5 * time.Second},
		"past the grace":   {4 * time.Second, []string{"3s", "5s"}, map[string]string{"3s": answered, "5s": cut, "1s": answered}, 4 * time.Second},
		"a later request":  {time.Hour, []string{"1500ms"}, map[string]string{"1500ms": answered, "1s": answered}, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &exchange.Runner{Handler: infer.HandlerFunc(waits), Log: slog.New(slog.DiscardHandler), Grace: test.grace}
				var all sync.WaitGroup
				clients := make(map[string]*sink)
				begin := func(id string) {
					client := &sink{}
					clients[id] = client
					all.Go(func() { _ = r.Run(t.Context(), wire.V2, &infer.Request{ID: id, Task: question}, client) })
					synctest.Wait()
				}
				for _, id := range test.before {
					begin(id)
				}
				if r.Draining() {
					t.Error("it drains before the order")
				}
				start := time.Now()
				r.Drain()
				r.Drain() // a second call changes nothing
				all.Go(func() {
					<-r.Closed()
					if took := time.Since(start); took != test.stops {
						t.Errorf("it stopped after %v, want %v", took, test.stops)
					}
				})
				if !r.Draining() {
					t.Error("it does not drain")
				}
				time.Sleep(time.Second)
				begin("1s")
				all.Wait()
				for id, want := range test.after {
					got := clients[id].sent
					if want == answered && len(got) == 1 && got[0] == "done" || slices.Equal(got, []string{want}) {
						continue
					}
					t.Errorf("%s: %q, want %q", id, got, want)
				}
			})
		})
	}
}

// The watch of a client begins 20 to 60 ms after the handler calls Done of its context. Without
// that call, or if the request ends before, the client is not watched.
func TestWatchBegins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &exchange.Runner{Handler: infer.HandlerFunc(waits), Log: slog.New(slog.DiscardHandler)}
		quick := infer.HandlerFunc(func(ctx context.Context, _ *infer.Request, emit infer.Sink) error {
			time.Sleep(time.Hour) // the handler does not call Done
			_ = ctx.Err()
			return emit(&infer.Done{})
		})
		run := func(id string) time.Duration {
			client := &timed{sink: sink{hungUp: make(chan struct{})}, begin: time.Now()}
			if err := r.Run(t.Context(), wire.V2, &infer.Request{ID: id, Task: question}, client); err != nil {
				t.Error(err)
			}
			return client.at
		}
		for range 40 {
			if at := run("19ms"); at != 0 {
				t.Errorf("a quick request is watched after %v", at)
			}
			if at := run("61ms"); at < 20*time.Millisecond || at > 60*time.Millisecond {
				t.Errorf("watched after %v", at)
			}
			time.Sleep(time.Millisecond)
		}
		r.Handler = quick
		if at := run("1h"); at != 0 {
			t.Errorf("the client of a handler that does not wait is watched after %v", at)
		}
	})
}

// A timed is a sink that records when its watch begins.
type timed struct {
	sink

	begin time.Time
	at    time.Duration
}

func (c *timed) AwaitHangUp(ctx context.Context) error {
	c.at = time.Since(c.begin)
	return c.sink.AwaitHangUp(ctx)
}
