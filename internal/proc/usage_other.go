//go:build !linux

package proc

import (
	"errors"
	"time"
)

func usageOf(int) (Usage, map[int]threadUsage, error) { return Usage{}, nil, errors.ErrUnsupported }

func frozenOf(int) (bool, error) { return false, nil }

func suspendedTime() time.Duration { return 0 }
