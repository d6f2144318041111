//go:build !windows

package activity

import "os"

// openShared opens a file for reading. Other processes can rename it meanwhile.
func openShared(name string) (*os.File, error) { return os.Open(name) }
