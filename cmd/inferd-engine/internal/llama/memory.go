package llama

// What package batch calls CopySeq, CutSeq, SaveSeq, LoadSeq and [Model.Cuts].

// Copy is CopySeq.
func (c *Context) Copy(src, dst, n int) error { return c.CopySeq(src, dst, n) }

// Cut is CutSeq.
func (c *Context) Cut(seq, n int) error { return c.CutSeq(seq, n) }

// Cuts reports what the context's model does.
func (c *Context) Cuts() bool { return c.cuts }

// Save is SaveSeq.
func (c *Context) Save(seq int) ([]byte, error) { return c.SaveSeq(seq) }

// Load is LoadSeq.
func (c *Context) Load(seq int, state []byte) error { return c.LoadSeq(seq, state) }
