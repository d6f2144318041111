package llama

import (
	"errors"
	"fmt"
	"time"

	yzma "github.com/hybridgroup/yzma/pkg/llama"
)

// ContextOptions say how much a context holds. All must be at least 1.
type ContextOptions struct {
	NCtx    int // tokens in the cache, over all sequences
	NBatch  int // tokens that one Decode may have
	NSeq    int // sequences at once; a recurrent model keeps a state for each, used or not
	Threads int // that compute, the calling one included
	// Encodes is for a context that makes vectors or scores, not text: a batch is then
	// read in one piece.
	Encodes bool
	Pooling Pooling // of a context that encodes
	// GivesWay has the context compute when nobody else wants the processors. Its threads, and
	// from then on the one that calls, are the system's last.
	GivesWay bool
}

// Pooling is how the vectors of tokens become one. The set is closed.
type Pooling string

// Poolings.
const (
	OwnPooling Pooling = "" // the model says
	Mean       Pooling = "mean"
	First      Pooling = "cls"
	Last       Pooling = "last"
	Rank       Pooling = "rank" // into a score
	NoPooling  Pooling = "none"
)

var poolings = map[Pooling]yzma.PoolingType{
	OwnPooling: yzma.PoolingTypeUnspecified, Mean: yzma.PoolingTypeMean, First: yzma.PoolingTypeCLS, Last: yzma.PoolingTypeLast,
	Rank: yzma.PoolingTypeRank, NoPooling: yzma.PoolingTypeNone,
}

// A Context is a model's cache and the batch that is decoded next. All its methods must be
// called from one goroutine that is locked to its OS thread: ggml binds its threads to the
// one that computes.
type Context struct {
	handle yzma.Context
	memory yzma.Memory
	pool   *threadpool
	enters bool // the next to decode is the thread that will, which need not be the one that made this
	abort  *abortFlag
	batch  yzma.Batch
	opt    ContextOptions
	cuts   bool // whether a sequence can lose its end
	window int  // how many of the last tokens some layers see; 0 is all

	adding  int    // entries of the batch that is being built
	deepest int    // the furthest of their positions
	fills   int    // numbers that the model has for each token, see fill; 0 fills no batch
	logits  []bool // of the batch decoded last: which entries have them
	next    []bool // of the batch that is being built
	model   *Model
	first   time.Duration // taken by the first token, see [Context.FirstToken]
}

// What Decode returns when it is not the batch that is wrong.
var (
	ErrNoRoom  = errors.New("the cache is full")
	ErrAborted = errors.New("the computation was called off")
)

// ErrNoCut is what [Context.Copy] and [Context.Cut] return when the cache does not
// hold what a sequence that ends there would need. It can be read anew instead.
var ErrNoCut = errors.New("the cache cannot be cut there")

// NewContext makes a context and warms it up with one token, unless it gives way.
func NewContext(m *Model, opt ContextOptions) (*Context, error) {
	if opt.NCtx < 1 || opt.NBatch < 1 || opt.NSeq < 1 || opt.Threads < 1 {
		return nil, fmt.Errorf("a context of %+v", opt)
	}
	if most := int(yzma.MaxParallelSequences()) - 1; opt.NSeq > most {
		return nil, fmt.Errorf("%d sequences at once: llama.cpp has room for %d", opt.NSeq, most)
	}
	params := yzma.ContextDefaultParams()
	params.NCtx = uint32(opt.NCtx)
	params.NBatch = uint32(opt.NBatch)
	params.NUbatch = uint32(min(opt.NBatch, 512))
	params.NSeqMax = uint32(opt.NSeq)
	fills := 0
	if m.Cuts() && !opt.Encodes {
		params.NSeqMax++ // the spare one
		if opt.NBatch >= tile && m.layers == 0 {
			fills = int(yzma.ModelNEmbd(m.handle))
		}
	}
	params.NThreads = int32(opt.Threads)
	params.NThreadsBatch = int32(opt.Threads)
	params.FlashAttentionType = yzma.FlashAttentionTypeAuto
	if opt.Encodes {
		pooling, ok := poolings[opt.Pooling]
		if !ok {
			return nil, fmt.Errorf("pooling %q is not known", opt.Pooling)
		}
		params.Embeddings = 1
		params.PoolingType = pooling
		params.NUbatch = params.NBatch // attention goes both ways: all of a text at once
	}
	params.KVUnified = 1 // one cache for all: a sequence takes what it needs
	// Layers that see a few tokens only could do with a smaller cache, but then nearly no
	// sequence could be cut: what the window has left behind is overwritten at once.
	params.SwaFull = 1
	params.NoPerf = 1
	abort, err := newAbortFlag()
	if err != nil {
		return nil, fmt.Errorf("abort flag: %w", err)
	}
	params.AbortCallback, params.AbortCallbackData = abort.callback()
	messages.forget()
	handle, err := yzma.InitFromModel(m.handle, params)
	if err != nil {
		abort.close()
		return nil, messages.drain(err.Error())
	}
	c := &Context{
		handle: handle, abort: abort, opt: opt, cuts: m.Cuts(), window: int(yzma.ModelNSWA(m.handle)),
		fills: fills, model: m, next: make([]bool, opt.NBatch), logits: make([]bool, opt.NBatch),
	}
	if opt.GivesWay { // before its threads are made: they have the priority of who makes them
		if err := giveWay(); err != nil {
			c.Close()
			return nil, err
		}
	}
	if c.memory, err = yzma.GetMemory(handle); err != nil {
		c.Close()
		return nil, err
	}
	if c.pool, err = newThreadpool(opt.Threads, !opt.GivesWay); err != nil {
		c.Close()
		return nil, fmt.Errorf("thread pool: %w", err)
	}
	yzma.AttachThreadpool(handle, c.pool.handle, c.pool.handle)
	c.batch = yzma.BatchInit(int32(opt.NBatch), 0, 1)
	if opt.GivesWay { // that could take long, while others want the processors
		return c, nil
	}
	if err := c.warmUp(m); err != nil {
		c.Close()
		return nil, fmt.Errorf("warm up: %w", err)
	}
	c.enters = true
	return c, nil
}

// warmTokens is how many tokens the second warm-up batch has: with more than one row, llama.cpp
// uses the kernels of prompts.
const warmTokens = 4

// warmUp decodes one token, so that the first request does not pay for what is made once, and
// then a few at once. A processor that lacks an instruction of either kernel ends the process
// here, before the engine is ready.
func (c *Context) warmUp(m *Model) error {
	tok, ok := m.BOS()
	if !ok {
		tok = 0
	}
	if err := c.Add(tok, 0, 0, true); err != nil {
		return err
	}
	began := time.Now()
	if err := c.Decode(); err != nil {
		return err
	}
	c.first = time.Since(began)
	if err := c.ClearAll(); err != nil {
		return err
	}
	for pos := range min(warmTokens, c.opt.NBatch, c.opt.NCtx) {
		if err := c.Add(tok, pos, 0, true); err != nil {
			return err
		}
	}
	if err := c.Decode(); err != nil {
		return err
	}
	return c.ClearAll()
}

// FirstToken is the time that the warm-up took for its one token: more than later ones take,
// for it also reads the weights. It is 0 for a context that gives way, which is not warmed up.
func (c *Context) FirstToken() time.Duration { return c.first }

// Close gives the context's memory back. It may be called on one that is half made.
func (c *Context) Close() {
	if c.pool != nil {
		yzma.DetachThreadpool(c.handle)
		c.pool.leave()
	}
	_ = yzma.Free(c.handle)
	c.abort.close()
	if c.pool != nil {
		c.pool.close()
	}
	if c.batch.Token != nil {
		_ = yzma.BatchFree(c.batch)
	}
}

// Add puts a token of a sequence into the batch, at its position in the sequence. With
// logits a Sampler can choose the token behind it after Decode.
// An error empties the batch.
func (c *Context) Add(tok Token, pos, seq int, logits bool) error {
	if err := c.check(pos, seq); err != nil {
		clear(c.next)
		c.empty()
		return err
	}
	setBatch(&c.batch, tok, pos, seq, logits)
	c.deepest = max(c.deepest, pos)
	c.next[c.adding] = logits
	c.adding++
	return nil
}

func (c *Context) empty() { c.adding, c.deepest, c.batch.NTokens = 0, 0, 0 }

// check refuses what llama.cpp would take and break by.
func (c *Context) check(pos, seq int) error {
	switch {
	case seq < 0 || seq >= c.opt.NSeq: // a unified cache takes any number, and breaks
		return fmt.Errorf("sequence %d of %d", seq, c.opt.NSeq)
	case pos < 0 || pos >= c.opt.NCtx:
		return fmt.Errorf("position %d in a context of %d", pos, c.opt.NCtx)
	case c.adding == c.opt.NBatch:
		return fmt.Errorf("a batch of more than %d", c.opt.NBatch)
	}
	return nil
}

// Decode computes the batch and empties it. After [ErrNoRoom] nothing of it is in the cache.
// After [ErrAborted] a part may be: [Context.Cut] takes each of its sequences back to
// where it was, and one that cannot be cut must be cleared, for what it knew is lost. After
// another error they should all be dropped.
func (c *Context) Decode() error {
	if c.adding == 0 {
		return errors.New("an empty batch")
	}
	c.model.wedge.decode(c)
	filling := c.fill()
	code, err := c.compute(filling)
	if code == noRoom && filling > 0 { // for that, perhaps
		code, err = c.compute(0)
	}
	c.logits, c.next = c.next, c.logits
	clear(c.next)
	clear(c.logits[c.adding:])
	c.empty()
	switch {
	case err == nil && code == 0:
		return nil
	case err == nil && code == noRoom:
		err = ErrNoRoom
	case err == nil && code == 2:
		err = ErrAborted
	case err == nil:
		err = messages.drain(fmt.Sprintf("llama.cpp says %d", code))
	}
	clear(c.logits)
	return err
}

const noRoom = 1 // what llama_decode says then

// compute has llama.cpp decode the batch, and with it so many tokens that belong to nobody.
func (c *Context) compute(filling int) (code int32, err error) {
	c.batch.NTokens = int32(c.adding)
	for pos := range filling {
		setBatch(&c.batch, 0, pos, int(c.spare()), false)
	}
	if c.enters {
		c.enters = false
		c.pool.enter()
	}
	messages.begin(c.abort)
	c.abort.begin()
	code, err = yzma.Decode(c.handle, c.batch)
	messages.end(c.abort)
	c.abort.end()
	if filling > 0 {
		err = errors.Join(err, c.remove(int(c.spare()), -1))
	}
	return code, err
}

// checkLogits refuses an entry of the batch decoded last that was not asked for logits:
// llama.cpp ends the process over one.
func (c *Context) checkLogits(i int) error {
	if i < 0 || i >= len(c.logits) || !c.logits[i] {
		return fmt.Errorf("entry %d of the batch has no logits", i)
	}
	return nil
}

// Abort makes the Decode that is under way return [ErrAborted] soon, within the time of one
// operation on one layer. If none is, nothing happens: no later one is meant. Unlike all
// other methods it may be called from any goroutine, until Close is.
func (c *Context) Abort() { c.abort.raise() }

// NCtx is how many tokens the cache holds: what was asked for, or some more.
func (c *Context) NCtx() int { return int(yzma.NCtx(c.handle)) }

// Cuts reports whether sequences can be cut, as the context's model has it. Others are copied,
// saved and loaded whole.
func (c *Context) Cuts() bool { return c.cuts }

// ClearAll drops all sequences from the cache, if the model has one.
func (c *Context) ClearAll() error {
	if c.memory == 0 {
		return nil
	}
	return yzma.MemoryClear(c.memory, false)
}

// Pools reports how the vectors of a context that encodes are pooled.
func (c *Context) Pools() Pooling {
	actual := yzma.GetPoolingType(c.handle)
	for name, kind := range poolings {
		if kind == actual {
			return name
		}
	}
	return NoPooling
}

// AppendVector appends the first n numbers that a sequence of the batch decoded last has
// come to: n values of its vector, or the one of its score.
func (c *Context) AppendVector(dst []float32, seq, n int) ([]float32, error) {
	if !c.opt.Encodes || seq < 0 || seq >= c.opt.NSeq {
		return nil, fmt.Errorf("the vector of sequence %d of %d", seq, c.opt.NSeq)
	}
	v, err := yzma.GetEmbeddingsSeq(c.handle, yzma.SeqId(seq), int32(n))
	if err != nil {
		return nil, err
	}
	if v == nil {
		return nil, fmt.Errorf("sequence %d has no vector", seq)
	}
	return append(dst, v...), nil
}

// Clear drops a sequence from the cache.
func (c *Context) Clear(seq int) error {
	if err := c.checkSeq(seq); err != nil {
		return err
	}
	return c.remove(seq, -1)
}

// Cut drops the tokens of a sequence from position n on. One that is no longer than n
// stays as it is, and so does one that cannot be cut.
func (c *Context) Cut(seq, n int) error {
	if err := c.checkSeq(seq); err != nil {
		return err
	}
	length, err := c.lengthOf(seq)
	switch {
	case err != nil:
		return err
	case n < 0:
		return fmt.Errorf("a sequence of %d tokens", n)
	case n == 0:
		return c.remove(seq, -1)
	case n >= length:
		return nil
	case !c.mayEnd(seq, n):
		return ErrNoCut
	}
	return c.remove(seq, n)
}

// Copy makes the first n tokens of sequence src those of dst, which loses what it had.
// Both share their place in the cache. After an error dst is empty.
func (c *Context) Copy(src, dst, n int) error {
	if err := errors.Join(c.checkSeq(src), c.checkSeq(dst)); err != nil {
		return err
	}
	length, err := c.lengthOf(src)
	switch {
	case err != nil:
		return err
	case src == dst:
		return fmt.Errorf("a copy of sequence %d into itself", src)
	case n < 0 || n > length:
		return fmt.Errorf("%d tokens of a sequence of %d", n, length)
	}
	if err := c.remove(dst, -1); err != nil {
		return err
	}
	switch {
	case n == 0:
		return nil
	case n == length:
		return yzma.MemorySeqCp(c.memory, yzma.SeqId(src), yzma.SeqId(dst), -1, -1)
	case !c.mayEnd(src, n):
		return ErrNoCut
	default:
		return yzma.MemorySeqCp(c.memory, yzma.SeqId(src), yzma.SeqId(dst), 0, yzma.Pos(n))
	}
}

// Save returns what the cache holds of a sequence from position from up to to. Of one that
// cannot be cut it returns all or nothing, and behind a window only what is shorter than that.
func (c *Context) Save(seq, from, to int) ([]byte, error) {
	if err := c.checkSeq(seq); err != nil {
		return nil, err
	}
	length, err := c.lengthOf(seq)
	switch {
	case err != nil:
		return nil, err
	case from < 0 || from >= to || to > length:
		return nil, fmt.Errorf("tokens %d to %d of a sequence of %d", from, to, length)
	case from == 0 && to == length:
		return c.stateOf(seq)
	case !c.cuts, c.window > 0 && to-from >= c.window: // a state has no more than the window before its end
		return nil, ErrNoCut
	}
	if err := yzma.MemorySeqCp(c.memory, yzma.SeqId(seq), c.spare(), yzma.Pos(from), yzma.Pos(to)); err != nil {
		return nil, err
	}
	state, err := c.stateOf(int(c.spare()))
	return state, errors.Join(err, c.remove(int(c.spare()), -1))
}

func (c *Context) stateOf(seq int) ([]byte, error) {
	state := make([]byte, yzma.StateSeqGetSize(c.handle, yzma.SeqId(seq)))
	if len(state) == 0 {
		return nil, fmt.Errorf("sequence %d has no state", seq)
	}
	if n := yzma.StateSeqGetData(c.handle, state, yzma.SeqId(seq)); n != uint64(len(state)) {
		return nil, fmt.Errorf("sequence %d has a state of %d bytes, %d came", seq, len(state), n)
	}
	return state, nil
}

// Load adds to a sequence what [Context.Save] has returned, of this context or another one of
// the same model, of the tokens behind those that it has. After an error it has those.
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
	case !c.cuts:
		return ErrNoCut
	}
	spare := int(c.spare())
	if err := c.load(spare, length, state); err != nil {
		return err
	}
	return errors.Join(yzma.MemorySeqCp(c.memory, c.spare(), yzma.SeqId(seq), -1, -1), c.remove(spare, -1))
}

// load gives a sequence that is empty a state, which must begin at position from.
func (c *Context) load(seq, from int, state []byte) error {
	if len(state) == 0 || yzma.StateSeqSetData(c.handle, state, yzma.SeqId(seq)) != uint64(len(state)) {
		return errors.Join(fmt.Errorf("a state of %d bytes does not fit sequence %d", len(state), seq), c.remove(seq, -1))
	}
	if !c.cuts || c.window > 0 { // such a state does not say where it begins, or not of all layers
		return nil
	}
	if first, err := yzma.MemorySeqPosMin(c.memory, yzma.SeqId(seq)); err != nil || int(first) != from {
		return errors.Join(fmt.Errorf("a state that begins at %d, not at %d", first, from), err, c.remove(seq, -1))
	}
	return nil
}

// spare is the number of a sequence that is empty between two calls. Only a context whose
// sequences can be cut has it.
func (c *Context) spare() yzma.SeqId { return yzma.SeqId(c.opt.NSeq) }

func (c *Context) checkSeq(seq int) error {
	if seq < 0 || seq >= c.opt.NSeq {
		return fmt.Errorf("sequence %d of %d", seq, c.opt.NSeq)
	}
	return nil
}

// lengthOf is how many tokens of a sequence are in the cache.
func (c *Context) lengthOf(seq int) (int, error) {
	last, err := yzma.MemorySeqPosMax(c.memory, yzma.SeqId(seq))
	return int(last) + 1, err
}

// mayEnd reports whether the first n tokens of a sequence can be gone on from. Those that
// the window has left behind may have been overwritten; n tokens need the window before n.
func (c *Context) mayEnd(seq, n int) bool {
	if !c.cuts {
		return false
	}
	if c.window == 0 {
		return true
	}
	first, err := yzma.MemorySeqPosMin(c.memory, yzma.SeqId(seq))
	return err == nil && int(first) <= max(0, n-c.window)
}

// remove drops the tokens of a sequence from position from on; -1 is all.
func (c *Context) remove(seq, from int) error {
	ok, err := yzma.MemorySeqRm(c.memory, yzma.SeqId(seq), yzma.Pos(from), -1)
	if err == nil && !ok {
		err = fmt.Errorf("sequence %d cannot be dropped", seq)
	}
	return err
}
