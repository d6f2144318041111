//go:build !windows

package activity

import "os"

// openShared opens a file to read it, so that others may rename it meanwhile.
func openShared(name string) (*os.File, error) { return os.Open(name) }
