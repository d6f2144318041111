package activity

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/inferd-go/inferd/internal/trust"
)

func (l *Log) path() string { return filepath.Join(l.dir, File) }

func (l *Log) open() error {
	if err := os.MkdirAll(l.dir, 0o700); err != nil {
		return err
	}
	if err := trust.Folder(l.dir); err != nil {
		return err
	}
	f, err := trust.OpenFile(l.path(), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
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

// write appends lines to the file, and rotates it when it is full. Each line ends in a newline.
func (l *Log) write(lines []byte) {
	for len(lines) > 0 {
		n := l.fits(lines)
		if err := l.append(lines[:n]); err != nil {
			l.lost.Add(int64(bytes.Count(lines[:n], []byte("\n"))))
		}
		lines = lines[n:]
	}
}

// fits returns the length, in bytes, of the leading lines that fit into the file together. It is at
// least the length of one line, even if the file must be rotated before that line.
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
	if err := l.reopenIfMoved(); err != nil {
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
		// A full disk may take only a part of the lines. That part is cut off, so that the file
		// still ends in a complete line.
		if n > 0 && l.file.Truncate(l.size) != nil {
			l.size, l.torn = l.size+int64(n), true
		}
		return err
	}
	l.size, l.torn = l.size+int64(n), false
	return nil
}

// reopenIfMoved opens the file again if the file or its folder was moved or removed.
func (l *Log) reopenIfMoved() error {
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

// rotate renames the files and begins a new one. The oldest file is lost.
func (l *Log) rotate() error {
	_ = l.file.Close() // first, since Windows does not rename an open file
	l.file = nil
	names := Files(l.dir)
	for i := older; i > 0; i-- {
		if err := os.Rename(names[i-1], names[i]); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return l.open()
}
