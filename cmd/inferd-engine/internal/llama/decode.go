package llama

import (
	"errors"
	"fmt"

	yzma "github.com/hybridgroup/yzma/pkg/llama"
)

// Add adds a token to the next batch, at position pos of sequence seq. If logits is set, a Sampler
// can choose the token that follows it, after Decode. An error empties the batch.
func (c *Context) Add(tok Token, pos, seq int, logits bool) error {
	if err := c.check(pos, seq); err != nil {
		clear(c.nextLogits)
		c.empty()
		return err
	}
	setBatch(&c.batch, tok, pos, seq, logits)
	c.deepest = max(c.deepest, pos)
	c.nextLogits[c.entries] = logits
	c.entries++
	return nil
}

func (c *Context) empty() { c.entries, c.deepest, c.batch.NTokens = 0, 0, 0 }

// check returns an error for arguments that llama.cpp would accept although they corrupt its state.
func (c *Context) check(pos, seq int) error {
	switch {
	case seq < 0 || seq >= c.opt.NSeq: // a unified cache accepts any number, which corrupts it
		return fmt.Errorf("sequence %d: the context has sequences 0 to %d", seq, c.opt.NSeq-1)
	case pos < 0 || pos >= c.opt.NCtx:
		return fmt.Errorf("position %d: the context has %d tokens", pos, c.opt.NCtx)
	case c.entries == c.opt.NBatch:
		return fmt.Errorf("the batch is full: it has room for %d tokens", c.opt.NBatch)
	}
	return nil
}

// Pad allows up to most padding entries in the next batch only. Each needs a free cell while the
// batch is computed. Without a call of Pad there is no padding, except for [Context.Pairs].
func (c *Context) Pad(most int) { c.padding = most }

// Decode computes the batch and empties it. After [ErrCacheFull] no token of the batch is in the
// cache. After [ErrAborted] some may be: the caller must reset each sequence of the batch to its
// earlier length with [Context.Truncate], and drop the sequence if that fails. After any other error
// the caller should drop all sequences of the batch.
func (c *Context) Decode() error {
	if c.entries == 0 {
		return errors.New("the batch is empty")
	}
	c.model.wedge.decode(c)
	code, err := c.compute(c.pad())
	c.padding = 0
	c.logits, c.nextLogits = c.nextLogits, c.logits
	clear(c.nextLogits)
	clear(c.logits[c.entries:])
	c.empty()
	switch {
	case err == nil && code == 0:
		return nil
	case err == nil && code == codeCacheFull:
		err = ErrCacheFull
	case err == nil && code == codeAborted:
		err = ErrAborted
	case err == nil:
		err = messages.drain(fmt.Sprintf("llama_decode returned %d", code))
	}
	clear(c.logits)
	return err
}

// Results of llama_decode.
const (
	codeCacheFull = 1
	codeAborted   = 2
)

// compute decodes the batch together with padding tokens of the spare sequence, and returns the
// result of llama_decode.
func (c *Context) compute(padding int) (code int32, err error) {
	c.batch.NTokens = int32(c.entries)
	for pos := range padding {
		setBatch(&c.batch, 0, pos, int(c.spareSeq()), false)
	}
	if c.bindNext {
		c.bindNext = false
		c.pool.enter()
	}
	messages.begin(c.abort)
	c.abort.begin()
	code, err = yzma.Decode(c.handle, c.batch)
	messages.end(c.abort)
	c.abort.end()
	if padding > 0 {
		err = errors.Join(err, c.remove(int(c.spareSeq()), -1))
	}
	return code, err
}

// checkLogits returns an error if entry i of the batch decoded last has no logits: llama.cpp would
// end the process.
func (c *Context) checkLogits(i int) error {
	if i < 0 || i >= len(c.logits) || !c.logits[i] {
		return fmt.Errorf("entry %d of the batch has no logits", i)
	}
	return nil
}

// Abort makes a Decode under way return [ErrAborted] after at most one operation on one layer. It
// does not affect a later Decode. It may be called from any goroutine, before Close.
func (c *Context) Abort() { c.abort.raise() }
