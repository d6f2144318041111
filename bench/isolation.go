package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/inferd-go/inferd/bench/load"
	"github.com/inferd-go/inferd/internal/builtin"
)

// letters is a grammar for answers of the big model that have the same tokens when they are part of
// a prompt. Without a grammar the big model generates words of five letters, each one token. The
// tokeniser has no merges for them, so in a prompt such a word is five tokens.
const letters = "root ::= [a-z]+"

// secondTurn compares the TTFT of the second turn of a long conversation with that of the first
// turn.
func (p *peers) secondTurn() error {
	tokens := p.size(2000, 600)
	all := slices.Concat(p.inferds(inferdOptions{}), p.llamaServers(true))
	results, err := serveInTurns(p, all, p.size(5, 3), func(s *testServer) (*turns, error) { return p.twoTurns(s, tokens) })
	if err != nil {
		return err
	}
	ratio := figure[*turns]{"second turn / cold", true, func(t *turns) float64 { return t.second / t.first }}
	first := figure[*turns]{"TTFT of the first turn", true, func(t *turns) float64 { return t.first }}
	second := figure[*turns]{"TTFT of the second turn", true, func(t *turns) float64 { return t.second }}
	for i, c := range all {
		goal := ""
		if i == 0 {
			goal = "<= 0.05"
		}
		last := results[i][len(results[i])-1]
		p.report(fmt.Sprintf("%s: TTFT of the second turn / cold, %d tokens", c.name, tokens), goal, "%.3f (%.0f ms / %.0f ms; %d tokens cached, %d new)",
			median(ratio.each(results[i])), median(second.each(results[i])), median(first.each(results[i])), last.cached, last.fresh)
	}
	reportVersus(p, results, first, second)
	return nil
}

// A turns has the figures of a conversation with two turns.
type turns struct {
	first, second float64 // TTFT in ms
	cached, fresh int     // cached and computed tokens of the second prompt
}

func (p *peers) twoTurns(s *testServer, tokens int) (*turns, error) {
	client, err := p.caller(0, 0)
	if err != nil {
		return nil, err
	}
	r := prompt(tokens, 16)
	r.Grammar = letters
	a, err := p.ask(client, load.Shot{Target: s.target, Request: r, Keep: true})
	if err != nil {
		return nil, fmt.Errorf("first turn: %w", err)
	}
	r.Turns = append(r.Turns, a.Text, text(20))
	b, err := p.ask(client, load.Shot{Target: s.target, Request: r})
	if err != nil {
		return nil, fmt.Errorf("second turn: %w", err)
	}
	return &turns{a.TTFT().Seconds() * 1000, b.TTFT().Seconds() * 1000, b.Cached, b.In - b.Cached}, nil
}

// probe checks that a user cannot detect the prompts of another user. One user sends a prompt with
// a long prefix, another user a prompt with the same prefix or with a new one. probe tries to
// distinguish the two cases by the cached tokens in the answer and by the TTFT.
func (p *peers) probe() error {
	s, err := p.inferd(inferdOptions{backends: `{"kind":"llamacpp","name":"gen","n_slots":4,"threads":` + strconv.Itoa(p.threads) + `,"model":{"builtin":"tiny"}}`})
	if err != nil {
		return err
	}
	found, err := p.probeOf(s, p.probes, false)
	if err != nil {
		return err
	}
	label := fmt.Sprintf("same prefix as another user's, %d tries", p.probes)
	p.report(label+": cached tokens", "0 beyond the template", "%d", found.cached)
	p.report("  timing AUC", "0.5 ± 0.02", "%.3f ± %.3f", found.auc, found.margin)
	own, err := p.probeOf(s, min(p.probes, 1000), true)
	if err != nil {
		return err
	}
	p.report("  the same prefix as one's own: cached, AUC", "for comparison", "%d, %.3f ± %.3f", own.cached, own.auc, own.margin)
	p.stop(s)

	model, err := builtin.Ensure(p.bin, "tiny")
	if err != nil {
		return err
	}
	if p.llama == "" {
		return nil
	}
	theirs, err := p.llamaServer(model, true)
	if err != nil {
		return err
	}
	n := min(p.probes, 400)
	if found, err = p.probeOf(theirs, n, false); err != nil {
		return err
	}
	p.report(fmt.Sprintf("  llama-server, %d tries: cached tokens, AUC", n), "", "%d, %.3f ± %.3f", found.cached, found.auc, found.margin)
	return nil
}

// A leak is the result of many tries of a probe.
type leak struct {
	cached int     // most cached tokens of a try, without the template
	auc    float64 // probability that a prompt with the same prefix is answered faster; 0.5 means no difference
	margin float64 // two standard errors of auc
}

// probeOf sends n pairs of prompts: one of the victim, then one of the prober with the same prefix
// or another. The victim is another user or, if own is set, the prober itself.
func (p *peers) probeOf(s *testServer, n int, own bool) (*leak, error) {
	const prefix = 400 // tokens
	victim, err := p.caller(0, 0)
	if err != nil {
		return nil, err
	}
	prober, err := p.caller(1, 0)
	if err != nil {
		return nil, err
	}
	if own {
		victim = prober
	}
	var all leak
	var same, different []time.Duration
	for i := range n {
		theirs := text(prefix)
		if _, err := p.ask(victim, load.Shot{Target: s.target, Request: load.Request{Turns: []string{theirs + text(20)}, MaxTokens: 2}}); err != nil {
			return nil, err
		}
		shared := rand.IntN(2) == 0
		start := theirs
		if !shared {
			start = text(prefix)
		}
		o, err := p.ask(prober, load.Shot{Target: s.target, Request: load.Request{Turns: []string{start + text(20)}, MaxTokens: 2}})
		if err != nil {
			return nil, err
		}
		// Every prompt begins with the template, and may by chance continue with a few equal
		// letters.
		if more := o.Cached - load.TemplateTokens; shared && more > 0 {
			all.cached = max(all.cached, more)
		}
		if i < n/50 { // warm-up
			continue
		}
		if shared {
			same = append(same, o.TTFT())
		} else {
			different = append(different, o.TTFT())
		}
	}
	all.auc, all.margin = auc(same, different)
	return &all, nil
}

// auc returns the probability that a random element of a is faster than one of b, and two standard
// errors of that probability if there is no difference.
func auc(a, b []time.Duration) (p, margin float64) {
	type timed struct {
		d    time.Duration
		from int
	}
	var all []timed
	for _, d := range a {
		all = append(all, timed{d, 0})
	}
	for _, d := range b {
		all = append(all, timed{d, 1})
	}
	slices.SortFunc(all, func(x, y timed) int { return cmp.Compare(x.d, y.d) })
	ranks := 0.0 // sum of the ranks of a; equal values share a rank
	for i := 0; i < len(all); {
		j := i
		for j < len(all) && all[j].d == all[i].d {
			j++
		}
		for _, t := range all[i:j] {
			if t.from == 0 {
				ranks += float64(i+j+1) / 2
			}
		}
		i = j
	}
	m, n := float64(len(a)), float64(len(b))
	return 1 - (ranks-m*(m+1)/2)/(m*n), 2 * math.Sqrt((m+n+1)/(12*m*n))
}

// hangUps measures the time from the hang-up of a client until its slot is free, as the server
// reports it, and the TTFT of a request that is sent at that moment.
func (p *peers) hangUps() error {
	all := slices.Concat(p.inferds(inferdOptions{})[:1], p.llamaServers(true))
	_, err := serveInTurns(p, all, 1, func(s *testServer) (struct{}, error) {
		goal := ""
		if s.daemon != nil {
			goal = "<= 100 ms, or a step"
		}
		return struct{}{}, p.hangUpsOf(s, goal)
	})
	return err
}

func (p *peers) hangUpsOf(s *testServer, goal string) error {
	client, err := p.caller(0, 0)
	if err != nil {
		return err
	}
	var idle []time.Duration
	for range p.size(10, 3) {
		p.rest()
		o, err := p.ask(client, load.Shot{Target: s.target, Request: prompt(32, 1)})
		if err != nil {
			return err
		}
		idle = append(idle, o.TTFT())
	}
	long := p.size(6000, 2000)
	whole, err := p.ask(client, load.Shot{Target: s.target, Request: prompt(long, 1)})
	if err != nil {
		return err
	}
	for _, stage := range []struct {
		name string
		shot func() load.Shot
	}{
		{"prefill", func() load.Shot {
			return load.Shot{Target: s.target, Request: prompt(long, 1), LeaveWithin: whole.TTFT() / 4}
		}},
		{"decode", func() load.Shot {
			return load.Shot{Target: s.target, Request: prompt(32, 2000), LeaveAfter: 10}
		}},
	} {
		var free, next []time.Duration
		for range p.size(20, 4) {
			f, n, err := p.hangUp(s, stage.shot)
			if err != nil {
				return fmt.Errorf("in %s: %w", stage.name, err)
			}
			free, next = append(free, f), append(next, n)
		}
		p.report(fmt.Sprintf("%s: slot free after a hang-up in %s", s.name, stage.name), goal, "median %s, worst %s", ms(median(free)), ms(slices.Max(free)))
		p.report("  TTFT of a request at that moment, idle", "", "median %s, worst %s, idle %s", ms(median(next)), ms(slices.Max(next)), ms(median(idle)))
	}
	return nil
}

// hangUp sends a request, and hangs up as the shot of leaves says. free is the time from then until no
// request runs on the server. After a second hang-up another user sends a request at once; next is its
// TTFT.
func (p *peers) hangUp(s *testServer, leaves func() load.Shot) (free, next time.Duration, err error) {
	client, err := p.caller(0, 0)
	if err != nil {
		return 0, 0, err
	}
	other, err := p.caller(1, 0)
	if err != nil {
		return 0, 0, err
	}
	p.rest()
	leave := func() (load.Outcome, error) {
		o := client.Ask(p.ctx, leaves(), nil)
		if !o.Gone {
			return o, errors.Join(o.Err(), errors.New("answered before the hang-up"))
		}
		return o, nil
	}
	o, err := leave()
	if err != nil {
		return 0, 0, err
	}
	for n := 1; n > 0; {
		if n, err = s.running(); err != nil {
			return 0, 0, err
		}
		free = load.Now().Sub(o.End)
		sleepFor(p.ctx, time.Millisecond)
	}
	p.rest()
	if _, err = leave(); err != nil {
		return 0, 0, err
	}
	o, err = p.ask(other, load.Shot{Target: s.target, Request: prompt(32, 1)})
	return free, o.TTFT(), err
}

// mixed sends requests of all kinds from sixteen callers, and checks every answer. Every second caller
// hangs up at random on some of its requests.
func (p *peers) mixed() error {
	s, err := p.inferd(inferdOptions{backends: load.MixedBackends, queueDepth: 64})
	if err != nil {
		return err
	}
	m := load.Mixed{Requests: (p.requests + load.MixedCallers - 1) / load.MixedCallers, Streams: 4, Seed: rand.Uint64()}
	m.Targets = []load.Target{
		{Dialect: load.V1, Path: filepath.Join(s.daemon.dir, v1Leaf)},
		{Dialect: load.V2, Path: filepath.Join(s.daemon.dir, v2Leaf)},
		{Dialect: load.LP, Path: filepath.Join(s.daemon.dir, lpLeaf)},
	}
	begin := time.Now()
	tallies, err := p.runMixed(&m)
	if err != nil {
		return err
	}
	took := time.Since(begin)
	if err := p.idle(s); err != nil {
		return err
	}
	stats, err := s.daemon.stats()
	if err != nil {
		return err
	}
	p.reportMixed(m.Requests*load.MixedCallers, tallies, &stats, took)
	return nil
}

// runMixed runs the requests of all callers at once.
func (p *peers) runMixed(m *load.Mixed) ([]load.Tally, error) {
	tallies := make([]load.Tally, load.MixedCallers)
	ctx, cancel := context.WithCancel(p.ctx)
	defer cancel()
	var all sync.WaitGroup
	for i := range tallies {
		client, err := p.caller(i/4, i%4)
		if err != nil {
			return nil, err
		}
		some := *m
		some.Leave = i%2 == 1 // every second caller never hangs up, so its usage is known exactly
		all.Go(func() { tallies[i] = some.Run(ctx, client, i) })
	}
	all.Wait()
	return tallies, nil
}

// reportMixed prints the faults, and compares the usage in the answers with the counts of the
// daemon.
func (p *peers) reportMixed(requests int, tallies []load.Tally, counted *daemonStats, took time.Duration) {
	var total load.Tally
	wrong := 0
	for i := range tallies {
		total.Add(&tallies[i])
		var in, out int64
		for _, c := range counted.Callers {
			if c.Exe == p.program(i/4, i%4) {
				in, out = in+c.In, out+c.Out
			}
		}
		if err := tallies[i].Agrees(in, out); err != nil {
			wrong++
			fmt.Fprintf(p.out, "   caller %d: %v\n", i, err)
		}
	}
	var in, out int64
	for _, b := range counted.Backends {
		in, out = in+b.In, out+b.Out
	}
	agrees := "agree"
	if err := total.Agrees(in, out); err != nil || wrong > 0 {
		agrees = "DIFFER"
	}
	for _, fault := range total.Faults[:min(5, len(total.Faults))] {
		fmt.Fprintf(p.out, "   %s\n", fault)
	}
	p.report(fmt.Sprintf("%d requests of %d callers: faults", requests, load.MixedCallers), "0", "%d (%d answered, %d refused, %d left)", len(total.Faults), total.Answered, total.Refused, total.Left)
	p.report("  usage in the answers, and the daemon's counts", "agree", "%s (%d + %d tokens, %s)", agrees, in, out, took.Round(time.Second))
}

// idle waits until no request runs.
func (p *peers) idle(s *testServer) error {
	for {
		n, err := s.running()
		if err != nil || n == 0 {
			return err
		}
		sleepFor(p.ctx, 10*time.Millisecond)
		if p.ctx.Err() != nil {
			return fmt.Errorf("%d requests are still running", n)
		}
	}
}
