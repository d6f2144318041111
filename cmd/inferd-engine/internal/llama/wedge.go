//go:build !wedge

package llama

// A wedge makes an engine that was built with the tag wedge stop working on demand. Without the tag
// it does nothing; see wedge_wedge.go.
type wedge struct{}

func (*wedge) decode(*Context) {}
