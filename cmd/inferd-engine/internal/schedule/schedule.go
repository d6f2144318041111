// Package schedule decides on the steps of an engine: which sequences decode how many tokens,
// which prompts the prefill worker takes, and which sequences lose their cells (plan.go). It
// also estimates how long steps take (steptimes.go). It is pure: it starts nothing, reads no
// clock, and knows a sequence by its owner, its state and its token counts only.
package schedule

// State is the state of a sequence. The set is closed. The loop has one function that changes
// it; see package batch.
//
//	──▶ Waiting ──▶ Prefilling ──▶ Decoding ◀──▶ Choosing
//	                  ▲    │
//	                  │    ▼
//	                  └─ Staged ◀──▶ Offloaded
//
//	evicted   Prefilling, Staged, Offloaded, Decoding ──▶ Waiting
//	          Choosing ──▶ Evicted ──▶ Waiting, when the token is chosen
//	paused    with cells ──▶ Paused, without ──▶ Suspended; and back when it resumes
//	          Paused ──▶ Suspended, when it is evicted or has been paused for long
//	ended     all ──▶ Done
//
// A paused sequence may still be waiting for a token that is being chosen.
type State uint8

// States. All but Waiting, Evicted, Suspended and Done have cells.
const (
	Waiting    State = iota // for cells
	Prefilling              // steps decode its pending tokens
	Staged                  // the prefill worker has a copy of its cells, but no chunk of its prompt
	Offloaded               // the prefill worker has a chunk of its prompt
	Decoding                // it lacks one token, which the next step decodes
	Choosing                // its next token is being chosen beside the steps
	Evicted                 // it lost its cells while its next token is being chosen
	Paused                  // it keeps its cells while there is room
	Suspended               // paused, without cells
	Done
)

// Running reports whether a sequence in this state is neither paused nor done.
func (s State) Running() bool { return s != Paused && s != Suspended && s != Done }

// HasCells reports whether a sequence in this state has cells.
func (s State) HasCells() bool {
	return s != Waiting && s != Evicted && s != Suspended && s != Done
}

// AtWorker reports whether the prefill worker has a copy of the cells of such a sequence.
func (s State) AtWorker() bool { return s == Staged || s == Offloaded }

// Limits are the limits of a model's context.
type Limits struct {
	Context   int // cells, over all sequences
	Batch     int // tokens of one step
	Sequences int // that run at once; at most Batch
	Retained  int // sequences more that may have cells: paused and retained ones
}

// headroom is how many cells must stay free after a sequence is started beside others, so
// that none is evicted a few steps later.
func (l Limits) headroom() int { return min(256, l.Context/8) }

// A Sequence is the scheduler's view of a sequence.
type Sequence struct {
	Owner     string
	State     State
	Cached    int // tokens with cells
	Total     int // tokens of the prompt and of the answer so far, the one being chosen included; more than Cached
	Exclusive int // of Cached, those on cells that no other active sequence shares
	Prefix    int // while Cached is 0: tokens that are found in the cache
	Shared    int // of Prefix, those on cells that are active already
	// Evictable says that it has decoded so many tokens since its last prefill that it may be
	// evicted for an owner without any running sequence.
	Evictable bool
	// NoOffload says that the prefill worker has failed at it.
	NoOffload bool
}

// pending is how many tokens must be decoded before the next one can be chosen.
func (s Sequence) pending() int { return s.Total - s.Cached - s.Prefix }

// active reports whether a sequence has tokens in the cache and is not paused.
func (s Sequence) active() bool { return s.Cached > 0 && s.State.Running() }

// paused reports whether a sequence has tokens in the cache and is paused.
func (s Sequence) paused() bool { return s.Cached > 0 && !s.State.Running() }

// wants reports whether a sequence needs cells that it does not have yet.
func (s Sequence) wants() bool {
	return s.Cached == 0 && s.State.Running() && s.State != Choosing && s.State != Evicted
}

// A Budget bounds the prompt tokens of a step beside streams, and the prefill worker.
type Budget struct {
	Chunk  int  // prompt tokens of a step
	Now    int  // of this step; less than Chunk if its streams have waited already
	Worker int  // tokens of all sequences at the worker together; 0 if no worker is to be used
	Busy   bool // the worker has an outstanding job
}

// A Step is the decision on the next step.
type Step struct {
	Evict   []int // indices of the sequences that lose their cells
	Feed    []int // for every sequence, how many of its pending tokens to decode
	Offload []int // for every sequence, how many the prefill worker decodes meanwhile
	// Urgent says that streams should wait for the worker for as long as they may: a prompt
	// at the worker belongs to an owner with few running sequences, or there is one owner
	// only, or most running sequences are at the worker.
	Urgent bool
	// NoDelay says that a prompt waits for the step after this one: this one should not wait
	// for the worker.
	NoDelay bool
}

// ChunkTokens is how many tokens the prefill worker decodes at once: enough for all kernels,
// and little enough to be done soon.
const ChunkTokens = 128
