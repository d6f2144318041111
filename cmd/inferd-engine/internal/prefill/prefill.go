// Package prefill decodes chunks of prompts beside the steps of an engine, on a second context and
// a thread of its own, and returns their KV state. Package kv accounts for the cells of that
// context. The caller chooses the chunks; the package is independent of the engine's sequences.
//
// Prefilling inside decode steps delays every decoding sequence, so prompts must be cut into small
// chunks there. Small chunks cost two to five times as much per token, because the CPU attention
// kernels need at least 64 rows. So a [Worker] decodes larger chunks, on threads of a lower
// priority than those of the steps. These threads get the processors while the loop waits before
// its next step.
package prefill

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/kv"
)

// A Decoder decodes batches. All calls except Abort come from one OS thread.
type Decoder interface {
	// Add puts a token of a sequence at a position into the next batch.
	Add(tok kv.Token, pos, seq int, logits bool) error
	// Pad allows up to most cells for padding in the next batch.
	Pad(most int)
	// Decode computes the batch and empties it.
	Decode() error
	// Abort makes a Decode under way fail soon. It may be called from any goroutine.
	Abort()
}

// A Context is a worker's context of the engine's model. It has room for as many sequences as
// [Sequences] returns.
type Context struct {
	Decoder Decoder
	Memory  kv.Memory
	Piece   int // see [kv.Options]
	Close   func()
}

// Sequences returns the number of sequences that a worker's context must have if atOnce of them can be
// reserved. It is larger than atOnce, because an ended sequence can keep its number for a while, with
// dead cells.
func Sequences(atOnce int) int { return 2 * atOnce }

// A Worker does one job at a time, on an OS thread of its own. All calls except Abort must come
// from one goroutine.
type Worker struct {
	tokens  int
	context Context

	// Used only by the worker's thread.
	cache     *kv.Cache
	sequences []*kv.Sequence // by reserved number; nil if it has no tokens

	jobs  chan *Job     // to the thread; closed by Stop
	done  chan *Job     // from the thread; has room for one
	ended chan struct{} // closed when the thread has ended

	mu       sync.Mutex // guards the fields below, and Aborted of the outstanding job
	wake     func()     // called when a job is done
	job      *Job       // outstanding; nil if there is none
	decoding bool       // job is being decoded

	// Used only by the goroutine that calls the worker.
	reserved []bool // by sequence number
	released []int  // sequences to be dropped by the next job
}

// stopTimeout bounds the wait of Stop for the thread.
const stopTimeout = time.Second

// A Job is a list of chunks that are decoded together.
type Job struct {
	Chunks  []Chunk
	Err     error // if not nil, the job has failed, and no Export may be used
	Aborted bool  // Abort was called while the job was decoded

	drop []int // sequences to drop first
}

// A Chunk is a part of the prompt of one sequence.
type Chunk struct {
	Seq    int        // a reserved number
	Before []kv.Token // tokens to append first, with the KV state in Import
	Import kv.State   // KV state of Before
	Start  int        // number of tokens of the sequence with Before: the position of the first of Tokens
	Tokens []kv.Token // tokens to decode from there on
	Export kv.State   // KV state of Tokens, set by the worker
}

// Tokens is the number of tokens that a job decodes, over all chunks.
func (j *Job) Tokens() int {
	n := 0
	for i := range j.Chunks {
		n += len(j.Chunks[i].Tokens)
	}
	return n
}

// Start returns a worker with room for the given numbers of tokens and sequences, or the error of
// open. It calls open on the worker's thread to make the context. Stop ends the worker.
func Start(tokens, sequences int, open func() (Context, error)) (*Worker, error) {
	w := &Worker{
		tokens: tokens, reserved: make([]bool, sequences), sequences: make([]*kv.Sequence, sequences),
		jobs: make(chan *Job, 1), done: make(chan *Job, 1), ended: make(chan struct{}),
	}
	opened := make(chan error)
	go w.run(open, opened) // ends with Stop
	if err := <-opened; err != nil {
		return nil, err
	}
	return w, nil
}

// run does jobs until jobs is closed. It locks its thread, because a context belongs to one thread.
// At the end it unlocks the thread, so that Go may use it for other goroutines although open may have
// lowered its priority. That matters only in tests, in which the process lives on.
func (w *Worker) run(open func() (Context, error), opened chan<- error) {
	defer close(w.ended)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	c, err := open()
	w.context = c
	opened <- err
	if err != nil {
		return
	}
	defer c.Close()
	w.cache = kv.New(c.Memory, kv.Options{Cells: w.tokens, Sequences: Sequences(len(w.sequences)), Piece: c.Piece})
	for j := range w.jobs {
		j.Err = w.do(j)
		w.finish(j)
	}
}

// finish hands a job over to Poll, and calls wake.
func (w *Worker) finish(j *Job) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.job = nil
	w.done <- j
	w.wake()
}

func (w *Worker) do(j *Job) error {
	var errs []error
	for _, seq := range j.drop {
		errs = append(errs, w.drop(seq))
	}
	for i := range j.Chunks {
		errs = append(errs, w.prepare(&j.Chunks[i]))
	}
	if err := errors.Join(errs...); err != nil || j.Tokens() == 0 {
		return err
	}
	if err := w.decode(j); err != nil {
		return fmt.Errorf("decode: %w", err)
	}
	for i := range j.Chunks {
		c := &j.Chunks[i]
		var err error
		if c.Export, err = w.cache.Save(w.sequences[c.Seq], c.Start, c.Start+len(c.Tokens)); err != nil {
			return err
		}
	}
	return nil
}

// drop frees the sequence with the number seq, if there is one.
func (w *Worker) drop(seq int) error {
	s := w.sequences[seq]
	if s == nil {
		return nil
	}
	w.sequences[seq] = nil
	return w.cache.Free(s)
}

// prepare allocates the sequence of a chunk if necessary, and loads the tokens that precede the
// chunk.
func (w *Worker) prepare(c *Chunk) (err error) {
	if w.sequences[c.Seq] == nil {
		if w.sequences[c.Seq], err = w.cache.Allocate("", kv.Prefix{}); err != nil {
			return err
		}
	}
	if len(c.Before) == 0 {
		return nil
	}
	return w.cache.Load(w.sequences[c.Seq], c.Before, c.Import)
}

// decode decodes the tokens of a job. After an error it rolls the sequences back. It drops the error
// of a rollback, because the caller releases the sequences of a failed job anyway.
func (w *Worker) decode(j *Job) error {
	if err := w.cache.Reserve(j.Tokens()); err != nil {
		return err
	}
	for i := range j.Chunks { // all chunks are checked before the first Add: only an error of Add empties the batch
		c := &j.Chunks[i]
		if s := w.sequences[c.Seq]; s.Len() != c.Start {
			return fmt.Errorf("a chunk begins at position %d, but its sequence has %d tokens", c.Start, s.Len())
		}
	}
	for i := range j.Chunks {
		c := &j.Chunks[i]
		s := w.sequences[c.Seq]
		for n, tok := range c.Tokens {
			if err := w.context.Decoder.Add(tok, c.Start+n, s.ID(), false); err != nil {
				return err
			}
		}
	}
	w.context.Decoder.Pad(w.cache.Room() - j.Tokens())
	w.setDecoding(true)
	err := w.context.Decoder.Decode()
	w.setDecoding(false)
	for i := range j.Chunks {
		c := &j.Chunks[i]
		if s := w.sequences[c.Seq]; err == nil {
			w.cache.Append(s, c.Tokens)
		} else {
			_ = w.cache.Rollback(s) // the job has failed in any case
		}
	}
	return err
}

func (w *Worker) setDecoding(decoding bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.decoding = decoding
}

// Notify sets the function that is called on the worker's thread when a job is done. It must be
// called before the first Submit.
func (w *Worker) Notify(wake func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wake = wake
}

// Tokens returns the number of tokens for which the worker has room, over all sequences.
func (w *Worker) Tokens() int { return w.tokens }

// Reserve reserves a sequence and returns its number. The sequence is empty. Reserve reports false if
// no number is free.
func (w *Worker) Reserve() (seq int, ok bool) {
	seq = slices.Index(w.reserved, false)
	if seq < 0 {
		return 0, false
	}
	w.reserved[seq] = true
	return seq, true
}

// Release frees a reserved number. The next job first drops the tokens of the sequence.
func (w *Worker) Release(seq int) {
	w.reserved[seq] = false
	w.released = append(w.released, seq)
}

// Submit starts a job. No other job may be outstanding.
func (w *Worker) Submit(chunks []Chunk) {
	j := &Job{Chunks: chunks, drop: w.released}
	w.released = nil
	w.mu.Lock()
	defer w.mu.Unlock()
	w.job = j
	w.jobs <- j
}

// Poll returns the outstanding job if it is done, else nil.
func (w *Worker) Poll() *Job {
	select {
	case j := <-w.done:
		return j
	default:
		return nil
	}
}

// Abort aborts the outstanding job, if it is being decoded. Any goroutine may call it.
func (w *Worker) Abort() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.decoding && !w.job.Aborted {
		w.job.Aborted = true
		w.context.Decoder.Abort()
	}
}

// Stop aborts the outstanding job and ends the worker. It waits at most stopTimeout for the thread,
// which may take long to close its context while other programs use all processors.
func (w *Worker) Stop() {
	w.Abort()
	close(w.jobs)
	select {
	case <-w.ended:
	case <-time.After(stopTimeout):
	}
}
