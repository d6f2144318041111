package exchange_test

import (
	"context"
	"sync"

	"github.com/inferd-go/inferd/internal/exchange"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
)

// A sink is a Client without a connection. It records the messages that it gets. Write fails for a
// message in writes, and Fail for "failure", with the error given there.
type sink struct {
	sent    []string
	writes  map[string]error // by message
	hungUp  chan struct{}
	watches int // calls of AwaitHangUp that have not returned
}

var _ exchange.Watcher = (*sink)(nil)

func (s *sink) Write(ev infer.Event) error {
	var msg string
	switch ev := ev.(type) {
	case *infer.Admitted:
		msg = "admitted"
	case *infer.Text:
		msg = string(ev.Delta)
	case *infer.Vectors:
		msg = "vectors"
	case *infer.Scores:
		msg = "scores"
	case *infer.Done:
		msg = "done"
		if ev.Timings == (infer.Timings{}) {
			msg = "done without timings"
		}
	default:
		return infer.Errorf(infer.Internal, "cannot encode a %T", ev)
	}
	if err := s.writes[msg]; err != nil {
		return err
	}
	s.sent = append(s.sent, msg)
	return nil
}

func (s *sink) Fail(cause error) error {
	code, text := wire.Common.Encode(cause)
	if err := s.writes["failure"]; err != nil {
		return err
	}
	s.sent = append(s.sent, code+": "+text)
	return nil
}

func (s *sink) AwaitHangUp(ctx context.Context) error {
	s.watches++
	defer func() { s.watches-- }()
	select {
	case <-s.hungUp:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// A plain is a Client that is not a Watcher.
type plain struct{ exchange.Client }

// A journal keeps the records of requests.
type journal struct {
	mu      sync.Mutex
	records []*exchange.Record
}

func (j *journal) Connection(*exchange.Connection) { panic("an exchange has no connection") }

func (j *journal) Request(r *exchange.Record) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.records = append(j.records, r)
}

// of returns the records of the requests with the given ID.
func (j *journal) of(id string) (all []*exchange.Record) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, r := range j.records {
		if r.ID == id {
			all = append(all, r)
		}
	}
	return all
}
