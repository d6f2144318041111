package exchange

import (
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
)

// A Journal takes the records of connections and requests; the caller must not use a record afterwards.
// Any number of goroutines may call the methods at once. The methods must not block for long.
type Journal interface {
	Connection(c *Connection)
	Request(r *Record)
}

// A Connection is the record of a new connection.
type Connection struct {
	Peer    infer.Peer
	Dialect wire.Dialect
	Addr    string // of the client, over TCP; else empty
}

// A Record is the outcome of one request, without prompt and answer. A field is zero if its value
// is unknown, or if the request did not reach that stage.
type Record struct {
	Peer    infer.Peer
	Dialect wire.Dialect
	Outcome Outcome
	Stage   Stage      // if Outcome is Gone
	Code    infer.Code // if Outcome is Refused, Failed or Unreadable

	ID      string // as the client gave it
	TraceID string // of the client's trace, in hex; empty means none
	Task    Task   // empty if Unreadable

	Admitted  bool
	Admission infer.Admitted // zero unless Admitted
	Started   bool           // an event of the answer was sent: Timings.Decode is measured
	Answered  bool           // the backend finished its answer, even if the client had left
	Usage     infer.Done     // of the backend's Done, without timings; zero unless Answered
	Timings   infer.Timings

	Attachments, Tools int // numbers of elements in a Generate
	Inputs, Dimensions int // of an Embed; Dimensions is 0 unless the vectors were sent
	Documents, Results int // of a Rerank; Results is 0 unless the scores were sent
}

// Outcome is how a request ended. It has only the values below.
type Outcome string

// The values of Outcome.
const (
	Done       Outcome = "done"       // the answer is complete
	Gone       Outcome = "gone"       // the client left before the end
	Refused    Outcome = "refused"    // the request failed before any event of the answer was sent
	Failed     Outcome = "failed"     // the request failed after events of the answer were sent
	Unreadable Outcome = "unreadable" // the message is not a request; only Peer, Dialect and Code are set
)

// Stage is the stage of a request when its client left. It has only the values below.
type Stage string

// The values of Stage.
const (
	Queue   Stage = "queue"   // not admitted
	Prefill Stage = "prefill" // admitted, but no event of the answer was sent
	Decode  Stage = "decode"  // some events were sent
	Unread  Stage = "unread"  // the client did not read the events
)

// Task is the kind of an [infer.Task]. It has only the values below.
type Task string

// The values of Task.
const (
	Generate Task = "generate"
	Count    Task = "count"
	Embed    Task = "embed"
	Rerank   Task = "rerank"
)

// count records the kind and the sizes of a task.
func (r *Record) count(task infer.Task) {
	switch task := task.(type) {
	case *infer.Generate:
		r.Task, r.Attachments, r.Tools = Generate, len(task.Attachments), len(task.Tools)
	case *infer.Count:
		r.Task = Count
	case *infer.Embed:
		r.Task, r.Inputs = Embed, len(task.Inputs)
	case *infer.Rerank:
		r.Task, r.Documents = Rerank, len(task.Documents)
	}
}

// rank records how many of the n scores the client gets.
func (r *Record) rank(task infer.Task, n int) {
	if rerank, ok := task.(*infer.Rerank); ok && rerank.TopN > 0 {
		n = min(n, rerank.TopN)
	}
	r.Results = n
}
