//go:build !unix

package bridge

import "io/fs"

// private always reports true: on this platform the mode of a file does not show its permissions.
func private(fs.FileInfo) bool { return true }
