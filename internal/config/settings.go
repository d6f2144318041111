package config

import (
	"flag"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// A setting is one value that a flag, its variable and the config file may give. The tables
// below are the only places that know it: the command line, the environment, the config file,
// --help and docs/settings.md are all made of them. T is the struct that holds the value.
type setting[T any] struct {
	flag string // name without dashes; the variable is made of it. Empty: no flag
	key  string // member of the config file, after the object that holds it. Empty: no member
	help string // for --help and docs/settings.md; back quotes hold the kind of value

	// at returns where the value is kept: a *string, *bool, *int, *poolingWord or
	// *time.Duration.
	at func(*T) any

	least, most int           // bounds of a number; most 0 stands for 2^30
	unit        time.Duration // of a *time.Duration
}

// settings of the whole daemon.
var settings = []setting[Flags]{
	{flag: "config", help: "config `file`; default ~/.inferd/config.json", at: func(f *Flags) any { return &f.ConfigFile }},
	{flag: "lock", help: "single-instance lock `file`; default inferd.lock beside the sockets", at: func(f *Flags) any { return &f.Lock }},
	{flag: "uds", help: "main socket `path`; the others lie beside it. A leaf other than inferd.sock is v1's", at: func(f *Flags) any { return &f.uds }},
	{flag: "pipe", help: "on Windows, main named `pipe`: length-prefixed, or v1's if it ends in -infer; the others begin alike", at: func(f *Flags) any { return &f.pipe }},
	{flag: "v1-addr", help: "v1 generation socket `path`", at: func(f *Flags) any { return &f.Addr.V1 }},
	{flag: "v2-addr", help: "v2 generation socket `path`, lines of JSON", at: func(f *Flags) any { return &f.Addr.V2 }},
	{flag: "lp-addr", help: "v2 generation socket `path`, length-prefixed", at: func(f *Flags) any { return &f.Addr.LP }},
	{flag: "embed-addr", help: "embeddings socket `path`", at: func(f *Flags) any { return &f.Addr.Embed }},
	{flag: "rerank-addr", help: "rerank socket `path`", at: func(f *Flags) any { return &f.Addr.Rerank }},
	{flag: "admin-addr", help: "admin socket `path`", at: func(f *Flags) any { return &f.Addr.Admin }},
	{flag: "control-addr", help: "control socket `path`", at: func(f *Flags) any { return &f.Addr.Control }},
	{flag: "group", help: "`group` that may use the inference sockets", at: func(f *Flags) any { return &f.Group }},

	{flag: "v1", key: "surfaces.v1", help: "serve v1 generation", at: func(f *Flags) any { return &f.Surfaces.V1 }},
	{flag: "v2", key: "surfaces.v2", help: "serve v2 generation, lines of JSON", at: func(f *Flags) any { return &f.Surfaces.V2 }},
	{flag: "lp", key: "surfaces.lp", help: "serve v2 generation, length-prefixed", at: func(f *Flags) any { return &f.Surfaces.LP }},
	{flag: "embed", key: "surfaces.embed", help: "serve embeddings, if a model embeds", at: func(f *Flags) any { return &f.Surfaces.Embed }},
	{flag: "rerank", key: "surfaces.rerank", help: "serve rerank, if a model reranks", at: func(f *Flags) any { return &f.Surfaces.Rerank }},

	{flag: "tcp", key: "listen.tcp", help: "loopback `address` of v1 generation, besides its socket: 127.0.0.1:47321", at: func(f *Flags) any { return &f.TCPAddr }},
	{flag: "v2-tcp", key: "listen.tcp_v2", help: "loopback `address` of v2 generation, lines of JSON", at: func(f *Flags) any { return &f.V2TCPAddr }},
	{flag: "embed-tcp", key: "listen.tcp_embed", help: "loopback `address` of embeddings", at: func(f *Flags) any { return &f.EmbedTCPAddr }},
	{flag: "api-key", help: "`key` that TCP clients show first; better in INFERD_API_KEY", at: func(f *Flags) any { return &f.APIKey }},
	{key: "listen.api_key_env", help: "name of a `variable` that holds the key of TCP clients", at: func(f *Flags) any { return &f.APIKeyEnv }},
	{flag: "tcp-no-auth", help: "accept every user of this machine over TCP, without a key", at: func(f *Flags) any { return &f.TCPNoAuth }},

	{flag: "engine", help: "inferd-engine `program`; default: the one beside inferd", at: func(f *Flags) any { return &f.Engine }},
	{flag: "engine-lib", key: "engine.lib_dir", help: "`folder` with llama.cpp's libraries; default: the one that \"make engine\" makes", at: func(f *Flags) any { return &f.EngineLib }},
	{flag: "backend", help: "`kind` of backend: llamacpp (with --model-path) or mock; default: the config's", at: func(f *Flags) any { return &f.Backend }},
	{flag: "model-path", help: "model to serve: a GGUF `file`, or builtin:NAME", at: func(f *Flags) any { return &f.ModelPath }},
	{flag: "model-sha256", help: "SHA-256 that the model's file must have, in `hex`", at: func(f *Flags) any { return &f.ModelSHA256 }},

	{flag: "active-permits", key: "admission.active_permits", help: "`requests` that run at once; 0 is 1 (default: the sum of the slots, as the config's 0)", at: func(f *Flags) any { return &f.ActivePermits }},
	{flag: "queue-depth", key: "admission.queue_depth", help: "`requests` of one caller that may wait", at: func(f *Flags) any { return &f.QueueDepth }},
	{flag: "queue-total", key: "admission.queue_total", help: "`requests` that may wait in all", at: func(f *Flags) any { return &f.QueueTotal }},

	{flag: "ready-timeout-secs", help: "`seconds` that an engine may load without progress", unit: time.Second, at: func(f *Flags) any { return &f.ReadyTimeout }},
	{flag: "write-timeout-secs", help: "`seconds` that a client may take for a frame; 0 is no limit", unit: time.Second, at: func(f *Flags) any { return &f.WriteTimeout }},
	{flag: "drain-timeout-secs", help: "`seconds` that running requests get when the daemon stops", unit: time.Second, at: func(f *Flags) any { return &f.DrainTimeout }},

	{flag: "log-format", help: "`format` of the log on stderr: text, json, or auto: JSON under a service manager", at: func(f *Flags) any { return &f.LogFormat }},
	{flag: "version", help: "print the version and exit", at: func(f *Flags) any { return &f.Version }},
}

// limitSettings hold for each entry. A flag holds for all entries, whatever the config
// file says of them.
var limitSettings = []setting[Limits]{
	{flag: "n-ctx", key: "n_ctx", help: "`tokens` of context, shared by all slots (default 8192)", least: 1, most: math.MaxInt32, at: func(l *Limits) any { return &l.NCtx }},
	{flag: "n-slots", key: "n_slots", help: "`sequences` that run at once (default 4)", least: 1, most: math.MaxInt32, at: func(l *Limits) any { return &l.NSlots }},
	{flag: "threads", key: "threads", help: "compute `threads` (default: the cores, shared among the engines)", at: func(l *Limits) any { return &l.Threads }},
	{flag: "n-gpu-layers", key: "n_gpu_layers", help: "`layers` to compute on a GPU, if there is one; -1 is all of them", least: math.MinInt32, most: math.MaxInt32, at: func(l *Limits) any { return &l.NGPULayers }},
	{flag: "max-stall-ms", key: "max_stall_ms", help: "`milliseconds` between two tokens of a stream while prompts are prefilled beside it (default 100, or 4 steps if that is longer)", at: func(l *Limits) any { return &l.MaxStallMS }},
	{flag: "exact", key: "exact", help: "the same request gets the same answer, bit by bit, whatever else the engine computes or has computed; it costs speed", at: func(l *Limits) any { return &l.Exact }},
}

// engineSettings hold for each entry with an engine. A flag holds for the entry of
// --model-path alone.
var engineSettings = []setting[engineOptions]{
	{flag: "llamacpp-generate", key: "generate", help: "whether the model generates, if it can", at: func(e *engineOptions) any { return &e.Generate }},
	{flag: "llamacpp-embed", key: "embed", help: "whether it embeds, besides generating if it can (default: the model says)", at: func(e *engineOptions) any { return &e.Embed }},
	{flag: "llamacpp-embed-pooling", key: "embed_pooling", help: "pooling of its vectors, a `word` or number: mean (1), cls (2) or last (3) (default: the model says, else mean)", at: func(e *engineOptions) any { return &e.Pooling }},
	{flag: "llamacpp-embed-n-ctx", key: "embed_n_ctx", help: "`tokens` of context to embed with (default 2048)", least: 1, most: math.MaxInt32, at: func(e *engineOptions) any { return &e.EmbedNCtx }},
	{flag: "llamacpp-rerank", key: "rerank", help: "whether it reranks, besides generating if it can (default: the model says)", at: func(e *engineOptions) any { return &e.Rerank }},
	{flag: "llamacpp-rerank-n-ctx", key: "rerank_n_ctx", help: "`tokens` of context to rerank with (default 2048)", least: 1, most: math.MaxInt32, at: func(e *engineOptions) any { return &e.RerankNCtx }},
}

// bounds returns the least and the most that a number may be.
func (s setting[T]) bounds() (least, most int) {
	if s.most == 0 {
		return s.least, 1 << 30
	}
	return s.least, s.most
}

// define makes the flag, with the present value as its default.
func (s setting[T]) define(fs *flag.FlagSet, to *T) {
	switch p := s.at(to).(type) {
	case *string:
		fs.StringVar(p, s.flag, *p, s.help)
	case *poolingWord:
		fs.StringVar((*string)(p), s.flag, string(*p), s.help)
	case *bool:
		fs.BoolVar(p, s.flag, *p, s.help)
	case *int:
		fs.IntVar(p, s.flag, *p, s.help)
	case *time.Duration:
		fs.Var(ticks{p, s.unit}, s.flag, s.help)
	}
}

// check refuses a flag's number that is out of bounds. 0 stands for the default of most
// settings, so it is never out of bounds here.
func (s setting[T]) check(from *T) error {
	var n int
	switch p := s.at(from).(type) {
	case *int:
		n = *p
	case *time.Duration:
		n = int(*p / s.unit)
	}
	least, most := s.bounds()
	switch {
	case n < min(least, 0):
		return fmt.Errorf("--%s %d is out of range: it must be at least %d", s.flag, n, min(least, 0))
	case n > most:
		return fmt.Errorf("--%s %d is out of range: it must be at most %d", s.flag, n, most)
	}
	return nil
}

// read takes the value of the setting from o, which holds its member, if it has one there.
func (s setting[T]) read(o *object, to *T) {
	name := s.key[strings.LastIndexByte(s.key, '.')+1:]
	switch p := s.at(to).(type) {
	case *string:
		o.text(name, p)
	case *poolingWord:
		o.pooling(name, p)
	case *bool:
		o.boolean(name, p)
	case *int:
		least, most := s.bounds()
		o.number(name, p, least, most)
	case *time.Duration:
		n := int(*p / s.unit)
		least, most := s.bounds()
		o.number(name, &n, least, most)
		*p = time.Duration(n) * s.unit
	}
}

// ticks is a duration that a flag gives as a whole number of units.
type ticks struct {
	to   *time.Duration
	unit time.Duration
}

// Set parses n units.
func (t ticks) Set(text string) error {
	n, err := strconv.Atoi(text)
	switch {
	case err != nil:
		return strconv.ErrSyntax
	case n > int(math.MaxInt64/t.unit) || n < int(math.MinInt64/t.unit):
		return strconv.ErrRange
	}
	*t.to = time.Duration(n) * t.unit
	return nil
}

// String returns the number of units; package flag also asks for the zero value's.
func (t ticks) String() string {
	if t.to == nil {
		return "0"
	}
	return strconv.Itoa(int(*t.to / t.unit))
}
