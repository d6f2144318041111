package server

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/redact"
	"github.com/inferd-go/inferd/internal/wire"
)

// Dialect is the journal's name of a surface's dialect. The set is closed.
type Dialect string

// Dialects.
const (
	V1     Dialect = "v1"
	V2     Dialect = "v2"
	Embed  Dialect = "embed"
	Rerank Dialect = "rerank"
)

// A Journal writes events down. The attributes are the journal's from then on. It must not
// block for long.
type Journal interface {
	Record(level slog.Level, event string, attrs []slog.Attr)
}

// A journal records the events of one connection.
type journal struct {
	log     Journal // may be nil
	dialect Dialect
	peer    *infer.Peer
}

// Numbers of attributes of an event, with the ones of every line.
const (
	fewAttrs  = 9
	mostAttrs = 21
)

// event is the name of an event: v1's have no prefix.
func (j *journal) event(name string) string {
	if j.dialect == V1 || j.dialect == "" {
		return name
	}
	return string(j.dialect) + "_" + name
}

// begin returns room for the attributes of an event, with the identity of the peer as far as it
// is known.
func (j *journal) begin(room int) []slog.Attr {
	attrs := make([]slog.Attr, 0, room)
	if j.peer.User != "" {
		name := "peer_uid"
		value := slog.StringValue(j.peer.User)
		if uid, err := strconv.ParseUint(j.peer.User, 10, 32); err == nil {
			value = slog.Uint64Value(uid)
		} else {
			name = "peer_sid"
		}
		attrs = append(attrs, slog.Attr{Key: name, Value: value})
	}
	if j.peer.PID != 0 {
		attrs = append(attrs, slog.Int("peer_pid", j.peer.PID))
	}
	if j.peer.Exe != "" {
		attrs = append(attrs, slog.String("peer_exe", j.peer.Exe))
	}
	return attrs
}

// wire says which dialect an event is of; v1's do not.
func (j *journal) wire(attrs []slog.Attr) []slog.Attr {
	if j.dialect == V1 || j.dialect == "" {
		return attrs
	}
	return append(attrs, slog.String("wire_version", string(j.dialect)))
}

func (j *journal) accepted(nc net.Conn) {
	if j.log == nil {
		return
	}
	attrs := append(j.wire(j.begin(fewAttrs)), slog.String("transport", string(j.peer.Transport)))
	if j.peer.Transport == infer.TCP {
		attrs = append(attrs, slog.String("peer", nc.RemoteAddr().String()))
	}
	j.log.Record(slog.LevelInfo, j.event("connection_accepted"), attrs)
}

// unreadable is a message that was no request.
func (j *journal) unreadable(err error) {
	if j.log == nil || errors.Is(err, io.EOF) {
		return
	}
	fatal, isFatal := errors.AsType[*wire.FatalError](err)
	if isFatal {
		err = fatal.Err
	}
	if _, ok := errors.AsType[*infer.Error](err); ok || isFatal {
		j.log.Record(slog.LevelWarn, j.event("request_refused"), append(j.begin(fewAttrs), slog.String("code", codeOf(err))))
	}
}

// codeOf is the word of the wire for a failure.
func codeOf(err error) string {
	code, _ := wire.Common.Encode(err)
	return code
}

// maxID is how many bytes of a request's id are written down.
const maxID = 128

// ended is told how a request ended.
func (j *journal) ended(req *infer.Request, a *answer, err error, hungUp bool) {
	if j.log == nil {
		return
	}
	t := a.timings(time.Now())
	attrs := append(j.begin(mostAttrs), slog.String("req_id", shortID(req.ID)),
		slog.Duration("queue_ms", t.Queue), slog.Duration("prefill_ms", t.Prefill))
	if !a.first.IsZero() {
		attrs = append(attrs, slog.Duration("decode_ms", t.Decode))
	}
	if at := a.admitted; at.Entry != "" {
		attrs = append(attrs, slog.String("entry", at.Entry), slog.String("backend", at.Backend))
	}
	if at := a.admitted; at.Model != "" {
		attrs = append(attrs, slog.String("model", at.Model))
	}
	if a.last != nil {
		attrs = j.tokens(attrs, req, a.last)
	}
	switch {
	case a.done:
		j.log.Record(slog.LevelInfo, j.event("request_done"), j.figures(attrs, req, a))
	case a.lost != nil || hungUp:
		stage := "decode"
		switch {
		case req.Pause.Stalled.On() || errors.Is(a.lost, os.ErrDeadlineExceeded):
			stage = "unread"
		case a.first.IsZero() && !a.isIn:
			stage = "queue"
		case a.first.IsZero():
			stage = "prefill"
		}
		j.log.Record(slog.LevelInfo, j.event("request_gone"), append(attrs, slog.String("stage", stage)))
	case a.first.IsZero():
		j.log.Record(slog.LevelWarn, j.event("request_refused"), append(attrs, slog.String("code", codeOf(err))))
	default:
		j.log.Record(slog.LevelWarn, j.event("request_error_mid_stream"), append(attrs, slog.String("code", codeOf(err))))
	}
}

// The words of the journal for why an answer ended: those of the wire, in camel case.
var reasons = map[Dialect]map[infer.Reason]string{
	V1: {
		infer.EndOfTurn: "End", infer.StopSequence: "End", infer.CalledTool: "End",
		infer.Length: "Length", infer.Canceled: "Cancelled",
	},
	V2: {
		infer.EndOfTurn: "EndTurn", infer.StopSequence: "StopSequence", infer.CalledTool: "ToolUse",
		infer.Length: "MaxTokens", infer.Canceled: "Cancelled",
	},
}

// tokens appends the token counts of an answer. The gate counts the same.
func (j *journal) tokens(attrs []slog.Attr, req *infer.Request, last *infer.Done) []slog.Attr {
	switch _, generates := req.Task.(*infer.Generate); {
	case generates && j.dialect == V1:
		return append(attrs, slog.Int("prompt_tokens", last.In), slog.Int("completion_tokens", last.Out))
	case generates:
		return append(attrs, slog.Int("input_tokens", last.In), slog.Int("output_tokens", last.Out))
	}
	return append(attrs, slog.Int("input_tokens", last.In))
}

// figures are those of a request that was answered.
func (j *journal) figures(attrs []slog.Attr, req *infer.Request, a *answer) []slog.Attr {
	attrs = j.wire(attrs)
	switch task := req.Task.(type) {
	case *infer.Generate:
		if j.dialect == V1 {
			return append(attrs, slog.String("stop_reason", reasons[V1][a.last.Reason]))
		}
		if a.last.Unsatisfied {
			attrs = append(attrs, slog.Bool("tool_choice_unsatisfied", true))
		}
		return append(attrs, slog.String("stop_reason", reasons[V2][a.last.Reason]),
			slog.Int("n_attachments", len(task.Attachments)), slog.Int("n_tools", len(task.Tools)))
	case *infer.Count:
		return append(attrs, slog.Bool("count_only", true))
	case *infer.Embed:
		return append(attrs, slog.Int("n_inputs", len(task.Inputs)), slog.Int("dimensions", a.size))
	case *infer.Rerank:
		results := a.size
		if task.TopN > 0 {
			results = min(results, task.TopN)
		}
		return append(attrs, slog.Int("n_documents", len(task.Documents)), slog.Int("n_results", results))
	}
	return attrs
}

// shortID is the beginning of an id, without secrets: those go before it is cut.
func shortID(id string) string {
	id = redact.Text(id)
	if len(id) <= maxID {
		return id
	}
	return strings.ToValidUTF8(id[:maxID], "")
}
