package count_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inferd-go/inferd/internal/count"
	"github.com/inferd-go/inferd/internal/infer"
)

func request(user, program string) *infer.Request {
	return &infer.Request{Peer: infer.Peer{User: user, Program: program}, Task: &infer.Count{Of: &infer.Generate{}}}
}

// desk returns a Desk with an entry that takes a second for each request to count.
func desk(next infer.HandlerFunc) *count.Desk {
	slow := infer.HandlerFunc(func(ctx context.Context, _ *infer.Request, emit infer.Sink) error {
		select {
		case <-time.After(time.Second):
			return emit(&infer.Done{In: 640})
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	return count.New(next, func(*infer.Request) (count.Entry, error) {
		return count.Entry{Name: "gen", Kind: "mock", Handler: slow}, nil
	})
}

func drop(infer.Event) error { return nil }

func TestOtherTasksPass(t *testing.T) {
	passed := errors.New("passed on")
	d := desk(func(context.Context, *infer.Request, infer.Sink) error { return passed })
	d.Close()
	for _, task := range []infer.Task{&infer.Generate{}, &infer.Embed{}, &infer.Rerank{}} {
		if err := d.Handle(t.Context(), &infer.Request{Task: task}, drop); !errors.Is(err, passed) {
			t.Errorf("%T: %v", task, err)
		}
	}
}

func TestAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := desk(nil)
		charged := 0
		d.Charge = func(req *infer.Request, tokens int) {
			if req.Peer.User != "1" {
				t.Errorf("charged %v", req.Peer)
			}
			charged += tokens
		}
		var events []string
		err := d.Handle(t.Context(), request("1", "x"), func(ev infer.Event) error {
			events = append(events, fmt.Sprintf("%T", ev))
			if at, ok := ev.(*infer.Admitted); ok && (at.Entry != "gen" || at.Backend != "mock") {
				t.Errorf("admitted: %+v", at)
			}
			return nil
		})
		if got, want := fmt.Sprint(events), "[*infer.Admitted *infer.Done]"; err != nil || got != want || charged != 11 {
			t.Errorf("events %s, want %s; charged %d; %v", got, want, charged, err)
		}
	})
}

// A count that ends because its client hangs up is charged for the time that it took.
func TestLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := desk(nil)
		charged := 0
		d.Charge = func(_ *infer.Request, tokens int) { charged += tokens }
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		if err := d.Handle(ctx, request("1", "x"), drop); err == nil || charged != 51 {
			t.Errorf("charged %d; %v", charged, err)
		}
	})
}

// One request of a user runs at a time, and two in all; a request that waits for too long is
// refused.
func TestTurns(t *testing.T) {
	for name, test := range map[string]struct {
		requests []*infer.Request
		seconds  int // until all have ended
		refused  int
	}{
		"of one caller":     {[]*infer.Request{request("1", "x"), request("1", "x"), request("1", "x")}, 3, 0},
		"of one user":       {[]*infer.Request{request("1", "x"), request("1", "y")}, 2, 0},
		"of two users":      {[]*infer.Request{request("1", "x"), request("2", "x")}, 1, 0},
		"of three users":    {[]*infer.Request{request("1", "x"), request("2", "x"), request("3", "x")}, 2, 0},
		"wait for too long": {many(15), 10, 4},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := desk(nil)
				begin := time.Now()
				var all sync.WaitGroup
				var mu sync.Mutex
				refused := 0
				for _, req := range test.requests {
					all.Go(func() {
						if err := d.Handle(t.Context(), req, drop); err != nil {
							if infer.CodeOf(err) != infer.Busy {
								t.Errorf("refused with %v", err)
							}
							mu.Lock()
							refused++
							mu.Unlock()
						}
					})
				}
				all.Wait()
				took := int(time.Since(begin).Round(time.Second) / time.Second)
				if name == "wait for too long" {
					if refused < test.refused || took > test.seconds+1 {
						t.Errorf("%d refused within %d s, want at least %d", refused, took, test.refused)
					}
				} else if refused != 0 || took != test.seconds {
					t.Errorf("%d refused, %d s; want %d s", refused, took, test.seconds)
				}
			})
		})
	}
}

func many(n int) (all []*infer.Request) {
	for range n {
		all = append(all, request("1", "x"))
	}
	return all
}

func TestWaitEnds(t *testing.T) {
	for name, test := range map[string]struct {
		change func(req *infer.Request, leave context.CancelCauseFunc, d *count.Desk)
		want   infer.Code
	}{
		"the client leaves": {func(_ *infer.Request, leave context.CancelCauseFunc, _ *count.Desk) {
			leave(infer.Errorf(infer.Malformed, "left"))
		}, infer.Malformed},
		"the deadline passes": {func(req *infer.Request, _ context.CancelCauseFunc, _ *count.Desk) {
			req.Deadline = time.Now().Add(100 * time.Millisecond)
		}, infer.Busy},
		"the desk closes": {func(_ *infer.Request, _ context.CancelCauseFunc, d *count.Desk) { d.Close() }, infer.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := desk(nil)
				var all sync.WaitGroup
				all.Go(func() {
					if err := d.Handle(t.Context(), request("1", "x"), drop); err != nil {
						t.Error(err)
					}
				})
				synctest.Wait()
				ctx, leave := context.WithCancelCause(t.Context())
				defer leave(nil)
				req := request("1", "x")
				test.change(req, leave, d)
				if err := d.Handle(ctx, req, drop); infer.CodeOf(err) != test.want {
					t.Errorf("got %v, want %s", err, test.want)
				}
				all.Wait()
			})
		})
	}
}
