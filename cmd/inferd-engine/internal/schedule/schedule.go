// Package schedule plans the steps of an engine: the number of tokens that each sequence decodes,
// the prompts for the prefill worker, and the evictions (plan.go). It also estimates the time of
// steps (steptimes.go). It is pure: it starts nothing, reads no clock, and depends only on the owner,
// the state and the token counts of a sequence. A stream is a decoding sequence.
package schedule

// State is the state of a sequence. The set is closed. The loop has one function that changes
// it; see package batch.
//
//	──▶ Waiting ──▶ Prefilling ──▶ Decoding
//	                  ▲    │
//	                  │    ▼
//	                  └─ Staged ◀──▶ Offloaded
//
//	evicted   Prefilling, Staged, Offloaded, Decoding ──▶ Waiting
//	paused    with cells ──▶ Paused, without ──▶ Suspended; and back when it resumes
//	          Paused ──▶ Suspended, when it is evicted or has been paused for long
//	ended     all ──▶ Done
type State uint8

// States. Sequences have cells in all states except Waiting, Suspended and Done.
const (
	Waiting    State = iota // it waits for cells
	Prefilling              // steps decode its pending tokens
	Staged                  // the prefill worker has a copy of its cells, but no chunk of its prompt
	Offloaded               // the prefill worker has a chunk of its prompt
	Decoding                // its last token is pending, and the next step decodes it
	Paused                  // it keeps its cells while there is room
	Suspended               // paused, without cells
	Done
)

// Running reports whether a sequence in this state is neither paused nor done.
func (s State) Running() bool { return s != Paused && s != Suspended && s != Done }

// HasCells reports whether a sequence in this state has cells.
func (s State) HasCells() bool {
	return s != Waiting && s != Suspended && s != Done
}

// AtWorker reports whether the prefill worker has a copy of the cells of a sequence in this state.
func (s State) AtWorker() bool { return s == Staged || s == Offloaded }

// Limits are the limits of a model's context.
type Limits struct {
	Context   int // cells, over all sequences
	Batch     int // tokens of one step
	Sequences int // running at once; at most Batch
	Retained  int // additional sequences with cells: paused and retained ones
}

// headroom is the number of cells that must stay free when a sequence starts while others run, so
// that their answers can grow for a while before one must be evicted.
func (l Limits) headroom() int { return min(256, l.Context/8) }

// A Sequence is the scheduler's view of a sequence.
type Sequence struct {
	Owner     string
	State     State
	Cached    int // tokens with cells
	Total     int // tokens of the prompt and of the answer so far; larger than Cached
	Exclusive int // number of Cached tokens on cells that no other active sequence shares
	Prefix    int // while Cached is 0: number of its first tokens that were found in the cache
	Shared    int // number of Prefix tokens on cells of active sequences
	// Evictable is set if the sequence may be evicted for an owner without a running sequence,
	// because it has decoded enough tokens since its last prefill.
	Evictable bool
	// NoOffload is set if a chunk of the sequence has failed at the prefill worker.
	NoOffload bool
}

// pending is the number of tokens to decode before the next one can be sampled.
func (s Sequence) pending() int { return s.Total - s.Cached - s.Prefix }

// active reports whether a sequence has tokens in the cache and is not paused.
func (s Sequence) active() bool { return s.Cached > 0 && s.State.Running() }

// paused reports whether a sequence has tokens in the cache and is paused.
func (s Sequence) paused() bool { return s.Cached > 0 && !s.State.Running() }

// needsCells reports whether a sequence has no cells and is not paused.
func (s Sequence) needsCells() bool {
	return s.Cached == 0 && s.State.Running()
}

// A Budget bounds the prompt tokens of a step with streams, and those at the prefill worker.
type Budget struct {
	Chunk  int  // prompt tokens of a step if its streams have not waited
	Now    int  // prompt tokens of the step to plan; less than Chunk if its streams have waited already
	Worker int  // room for tokens at the worker, over all sequences; 0 if there is no worker to use
	Busy   bool // the worker has an outstanding job
}

// A Step is the decision on the next step.
type Step struct {
	Evict   []int // indices of the sequences that lose their cells
	Feed    []int // by sequence: number of its pending tokens to decode
	Offload []int // by sequence: number of tokens that the prefill worker decodes beside the step
	// Urgent is set if the streams' next step should wait for the worker as long as the stall budget
	// allows: a prompt at the worker belongs to an owner with few running sequences, or there is only
	// one owner, or most running sequences are at the worker.
	Urgent bool
	// NoDelay is set if a prompt gets its tokens only in the step after this one. This step should
	// then not wait for the worker.
	NoDelay bool
}

// ChunkTokens is the number of tokens that the prefill worker decodes at once: enough to use the
// kernels for large batches, and few enough to end soon.
const ChunkTokens = 128
