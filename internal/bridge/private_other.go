//go:build !unix

package bridge

import "io/fs"

// private cannot tell: the rights of a file are not in its mode.
func private(fs.FileInfo) bool { return true }
