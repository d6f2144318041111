//go:build unix

package store_test

import "syscall"

const (
	errNoSpace     = syscall.ENOSPC
	errInputOutput = syscall.EIO
)
