package activity

import (
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/inferd-go/inferd/internal/exchange"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/redact"
	"github.com/inferd-go/inferd/internal/wire"
)

var _ exchange.Journal = (*Log)(nil)

// component is the value of the member "component" in the lines of connections and requests.
const component = "activity"

// Connection logs a new connection.
func (l *Log) Connection(c *exchange.Connection) {
	attrs := appendWire(appendPeer(nil, &c.Peer), c.Dialect)
	attrs = append(attrs, slog.String("transport", string(c.Peer.Transport)))
	if c.Addr != "" {
		attrs = append(attrs, slog.String("peer", c.Addr))
	}
	l.enqueue(entry{
		at: time.Now(), level: slog.LevelInfo, component: component, msg: prefix(c.Dialect) + "connection_accepted", attrs: attrs,
	})
}

// Request logs the outcome of a request.
func (l *Log) Request(r *exchange.Record) {
	level := slog.LevelWarn
	if r.Outcome == exchange.Done || r.Outcome == exchange.Gone {
		level = slog.LevelInfo
	}
	l.enqueue(entry{at: time.Now(), level: level, component: component, request: r})
}

// outcomes maps the outcomes of records to the suffixes of event names.
var outcomes = map[exchange.Outcome]outcome{
	exchange.Done: done, exchange.Gone: gone, exchange.Refused: refused, exchange.Unreadable: refused, exchange.Failed: failed,
}

// spell returns the name of the event for a request, and appends the attributes of the request to
// attrs.
func spell(attrs []slog.Attr, r *exchange.Record) (event string, all []slog.Attr) {
	attrs = appendPeer(attrs, &r.Peer)
	if r.Outcome != exchange.Unreadable {
		attrs = appendCourse(attrs, r)
	}
	if r.Outcome == exchange.Done || r.Dialect.OverHTTP() { // the event names of the HTTP dialects do not contain the dialect
		attrs = appendWire(attrs, r.Dialect)
	}
	switch r.Outcome {
	case exchange.Done:
		attrs = appendSizes(attrs, r)
	case exchange.Gone:
		attrs = append(attrs, slog.String("stage", string(r.Stage)))
	case exchange.Refused, exchange.Failed, exchange.Unreadable:
		attrs = append(attrs, slog.String("code", wire.Common[r.Code]))
	}
	return prefix(r.Dialect) + string(outcomes[r.Outcome]), attrs
}

// prefix returns the prefix of a dialect's event names. It is empty for v1, and the same for all
// dialects over HTTP.
func prefix(d wire.Dialect) string {
	switch {
	case isV1(d):
		return ""
	case d.OverHTTP():
		d = wire.HTTP
	}
	return string(d) + "_"
}

func isV1(d wire.Dialect) bool { return d == wire.V1 || d == "" }

// appendWire appends the dialect of an event. Events of v1 have no such attribute.
func appendWire(attrs []slog.Attr, d wire.Dialect) []slog.Attr {
	if isV1(d) {
		return attrs
	}
	return append(attrs, slog.String("wire_version", string(d)))
}

// appendPeer appends the known attributes of the client.
func appendPeer(attrs []slog.Attr, peer *infer.Peer) []slog.Attr {
	if peer.User != "" {
		user := slog.String("peer_sid", peer.User)
		if uid, err := strconv.ParseUint(peer.User, 10, 32); err == nil {
			user = slog.Uint64("peer_uid", uid)
		}
		attrs = append(attrs, user)
	}
	if peer.PID != 0 {
		attrs = append(attrs, slog.Int("peer_pid", peer.PID))
	}
	if peer.Exe != "" {
		attrs = append(attrs, slog.String("peer_exe", peer.Exe))
	}
	if peer.Key != "" {
		attrs = append(attrs, slog.String("key", peer.Key))
	}
	return attrs
}

// appendCourse appends the IDs, the times, the destination and the token counts of a request.
func appendCourse(attrs []slog.Attr, r *exchange.Record) []slog.Attr {
	attrs = append(attrs, requestID(r.ID))
	if r.TraceID != "" {
		attrs = append(attrs, slog.String("trace_id", r.TraceID))
	}
	attrs = append(attrs, slog.Duration("queue_ms", r.Timings.Queue), slog.Duration("prefill_ms", r.Timings.Prefill))
	if r.Started {
		attrs = append(attrs, slog.Duration("decode_ms", r.Timings.Decode))
	}
	if r.Admission.Entry != "" {
		attrs = append(attrs, slog.String("entry", r.Admission.Entry), slog.String("backend", r.Admission.Backend))
	}
	if r.Admission.Model != "" {
		attrs = append(attrs, slog.String("model", r.Admission.Model))
	}
	switch generates := r.Task == exchange.Generate; {
	case !r.Answered:
		return attrs
	case !generates:
		return append(attrs, slog.Int("input_tokens", r.Usage.In))
	case r.Dialect == wire.V1:
		return append(attrs, slog.Int("prompt_tokens", r.Usage.In), slog.Int("completion_tokens", r.Usage.Out))
	}
	return append(attrs, slog.Int("input_tokens", r.Usage.In), slog.Int("output_tokens", r.Usage.Out))
}

// reasons are the values of stop_reason: the words of the wire in camel case. The first map is for
// v1, the second for the other dialects.
var reasons = [...]map[infer.Reason]string{
	{
		infer.EndOfTurn: "End", infer.StopSequence: "End", infer.CalledTool: "End",
		infer.Length: "Length", infer.Canceled: "Cancelled",
	},
	{
		infer.EndOfTurn: "EndTurn", infer.StopSequence: "StopSequence", infer.CalledTool: "ToolUse",
		infer.Length: "MaxTokens", infer.Canceled: "Cancelled",
	},
}

// appendSizes appends the sizes of a task and of its answer and, for generated text, the reason of
// its end.
func appendSizes(attrs []slog.Attr, r *exchange.Record) []slog.Attr {
	switch r.Task {
	case exchange.Generate:
		if r.Dialect == wire.V1 {
			return append(attrs, slog.String("stop_reason", reasons[0][r.Usage.Reason]))
		}
		if r.Usage.Unsatisfied {
			attrs = append(attrs, slog.Bool("tool_choice_unsatisfied", true))
		}
		return append(attrs, slog.String("stop_reason", reasons[1][r.Usage.Reason]),
			slog.Int("n_attachments", r.Attachments), slog.Int("n_tools", r.Tools))
	case exchange.Count:
		return append(attrs, slog.Bool("count_only", true))
	case exchange.Embed:
		return append(attrs, slog.Int("n_inputs", r.Inputs), slog.Int("dimensions", r.Dimensions))
	case exchange.Rerank:
		return append(attrs, slog.Int("n_documents", r.Documents), slog.Int("n_results", r.Results))
	}
	return attrs
}

// maxID is the maximum number of bytes of a request's ID in a line.
const maxID = 128

// requestID returns the attribute req_id: the first maxID bytes of an ID. Secrets are removed
// before it is cut, because a part of a secret might not be recognised.
func requestID(id string) slog.Attr {
	const key = "req_id"
	text := redact.Text(id)
	if len(text) > maxID {
		text = strings.ToValidUTF8(text[:maxID], "")
	}
	if text == id {
		return slog.String(key, id)
	}
	return slog.Any(key, redacted(text))
}

// redacted is a text from which secrets have been removed, so that it is not searched again. A
// second search would cost as much as the rest of the line.
type redacted string
