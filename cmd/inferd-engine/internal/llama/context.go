package llama

import (
	"errors"
	"fmt"
	"time"

	yzma "github.com/hybridgroup/yzma/pkg/llama"
)

// ContextOptions are the sizes of a context, and the modes of its computation. All numbers must be at
// least 1.
type ContextOptions struct {
	NCtx    int // tokens in the cache, over all sequences
	NBatch  int // tokens of one Decode
	NSeq    int // maximum number of sequences; a recurrent model allocates a state for each
	Threads int // computing threads, including the calling one
	// Encodes is set for a context that computes vectors or scores, not text. Such a context computes
	// each batch in one piece.
	Encodes bool
	Pooling Pooling // of a context that encodes
	// Exact requests logits that depend only on the tokens of their own sequence. [Context.Inexact]
	// reports whether they do.
	Exact bool
	// Pairs makes the context pad batches of one token with a second one. It must be the result of
	// [Context.Pairs] of another context of the model with the same number of threads, so that both
	// contexts round alike.
	Pairs bool
	// IdlePriority is set for a context that computes only on idle processors. Its threads get the
	// lowest priority, and so does the thread that calls [NewContext].
	IdlePriority bool
}

// Pooling is the method that combines the vectors of a text's tokens into one. The set is closed.
type Pooling string

// Poolings.
const (
	OwnPooling Pooling = "" // the model's own method
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

// A Context is a model's KV cache and the next batch. All methods except Abort must be called from
// one goroutine that is locked to its OS thread, because ggml binds its threads to the computing
// thread.
//
// The file context.go makes and closes a context, decode.go computes batches, and memory.go changes
// the cache.
type Context struct {
	handle    yzma.Context
	memory    yzma.Memory
	pool      *threadpool
	bindNext  bool // the next Decode binds its thread to a processor, because another thread may have made the context
	abort     *abortFlag
	batch     yzma.Batch
	opt       ContextOptions
	wholeOnly bool // sequences cannot be truncated
	window    int  // the attention window of some layers, in tokens; 0 is none

	entries    int    // entries of the next batch
	deepest    int    // the largest position among them
	padding    int    // maximum number of padding entries in the next batch
	pairs      bool   // a batch of one entry is padded with a second one
	logits     []bool // by entry of the batch decoded last: it has logits
	nextLogits []bool // the same for the next batch
	model      *Model
	width      int           // of the model's embeddings; 0 if small batches are not padded
	firstToken time.Duration // see [Context.FirstToken]
}

// Failures of Decode that are not the fault of the batch.
var (
	ErrCacheFull = errors.New("the cache is full")
	ErrAborted   = errors.New("the computation was aborted")
)

// ErrCannotTruncate is the error of [Context.Copy], [Context.Truncate], [Context.Save] and
// [Context.Load] if the cache no longer has the state at the requested token: a recurrent model keeps
// only the latest state, and tokens older than an attention window may be overwritten. The caller can
// decode the tokens again instead.
var ErrCannotTruncate = errors.New("the cache no longer has the state at the requested token")

// NewContext makes a context, and warms it up unless it has idle priority. [Context.Close] frees it.
func NewContext(m *Model, opt ContextOptions) (_ *Context, err error) {
	params, err := contextParams(m, opt)
	if err != nil {
		return nil, err
	}
	c := &Context{opt: opt, model: m, wholeOnly: !m.CanTruncate(), nextLogits: make([]bool, opt.NBatch), logits: make([]bool, opt.NBatch)}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	if c.abort, err = newAbortFlag(); err != nil {
		return nil, fmt.Errorf("abort flag: %w", err)
	}
	params.AbortCallback, params.AbortCallbackData = c.abort.callback()
	messages.forget()
	if c.handle, err = yzma.InitFromModel(m.handle, params); err != nil {
		return nil, messages.drain(err.Error())
	}
	c.window = int(yzma.ModelNSWA(m.handle))
	c.pairs = opt.Pairs
	if !c.wholeOnly && !opt.Encodes && !opt.Exact && opt.NBatch >= attnTile && m.layers == 0 {
		c.width = int(yzma.ModelNEmbd(m.handle))
	}
	if c.memory, err = yzma.GetMemory(c.handle); err != nil {
		return nil, err
	}
	if err := c.attachThreads(); err != nil {
		return nil, err
	}
	c.batch = yzma.BatchInit(int32(opt.NBatch), 0, 1)
	if opt.IdlePriority { // a warm-up could take long beside other programs
		return c, nil
	}
	if err := c.warmUp(m); err != nil {
		return nil, fmt.Errorf("warm up: %w", err)
	}
	c.bindNext = true
	return c, nil
}

// contextParams returns llama.cpp's parameters of a context, except the abort callback.
func contextParams(m *Model, opt ContextOptions) (yzma.ContextParams, error) {
	params := yzma.ContextDefaultParams()
	if opt.NCtx < 1 || opt.NBatch < 1 || opt.NSeq < 1 || opt.Threads < 1 {
		return params, fmt.Errorf("context options %+v: NCtx, NBatch, NSeq and Threads must be at least 1", opt)
	}
	if most := int(yzma.MaxParallelSequences()) - 1; opt.NSeq > most {
		return params, fmt.Errorf("%d sequences at once are too many: llama.cpp supports at most %d", opt.NSeq, most)
	}
	params.NCtx = uint32(opt.NCtx)
	params.NBatch = uint32(opt.NBatch)
	params.NUbatch = uint32(min(opt.NBatch, 512))
	params.NSeqMax = uint32(opt.NSeq)
	if m.CanTruncate() && !opt.Encodes {
		params.NSeqMax++ // the spare sequence
	}
	// llama.cpp aborts if a context, or its batch, has fewer tokens than the context has sequences.
	params.NCtx, params.NBatch = max(params.NCtx, params.NSeqMax), max(params.NBatch, params.NSeqMax)
	params.NThreads = int32(opt.Threads)
	params.NThreadsBatch = int32(opt.Threads)
	params.FlashAttentionType = yzma.FlashAttentionTypeAuto
	if opt.Exact && m.layers == 0 && m.CanTruncate() {
		params.TypeV = separateV
	}
	if opt.Encodes {
		pooling, ok := poolings[opt.Pooling]
		if !ok {
			return params, fmt.Errorf("pooling %q is not known", opt.Pooling)
		}
		params.Embeddings = 1
		params.PoolingType = pooling
		params.NUbatch = params.NBatch // attention is bidirectional: a text must be computed whole
		m.isolateSequences(&params, opt)
	}
	params.KVUnified = 1 // one cache for all sequences
	// A smaller cache would suffice for layers with an attention window, but then hardly any sequence
	// could be truncated: tokens older than the window are overwritten at once.
	params.SwaFull = 1
	params.NoPerf = 1
	return params, nil
}

// attachThreads makes the threads of the context.
func (c *Context) attachThreads() (err error) {
	if c.opt.IdlePriority { // before the threads are made, because they inherit the priority
		if err := SetIdlePriority(); err != nil {
			return err
		}
	}
	if c.pool, err = newThreadpool(c.opt.Threads, !c.opt.IdlePriority); err != nil {
		return fmt.Errorf("thread pool: %w", err)
	}
	yzma.AttachThreadpool(c.handle, c.pool.handle, c.pool.handle)
	return nil
}

// warmTokens is the number of tokens of the second warm-up batch: with more than one row,
// llama.cpp uses the kernels of prompts.
const warmTokens = 4

// warmUp decodes one token, and then a few at once, so that one-time work does not delay the first
// request. If the processor lacks an instruction of either kernel, the process ends here, before the
// engine is ready.
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
	c.firstToken = time.Since(began)
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

// FirstToken is the time that the first token of the warm-up took, or 0 without a warm-up. Later
// tokens take less, because the first one includes reading the weights.
func (c *Context) FirstToken() time.Duration { return c.firstToken }

// Close frees the context, even if [NewContext] has not completed it.
func (c *Context) Close() {
	if c.pool != nil {
		yzma.DetachThreadpool(c.handle)
		c.pool.leave()
	}
	if c.handle != 0 {
		_ = yzma.Free(c.handle)
	}
	if c.abort != nil {
		c.abort.close()
	}
	if c.pool != nil {
		c.pool.close()
	}
	if c.batch.Token != nil {
		_ = yzma.BatchFree(c.batch)
	}
}

// NCtx is the number of cells of the cache: at least the requested number.
func (c *Context) NCtx() int { return int(yzma.NCtx(c.handle)) }

// Pooling is the pooling method of a context that encodes. If the options have [OwnPooling], it is the
// method of the model.
func (c *Context) Pooling() Pooling {
	actual := yzma.GetPoolingType(c.handle)
	for name, kind := range poolings {
		if kind == actual {
			return name
		}
	}
	return NoPooling
}

// AppendVector appends the result for a sequence of the batch decoded last to dst: the first n values
// of its vector, or, with n = 1 and [Rank], its score.
func (c *Context) AppendVector(dst []float32, seq, n int) ([]float32, error) {
	if !c.opt.Encodes || seq < 0 || seq >= c.opt.NSeq {
		return nil, fmt.Errorf("no vector of sequence %d: the context must encode, and has %d sequences", seq, c.opt.NSeq)
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
