// Package stats declares the load and the counters of a daemon, once for all programs: an engine
// counts in an [Engine], the link and the control socket carry it, and [Daemon] is the answer of
// the control socket, which the client returns. A new counter needs a field here, and the code that
// counts. The JSON members are specified in spec/control.md. The package measures nothing; it only
// adds values up.
package stats

// A Daemon is the load of a daemon, with its counts since it started.
type Daemon struct {
	UptimeMS    int64  `json:"uptime_ms"`
	Version     string `json:"version"`
	Running     int    `json:"running"`     // requests
	Waiting     int    `json:"waiting"`     // requests in the queue
	Parked      int    `json:"parked"`      // requests that have begun and wait for a slot; part of Waiting
	Stalled     int    `json:"stalled"`     // requests with a client that does not read
	Connections int    `json:"connections"` // on all sockets
	// UnknownPeers counts HTTP connections over TCP for which the kernel reported no user, for
	// example because the client had already closed its end. Such a connection needs a key.
	UnknownPeers int64     `json:"unknown_peers"`
	HeldBytes    int64     `json:"held_bytes"` // reserved for large messages
	Goroutines   int       `json:"goroutines"` // of the daemon
	HeapBytes    uint64    `json:"heap_bytes"` // of the daemon, in use
	LogLost      int64     `json:"log_lost"`   // lines of the activity log that were not written
	Callers      []Caller  `json:"callers"`    // active and recent
	Backends     []Backend `json:"backends"`   // in config order
	// Listeners are the sockets and addresses, in the order of binding; empty from an older daemon.
	Listeners []Listener `json:"listeners,omitzero"`
}

// A Listener is a surface where clients can connect.
type Listener struct {
	Surface string `json:"surface"` // "v1", "v2", "lp", "embed", "rerank", "http", "admin" or "control"
	Addr    string `json:"addr"`    // path of a socket, name of a pipe, or address and port
}

// A Caller is a user and an executable or, over TCP, a user or a key, with the counts of their
// requests. Members that the kernel does not report are empty.
type Caller struct {
	User    string `json:"user"`    // uid
	Program string `json:"program"` // device and inode of its executable, or name of its key; "http" or "tcp" for TCP without a key
	Exe     string `json:"exe"`     // path of the executable; empty over TCP
	Counts
	// Place is the position, from 1, of the caller's first waiting request among the first waiting
	// requests of all flows that wait for the same entry. It is 0 if no request waits.
	Place    int   `json:"place,omitzero"`
	Refused  int64 `json:"refused"`   // requests refused because the queue was full
	KVTokens int   `json:"kv_tokens"` // in the caches of engines, for all programs of the user
}

// Counts are the present requests of a caller or an entry, and the totals of its ended requests.
type Counts struct {
	Running      int     `json:"running"`
	Waiting      int     `json:"waiting"`
	Parked       int     `json:"parked"`        // begun, and waiting for a slot; part of Waiting
	Stalled      int     `json:"stalled"`       // the client does not read; neither running nor waiting
	Requests     int64   `json:"requests"`      // ended requests
	InputTokens  int64   `json:"input_tokens"`  // of ended requests
	OutputTokens int64   `json:"output_tokens"` // of ended requests
	CachedTokens int64   `json:"cached_tokens"` // part of InputTokens: found in a cache
	Rate         float64 `json:"tokens_per_s"`  // output tokens per second at present
}

// A Backend is an entry of the daemon's config.
type Backend struct {
	Name  string `json:"name"`
	Kind  string `json:"kind"`  // "llamacpp" or "mock"
	State string `json:"state"` // "ready", "loading" or "gave_up"
	Slots int    `json:"slots"` // limit for requests that run at once
	// Breaker is "closed"; "open" while the entry gets no requests after repeated failures; or
	// "half_open" while one request is tried. It is empty until the daemon admits requests.
	Breaker string `json:"breaker,omitempty"`
	Counts

	// The fields below are for entries with an engine.
	Reason       string  `json:"reason,omitzero"`        // why it was given up
	Model        string  `json:"model,omitzero"`         // name in the model's metadata
	Device       string  `json:"device,omitzero"`        // compute device, such as "cpu"
	NCtx         int     `json:"n_ctx,omitzero"`         // size of the context in tokens
	CPUVariant   string  `json:"cpu_variant,omitzero"`   // variant of llama.cpp's CPU library
	Libraries    string  `json:"libraries,omitzero"`     // "verified" or "unverified"; empty from an older daemon
	Exact        *bool   `json:"exact,omitzero"`         // whether answers are exact; nil if the config does not set "exact"
	Inexact      string  `json:"inexact,omitzero"`       // why they are not exact
	PID          int     `json:"pid,omitzero"`           // of the engine; 0 if there is none
	Restarts     int     `json:"restarts,omitzero"`      // of the engine
	RestartsHour int     `json:"restarts_hour,omitzero"` // within the last hour
	WedgedKills  int     `json:"wedged_kills,omitzero"`  // engines that the watchdog killed
	LastKill     string  `json:"last_kill,omitzero"`     // reason and time of the latest such kill
	Silent       bool    `json:"silent,omitzero"`        // ready, but without reports: stopped or very slow
	Engine       *Engine `json:"engine,omitzero"`        // its report; nil if there is none
}

// An Engine is the report of an engine about all its tasks. Its totals begin when the engine
// becomes ready. Embedding and reranking use no cache and decode no tokens: those fields stay 0
// unless a task generates.
type Engine struct {
	KVSize        int     `json:"kv_size_tokens"`   // size of the cache
	KVUsed        int     `json:"kv_used_tokens"`   // of unfinished sequences
	KVKept        int     `json:"kv_kept_tokens"`   // retained for later requests
	KVStored      int     `json:"kv_stored_tokens"` // retained and offloaded to memory
	KVDead        int     `json:"kv_dead_tokens"`   // in dead cells
	Sequences     int     `json:"sequences"`        // unfinished sequences
	Parked        int     `json:"parked"`           // part of Sequences: paused or without room in the cache
	Steps         int64   `json:"steps"`
	StepMS        float64 `json:"step_ms"`         // recent time of a step of the first task, in milliseconds
	Stalls        int64   `json:"stalls"`          // steps that delayed a stream beyond max_stall_ms
	PrefillTokens int64   `json:"prefill_tokens"`  // tokens of prompts and of texts that were computed
	DecodeTokens  int64   `json:"decode_tokens"`   // tokens of answers that were computed
	CachedTokens  int64   `json:"cached_tokens"`   // tokens of prompts that were found in the cache
	Dropped       int64   `json:"dropped"`         // sequences evicted for lack of room, and prefilled again
	Aborted       int64   `json:"aborted"`         // steps and prefill jobs that were aborted
	KVSlides      int64   `json:"kv_slides"`       // slides: moves of all cells in use
	KVSlid        int64   `json:"kv_slid_tokens"`  // tokens that slides moved
	Users         []User  `json:"users,omitempty"` // users with KV or cached tokens, by name
}

// A User is the part of an engine's report for one user.
type User struct {
	User         string `json:"user"`          // uid; empty if unknown
	KVTokens     int    `json:"kv_tokens"`     // in the cache
	CachedTokens int64  `json:"cached_tokens"` // tokens of prompts that were found in the cache
}

// Add adds the report of another task of the same engine. That task uses no cache, so only its
// sequences, steps and prefilled tokens are added.
func (e *Engine) Add(task Engine) {
	e.Sequences += task.Sequences
	e.Steps += task.Steps
	e.PrefillTokens += task.PrefillTokens
}
