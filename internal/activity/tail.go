package activity

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
)

// tailBytes is the number of bytes that Tail reads at the end of each file.
const tailBytes = 128 << 10

// Tail returns the newest lines of the log in a folder, oldest first, at most n. It may return
// fewer, because it reads only the end of each file. If the folder has no log, it returns no lines.
func Tail(dir string, n int) ([][]byte, error) {
	var newest [][]byte // the newest line is first
	for _, name := range Files(dir) {
		lines, err := lastLines(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // missing, or just rotated
		case err != nil:
			return nil, fmt.Errorf("read activity log: %w", err)
		}
		slices.Reverse(lines)
		newest = append(newest, lines...)
		if len(newest) >= n {
			newest = newest[:n]
			break
		}
	}
	slices.Reverse(newest)
	return newest, nil
}

// lastLines returns the complete lines in the last tailBytes of a file, without empty ones.
func lastLines(name string) ([][]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	from := max(0, info.Size()-tailBytes)
	text := make([]byte, info.Size()-from)
	read, err := f.ReadAt(text, from)
	if text = text[:read]; read == 0 && err != nil && info.Size() > 0 {
		return nil, err
	}
	if from > 0 { // the first line is incomplete
		text = text[bytes.IndexByte(text, '\n')+1:]
	}
	text = text[:bytes.LastIndexByte(text, '\n')+1]
	lines := bytes.Split(text, []byte("\n"))
	return slices.DeleteFunc(lines, func(l []byte) bool { return len(l) == 0 }), nil
}
