package llama

import (
	"errors"
	"fmt"

	yzma "github.com/hybridgroup/yzma/pkg/llama"
)

// ClearAll drops all sequences from the cache, if the model has one.
func (c *Context) ClearAll() error {
	if c.memory == 0 {
		return nil
	}
	return yzma.MemoryClear(c.memory, false)
}

// Truncate drops all but the first n tokens of a sequence. A sequence with at most n tokens is not
// changed. After an error, such as [ErrCannotTruncate], the sequence is unchanged.
func (c *Context) Truncate(seq, n int) error {
	if err := c.checkSeq(seq); err != nil {
		return err
	}
	length, err := c.lengthOf(seq)
	switch {
	case err != nil:
		return err
	case n < 0:
		return fmt.Errorf("cannot truncate a sequence to %d tokens", n)
	case n == 0:
		return c.remove(seq, -1)
	case n >= length:
		return nil
	case !c.canTruncate(seq, n):
		return ErrCannotTruncate
	}
	return c.remove(seq, n)
}

// Copy replaces the tokens of sequence dst with the first n tokens of src; the two sequences share the
// cells of these tokens. Wrong arguments leave dst unchanged; after any other error, such as
// [ErrCannotTruncate], dst is empty.
func (c *Context) Copy(src, dst, n int) error {
	if err := errors.Join(c.checkSeq(src), c.checkSeq(dst)); err != nil {
		return err
	}
	length, err := c.lengthOf(src)
	switch {
	case err != nil:
		return err
	case src == dst:
		return fmt.Errorf("cannot copy sequence %d to itself", src)
	case n < 0 || n > length:
		return fmt.Errorf("cannot copy %d tokens of a sequence that has %d", n, length)
	}
	if err := c.remove(dst, -1); err != nil {
		return err
	}
	switch {
	case n == 0:
		return nil
	case n == length:
		return yzma.MemorySeqCp(c.memory, yzma.SeqId(src), yzma.SeqId(dst), -1, -1)
	case !c.canTruncate(src, n):
		return ErrCannotTruncate
	default:
		return yzma.MemorySeqCp(c.memory, yzma.SeqId(src), yzma.SeqId(dst), 0, yzma.Pos(n))
	}
}

// Save returns the KV state of the tokens of a sequence at the positions from ≤ p < to. If the model
// cannot truncate sequences, only a whole sequence can be saved; if it has an attention window, a part
// must be shorter than the window. For any other part the error is [ErrCannotTruncate].
func (c *Context) Save(seq, from, to int) ([]byte, error) {
	if err := c.checkSeq(seq); err != nil {
		return nil, err
	}
	length, err := c.lengthOf(seq)
	switch {
	case err != nil:
		return nil, err
	case from < 0 || from >= to || to > length:
		return nil, fmt.Errorf("cannot save the tokens from %d to %d of a sequence that has %d", from, to, length)
	case from == 0 && to == length:
		return c.stateOf(seq)
	case c.wholeOnly, c.window > 0 && to-from >= c.window: // a saved state has only the tokens of the window before its end
		return nil, ErrCannotTruncate
	}
	if err := yzma.MemorySeqCp(c.memory, yzma.SeqId(seq), c.spareSeq(), yzma.Pos(from), yzma.Pos(to)); err != nil {
		return nil, err
	}
	state, err := c.stateOf(int(c.spareSeq()))
	return state, errors.Join(err, c.remove(int(c.spareSeq()), -1))
}

func (c *Context) stateOf(seq int) ([]byte, error) {
	state := make([]byte, yzma.StateSeqGetSize(c.handle, yzma.SeqId(seq)))
	if len(state) == 0 {
		return nil, fmt.Errorf("sequence %d has no state", seq)
	}
	if n := yzma.StateSeqGetData(c.handle, state, yzma.SeqId(seq)); n != uint64(len(state)) {
		return nil, fmt.Errorf("sequence %d has a state of %d bytes, llama.cpp wrote %d", seq, len(state), n)
	}
	return state, nil
}

// Load appends the tokens of a KV state to a sequence. The state must begin at the position at which
// the sequence ends, and come from [Context.Save] of this context or of another one of the same model.
// After an error the sequence is unchanged.
func (c *Context) Load(seq int, state []byte) error {
	if err := c.checkSeq(seq); err != nil {
		return err
	}
	length, err := c.lengthOf(seq)
	switch {
	case err != nil:
		return err
	case length == 0:
		return c.load(seq, 0, state)
	case c.wholeOnly:
		return ErrCannotTruncate
	}
	spare := int(c.spareSeq())
	if err := c.load(spare, length, state); err != nil {
		return err
	}
	return errors.Join(yzma.MemorySeqCp(c.memory, c.spareSeq(), yzma.SeqId(seq), -1, -1), c.remove(spare, -1))
}

// load loads a state, which must begin at position from, into an empty sequence. After an error the
// sequence is empty.
func (c *Context) load(seq, from int, state []byte) error {
	if len(state) == 0 || yzma.StateSeqSetData(c.handle, state, yzma.SeqId(seq)) != uint64(len(state)) {
		return errors.Join(fmt.Errorf("llama.cpp refused a state of %d bytes for sequence %d", len(state), seq), c.remove(seq, -1))
	}
	if c.wholeOnly || c.window > 0 { // then the state need not have its first tokens, so its beginning cannot be checked
		return nil
	}
	if first, err := yzma.MemorySeqPosMin(c.memory, yzma.SeqId(seq)); err != nil || int(first) != from {
		return errors.Join(fmt.Errorf("the state begins at position %d, but the sequence ends at %d", first, from), err, c.remove(seq, -1))
	}
	return nil
}

// Piece is the maximum number of tokens in one [Context.Save]; 0 is no limit.
func (c *Context) Piece() int { return max(0, c.window-1) }

// spareSeq returns the number of the spare sequence, which is empty between two calls of the methods.
// Only a context that does not encode, of a model that can truncate sequences, has one.
func (c *Context) spareSeq() yzma.SeqId { return yzma.SeqId(c.opt.NSeq) }

func (c *Context) checkSeq(seq int) error {
	if seq < 0 || seq >= c.opt.NSeq {
		return fmt.Errorf("sequence %d: the context has sequences 0 to %d", seq, c.opt.NSeq-1)
	}
	return nil
}

// lengthOf returns the number of tokens of a sequence in the cache.
func (c *Context) lengthOf(seq int) (int, error) {
	last, err := yzma.MemorySeqPosMax(c.memory, yzma.SeqId(seq))
	return int(last) + 1, err
}

// canTruncate reports whether a sequence can be truncated to its first n tokens: all tokens in the
// attention window before n must still be in the cache.
func (c *Context) canTruncate(seq, n int) bool {
	if c.wholeOnly {
		return false
	}
	if c.window == 0 {
		return true
	}
	first, err := yzma.MemorySeqPosMin(c.memory, yzma.SeqId(seq))
	return err == nil && int(first) <= max(0, n-c.window)
}

// remove drops the tokens of a sequence at the positions p ≥ from, or all if from is -1.
func (c *Context) remove(seq, from int) error {
	ok, err := yzma.MemorySeqRm(c.memory, yzma.SeqId(seq), yzma.Pos(from), -1)
	if err == nil && !ok {
		err = fmt.Errorf("llama.cpp refused to drop tokens of sequence %d", seq)
	}
	return err
}
