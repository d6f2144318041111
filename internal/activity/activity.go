// Package activity writes and reads the daemon's activity log: lines of JSON in a file that is
// rotated. A [Log] takes the typed records of requests and connections ([exchange.Journal]), and
// any record of a [slog.Logger]. It removes secrets from every text, and gets no prompts and no
// answers. Logging puts a record into a queue. One goroutine formats the records and writes those
// of some 200 ms in one write. If the disk fails, lines are lost and counted, but no request fails.
// A [Reader] returns the records, [Tail] returns the newest lines, and a [Usage] sums up requests
// and tokens.
package activity

import (
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inferd-go/inferd/internal/exchange"
)

// File is the name of the newest file; older ones are File.1 to File.3.
const File = "inferd.ndjson"

// Limit is the size in bytes at which a file is rotated: the line that would exceed it begins a new
// file.
const Limit = 16 << 20

const older = 3 // number of files beside the newest

// Files returns the paths of a log's files, the newest first. They need not all exist.
func Files(dir string) []string {
	newest := filepath.Join(dir, File)
	names := []string{newest}
	for i := range older {
		names = append(names, newest+"."+strconv.Itoa(i+1))
	}
	return names
}

// Limits of the queue of records.
const (
	queueRecords = 4096
	batchBytes   = 64 << 10               // approximate size of one write
	maxQueueWait = 100 * time.Millisecond // longest wait for room in the queue
	// coalesce is the longest time that a record is queued before it is written: waking the writer
	// for each record costs more than writing it. A warning or an error is written at once,
	// together with the records before it.
	coalesce = 200 * time.Millisecond
	many     = 256 // queued records that are written at once: a longer queue would only take memory
)

// A Log writes to one folder. Any number of goroutines may use it.
type Log struct {
	dir    string
	limit  int64
	queue  chan entry
	due    *time.Timer   // fires when records have been queued for coalesce
	set    atomic.Bool   // due is running, or is about to be started
	urgent chan struct{} // buffered: wakes the writer at once
	closed chan struct{} // closed by Close: the queue takes no more entries
	ended  chan struct{} // closed when the queued entries are written
	once   sync.Once     // closes closed
	// stalled is set when a caller has waited for the whole of maxQueueWait in vain, and cleared when a
	// batch is written. While it is set, records that find the queue full are lost at once.
	stalled atomic.Bool
	lost    atomic.Int64 // lines

	// Used only by the writing goroutine.
	file    *os.File // nil if it could not be opened
	info    fs.FileInfo
	size    int64
	torn    bool        // the file may not end in a newline
	attrBuf []slog.Attr // reused for the attributes of requests
}

var _ io.Closer = (*Log)(nil)

// An entry is a queued record, or a call of Flush that waits for the records before it.
type entry struct {
	at        time.Time
	level     slog.Level
	component string
	msg       string
	attrs     []slog.Attr
	request   *exchange.Record // if not nil, the writer formats it as msg and attrs
	written   chan<- struct{}
}

// Open opens the log in a folder, which it creates with mode 0700 if it is missing. If a crash has
// torn the last line, a newline is written before the next one. Open refuses a folder or a file
// that other users can change (package trust), and a link in place of the file. A link in place of
// an older file is replaced by the rotation.
func Open(dir string) (*Log, error) {
	return open(dir, Limit)
}

func open(dir string, limit int64) (*Log, error) {
	l := &Log{
		dir: dir, limit: limit,
		queue: make(chan entry, queueRecords), due: time.NewTimer(coalesce), urgent: make(chan struct{}, 1),
		closed: make(chan struct{}), ended: make(chan struct{}), attrBuf: make([]slog.Attr, 0, maxMembers),
	}
	if err := l.open(); err != nil {
		return nil, fmt.Errorf("activity log: %w", err)
	}
	go l.run() // ends in Close
	return l, nil
}

// Lost returns the number of lines that could not be written; it is 0 for a nil log.
func (l *Log) Lost() int64 {
	if l == nil {
		return 0
	}
	return l.lost.Load()
}

// Flush returns when all earlier records are written or lost.
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

// Close writes the queued records and closes the file. Records that are logged later are lost. On a
// nil log it does nothing.
func (l *Log) Close() error {
	if l == nil {
		return nil
	}
	l.once.Do(func() { close(l.closed) })
	<-l.ended
	return nil
}

// enqueue passes an entry to the writer. If the queue is full, it waits for maxQueueWait at most,
// and then the entry is lost. From then until a batch is written, entries that find the queue full
// are lost at once.
func (l *Log) enqueue(e entry) {
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
	if l.stalled.Load() {
		l.lost.Add(1)
		return
	}
	timer := time.NewTimer(maxQueueWait)
	defer timer.Stop()
	select {
	case l.queue <- e:
		l.queued(e.level)
	case <-timer.C:
		l.stalled.Store(true)
		l.lost.Add(1)
	case <-l.closed:
		l.lost.Add(1)
	}
}

// queued wakes the writer for a record with the given level that was just queued: at once, or
// within coalesce.
func (l *Log) queued(level slog.Level) {
	switch {
	case level >= slog.LevelWarn || len(l.queue) >= many:
		l.hurry()
	case l.set.CompareAndSwap(false, true):
		l.due.Reset(coalesce)
	}
}

// hurry wakes the writer at once.
func (l *Log) hurry() {
	select {
	case l.urgent <- struct{}{}:
	default: // the writer has not yet handled the last wake-up
	}
}

// run writes records until the log is closed, and then the records that are still queued.
func (l *Log) run() {
	defer close(l.ended)
	defer func() {
		if l.file != nil {
			_ = l.file.Close() // the errors of writes are known already
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

// take appends the lines of an entry and of the entries behind it to batch, and writes batch when
// it has batchBytes, the queue is empty, or a Flush waits. It returns batch, so that its memory is
// used again.
func (l *Log) take(e entry, batch []byte) []byte {
	for {
		if e.written != nil {
			l.write(batch)
			batch = batch[:0]
			close(e.written)
		} else {
			if e.request != nil {
				e.msg, l.attrBuf = spell(l.attrBuf[:0], e.request)
				e.attrs = l.attrBuf
			}
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
		l.stalled.Store(false)
		return batch
	}
}
