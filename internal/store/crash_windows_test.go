package store_test

import "golang.org/x/sys/windows"

const (
	noSpace     = windows.ERROR_DISK_FULL
	inputOutput = windows.ERROR_IO_DEVICE
)
