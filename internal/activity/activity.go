// Package activity keeps the record of what the daemon has done: lines of JSON in a file
// that is rotated. It is a [slog.Handler], so that whoever logs does not know it. Secrets are
// taken out of every text before it is written; prompts and answers are never given to it. A
// failing disk loses lines, which are counted, and never a request.
package activity

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/redact"
)

// File is the name of the newest file; older ones are File.1 to File.3.
const File = "inferd.ndjson"

// Limit is the size of a file, in bytes, before it is rotated.
const Limit = 16 << 20

const older = 3 // files beside the newest one

// A Log writes to one folder. It is used by any number of goroutines.
type Log struct {
	dir   string
	limit int64

	mu   sync.Mutex // guards the fields below
	file *os.File   // nil if it could not be opened
	info fs.FileInfo
	size int64
	torn bool // the file may not end in a newline
	lost int64
}

// Open opens the log of a folder, and makes that if it is not there: 0700. A last line that
// was torn by a crash is ended first.
func Open(dir string) (*Log, error) {
	l := &Log{dir: dir, limit: Limit}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.openLocked(); err != nil {
		return nil, fmt.Errorf("activity log: %w", err)
	}
	return l, nil
}

// Lost returns how many lines could not be written. A nil log loses none.
func (l *Log) Lost() int64 {
	if l == nil {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost
}

// Close closes the file; what is logged after opens it again. A nil log has none.
func (l *Log) Close() error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	return err
}

// Handler returns a slog.Handler whose records say that component has written them. It
// takes what is not for debugging.
func (l *Log) Handler(component string) slog.Handler { return &handler{log: l, component: component} }

func (l *Log) path() string { return filepath.Join(l.dir, File) }

func (l *Log) openLocked() error {
	if err := os.MkdirAll(l.dir, 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(l.path(), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	l.file, l.info, l.size, l.torn = f, info, info.Size(), false
	if l.size > 0 {
		var last [1]byte
		_, err := f.ReadAt(last[:], l.size-1)
		l.torn = err != nil || last[0] != '\n'
	}
	return nil
}

// write appends a line, which ends in a newline.
func (l *Log) write(line []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.writeLocked(line); err != nil {
		l.lost++
	}
}

func (l *Log) writeLocked(line []byte) error {
	if err := l.followLocked(); err != nil {
		return err
	}
	if l.size > 0 && l.size+int64(len(line)) > l.limit {
		if err := l.rotateLocked(); err != nil {
			return err
		}
	}
	if l.torn {
		line = append([]byte("\n"), line...)
	}
	n, err := l.file.Write(line)
	if err != nil {
		// A full disk takes a part: it goes again, so that the next line begins at its place.
		if n > 0 && l.file.Truncate(l.size) != nil {
			l.size, l.torn = l.size+int64(n), true
		}
		return err
	}
	l.size, l.torn = l.size+int64(n), false
	return nil
}

// followLocked opens the file again if it, or its folder, has been taken away.
func (l *Log) followLocked() error {
	if l.file != nil {
		info, err := os.Lstat(l.path())
		if err == nil && os.SameFile(info, l.info) {
			return nil
		}
		_ = l.file.Close()
		l.file = nil
	}
	return l.openLocked()
}

// rotateLocked begins a new file. It loses none but the oldest.
func (l *Log) rotateLocked() error {
	for i := older; i > 0; i-- {
		from := l.path()
		if i > 1 {
			from = l.older(i - 1)
		}
		if err := os.Rename(from, l.older(i)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	_ = l.file.Close()
	l.file = nil
	return l.openLocked()
}

func (l *Log) older(i int) string { return l.path() + "." + strconv.Itoa(i) }

// A handler makes lines of records.
type handler struct {
	log       *Log
	component string
	attrs     []slog.Attr
	group     string // prefix of names
}

// Enabled takes everything from info on.
func (h *handler) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

// Handle writes a record. It never fails: what cannot be written is counted.
func (h *handler) Handle(_ context.Context, r slog.Record) error {
	members := make([]slog.Attr, 0, 4+len(h.attrs)+r.NumAttrs())
	members = append(members,
		slog.String("t", r.Time.UTC().Format("2006-01-02T15:04:05.000000-07:00")),
		slog.String("level", strings.ToLower(r.Level.String())),
		slog.String("component", h.component),
		slog.String("msg", r.Message))
	members = append(members, h.attrs...)
	r.Attrs(func(a slog.Attr) bool {
		a.Key = h.group + a.Key
		members = append(members, a)
		return true
	})
	slices.SortStableFunc(members, func(a, b slog.Attr) int { return strings.Compare(a.Key, b.Key) })
	line := []byte{'{'}
	for i, m := range members {
		if i+1 < len(members) && members[i+1].Key == m.Key {
			continue // the last one holds
		}
		if len(line) > 1 {
			line = append(line, ',')
		}
		line = append(appendText(line, m.Key), ':')
		line = appendValue(line, m.Value)
	}
	h.log.write(append(line, '}', '\n'))
	return nil
}

// WithAttrs returns a handler whose records have more members.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	more := *h
	more.attrs = append([]slog.Attr{}, h.attrs...)
	for _, a := range attrs {
		a.Key = h.group + a.Key
		more.attrs = append(more.attrs, a)
	}
	return &more
}

// WithGroup returns a handler whose members' names begin with the group's.
func (h *handler) WithGroup(name string) slog.Handler {
	more := *h
	more.group += name + "."
	return &more
}

// appendValue appends numbers and booleans as they are, and the rest as text without secrets.
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
	default:
		return appendText(line, redact.Text(v.String()))
	}
}

// appendFloat appends null for what JSON has no number for.
func appendFloat(line []byte, f float64) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return append(line, "null"...)
	}
	return strconv.AppendFloat(line, f, 'f', -1, 64)
}

func appendText(line []byte, text string) []byte {
	line, _ = jsontext.AppendQuote(line, text) // it only tells of invalid UTF-8, which becomes U+FFFD
	return line
}

var _ io.Closer = (*Log)(nil)
