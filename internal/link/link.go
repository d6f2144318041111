// Package link carries requests from the daemon to an engine process and its
// events back, many at once over one connection. [Client] is the daemon's end and
// [Server] the engine's; both are an [infer.Handler] seen from outside, so neither
// side can tell that a process boundary lies between them. It knows nothing of how
// the process was started, nor of what an engine does.
//
// # The protocol
//
// Both ends come from one build, so it has no version and may change freely.
// Messages are cut by [frame.Prefixed]. The daemon sends JSON messages: an order to
// do something, or to cancel, named by a call number that it never uses twice, or asks
// how the engine is. The engine sends JSON messages that report on loading, end a call,
// or say how it is; the text of an answer comes in between as blobs:
//
//	uvarint(call) uvarint(tokens) uvarint(cost) utf8[…]
//
// because it is what happens once a token and must not cost an allocation. Only text that
// comes with logprobs, which were asked for, is a JSON message.
package link

import (
	"fmt"
	"time"

	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/printable"
)

// A Report says how far an engine is on its way to answering. An engine sends
// them until it is ready or has failed.
type Report struct {
	State    State
	Path     string  `json:",omitzero"` // of Mapping: the model's file
	Progress float64 `json:",omitzero"` // of Mapping: 0 to 1
	NCtx     int     `json:",omitzero"` // of Caching and Ready: tokens that the context holds
	Slots    int     `json:",omitzero"` // of Ready: sequences that run at once
	Model    string  `json:",omitzero"` // of Ready: what the model calls itself
	Device   string  `json:",omitzero"` // of Ready: what computes, such as "cpu"
	Tasks    Tasks   `json:",omitzero"` // of Ready: what it can be asked for
	Variant  string  `json:",omitzero"` // of Selecting and Ready: the CPU variant of the libraries
	// GPULayers, of Ready, is how many layers a device beside the processor computes.
	GPULayers int `json:",omitzero"`
	// Generates, of Ready, says that the model can generate, also if its task is another.
	Generates bool   `json:",omitzero"`
	Problem   string `json:",omitzero"` // of Failed: why
}

// Tasks are what an engine can be asked for.
type Tasks struct{ Generate, Embed, Rerank bool }

// State is a step on the way to answering. The set is closed.
type State string

// States.
const (
	Selecting State = "selecting" // a CPU variant is about to be loaded
	Mapping   State = "mapping"   // the weights are being brought into memory
	Caching   State = "caching"   // room for the context is being made
	Ready     State = "ready"     // from here on the engine answers
	Failed    State = "failed"    // it never will, and the same start would fail again
)

// Stats is what an engine has to do and has done since it became ready. An engine that
// only reads has no cache and writes nothing: what says so of it stays 0.
type Stats struct {
	KVSize    int `json:",omitzero"` // tokens that the cache holds at most
	KVUsed    int `json:",omitzero"` // tokens in it, of sequences that run or are parked
	KVKept    int `json:",omitzero"` // tokens in it, of finished sequences, kept for those to come
	KVStored  int `json:",omitzero"` // tokens of such that were moved out of it, into memory
	Sequences int `json:",omitzero"` // that have not ended
	Parked    int `json:",omitzero"` // of those, such as wait for a turn or for room

	Steps         int64   `json:",omitzero"`
	Stalls        int64   `json:",omitzero"` // steps that held up somebody's next token for too long
	StepMS        float64 `json:",omitzero"` // of late
	PrefillTokens int64   `json:",omitzero"` // of prompts, computed
	DecodeTokens  int64   `json:",omitzero"` // of answers, computed
	CachedTokens  int64   `json:",omitzero"` // of prompts, found in the cache and not computed
	Dropped       int64   `json:",omitzero"` // times that a sequence lost its place in the cache for want of room
	Aborted       int64   `json:",omitzero"` // times that a step was broken off

	Users map[string]UserStats `json:",omitzero"` // by [infer.Peer.User]
}

// UserStats is what an engine has for a user.
type UserStats struct {
	KV           int   `json:",omitzero"` // tokens in the cache
	CachedTokens int64 `json:",omitzero"` // of prompts, found in the cache
}

// A Beat says how far an engine has come. It is answered by a goroutine that does not
// compute, so it comes while a step is stuck.
type Beat struct {
	// Steps counts finished units of work: steps, prefill jobs, samples, encode batches.
	Steps   uint64   `json:",omitzero"`
	Phase   string   `json:",omitzero"` // of the loop: "idle", "plan", "lock", "decode" or "sample"
	SinceMS int64    `json:",omitzero"` // milliseconds that the phase has lasted
	Calls   []uint64 `json:",omitzero"` // numbers of the calls in the step under way
	// StepCPUMS is the CPU time, in milliseconds over all threads, that the step under way
	// should take; 0 is not known.
	StepCPUMS int64 `json:",omitzero"`
	// Overrun names the phase, "sample" or "render", of a call that was failed for its CPU
	// time and whose thread still runs, and OverrunCPUMS the CPU time of that thread since.
	Overrun      string `json:",omitzero"`
	OverrunCPUMS int64  `json:",omitzero"`
}

// limit is the most bytes of a message. A request has passed the limit of its surface; as
// an order it is spelt a little differently, and must never break the link.
const limit = 2 * frame.Limit

// order is what the daemon sends: a request, what is to become of one, or the question how
// the engine is, which is no call and has the number 0. Of those one is open at a time.
type order struct {
	Call     uint64
	Generate *generate     `json:",omitzero"`
	Embed    *infer.Embed  `json:",omitzero"`
	Rerank   *infer.Rerank `json:",omitzero"`
	User     string        `json:",omitzero"` // who asks, as the kernel says: what they share is nobody else's
	Deadline time.Time     `json:",omitzero"`
	Cancel   bool          `json:",omitzero"`
	Pause    bool          `json:",omitzero"` // until Resume
	Resume   bool          `json:",omitzero"`
	Stats    bool          `json:",omitzero"`
	Beat     bool          `json:",omitzero"` // asks for a Beat; as Stats it is no call
}

// note is what the engine sends: a piece of the answer to a call that is no mere text, the
// end of one, a report, or how it is.
type note struct {
	Call    uint64         `json:",omitzero"`
	Text    *infer.Text    `json:",omitzero"`
	Vectors *infer.Vectors `json:",omitzero"`
	Scores  *infer.Scores  `json:",omitzero"`
	Done    *done          `json:",omitzero"`
	Fail    *failure       `json:",omitzero"`
	Report  *Report        `json:",omitzero"`
	Stats   *Stats         `json:",omitzero"`
	Beat    *Beat          `json:",omitzero"`
}

// done is an [infer.Done] as engines know it: they do not measure what a client waits for.
type done struct {
	Reason      infer.Reason
	In, Out     int
	Cached      int `json:",omitzero"`
	By, Model   string
	Unsatisfied bool `json:",omitzero"`
}

func doneOf(ev *infer.Done) *done {
	return &done{
		Reason: ev.Reason, In: ev.In, Out: ev.Out, Cached: ev.Cached,
		By: ev.By, Model: ev.Model, Unsatisfied: ev.Unsatisfied,
	}
}

func (d *done) event() *infer.Done {
	return &infer.Done{
		Reason: d.Reason, In: d.In, Out: d.Out, Cached: d.Cached,
		By: d.By, Model: printable.Text(d.Model), Unsatisfied: d.Unsatisfied,
	}
}

type failure struct {
	Code infer.Code
	Text string
}

// err returns the failure with its text cut: an engine's messages quote the model and the
// request.
func (f *failure) err() error { return infer.Errorf(f.Code, "%s", printable.Text(f.Text)) }

// protocolError is returned when the other end sends what it never should.
func protocolError(format string, args ...any) error {
	return fmt.Errorf("link protocol: "+format, args...)
}
