//go:build !unix

package store

import "os"

// inode returns no inode: on this platform only the size and the modification time are compared.
func inode(os.FileInfo) (dev, ino uint64, ctime int64) { return 0, 0, 0 }

func links(os.FileInfo) uint64 { return 1 }

// isShared reports false: on this platform access lists control write access, not mode bits.
func isShared(os.FileInfo) bool { return false }

// isOwn reports false: on this platform the owner is not known.
func isOwn(os.FileInfo) bool { return false }
