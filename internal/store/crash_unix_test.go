//go:build unix

package store_test

import "syscall"

const (
	noSpace     = syscall.ENOSPC
	inputOutput = syscall.EIO
)
