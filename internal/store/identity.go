package store

import "os"

// An Identity is the state of a file: if it is unchanged, the content is unchanged, since no
// program can set ctime (but see isFresh). A field that the platform does not report is 0.
type Identity struct {
	Dev   uint64 `json:"dev"`
	Ino   uint64 `json:"ino"`
	Size  int64  `json:"size"`
	MTime int64  `json:"mtime_ns"`
	CTime int64  `json:"ctime_ns"`
}

func identityOf(info os.FileInfo) Identity {
	id := Identity{Size: info.Size(), MTime: info.ModTime().UnixNano()}
	id.Dev, id.Ino, id.CTime = inode(info)
	return id
}

// sameFile reports whether both identities are of one file, whatever its state.
func (id Identity) sameFile(other Identity) bool { return id.Dev == other.Dev && id.Ino == other.Ino }
