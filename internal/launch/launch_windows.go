package launch

import (
	"errors"
	"os"
)

// Engines cannot be started on Windows yet; see package proc.

func inherited(f *os.File, _ int) string { return f.Name() }

func fileOf([]byte) (*os.File, error) { return nil, errors.ErrUnsupported }

func inheritedContract() ([]byte, error) { return nil, errors.ErrUnsupported }
