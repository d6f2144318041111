// Package activity writes the daemon's activity log: lines of JSON in a file that is rotated.
// It is a [slog.Handler] and knows nothing of its callers. Secrets are removed from every text
// before it is written; prompts and answers never reach it. To log is to put a record into a
// queue: one goroutine writes, some 200 ms of records at a time. A failing disk loses lines,
// which are counted, and never a request.
package activity

import (
	"bytes"
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
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/redact"
)

// File is the name of the newest file; older ones are File.1 to File.3.
const File = "inferd.ndjson"

// Limit is the size of a file, in bytes, before it is rotated.
const Limit = 16 << 20

const older = 3 // files beside the newest one

// Files are the names of a log's files, the newest first. Not all need be there.
func Files(dir string) []string {
	newest := filepath.Join(dir, File)
	names := []string{newest}
	for i := range older {
		names = append(names, newest+"."+strconv.Itoa(i+1))
	}
	return names
}

// How much may be under way to the disk.
const (
	queueRecords = 4096
	batchBytes   = 64 << 10               // that are written at once, roughly
	patience     = 100 * time.Millisecond // of who logs with a disk that does not keep up
	// gather is the longest time that a record is queued before it is written: waking the
	// writer for each record costs more than writing it. A warning or an error is written at
	// once, with the records before it.
	gather = 200 * time.Millisecond
	many   = 256 // records that are written at once, too; more would only take memory
)

// A Log writes to one folder. It is used by any number of goroutines.
type Log struct {
	dir    string
	limit  int64
	queue  chan entry
	due    *time.Timer   // gather is over
	set    atomic.Bool   // due is set, or is about to be
	urgent chan struct{} // has room for one: wakes the writer at once
	closed chan struct{} // no entry is taken any more
	ended  chan struct{} // all that were taken are written
	once   sync.Once     // closes closed
	stuck  atomic.Bool   // somebody has waited in vain, and nothing was written since
	lost   atomic.Int64  // lines

	// Of the goroutine that writes.
	file *os.File // nil if it could not be opened
	info fs.FileInfo
	size int64
	torn bool // the file may not end in a newline
}

// An entry is a queued record, or a call of Flush waiting for the records before it.
type entry struct {
	at        time.Time
	level     slog.Level
	component string
	msg       string
	attrs     []slog.Attr
	written   chan<- struct{}
}

// Open opens the log of a folder, and makes that if it is not there: 0700. A last line that
// was torn by a crash is ended first.
func Open(dir string) (*Log, error) {
	return open(dir, Limit)
}

func open(dir string, limit int64) (*Log, error) {
	l := &Log{
		dir: dir, limit: limit,
		queue: make(chan entry, queueRecords), due: time.NewTimer(gather), urgent: make(chan struct{}, 1),
		closed: make(chan struct{}), ended: make(chan struct{}),
	}
	if err := l.open(); err != nil {
		return nil, fmt.Errorf("activity log: %w", err)
	}
	go l.run() // ends with Close, which waits for it
	return l, nil
}

// Lost returns how many lines could not be written. A nil log loses none.
func (l *Log) Lost() int64 {
	if l == nil {
		return 0
	}
	return l.lost.Load()
}

// Record takes an event of the component "activity". The attributes are the log's from then
// on.
func (l *Log) Record(level slog.Level, event string, attrs []slog.Attr) {
	l.hand(entry{at: time.Now(), level: level, component: "activity", msg: event, attrs: attrs})
}

// Flush returns once everything that was logged before is written, or lost.
func (l *Log) Flush() {
	written := make(chan struct{})
	select {
	case l.queue <- entry{written: written}:
		l.hurry()
		select {
		case <-written:
		case <-l.ended:
		}
	case <-l.closed:
	}
}

// Close writes the queued records and closes the file; later records are lost. A nil log has
// no file.
func (l *Log) Close() error {
	if l == nil {
		return nil
	}
	l.once.Do(func() { close(l.closed) })
	<-l.ended
	return nil
}

// hand hands an entry over. It waits for a disk that does not keep up, but not for long, and
// not again before that has moved.
func (l *Log) hand(e entry) {
	select {
	case <-l.closed:
		l.lost.Add(1)
		return
	default:
	}
	select {
	case l.queue <- e:
		l.queued(e.level)
		return
	default:
	}
	if l.stuck.Load() {
		l.lost.Add(1)
		return
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case l.queue <- e:
		l.queued(e.level)
	case <-timer.C:
		l.stuck.Store(true)
		l.lost.Add(1)
	case <-l.closed:
		l.lost.Add(1)
	}
}

// queued makes the writer wake up for a queued record of that level: at once or within gather.
func (l *Log) queued(level slog.Level) {
	switch {
	case level >= slog.LevelWarn || len(l.queue) >= many:
		l.hurry()
	case l.set.CompareAndSwap(false, true):
		l.due.Reset(gather)
	}
}

// hurry makes the writer write the queued records at once.
func (l *Log) hurry() {
	select {
	case l.urgent <- struct{}{}:
	default: // the writer has not woken up for the last call yet
	}
}

// run writes until the log is closed, and the queued records then.
func (l *Log) run() {
	defer close(l.ended)
	defer func() {
		if l.file != nil {
			_ = l.file.Close() // every write has been told already
		}
	}()
	var batch []byte
	for last := false; !last; {
		select {
		case <-l.due.C:
		case <-l.urgent:
		case <-l.closed:
			last = true
		}
		l.due.Stop()
		l.set.Store(false) // before the queue is read: a later record sets the timer again
		for more := true; more; {
			select {
			case e := <-l.queue:
				batch = l.take(e, batch[:0])
			default:
				more = false
			}
		}
	}
}

// take writes an entry and the entries queued behind it, up to a batch.
func (l *Log) take(e entry, batch []byte) []byte {
	for {
		if e.written != nil {
			l.write(batch)
			batch = batch[:0]
			close(e.written)
		} else {
			batch = e.appendLine(batch)
		}
		if len(batch) < batchBytes {
			select {
			case e = <-l.queue:
				continue
			default:
			}
		}
		l.write(batch)
		l.stuck.Store(false)
		return batch
	}
}

// Handler returns a slog.Handler for the records of a component, from level Info on.
func (l *Log) Handler(component string) slog.Handler { return &handler{log: l, component: component} }

func (l *Log) path() string { return filepath.Join(l.dir, File) }

func (l *Log) open() error {
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

// write appends lines, each of which ends in a newline.
func (l *Log) write(lines []byte) {
	for len(lines) > 0 {
		n := l.fits(lines)
		if err := l.append(lines[:n]); err != nil {
			l.lost.Add(int64(bytes.Count(lines[:n], []byte("\n"))))
		}
		lines = lines[n:]
	}
}

// fits returns the length of as many of the lines as go into the file before it is rotated:
// one at least, which may need a rotation itself.
func (l *Log) fits(lines []byte) int {
	if l.size+int64(len(lines)) <= l.limit {
		return len(lines)
	}
	n := bytes.IndexByte(lines, '\n') + 1
	for n < len(lines) {
		next := bytes.IndexByte(lines[n:], '\n') + 1
		if l.size+int64(n+next) > l.limit {
			break
		}
		n += next
	}
	return n
}

func (l *Log) append(lines []byte) error {
	if err := l.follow(); err != nil {
		return err
	}
	if l.size > 0 && l.size+int64(len(lines)) > l.limit {
		if err := l.rotate(); err != nil {
			return err
		}
	}
	if l.torn {
		lines = append([]byte("\n"), lines...)
	}
	n, err := l.file.Write(lines)
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

// follow opens the file again if it, or its folder, has been taken away.
func (l *Log) follow() error {
	if l.file != nil {
		info, err := os.Lstat(l.path())
		if err == nil && os.SameFile(info, l.info) {
			return nil
		}
		_ = l.file.Close()
		l.file = nil
	}
	return l.open()
}

// rotate begins a new file. It loses none but the oldest.
func (l *Log) rotate() error {
	_ = l.file.Close() // first: on Windows an open file is not renamed
	l.file = nil
	names := Files(l.dir)
	for i := older; i > 0; i-- {
		if err := os.Rename(names[i-1], names[i]); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return l.open()
}

// A handler makes lines of records.
type handler struct {
	log       *Log
	component string
	attrs     []slog.Attr
	group     string // prefix of names
}

// Enabled takes everything from info on.
func (h *handler) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

// Handle hands a record over. It never fails: what cannot be written is counted.
func (h *handler) Handle(_ context.Context, r slog.Record) error {
	attrs := make([]slog.Attr, 0, len(h.attrs)+r.NumAttrs()+ownMembers)
	attrs = append(attrs, h.attrs...)
	r.Attrs(func(a slog.Attr) bool {
		a.Key = h.group + a.Key
		attrs = append(attrs, a)
		return true
	})
	h.log.hand(entry{at: r.Time, level: r.Level, component: h.component, msg: r.Message, attrs: attrs})
	return nil
}

// ownMembers is how many members every line has.
const ownMembers = 4

// appendLine appends an entry as a line.
func (e *entry) appendLine(line []byte) []byte {
	members := append(e.attrs,
		slog.String("t", e.at.UTC().Format("2006-01-02T15:04:05.000000-07:00")),
		slog.String("level", strings.ToLower(e.level.String())),
		slog.String("component", e.component),
		slog.String("msg", e.msg))
	var room [32]int // moving numbers about is far cheaper than moving members
	order := room[:0]
	for i := range members {
		order = append(order, i)
	}
	slices.SortStableFunc(order, func(a, b int) int { return strings.Compare(members[a].Key, members[b].Key) })
	line = append(line, '{')
	begin := len(line)
	for i, at := range order {
		m := &members[at]
		if i+1 < len(order) && members[order[i+1]].Key == m.Key {
			continue // the last one holds
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

// WithGroup returns a handler that prefixes the names of members with the group's.
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
