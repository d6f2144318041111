//go:build !linux

package proc

import (
	"errors"
	"time"
)

const usageKnown = false

var errUsageUnknown = errors.New("this platform does not report the resources of a child")

func usageOf(int) (Usage, map[int]threadUsage, error) { return Usage{}, nil, errUsageUnknown }

func frozenOf(int) (bool, error) { return false, nil }

func suspendedTime() time.Duration { return 0 }
