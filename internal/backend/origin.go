package backend

import "os"

// An Origin is the source of vectors and scores. The zero value is an unknown source.
type Origin struct {
	// File describes the model's file at the time of its load; nil if there is none.
	File os.FileInfo
	// Digest identifies the model's content; empty if it is not known.
	Digest string
	// Settings encodes all other settings that affect values or limits. Equal settings have equal
	// texts.
	Settings string
}

// Same reports whether values of both origins may be compared: their settings are equal, and their
// model has the same known digest or the same unchanged file. An unknown source is not the same as
// any other, known or unknown.
func (o Origin) Same(other Origin) bool {
	if o.Settings != other.Settings {
		return false
	}
	return o.Digest != "" && o.Digest == other.Digest || sameFile(o.File, other.File)
}

// sameFile reports whether a and b describe one file with the same size and modification time.
func sameFile(a, b os.FileInfo) bool {
	return a != nil && b != nil && os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}
