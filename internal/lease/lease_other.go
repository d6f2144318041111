//go:build !linux

package lease

import (
	"errors"
	"os"
)

// notify returns a nil channel: without leases there is no break to report.
func notify() (breaks <-chan os.Signal, stop func()) { return nil, func() {} }

// duplicate opens the file again by its name, because no call duplicates every kind of descriptor on
// these systems. It fails if the name now belongs to another file.
func duplicate(f *os.File) (*os.File, error) {
	own, err := os.Open(f.Name())
	if err != nil {
		return nil, err
	}
	theirs, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, own.Close())
	}
	if ours, err := own.Stat(); err != nil || !os.SameFile(ours, theirs) {
		return nil, errors.Join(errors.New("it was replaced"), own.Close())
	}
	return own, nil
}

// take fails: this system has no leases.
func take(*os.File) error { return errors.ErrUnsupported }

// held is never called, because no file has a lease.
func held(*os.File) bool { return false }

// giveUp does nothing.
func giveUp(*os.File) {}
