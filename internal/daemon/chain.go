package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/inferd-go/inferd/client/stats"
	"github.com/inferd-go/inferd/internal/admit"
	"github.com/inferd-go/inferd/internal/backend"
	"github.com/inferd-go/inferd/internal/breaker"
	"github.com/inferd-go/inferd/internal/bridge"
	"github.com/inferd-go/inferd/internal/config"
	"github.com/inferd-go/inferd/internal/count"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/route"
	"github.com/inferd-go/inferd/internal/status"
	"github.com/inferd-go/inferd/internal/task"
)

// A chain holds the handlers of requests below the surfaces: the gate, the router and the backends
// of a config. Its fields other than serving do not change after build. Until the daemon has read
// its config, its chain has no backends.
type chain struct {
	log   *slog.Logger
	board *status.Board

	backends []*backend.Backend // in config order
	router   *route.Router
	gate     *admit.Gate
	counter  *count.Desk // in front of the gate
	release  []func()    // each frees the resources that the backends of a kind share
	pull     bridge.Pull // see [models.Source.Pull]; nil without a config

	serving    atomic.Bool // set by open: every backend has been ready
	publishing sync.Mutex  // serialises publish, which depends on several states
}

// emptyChain returns the chain of a daemon that has not read its config.
func emptyChain(log *slog.Logger, board *status.Board) *chain {
	c := &chain{log: log, board: board, router: new(route.Router), gate: new(admit.Gate)}
	c.counter = count.New(c.gate, c.chooseCounter)
	return c
}

// refuse refuses waiting and new requests from now on. Requests that have begun may finish.
func (c *chain) refuse() {
	c.gate.Close()
	c.counter.Close()
}

// build makes the backends of a config, and starts none. Even after an error it returns a chain,
// which the caller must close.
func build(ctx context.Context, cfg *config.Config, d *daemon) (*chain, error) {
	c := emptyChain(d.log, d.board)
	dir, err := filepath.Abs(filepath.Dir(d.sockets.Lock)) // engines have another working folder
	if err != nil {
		return c, fmt.Errorf("folder of the lock: %w", err)
	}
	source, err := d.models(cfg)
	if err != nil {
		return c, err
	}
	c.pull = source.Pull
	c.release = append(c.release, func() { _ = source.Close() }) // everything written is on the disk already
	host := &backend.Host{
		Log: d.log, Publish: d.board.Publish, Ready: c.publish, LoadTimeout: cfg.ReadyTimeout, Open: source.Open,
		Env: d.env, Dir: dir, Engine: d.flags.Engine, EngineLib: cfg.EngineLib, Secrets: cfg.Secrets(),
	}
	made := make(map[*backend.Entry]*backend.Backend)
	for kind, entries := range byKind(cfg.Backends) {
		if kind.Start == nil {
			return c, fmt.Errorf("internal error: this program starts no backend of kind %q", kind.Name)
		}
		all, release, err := kind.Start(host, entries)
		if err != nil {
			return c, err
		}
		c.release = append(c.release, release)
		for i, b := range all {
			made[entries[i]] = b
		}
	}
	for _, e := range cfg.Backends {
		c.backends = append(c.backends, made[e])
	}
	c.router = &route.Router{Backends: c.backends, Changed: func(b *backend.Backend, s breaker.State) { c.breakerChanged(ctx, b, s) }}
	c.gate = &admit.Gate{
		Choose: c.choose, Begin: c.router.Begin,
		Active: cfg.ActivePermits, Depth: cfg.QueueDepth, Total: cfg.QueueTotal, Memory: d.memory,
	}
	c.counter = count.New(c.gate, c.chooseCounter)
	c.counter.Charge = c.gate.Charge
	return c, nil
}

// byKind groups entries by their kind.
func byKind(entries []*backend.Entry) map[*backend.Kind][]*backend.Entry {
	groups := make(map[*backend.Kind][]*backend.Entry)
	for _, e := range entries {
		groups[e.Kind] = append(groups[e.Kind], e)
	}
	return groups
}

// close frees the resources that backends share. All backends must have ended.
func (c *chain) close() {
	for _, release := range c.release {
		release()
	}
}

// run starts all backends, which load at the same time. stop ends them and waits for their end. The
// failure of a backend that never became ready is passed to fail, which ends the daemon.
func (c *chain) run(ctx context.Context, fail context.CancelCauseFunc) (stop func()) {
	var tasks []*task.Task
	for _, b := range c.backends {
		if b.Run != nil {
			tasks = append(tasks, task.Go(ctx, fail, b.Run))
		}
	}
	return func() {
		var all sync.WaitGroup
		for _, t := range tasks {
			all.Go(t.Stop)
		}
		all.Wait()
	}
}

// waitReady returns nil once every backend has been ready, or the first error of a backend.
func (c *chain) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make(chan error, len(c.backends))
	for _, b := range c.backends {
		go func() { errs <- b.WaitReady(ctx) }()
	}
	var first error
	for range c.backends { // the others end with ctx
		if err := <-errs; err != nil && first == nil {
			first = fmt.Errorf("backend ready: %w", err)
			cancel()
		}
	}
	return first
}

// open publishes the abilities of the entries, and then that the daemon is ready.
func (c *chain) open() {
	caps := make(map[string]status.Capabilities)
	for _, b := range c.backends {
		caps[b.Name] = b.Capabilities()
	}
	for _, name := range slices.Sorted(maps.Keys(caps)) {
		c.board.Publish(caps[name])
	}
	c.serving.Store(true)
	c.publish() // if an engine has ended since, Ready is published when its successor is ready
}

// publish publishes Ready if every backend is ready. If backends were given up, it publishes GaveUp for
// the first of them again, because later events have replaced it. Otherwise it does nothing: a backend
// that loads publishes its own phases. It also does nothing before open.
func (c *chain) publish() {
	c.publishing.Lock()
	defer c.publishing.Unlock()
	if !c.serving.Load() {
		return
	}
	ready := true
	for _, b := range c.backends {
		if b.Run == nil {
			continue
		}
		s, reason := b.State()
		if s == backend.Down {
			c.board.Publish(status.Restarting{Backend: b.Name, Phase: status.GaveUp{Reason: reason}})
			return
		}
		ready = ready && s == backend.Ready
	}
	if ready {
		c.board.Publish(status.Ready{})
	}
}

// breakerChanged logs and publishes the new state of a backend's breaker.
func (c *chain) breakerChanged(ctx context.Context, b *backend.Backend, s breaker.State) {
	level := slog.LevelInfo
	if s == breaker.Open {
		level = slog.LevelWarn
	}
	c.log.LogAttrs(ctx, level, "backend state", slog.String("backend", b.Name), slog.String("breaker", string(s)))
	c.board.Publish(status.BackendState{Backend: b.Name, State: string(s)})
}

// retry restarts a backend that was given up.
func (c *chain) retry(name string) error {
	for _, b := range c.backends {
		if b.Name == name && b.Retry != nil {
			return b.Retry()
		}
	}
	return infer.Errorf(infer.Invalid, "invalid request: no engine is called %.64q", name)
}

// tasks returns the tasks that at least one backend supports.
func (c *chain) tasks() (all infer.Abilities) {
	for _, b := range c.backends {
		can, _ := b.Abilities()
		all.Generate = all.Generate || can.Generate
		all.Embed = all.Embed || can.Embed
		all.Rerank = all.Rerank || can.Rerank
	}
	return all
}

// choose chooses the backend of a request for the gate. Requests for vectors and scores share the
// slots of their backend with requests for answers, but do not preempt them, because an engine can
// pause an answer but not a batch of texts.
func (c *chain) choose(req *infer.Request) (admit.Destination, error) {
	b, err := c.router.Choose(req)
	if err != nil {
		return admit.Destination{}, err
	}
	to := admit.Destination{Backend: b}
	switch req.Task.(type) {
	case *infer.Generate:
		to.Pausable = b.Preemptible
	case *infer.Count: // needs no slot: it does not reach the gate
	case *infer.Embed, *infer.Rerank:
		can, _ := b.Abilities()
		to.NoPreempt = b.Preemptible && can.Generate
	}
	return to, nil
}

// chooseCounter chooses the backend of a request to count tokens.
func (c *chain) chooseCounter(req *infer.Request) (count.Entry, error) {
	b, err := c.router.Choose(req)
	if err != nil {
		return count.Entry{}, err
	}
	return count.Entry{Name: b.Name, Kind: b.Kind, Handler: b.Handler}, nil
}

// models describes the entries for clients of HTTP.
func (c *chain) models() []bridge.Entry {
	all := make([]bridge.Entry, len(c.backends))
	for i, b := range c.backends {
		facts := b.Capabilities()
		all[i] = bridge.Entry{
			Name: b.Name, Aliases: b.Aliases, Slots: b.Slots, NCtx: facts.NCtx, Params: facts.Params, Size: facts.Size,
			OnGPU: facts.GPULayers > 0, Architecture: facts.Architecture, Quantization: facts.Quantization, Template: facts.Template,
			Digest: b.OriginOf(&infer.Generate{}).Digest,
		}
		all[i].Can, _ = b.Abilities()
		state, _ := b.State()
		all[i].Loading = state != backend.Ready
	}
	return all
}

// describe returns the state and the statistics of every backend. It queries all backends at the
// same time, at most until ctx ends.
func (c *chain) describe(ctx context.Context) []stats.Backend {
	all := make([]stats.Backend, len(c.backends))
	var asking sync.WaitGroup
	defer asking.Wait()
	for i, b := range c.backends {
		s, reason := b.State()
		all[i] = stats.Backend{Name: b.Name, Kind: b.Kind, State: s.String(), Slots: b.Slots, Reason: reason}
		if c.serving.Load() {
			all[i].Breaker = string(c.router.Breaker(b))
		}
		if b.Stats != nil {
			asking.Go(func() { b.Stats(ctx, &all[i]) })
		}
	}
	return all
}
