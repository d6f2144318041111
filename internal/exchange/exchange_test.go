package exchange_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/inferd-go/inferd/internal/admit"
	"github.com/inferd-go/inferd/internal/backend"
	"github.com/inferd-go/inferd/internal/backend/mock"
	"github.com/inferd-go/inferd/internal/exchange"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
)

// A scene is one request in a synctest bubble. The request passes a gate with one slot. Unless the
// test has another backend, a mock emits two tokens, and takes a second for each.
type scene struct {
	t      *testing.T
	runner *exchange.Runner
	client *sink
	hangUp context.CancelFunc // ends the context of Run, as net/http does
}

var (
	question = &infer.Generate{MaxTokens: 10}
	peer     = infer.Peer{User: "1000", PID: 7, Exe: "/bin/x"}
	errSlow  = fmt.Errorf("write: %w", os.ErrDeadlineExceeded)
	errLost  = errors.New("broken pipe")
)

// record returns the record of a request that was admitted at once, modified by change.
func record(change func(*exchange.Record)) exchange.Record {
	r := exchange.Record{
		Peer: peer, Dialect: wire.V2, ID: "x", Task: exchange.Generate,
		Admitted: true, Admission: infer.Admitted{Entry: "m", Backend: "mock", Model: "chain"},
	}
	change(&r)
	return r
}

// after returns a function that starts a goroutine, which calls act after d.
func after(d time.Duration, act func(*scene)) func(*scene) {
	return func(s *scene) {
		go func() {
			time.Sleep(d)
			act(s)
		}()
	}
}

// busy returns a function that occupies the slot for d with another request.
func busy(d time.Duration) func(*scene) {
	return func(s *scene) {
		go func() {
			ctx, cancel := context.WithTimeout(s.t.Context(), d)
			defer cancel()
			req := &infer.Request{ID: "before", Task: &infer.Generate{MaxTokens: 1}}
			_ = s.runner.Run(ctx, wire.V1, req, &sink{})
		}()
		synctest.Wait()
	}
}

// An ending is one way to end a request, with the expected results.
type ending struct {
	backend infer.Handler // nil means the mock
	task    infer.Task    // nil means the question
	acts    []func(*scene)
	writes  map[string]error
	plain   bool

	sent   []string
	err    string
	record exchange.Record
}

// Each way to end a request leads to the expected messages, error of Run, and record.
func TestEnds(t *testing.T) {
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	leaves := func(s *scene) { close(s.client.hungUp) }
	halfway := infer.HandlerFunc(func(_ context.Context, _ *infer.Request, emit infer.Sink) error {
		_ = emit(&infer.Text{Delta: []byte("a")})
		return errors.New("open /home/me/secret: permission denied")
	})
	for name, test := range map[string]ending{
		"answered": {
			sent: []string{"admitted", "a", "b", "done"},
			record: record(func(r *exchange.Record) {
				r.Outcome, r.Started, r.Answered = exchange.Done, true, true
				r.Usage = infer.Done{Reason: infer.EndOfTurn, Out: 2, Backend: "mock", Model: "mock"}
				r.Timings = infer.Timings{Prefill: ms(1000), Decode: ms(1000)}
			}),
		},
		"answered after a wait": {
			acts: []func(*scene){busy(ms(300))},
			sent: []string{"admitted", "a", "b", "done"},
			record: record(func(r *exchange.Record) {
				r.Outcome, r.Started, r.Answered = exchange.Done, true, true
				r.Usage = infer.Done{Reason: infer.EndOfTurn, Out: 2, Backend: "mock", Model: "mock"}
				r.Timings = infer.Timings{Queue: ms(300), Prefill: ms(1000), Decode: ms(1000)}
				r.Admission.Queued = ms(300)
			}),
		},
		"vectors": {
			task: &infer.Embed{Inputs: []string{"one", "two"}},
			sent: []string{"admitted", "vectors", "done without timings"},
			record: record(func(r *exchange.Record) {
				r.Outcome, r.Started, r.Answered = exchange.Done, true, true
				r.Usage = infer.Done{Reason: infer.EndOfTurn, In: 6, Backend: "mock", Model: "mock"}
				r.Task, r.Inputs, r.Dimensions = exchange.Embed, 2, mock.DefaultDimensions
			}),
		},
		"scores": {
			task: &infer.Rerank{Query: "a", Documents: []string{"a", "b", "c"}, TopN: 2},
			sent: []string{"admitted", "scores", "done without timings"},
			record: record(func(r *exchange.Record) {
				r.Outcome, r.Started, r.Answered = exchange.Done, true, true
				r.Usage = infer.Done{Reason: infer.EndOfTurn, In: 6, Backend: "mock", Model: "mock"}
				r.Task, r.Documents, r.Results = exchange.Rerank, 3, 2
			}),
		},
		"the backend fails before any event": {
			backend: &mock.Backend{PreStream: "unavailable"},
			task:    &infer.Generate{Attachments: make([]infer.Attachment, 1), Tools: make([]infer.Tool, 2)},
			sent:    []string{"admitted", "backend_unavailable: mock"},
			record: record(func(r *exchange.Record) {
				r.Outcome, r.Code, r.Attachments, r.Tools = exchange.Refused, infer.Unavailable, 1, 2
			}),
		},
		"the gate refuses": {
			acts:   []func(*scene){busy(ms(300)), busy(ms(300))},
			sent:   []string{"queue_full: queue full"},
			record: exchange.Record{Peer: peer, Dialect: wire.V2, ID: "x", Task: exchange.Generate, Outcome: exchange.Refused, Code: infer.Busy},
		},
		"the backend fails in the middle": {
			backend: halfway,
			sent:    []string{"admitted", "a", "internal: internal error"},
			record: record(func(r *exchange.Record) {
				r.Outcome, r.Code, r.Started = exchange.Failed, infer.Internal, true
			}),
		},
		"the backend ends without an end": {
			backend: &mock.Backend{DropAfter: 1},
			sent:    []string{"admitted", "mock-response", "backend_unavailable: backend ended stream without terminal frame"},
			record: record(func(r *exchange.Record) {
				r.Outcome, r.Code, r.Started = exchange.Failed, infer.Unavailable, true
			}),
		},
		"the client hangs up in the queue": {
			acts: []func(*scene){busy(ms(900)), after(ms(500), leaves)},
			err:  "the client hung up",
			record: exchange.Record{
				Peer: peer, Dialect: wire.V2, ID: "x", Task: exchange.Generate, Outcome: exchange.Gone, Stage: exchange.Queue,
				Timings: infer.Timings{Queue: ms(500)},
			},
		},
		"the client hangs up before the first event": {
			acts: []func(*scene){after(ms(500), leaves)},
			sent: []string{"admitted"}, err: "the client hung up",
			record: record(func(r *exchange.Record) {
				r.Outcome, r.Stage, r.Timings.Prefill = exchange.Gone, exchange.Prefill, ms(500)
			}),
		},
		"the client hangs up in its answer": {
			acts: []func(*scene){after(ms(1500), leaves)},
			sent: []string{"admitted", "a"}, err: "the client hung up",
			record: record(func(r *exchange.Record) {
				r.Outcome, r.Stage, r.Started = exchange.Gone, exchange.Decode, true
				r.Timings = infer.Timings{Prefill: ms(1000), Decode: ms(500)}
			}),
		},
		"the client hangs up, as its context reports": {
			acts: []func(*scene){after(ms(1500), func(s *scene) { s.hangUp() })}, plain: true,
			sent: []string{"admitted", "a"}, err: "the client hung up",
			record: record(func(r *exchange.Record) {
				r.Outcome, r.Stage, r.Started = exchange.Gone, exchange.Decode, true
				r.Timings = infer.Timings{Prefill: ms(1000), Decode: ms(500)}
			}),
		},
		"the client hangs up without a report": {
			acts: []func(*scene){after(ms(500), leaves)}, plain: true, writes: map[string]error{"a": errLost},
			sent: []string{"admitted"}, err: "write: broken pipe",
			record: record(func(r *exchange.Record) {
				r.Outcome, r.Stage, r.Timings.Prefill = exchange.Gone, exchange.Prefill, ms(1000)
			}),
		},
		"the admission cannot be sent": {
			writes: map[string]error{"admitted": errLost},
			err:    "write: broken pipe",
			record: record(func(r *exchange.Record) { r.Outcome, r.Stage = exchange.Gone, exchange.Prefill }),
		},
		"the client does not read": {
			writes: map[string]error{"b": errSlow},
			sent:   []string{"admitted", "a"}, err: "write: write: i/o timeout",
			record: record(func(r *exchange.Record) {
				r.Outcome, r.Stage, r.Started = exchange.Gone, exchange.Unread, true
				r.Timings = infer.Timings{Prefill: ms(1000), Decode: ms(1000)}
			}),
		},
		"a client whose answer is stalled hangs up": {
			backend: infer.HandlerFunc(func(ctx context.Context, req *infer.Request, emit infer.Sink) error {
				req.Pause.Stalled.Set(true)
				<-ctx.Done()
				return emit(&infer.Done{In: 1})
			}),
			acts: []func(*scene){after(ms(500), leaves)}, writes: map[string]error{"done": errLost},
			sent: []string{"admitted"}, err: "write: broken pipe",
			record: record(func(r *exchange.Record) {
				r.Outcome, r.Stage, r.Answered, r.Usage = exchange.Gone, exchange.Unread, true, infer.Done{In: 1}
				r.Timings = infer.Timings{Prefill: ms(500)}
			}),
		},
		"the last event is lost, but counts": {
			writes: map[string]error{"done": errLost},
			sent:   []string{"admitted", "a", "b"}, err: "write: broken pipe",
			record: record(func(r *exchange.Record) {
				r.Outcome, r.Stage, r.Started, r.Answered = exchange.Gone, exchange.Decode, true, true
				r.Usage = infer.Done{Reason: infer.EndOfTurn, Out: 2, Backend: "mock", Model: "mock"}
				r.Timings = infer.Timings{Prefill: ms(1000), Decode: ms(1000)}
			}),
		},
		"an event cannot be encoded": {
			writes: map[string]error{"b": infer.Errorf(infer.TooLarge, "too large")},
			sent:   []string{"admitted", "a", "frame_too_large: too large"},
			record: record(func(r *exchange.Record) {
				r.Outcome, r.Code, r.Started = exchange.Failed, infer.TooLarge, true
				r.Timings = infer.Timings{Prefill: ms(1000), Decode: ms(1000)}
			}),
		},
		"the failure cannot be sent": {
			backend: &mock.Backend{PreStream: "internal"}, writes: map[string]error{"failure": errLost},
			sent: []string{"admitted"}, err: "write: broken pipe",
			record: record(func(r *exchange.Record) { r.Outcome, r.Code = exchange.Refused, infer.Internal }),
		},
		"a drain in whose grace it ends": {
			acts: []func(*scene){after(ms(500), func(s *scene) { s.runner.Drain() })},
			sent: []string{"admitted", "a", "b", "done"},
			record: record(func(r *exchange.Record) {
				r.Outcome, r.Started, r.Answered = exchange.Done, true, true
				r.Usage = infer.Done{Reason: infer.EndOfTurn, Out: 2, Backend: "mock", Model: "mock"}
				r.Timings = infer.Timings{Prefill: ms(1000), Decode: ms(1000)}
			}),
		},
		"a drain that cuts it off": {
			acts: []func(*scene){func(s *scene) { s.runner.Grace = ms(700) }, after(ms(500), func(s *scene) { s.runner.Drain() })},
			sent: []string{"admitted", "a", "backend_unavailable: daemon is shutting down"},
			record: record(func(r *exchange.Record) {
				r.Outcome, r.Code, r.Started = exchange.Failed, infer.Unavailable, true
				r.Timings = infer.Timings{Prefill: ms(1000), Decode: ms(200)}
			}),
		},
		"a runner that has stopped": {
			acts: []func(*scene){func(s *scene) { s.runner.Drain() }},
			sent: []string{"backend_unavailable: daemon is shutting down"},
			record: exchange.Record{
				Peer: peer, Dialect: wire.V2, ID: "x", Task: exchange.Generate, Outcome: exchange.Refused, Code: infer.Unavailable,
			},
		},
		"a panic": {
			backend: infer.HandlerFunc(func(context.Context, *infer.Request, infer.Sink) error { panic("a bug") }),
			sent:    []string{"admitted", "internal: internal error"},
			record:  record(func(r *exchange.Record) { r.Outcome, r.Code = exchange.Refused, infer.Internal }),
		},
		"a failure after the end": {
			backend: infer.HandlerFunc(func(_ context.Context, _ *infer.Request, emit infer.Sink) error {
				_ = emit(&infer.Done{In: 1})
				if emit(&infer.Done{In: 2}) == nil || emit(&infer.Text{Delta: []byte("a")}) == nil {
					return errors.New("an event after the end was taken")
				}
				panic("a bug")
			}),
			sent: []string{"admitted", "done without timings"},
			record: record(func(r *exchange.Record) {
				r.Outcome, r.Started, r.Answered, r.Usage = exchange.Done, true, true, infer.Done{In: 1}
			}),
		},
	} {
		t.Run(name, func(t *testing.T) { synctest.Test(t, test.play) })
	}
}

// play runs the request, and checks its end.
func (e ending) play(t *testing.T) {
	handler := e.backend
	if handler == nil {
		handler = &mock.Backend{Tokens: []string{"a", "b"}, TokenDelay: time.Second}
	}
	gate := &admit.Gate{Depth: 1, Total: 1, Choose: func(*infer.Request) (admit.Destination, error) {
		return admit.Destination{Backend: &backend.Backend{Name: "m", Kind: "mock", Slots: 1, Handler: handler, Model: func() string { return "chain" }}}, nil
	}}
	var log bytes.Buffer
	kept := &journal{}
	ctx, hangUp := context.WithCancel(t.Context())
	defer hangUp()
	s := &scene{
		t: t, hangUp: hangUp, client: &sink{writes: e.writes, hungUp: make(chan struct{})},
		runner: &exchange.Runner{Handler: gate, Log: slog.New(slog.NewTextHandler(&log, nil)), Journal: kept, Grace: time.Minute},
	}
	for _, act := range e.acts {
		act(s)
	}
	req := &infer.Request{ID: "x", Peer: peer, Task: e.task}
	if req.Task == nil {
		req.Task = question
	}
	var client exchange.Client = s.client
	if e.plain {
		client = plain{s.client}
	}
	got := ""
	if err := s.runner.Run(ctx, wire.V2, req, client); err != nil {
		got = err.Error()
	}
	e.check(t, s.client, kept, log.String(), got)
}

// check compares the messages, the error of Run and the record with the expected ones.
func (e ending) check(t *testing.T, client *sink, kept *journal, log, got string) {
	t.Helper()
	if got != e.err {
		t.Errorf("Run: %q, want %q", got, e.err)
	}
	if !slices.Equal(client.sent, e.sent) {
		t.Errorf("sent %q, want %q", client.sent, e.sent)
	}
	if client.watches > 0 {
		t.Error("the client is still watched")
	}
	if diff := cmp.Diff([]*exchange.Record{&e.record}, kept.of("x")); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}
	if panics := strings.Count(log, "a bug"); panics > 0 && !strings.Contains(log, "exchange_test.go") {
		t.Errorf("the log has no stack of the panic: %s", log)
	}
	if strings.Contains(fmt.Sprint(client.sent), "secret") || e.record.Code == infer.Internal && e.err == "" && log == "" {
		t.Errorf("sent %q, logged %q", client.sent, log)
	}
}
