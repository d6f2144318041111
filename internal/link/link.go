// Package link carries requests from the daemon to an engine process, and events back. One
// connection carries many requests at once. [Client] is the daemon's end and [Server] the engine's;
// Client is an [infer.Handler], and Server calls one, so the process boundary is invisible to both
// sides. Requests and events cross unchanged: the package decides nothing about them. It depends
// neither on the way in which the process is started nor on the way in which an engine computes.
//
// # The protocol
//
// Both ends come from one build, so the protocol has no version and may change freely.
// [frame.Prefixed] delimits the messages.
//
// The daemon sends JSON messages: a request with a call number that is never used twice,
// a change of a call (cancel, pause, resume), or a query of the engine's statistics or
// progress. The attachments of a request follow its message, one blob each, in order.
//
// The engine sends JSON messages: reports while it loads, prompts, tool calls, the end of a call,
// statistics and progress. Text and thinking come as blobs:
//
//	kind:u8 uvarint(call) uvarint(tokens) uvarint(cost) utf8[…]
//
// because there is one for each token, which must not cost an allocation. Text with logprobs is a
// JSON message.
package link

import (
	"fmt"

	"github.com/inferd-go/inferd/internal/infer"
)

// A Report is an engine's progress in loading. An engine sends reports until it is ready
// or has failed.
type Report struct {
	State    State
	Path     string  // of Mapping: the model's file
	Progress float64 // of Mapping: 0 to 1
	NCtx     int     // of Caching and Ready: tokens of the context; of Ready, of the first task's context
	Slots    int     // of Ready: sequences that run at once
	Model    string  // of Ready: the model's own name
	// Of Ready: facts from the model's file. 0 and empty mean unknown.
	Params       uint64 // weights
	Size         uint64 // of the weights, in bytes
	Architecture string // such as "llama"
	Quantization string // such as "Q4_K_M"

	Device  string // of Ready: the computing device, such as "cpu"
	Variant string // of Selecting and Ready: the CPU variant of the libraries
	// Abilities, of Ready, are the tasks and features that the engine supports.
	Abilities infer.Abilities
	// GPULayers, of Ready, is the number of layers computed on a device other than the CPU.
	GPULayers int
	// EmbedNCtx and RerankNCtx, of Ready, are the sizes of the contexts of these tasks, in tokens;
	// 0 if the engine does not have the task.
	EmbedNCtx, RerankNCtx int
	// NoTemplate, of Ready, reports that the engine generates with a model without a chat
	// template: conversations are rendered as plain text.
	NoTemplate bool
	// Template, of Ready, is the source of the model's chat template; empty if it has none.
	Template string
	// Exact, of Ready, reports that equal requests get answers that are the same bit for bit,
	// whatever other requests are computed with them. Inexact is the reason if Exact is false
	// although the launch contract demanded it.
	Exact   bool
	Inexact string
	// Warnings, of Ready, are for the operator: the engine's assumptions about its model.
	Warnings []string
	Problem  string // of Failed: the cause
}

// State is a step of loading. The set is closed.
type State string

// States.
const (
	Selecting State = "selecting" // a CPU variant is about to be loaded
	Mapping   State = "mapping"   // the weights are being brought into memory
	Caching   State = "caching"   // the context is being allocated
	Ready     State = "ready"     // from here on the engine answers
	Failed    State = "failed"    // loading failed, and the same start would fail again
)

// A Beat reports the progress of an engine. It is not sent by a goroutine of a computing loop, so
// it arrives even while a step hangs.
//
// An engine has a computing loop for each task. If any of several loops computes, the beat
// describes only the loop that Loop names: otherwise the progress of one loop could hide that
// another one hangs.
type Beat struct {
	// Loop is the number, from 1, of the loop that the beat describes. Of several loops it is the
	// one whose phase has lasted longest; loops in phase "idle" or "lock" do not count. 0 means
	// that the beat describes all loops, because there is only one, or none computes.
	Loop int
	// Steps counts finished units of work: steps, prefill jobs, samples, encode batches.
	Steps   uint64
	Phase   string   // of the loop: "idle", "plan", "lock", "decode" or "sample"
	SinceMS int64    // milliseconds that the phase has lasted
	Calls   []uint64 // numbers of the calls in the present step
	// StepCPUMS is the expected CPU time of the present step, in milliseconds over all threads; 0
	// means unknown.
	StepCPUMS int64
	// Overrun names the phase, such as "render", of a call that has failed because it exceeded its
	// CPU time, but whose thread still runs. OverrunCPUMS is the CPU time, in milliseconds, that
	// the thread has used since the failure.
	Overrun      string
	OverrunCPUMS int64
}

// protocolError is the error for a message that violates the protocol.
func protocolError(format string, args ...any) error {
	return fmt.Errorf("link protocol: "+format, args...)
}
