package activity

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"
)

// A Reader reads the records of a log, oldest first, while a daemon may write and rotate it. It
// returns every line once, unless the daemon rotates all files while the Reader reads one. One
// goroutine at a time may use it.
type Reader struct {
	Dir   string
	Since time.Time // older records are skipped

	queue []*os.File // files to read next, oldest first
	file  *os.File   // the file being read; nil at the beginning
	info  fs.FileInfo
	buf   []byte // bytes that were read and not returned
	at    int64  // offset of buf in file
	over  bool   // the next bytes are the rest of a line that was too long
	torn  int
	rest  bool // the file ended in a line without a newline
}

// maxLine is the maximum length of a line in bytes. The daemon writes far shorter lines.
const maxLine = 1 << 20

const chunk = 64 << 10 // bytes of one read

// Found reports whether [Reader.Next] has found a file of the log.
func (r *Reader) Found() bool { return r.file != nil }

// Torn returns the number of lines that were skipped because they are not records. A daemon that is
// killed while it writes leaves one. The last line also counts while it is incomplete.
func (r *Reader) Torn() int {
	if r.rest {
		return r.torn + 1
	}
	return r.torn
}

// Next returns the next record, or [io.EOF] if there is none at present; a later call may return
// one.
func (r *Reader) Next() (*Record, error) {
	for {
		line, err := r.line()
		if err != nil {
			return nil, err
		}
		if rec := parse(line); rec == nil {
			r.torn++
		} else if !rec.Time.Before(r.Since) {
			return rec, nil
		}
	}
}

// Close closes the files.
func (r *Reader) Close() error {
	var errs []error
	for _, f := range append(r.queue, r.file) {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// line returns the next complete line without its newline, or [io.EOF] if there is none at present.
func (r *Reader) line() ([]byte, error) {
	for {
		if i := bytes.IndexByte(r.buf, '\n'); i >= 0 {
			line := r.buf[:i]
			r.buf, r.at = r.buf[i+1:], r.at+int64(i)+1
			if r.over {
				r.over = false
				continue
			}
			return line, nil
		}
		if len(r.buf) > maxLine {
			if !r.over {
				r.torn++
			}
			r.buf, r.at, r.over = nil, r.at+int64(len(r.buf)), true
		}
		more, err := r.fill()
		if err != nil {
			return nil, fmt.Errorf("read activity log: %w", err)
		}
		if more {
			continue
		}
		if more, err = r.advance(); err != nil {
			return nil, fmt.Errorf("read activity log: %w", err)
		}
		if !more {
			return nil, io.EOF
		}
	}
}

// fill reads more bytes of the file. It reports false at the end of the file.
func (r *Reader) fill() (bool, error) {
	if r.file == nil {
		return false, nil
	}
	have := len(r.buf)
	r.buf = append(make([]byte, 0, have+chunk), r.buf...) // a new buffer, because records refer to the old one
	n, err := r.file.ReadAt(r.buf[have:cap(r.buf)], r.at+int64(have))
	r.buf = r.buf[:have+n]
	if n > 0 || err == nil || errors.Is(err, io.EOF) {
		return n > 0, nil
	}
	return false, err
}

// advance goes on to the next newer file once the present one is read to its end. It reports false
// if there is nothing to read at present.
func (r *Reader) advance() (bool, error) {
	if len(r.queue) > 0 {
		return true, r.begin()
	}
	newer, err := r.newer()
	if err != nil {
		return false, err
	}
	if len(newer) > 0 {
		// The file was rotated. The daemon may have written to it after the end was read, but
		// before the rotation: it is read once more.
		r.queue = newer
		return true, nil
	}
	// The next call reads a partial line again from its beginning, because the daemon cuts it off
	// if the disk is full.
	r.rest = len(r.buf) > 0
	r.buf = nil
	if r.file != nil {
		if info, err := r.file.Stat(); err == nil && info.Size() < r.at {
			r.at = 0 // the file was truncated
		}
	}
	return false, nil
}

// begin makes the first file of the queue the present one.
func (r *Reader) begin() error {
	if len(r.buf) > 0 && !r.over {
		r.torn++
	}
	if r.file != nil {
		_ = r.file.Close() // no error matters: it was only read
	}
	r.file, r.queue = r.queue[0], r.queue[1:]
	r.buf, r.at, r.over, r.rest = nil, 0, false, false
	var err error
	r.info, err = r.file.Stat()
	return err
}

// newer opens the files that are newer than the present one, oldest first. At the beginning, these
// are all files that may hold records since r.Since. Rotation moves a file only to higher numbers,
// so a walk in the order of the numbers finds each file, some twice.
func (r *Reader) newer() (all []*os.File, err error) {
	defer func() {
		if err != nil {
			for _, f := range all {
				_ = f.Close()
			}
			all = nil
		}
	}()
	var infos []fs.FileInfo
	for i, name := range Files(r.Dir) {
		f, err := openShared(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return all, err
		}
		info, err := f.Stat()
		switch {
		case err != nil:
			return append(all, f), err
		case r.info != nil && os.SameFile(info, r.info):
			slices.Reverse(all)
			return all, f.Close()
		case r.file == nil && i > 0 && info.ModTime().Before(r.Since),
			slices.ContainsFunc(infos, func(other fs.FileInfo) bool { return os.SameFile(info, other) }):
			_ = f.Close()
		default:
			all, infos = append(all, f), append(infos, info)
		}
	}
	slices.Reverse(all)
	return all, nil
}

var _ io.Closer = (*Reader)(nil)
