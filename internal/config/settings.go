package config

import (
	"math"
	"time"

	"github.com/inferd-go/inferd/internal/backend"
	"github.com/inferd-go/inferd/internal/settings"
)

// daemonSettings are the settings of the whole daemon.
var daemonSettings = []settings.Setting[Flags]{
	{Flag: "config", Help: "config `file`; default ~/.inferd/config.json", At: func(f *Flags) any { return &f.ConfigFile }},
	{Flag: "lock", Help: "single-instance lock `file`; default inferd.lock beside the sockets", At: func(f *Flags) any { return &f.Lock }},
	{Flag: "uds", Help: "main socket `path`; the others lie beside it. A leaf other than inferd.sock is v1's", At: func(f *Flags) any { return &f.uds }},
	{Flag: "pipe", Help: "on Windows, main named `pipe`: that of length-prefixed v2, or of v1 if the name ends in -infer; the other pipes have the same name with other endings", At: func(f *Flags) any { return &f.pipe }},
	{Flag: "v1-addr", Help: "v1 generation socket `path`", At: func(f *Flags) any { return &f.Addr.V1 }},
	{Flag: "v2-addr", Help: "v2 generation socket `path`, lines of JSON", At: func(f *Flags) any { return &f.Addr.V2 }},
	{Flag: "lp-addr", Help: "v2 generation socket `path`, length-prefixed", At: func(f *Flags) any { return &f.Addr.LP }},
	{Flag: "embed-addr", Help: "embeddings socket `path`", At: func(f *Flags) any { return &f.Addr.Embed }},
	{Flag: "rerank-addr", Help: "rerank socket `path`", At: func(f *Flags) any { return &f.Addr.Rerank }},
	{Flag: "http-addr", Help: "HTTP socket `path`", At: func(f *Flags) any { return &f.Addr.HTTP }},
	{Flag: "admin-addr", Help: "admin socket `path`", At: func(f *Flags) any { return &f.Addr.Admin }},
	{Flag: "control-addr", Help: "control socket `path`", At: func(f *Flags) any { return &f.Addr.Control }},
	{Flag: "group", Help: "`group` that may use the inference sockets", At: func(f *Flags) any { return &f.Group }},

	{Flag: "v1", Key: "surfaces.v1", Help: "serve v1 generation", At: func(f *Flags) any { return &f.Surfaces.V1 }},
	{Flag: "v2", Key: "surfaces.v2", Help: "serve v2 generation, lines of JSON", At: func(f *Flags) any { return &f.Surfaces.V2 }},
	{Flag: "lp", Key: "surfaces.lp", Help: "serve v2 generation, length-prefixed", At: func(f *Flags) any { return &f.Surfaces.LP }},
	{Flag: "embed", Key: "surfaces.embed", Help: "serve embeddings, if a model embeds", At: func(f *Flags) any { return &f.Surfaces.Embed }},
	{Flag: "rerank", Key: "surfaces.rerank", Help: "serve rerank, if a model reranks", At: func(f *Flags) any { return &f.Surfaces.Rerank }},

	{Flag: "tcp", Key: "listen.tcp", Help: "loopback `address` of v1 generation, besides its socket: 127.0.0.1:47321", At: func(f *Flags) any { return &f.TCPAddr }},
	{Flag: "v2-tcp", Key: "listen.tcp_v2", Help: "loopback `address` of v2 generation, lines of JSON", At: func(f *Flags) any { return &f.V2TCPAddr }},
	{Flag: "embed-tcp", Key: "listen.tcp_embed", Help: "loopback `address` of embeddings", At: func(f *Flags) any { return &f.EmbedTCPAddr }},
	{Flag: "api-key", Help: "`key` that TCP clients show first; better in INFERD_API_KEY", At: func(f *Flags) any { return &f.APIKey }},
	{Key: "listen.api_key_env", Help: "name of a `variable` that holds the key of TCP clients", At: func(f *Flags) any { return &f.APIKeyEnv }},
	{Flag: "tcp-no-auth", Help: "accept every user of this machine over TCP, without a key", At: func(f *Flags) any { return &f.TCPNoAuth }},

	{Flag: "http", Key: "http.listen", Help: "`address` of HTTP over TCP; without one 127.0.0.1:8080 and [::1]:8080. May be repeated", At: func(f *Flags) any { return &f.HTTP.Listen }},
	{Flag: "http-sock", Key: "http.sock", Help: "serve HTTP on a socket", At: func(f *Flags) any { return &f.HTTP.Sock }},
	{Key: "http.open", Help: "accept every user of this machine over TCP, without a key", At: func(f *Flags) any { return &f.HTTP.Open }},
	{Key: "http.any_model", Help: "send requests with an unknown model to the default entry", At: func(f *Flags) any { return &f.HTTP.AnyModel }},
	{Key: "http.page", Help: "serve the page for browsers, and the daemon's state below /inferd/", At: func(f *Flags) any { return &f.HTTP.Page }},
	{Key: "http.hosts", Help: "`names` of this machine for the header Host, beside localhost", At: func(f *Flags) any { return &f.HTTP.Hosts }},
	{Key: "http.origins", Help: "`origins` of web pages that may use HTTP, such as https://app.example or chrome-extension://*", At: func(f *Flags) any { return &f.HTTP.Origins }},

	{Flag: "engine", Help: "inferd-engine `program`; default: the one beside inferd", At: func(f *Flags) any { return &f.Engine }},
	{Flag: "engine-lib", Key: "engine.lib_dir", Help: "`folder` with llama.cpp's libraries; default: the one that \"make engine\" makes", At: func(f *Flags) any { return &f.EngineLib }},
	{Flag: "backend", Help: "`kind` of backend: llamacpp (with --model-path) or mock; default: the config's", At: func(f *Flags) any { return &f.Backend }},
	{Flag: "model", Help: "model to serve, by `name`: of the model store or the catalog, hf:OWNER/REPO, ollama:NAME, https://…; pulled if it is missing", At: func(f *Flags) any { return &f.Model }},
	{Flag: "model-path", Help: "model to serve: a GGUF `file`, or builtin:NAME", At: func(f *Flags) any { return &f.ModelPath }},
	{Flag: "model-sha256", Help: "SHA-256 that the model's file must have, in `hex`", At: func(f *Flags) any { return &f.ModelSHA256 }},

	{Flag: "models-home", Key: "models_home", Help: "`folder` of the model store; default: MODELS_HOME, else the user's", At: func(f *Flags) any { return &f.ModelsHome }},
	{Flag: "auto-pull", Key: "auto_pull", Help: "pull the models of the config that are missing", At: func(f *Flags) any { return &f.AutoPull }},
	{Flag: "catalog", Key: "catalog", Help: "`file` with models by name, over the catalog of this release", At: func(f *Flags) any { return &f.Catalog }},
	{Flag: "verify", Key: "verify", Help: "`when` a model with a known SHA-256 is hashed: once, or always, at each start of its engine", At: func(f *Flags) any { return &f.Verify }},
	{Flag: "paranoid", Help: "the same as --verify always", At: func(f *Flags) any { return &f.paranoid }},
	{Key: "model_autoselect", Help: "`whether` models are chosen if no entry generates: off or auto", At: func(f *Flags) any { return &f.autoselect }},
	{Key: "model_autoselect_min_vram_gib", Help: "no effect: this release does not measure the memory of a GPU, in `GiB`", At: func(f *Flags) any { return &f.minVRAM }},

	{Flag: "active-permits", Key: "admission.active_permits", Help: "`requests` that run at once; 0 is 1 (default: the sum of the slots, as the config's 0)", At: func(f *Flags) any { return &f.ActivePermits }},
	{Flag: "queue-depth", Key: "admission.queue_depth", Help: "`requests` of one caller that may wait", At: func(f *Flags) any { return &f.QueueDepth }},
	{Flag: "queue-total", Key: "admission.queue_total", Help: "`requests` that may wait in all", At: func(f *Flags) any { return &f.QueueTotal }},

	{Flag: "ready-timeout-secs", Help: "`seconds` that an engine may load without progress", Unit: time.Second, At: func(f *Flags) any { return &f.ReadyTimeout }},
	{Flag: "write-timeout-secs", Help: "`seconds` that a client may take to read one message of an answer; 0 is no limit", Unit: time.Second, At: func(f *Flags) any { return &f.WriteTimeout }},
	{Flag: "drain-timeout-secs", Help: "`seconds` that running requests get when the daemon stops", Unit: time.Second, At: func(f *Flags) any { return &f.DrainTimeout }},

	{Flag: "log-format", Help: "`format` of the log on stderr: text, json, or auto: JSON under a service manager", At: func(f *Flags) any { return &f.LogFormat }},
	{Flag: "version", Help: "print the version and exit", At: func(f *Flags) any { return &f.Version }},
}

// limitSettings apply to each entry. A flag applies to all entries and overrides the config file.
var limitSettings = []settings.Setting[backend.Limits]{
	{Flag: "n-ctx", Key: "n_ctx", Help: "`tokens` of context, shared by all slots (default: that of the model in the catalog, else 8192)", Least: 1, Most: math.MaxInt32, At: func(l *backend.Limits) any { return &l.NCtx }},
	{Flag: "n-slots", Key: "n_slots", Help: "`sequences` that run at once (default 4)", Least: 1, Most: math.MaxInt32, At: func(l *backend.Limits) any { return &l.NSlots }},
	{Flag: "threads", Key: "threads", Help: "compute `threads` (default: the cores, shared among the engines)", At: func(l *backend.Limits) any { return &l.Threads }},
	{Flag: "n-gpu-layers", Key: "n_gpu_layers", Help: "`layers` to compute on a GPU, if there is one; -1 is all of them", Least: math.MinInt32, Most: math.MaxInt32, At: func(l *backend.Limits) any { return &l.NGPULayers }},
	{Flag: "max-stall-ms", Key: "max_stall_ms", Help: "`milliseconds` between two tokens of a stream while prompts are prefilled beside it (default 100, or 4 steps if that is longer)", At: func(l *backend.Limits) any { return &l.MaxStallMS }},
	{Flag: "exact", Key: "exact", Help: "the same request gets the same answer, bit by bit, whatever else the engine computes or has computed; it costs speed", At: func(l *backend.Limits) any { return &l.Exact }},
}
