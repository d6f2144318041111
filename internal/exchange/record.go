package exchange

import (
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
)

// A Journal takes the records of connections and requests; the caller does not use them again.
// Any number of goroutines call it, and it must not block for long.
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

// A Record is the outcome of one request, without prompt and answer. A zero value means unknown, or
// of a stage that the request did not reach.
type Record struct {
	Peer    infer.Peer
	Dialect wire.Dialect
	Outcome Outcome
	Stage   Stage      // of Gone
	Code    infer.Code // of Refused, Failed and Unreadable

	ID   string // the client's
	Task Task   // empty if Unreadable

	Admitted  bool
	Admission infer.Admitted // zero unless Admitted
	Started   bool           // an event of the answer was sent: Timings.Decode is measured
	Answered  bool           // the backend answered to the end, even if the client was gone
	Usage     infer.Done     // its end, without timings; zero unless Answered
	Timings   infer.Timings

	Attachments, Tools int // of Generate
	Inputs, Dimensions int // of Embed; Dimensions once the vectors were sent
	Documents, Results int // of Rerank; Results once the scores were sent
}

// Outcome is the end of a request. The set is closed.
type Outcome string

// Outcomes.
const (
	Done       Outcome = "done"       // answered to the end
	Gone       Outcome = "gone"       // the client left before
	Refused    Outcome = "refused"    // failed before any event of an answer
	Failed     Outcome = "failed"     // failed in the middle of its answer
	Unreadable Outcome = "unreadable" // the message was no request: only Peer, Dialect and Code are set
)

// Stage is the progress of a request when its client left. The set is closed.
type Stage string

// Stages.
const (
	Queue   Stage = "queue"   // not admitted
	Prefill Stage = "prefill" // admitted, and no event was sent
	Decode  Stage = "decode"  // some events were sent
	Unread  Stage = "unread"  // the client did not read its answer
)

// Task is the kind of an [infer.Task]. The set is closed.
type Task string

// Tasks.
const (
	Generate Task = "generate"
	Count    Task = "count"
	Embed    Task = "embed"
	Rerank   Task = "rerank"
)

// count notes the kind and the sizes of a task.
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
