package backend

import "os"

// An Origin is the source of vectors and scores. The zero value is the same as no other.
type Origin struct {
	// File describes the model's file at the time of its load; nil if there is none.
	File os.FileInfo
	// Digest names the model's content; empty if it is not known.
	Digest string
	// Settings are all other settings that affect values or limits, in any form that is equal for
	// equal settings.
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

// sameFile reports whether a and b are one file, which has not been written to in between.
func sameFile(a, b os.FileInfo) bool {
	return a != nil && b != nil && os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}
