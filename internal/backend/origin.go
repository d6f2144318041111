package backend

import "os"

// An Origin is what vectors and scores come from. The zero value is like no other.
type Origin struct {
	// File is the model's file as it was when it was loaded; nil if there is none.
	File os.FileInfo
	// Digest names the model's content; empty if it is not known.
	Digest string
	// Settings are all others that values or limits depend on, in any spelling that is equal
	// for equal settings.
	Settings string
}

// Same reports whether values of both origins may be compared: the model file and the
// settings are the same.
func (o Origin) Same(other Origin) bool {
	if o.Settings != other.Settings {
		return false
	}
	return o.Digest != "" && o.Digest == other.Digest || sameFile(o.File, other.File)
}

// sameFile compares device and inode, and that nothing has been written in between.
func sameFile(a, b os.FileInfo) bool {
	return a != nil && b != nil && os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}
