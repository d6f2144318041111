//go:build !unix

package store

import "os"

// inode knows nothing: the size and the modification time have to do here.
func inode(os.FileInfo) (dev, ino uint64, ctime int64) { return 0, 0, 0 }

func links(os.FileInfo) uint64 { return 1 }

// isShared reports false: access lists decide here on the right to write.
func isShared(os.FileInfo) bool { return false }

// isOwn reports false: the owner is not known here.
func isOwn(os.FileInfo) bool { return false }
