//go:build unix && !linux

package launch

import (
	"errors"
	"os"
)

// inherited is the path of the file itself: this platform has no path to an open file, so a
// file that is replaced between its check and its load is not noticed.
func inherited(f *os.File, _ int) string { return f.Name() }

// fileOf returns a nameless file with that content.
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
