// Package stats declares the load and the counters of a daemon, once for all programs: an engine
// counts into an [Engine], the link and the control socket carry it, and [Daemon] is the answer of
// the control socket, which the client returns. A new counter is a field here, and the line of code
// that counts. The JSON members are specified in spec/control.md. The package only adds values up,
// and does not know how they are measured.
package stats

// A Daemon is the present load of the daemon and its counts since it started.
type Daemon struct {
	UptimeMS    int64     `json:"uptime_ms"`
	Version     string    `json:"version"`
	Running     int       `json:"running"`     // requests
	Waiting     int       `json:"waiting"`     // requests
	Parked      int       `json:"parked"`      // requests
	Stalled     int       `json:"stalled"`     // requests
	Connections int       `json:"connections"` // of all sockets
	HeldBytes   int64     `json:"held_bytes"`  // reserved for large messages
	Goroutines  int       `json:"goroutines"`  // of the daemon
	HeapBytes   uint64    `json:"heap_bytes"`  // of the daemon, in use
	LogLost     int64     `json:"log_lost"`    // lines of the activity log that were not written
	Callers     []Caller  `json:"callers"`     // active and recent
	Backends    []Backend `json:"backends"`    // in config order
	// Listeners are the sockets and addresses in the order of their binding; none from an older daemon.
	Listeners []Listener `json:"listeners,omitzero"`
}

// A Listener is a surface where clients can connect.
type Listener struct {
	Surface string `json:"surface"` // "v1", "v2", "lp", "embed", "rerank", "http", "admin" or "control"
	Addr    string `json:"addr"`    // the path of a socket, the name of a pipe, or an address and a port
}

// A Caller is a user and an executable. Members that the kernel does not report are empty.
type Caller struct {
	User    string `json:"user"`    // uid
	Program string `json:"program"` // device and inode of its executable
	Exe     string `json:"exe"`     // its path
	Counts
	Refused  int64 `json:"refused"`   // requests, because the queue was full
	KVTokens int   `json:"kv_tokens"` // in the caches of engines, for all programs of the user
}

// Counts are the requests of a caller or an entry.
type Counts struct {
	Running      int     `json:"running"`
	Waiting      int     `json:"waiting"`
	Parked       int     `json:"parked"`        // preempted; they are part of Waiting
	Stalled      int     `json:"stalled"`       // neither running nor waiting: the client does not read
	Requests     int64   `json:"requests"`      // ended
	InputTokens  int64   `json:"input_tokens"`  // of ended requests
	OutputTokens int64   `json:"output_tokens"` // of ended requests
	CachedTokens int64   `json:"cached_tokens"` // of InputTokens, found in a cache
	Rate         float64 `json:"tokens_per_s"`  // of output, at present
}

// A Backend is an entry of the daemon's config.
type Backend struct {
	Name  string `json:"name"`
	Kind  string `json:"kind"`  // "llamacpp" or "mock"
	State string `json:"state"` // "ready", "loading" or "gave_up"
	Slots int    `json:"slots"` // the most requests that run at once
	// Breaker is "closed", "open" while the entry gets no requests after repeated failures, or
	// "half_open" while one request is tried.
	Breaker string `json:"breaker,omitempty"`
	Counts

	// The fields below are for entries with an engine.
	Reason       string  `json:"reason,omitzero"`        // for giving it up
	Model        string  `json:"model,omitzero"`         // name in the model's metadata
	Device       string  `json:"device,omitzero"`        // compute device, such as "cpu"
	NCtx         int     `json:"n_ctx,omitzero"`         // tokens, of the context
	CPUVariant   string  `json:"cpu_variant,omitzero"`   // of llama.cpp's libraries, the computing one
	Libraries    string  `json:"libraries,omitzero"`     // "verified" or "unverified"; empty from an older daemon
	Exact        *bool   `json:"exact,omitzero"`         // whether answers are exact; nil if the config does not ask for it
	Inexact      string  `json:"inexact,omitzero"`       // why they are not
	PID          int     `json:"pid,omitzero"`           // of the engine; 0 without one
	Restarts     int     `json:"restarts,omitzero"`      // of the engine
	RestartsHour int     `json:"restarts_hour,omitzero"` // within the last hour
	WedgedKills  int     `json:"wedged_kills,omitzero"`  // engines that the watchdog killed
	LastKill     string  `json:"last_kill,omitzero"`     // reason and time of the latest of these
	Silent       bool    `json:"silent,omitzero"`        // it is ready, but did not report: it is stopped, or very slow
	Engine       *Engine `json:"engine,omitzero"`        // its report; nil without one
}

// An Engine is the report of an engine, over all its tasks. Counts are since it became ready.
// Embedding and reranking use no cache and decode nothing: without a task that generates, those
// fields stay 0.
type Engine struct {
	KVSize        int     `json:"kv_size_tokens"`   // capacity of the cache
	KVUsed        int     `json:"kv_used_tokens"`   // in the cache, of unfinished sequences
	KVKept        int     `json:"kv_kept_tokens"`   // in the cache, retained for later requests
	KVStored      int     `json:"kv_stored_tokens"` // retained and offloaded to memory
	KVDead        int     `json:"kv_dead_tokens"`   // in dead cells
	Sequences     int     `json:"sequences"`        // unfinished
	Parked        int     `json:"parked"`           // of those, paused or without room in the cache
	Steps         int64   `json:"steps"`
	StepMS        float64 `json:"step_ms"`         // recent time of a step, in milliseconds; of the first task
	Stalls        int64   `json:"stalls"`          // steps that delayed a stream beyond max_stall_ms
	PrefillTokens int64   `json:"prefill_tokens"`  // prompt tokens computed, and tokens of texts
	DecodeTokens  int64   `json:"decode_tokens"`   // answer tokens computed
	CachedTokens  int64   `json:"cached_tokens"`   // of prompts, found in the cache
	Dropped       int64   `json:"dropped"`         // sequences that lost their cells to others
	Aborted       int64   `json:"aborted"`         // steps and prefill jobs that were called off
	KVSlides      int64   `json:"kv_slides"`       // times that the cells in use were moved together
	KVSlid        int64   `json:"kv_slid_tokens"`  // tokens that were moved then
	Users         []User  `json:"users,omitempty"` // users with KV or cached tokens, by name
}

// A User is the part of an engine's report for one user.
type User struct {
	User         string `json:"user"`          // uid; empty if unknown
	KVTokens     int    `json:"kv_tokens"`     // in the cache
	CachedTokens int64  `json:"cached_tokens"` // of prompts, found in the cache
}

// Add adds the work of a further task of the same engine, which uses no cache.
func (e *Engine) Add(task Engine) {
	e.Sequences += task.Sequences
	e.Steps += task.Steps
	e.PrefillTokens += task.PrefillTokens
}
