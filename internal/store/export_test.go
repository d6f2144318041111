package store

// The rules of ranges, for their tests.
var (
	Insert = insert
	Clip   = clip
	Valid  = valid
)
