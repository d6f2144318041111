//go:build unix && !linux

package launch

import (
	"errors"
	"os"
)

// inherited returns the path of the file itself, because this platform has no path to an open file.
// So the replacement of a file between its check and its load goes unnoticed.
func inherited(f *os.File, _ int) string { return f.Name() }

// fileOf returns an open file that holds content. Its path has been removed.
func fileOf(content []byte) (*os.File, error) {
	f, err := os.CreateTemp("", "inferd-launch-")
	if err != nil {
		return nil, err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, os.Remove(f.Name())); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
