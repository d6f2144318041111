package activity

import (
	"context"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/redact"
)

// Handler returns a slog.Handler for the records of a component with level Info or higher.
func (l *Log) Handler(component string) slog.Handler { return &handler{log: l, component: component} }

// A handler logs the records of a component.
type handler struct {
	log       *Log
	component string
	attrs     []slog.Attr
	group     string // prefix of the members' names: the names of the open groups, each with a dot
}

// Enabled reports whether records of a level are logged: those below Info are not.
func (h *handler) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

// Handle logs a record. It returns no error: lines that cannot be written are counted, see
// [Log.Lost].
func (h *handler) Handle(_ context.Context, r slog.Record) error {
	attrs := make([]slog.Attr, 0, len(h.attrs)+r.NumAttrs()+ownMembers)
	attrs = append(attrs, h.attrs...)
	r.Attrs(func(a slog.Attr) bool {
		a.Key = h.group + a.Key
		attrs = append(attrs, a)
		return true
	})
	h.log.enqueue(entry{at: r.Time, level: r.Level, component: h.component, msg: r.Message, attrs: attrs})
	return nil
}

const (
	ownMembers = 4  // members that appendLine adds to every line
	maxMembers = 32 // at least the number of members in the line of a request
)

// appendLine appends the line of an entry: a JSON object with members sorted by name.
func (e *entry) appendLine(line []byte) []byte {
	members := append(e.attrs,
		slog.String("t", e.at.UTC().Format("2006-01-02T15:04:05.000000-07:00")),
		slog.String("level", strings.ToLower(e.level.String())),
		slog.String("component", e.component),
		slog.String("msg", e.msg))
	var indices [maxMembers]int // sorting indices is far cheaper than sorting members
	order := indices[:0]
	for i := range members {
		order = append(order, i)
	}
	slices.SortStableFunc(order, func(a, b int) int { return strings.Compare(members[a].Key, members[b].Key) })
	line = append(line, '{')
	begin := len(line)
	for i, at := range order {
		m := &members[at]
		if i+1 < len(order) && members[order[i+1]].Key == m.Key {
			continue // of members with the same name, the last one counts
		}
		if len(line) > begin {
			line = append(line, ',')
		}
		line = append(appendText(line, m.Key), ':')
		line = appendValue(line, m.Value)
	}
	return append(line, '}', '\n')
}

// WithAttrs returns a handler that adds members to its records.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	more := *h
	more.attrs = append([]slog.Attr{}, h.attrs...)
	for _, a := range attrs {
		a.Key = h.group + a.Key
		more.attrs = append(more.attrs, a)
	}
	return &more
}

// WithGroup returns a handler that prefixes the names of later members with the group's name and a
// dot.
func (h *handler) WithGroup(name string) slog.Handler {
	more := *h
	more.group += name + "."
	return &more
}

// appendValue appends a value: numbers and booleans in JSON, a duration as a number of
// milliseconds, and anything else as text without secrets.
func appendValue(line []byte, v slog.Value) []byte {
	switch v = v.Resolve(); v.Kind() {
	case slog.KindInt64:
		return strconv.AppendInt(line, v.Int64(), 10)
	case slog.KindUint64:
		return strconv.AppendUint(line, v.Uint64(), 10)
	case slog.KindFloat64:
		return appendFloat(line, v.Float64())
	case slog.KindBool:
		return strconv.AppendBool(line, v.Bool())
	case slog.KindDuration:
		return appendFloat(line, float64(v.Duration())/float64(time.Millisecond))
	case slog.KindAny:
		if text, ok := v.Any().(redacted); ok {
			return appendText(line, string(text))
		}
		return appendText(line, redact.Text(v.String()))
	default:
		return appendText(line, redact.Text(v.String()))
	}
}

// appendFloat appends a number, or null for NaN and the infinities, which JSON does not have.
func appendFloat(line []byte, f float64) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return append(line, "null"...)
	}
	return strconv.AppendFloat(line, f, 'f', -1, 64)
}

func appendText(line []byte, text string) []byte {
	line, _ = jsontext.AppendQuote(line, text) // it fails only for invalid UTF-8, which becomes U+FFFD
	return line
}
