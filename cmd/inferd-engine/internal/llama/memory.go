package llama

// Copy, Cut and Cuts are what package batch calls CopySeq, CutSeq and [Model.Cuts].
func (c *Context) Copy(src, dst, n int) error { return c.CopySeq(src, dst, n) }

// Cut is CutSeq.
func (c *Context) Cut(seq, n int) error { return c.CutSeq(seq, n) }

// Cuts reports what the context's model does.
func (c *Context) Cuts() bool { return c.cuts }
