//go:build !linux

package store

import "os"

// reserve does nothing on this platform: a full disk is noticed when a write fails.
func reserve(*os.File, int64) error { return nil }
