//go:build !unix

package bridge

import "io/fs"

// private reports true: on this platform the mode does not show the permissions of a file.
func private(fs.FileInfo) bool { return true }
