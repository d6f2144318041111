package activity

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
)

// tailBytes is the part at the end of a file that Tail reads.
const tailBytes = 128 << 10

// Tail returns the newest lines of a folder's log, n at most, oldest first. The end of each file is
// read only, so there may be fewer. A folder without a log has none.
func Tail(dir string, n int) ([][]byte, error) {
	var newest [][]byte // the newest first
	for _, name := range Files(dir) {
		lines, err := lastLines(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // not written, or just rotated
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

// lastLines returns the complete lines at the end of a file.
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
	if from > 0 { // within a line
		text = text[bytes.IndexByte(text, '\n')+1:]
	}
	text = text[:bytes.LastIndexByte(text, '\n')+1]
	lines := bytes.Split(text, []byte("\n"))
	return slices.DeleteFunc(lines, func(l []byte) bool { return len(l) == 0 }), nil
}
