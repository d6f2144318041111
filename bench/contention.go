package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/inferd-go/inferd/bench/load"
)

// flood measures the TTFT of a short request on an idle server, and beside sixty waiting requests
// of another caller.
func (p *peers) flood() error {
	ours := p.inferds(inferdOptions{queueDepth: 64})
	rounds := p.rounds()
	results, err := serveInTurns(p, ours, rounds, func(s *testServer) (*flooded, error) { return p.besideFlood(s, p.size(100, 20)/rounds+1) })
	if err != nil {
		return err
	}
	for i, c := range ours {
		idle := pooled(results[i], func(f *flooded) []time.Duration { return f.idle })
		busy := pooled(results[i], func(f *flooded) []time.Duration { return f.busy })
		step := time.Duration(medianOf(results[i], func(f *flooded) int { return int(f.step) }))
		goal := ""
		if i == 0 {
			goal = "<= " + ms(3*percentile(idle, 99)/2+step)
		}
		p.report(c.name+": TTFT, 60 waiting", goal, "p50 %s, p99 %s", ms(median(busy)), ms(percentile(busy, 99)))
		p.report("  idle, and a step beside the flood", "", "p50 %s, p99 %s, step %s", ms(median(idle)), ms(percentile(idle, 99)), ms(step))
	}
	reportVersus(p, results,
		figure[*flooded]{"TTFT p50, 60 waiting", true, func(f *flooded) float64 { return median(f.busy).Seconds() * 1000 }},
		figure[*flooded]{"TTFT p99, 60 waiting", true, func(f *flooded) float64 { return percentile(f.busy, 99).Seconds() * 1000 }},
		figure[*flooded]{"TTFT p50, idle", true, func(f *flooded) float64 { return median(f.idle).Seconds() * 1000 }},
		figure[*flooded]{"step", true, func(f *flooded) float64 { return f.step.Seconds() * 1000 }})
	for _, c := range p.llamaServers(false) {
		// Requests take so long on this server that only a few are measured.
		f, err := serve(p, c, func(s *testServer) (*flooded, error) { return p.besideFlood(s, p.size(6, 2)) })
		if err != nil {
			return err
		}
		p.report("  "+c.name+": TTFT, 60 waiting", "", "median %s, worst %s", ms(median(f.busy)), ms(slices.Max(f.busy)))
		p.report("  "+c.name+": idle", "", "median %s, worst %s", ms(median(f.idle)), ms(slices.Max(f.idle)))
	}
	return nil
}

// A flooded has the TTFTs of short requests on one server, and its step time.
type flooded struct {
	idle, busy []time.Duration
	step       time.Duration // beside the flood
}

// pause returns an interval at which short requests do not overlap on an idle server.
func (p *peers) pause(s *testServer, client load.Doer) (time.Duration, error) {
	var took []time.Duration
	for range 3 {
		p.rest()
		o, err := p.ask(client, load.Shot{Target: s.target, Request: prompt(32, 8)})
		if err != nil {
			return 0, err
		}
		took = append(took, o.End.Sub(o.Due))
	}
	return max(500*time.Millisecond, 3*median(took)), nil
}

// besideFlood sends n short requests on an idle server, and then n more while another caller
// keeps all slots running and sixty requests waiting.
func (p *peers) besideFlood(s *testServer, n int) (*flooded, error) {
	short, err := p.caller(1, 0)
	if err != nil {
		return nil, err
	}
	every, err := p.pause(s, short)
	if err != nil {
		return nil, err
	}
	idle, err := p.shortOnes(s, short, n, every, 0)
	if err != nil {
		return nil, err
	}
	client, err := p.caller(0, 0)
	if err != nil {
		return nil, err
	}
	ctx, leave := context.WithCancel(p.ctx)
	defer leave()
	var (
		gaps   []time.Duration
		failed settled
	)
	wait := again(ctx, client, peerSlots+60, func() load.Shot {
		return load.Shot{Target: s.target, Request: prompt(64, 32), Trace: true}
	}, func(o *load.Outcome) {
		// While short requests run, there is no room in the queue for some requests of the flood.
		if !o.Gone && o.Code != "queue_full" {
			failed.add(o.Err())
		}
		for i := 1; i < len(o.Arrivals); i++ {
			gaps = append(gaps, o.Arrivals[i].Sub(o.Arrivals[i-1]))
		}
	})
	sleepFor(ctx, 3*time.Second)
	busy, err := p.shortOnes(s, short, n, every, 0)
	leave()
	wait()
	switch {
	case err != nil:
		return nil, err
	case failed.err() != nil:
		return nil, fmt.Errorf("the flood: %w", failed.err())
	case len(gaps) == 0:
		return nil, errors.New("the flood was not answered")
	}
	return &flooded{idle: idle.ttft, busy: busy.ttft, step: median(gaps)}, nil
}

// shares measures the shares of callers that always have requests waiting.
func (p *peers) shares() error {
	servers := p.inferds(inferdOptions{queueDepth: 64})
	sizes := []int{1, 4, 16, 64}
	callers := make([]backlogged, len(sizes))
	for i, size := range sizes {
		client, err := p.caller(i, 0)
		if err != nil {
			return err
		}
		callers[i] = backlogged{[]load.Doer{client}, peerSlots, load.TemplateTokens + 2*size, 2 * size}
	}
	results, err := p.competeInTurns(servers, callers)
	if err != nil {
		return err
	}
	p.reportShares(servers, results, "tokens of four callers, requests of 1 : 4 : 16 : 64", "Jain >= 0.95, aim 0.99", "Jain", jain)
	for i, c := range servers {
		all := summed(results[i], func(g *usage) []float64 { return g.all })
		p.report("  with cached tokens, "+c.name, "", "Jain %.3f (%s tokens/s)", jain(all), perSecond(all, p.watched(results[i])))
	}
	if !p.root {
		p.report("200 connections, 200 programs, of one user beside another", "", "not measured: only root can be two users")
		return nil
	}

	one, err := p.caller(1, 0)
	if err != nil {
		return err
	}
	other := backlogged{[]load.Doer{one}, peerSlots, 32, 16}
	many, err := p.caller(0, 0)
	if err != nil {
		return err
	}
	n := p.size(200, 40)
	if results, err = p.competeInTurns(servers, []backlogged{{[]load.Doer{many}, n, 32, 16}, other}); err != nil {
		return err
	}
	p.reportShares(servers, results, fmt.Sprintf("%d connections beside another user's %d", n, peerSlots), ">= 0.48", "share of the other", share)
	copies := backlogged{connections: 1, in: 32, out: 16}
	for i := range n {
		client, err := p.caller(0, i)
		if err != nil {
			return err
		}
		copies.clients = append(copies.clients, client)
	}
	if results, err = p.competeInTurns(servers, []backlogged{copies, other}); err != nil {
		return err
	}
	p.reportShares(servers, results, fmt.Sprintf("%d copies of a program beside another user", n), ">= 0.48", "share of the other", share)
	return nil
}

// competeInTurns measures the callers on each server in turns.
func (p *peers) competeInTurns(servers []contender, callers []backlogged) ([][]*usage, error) {
	return serveInTurns(p, servers, p.rounds(), func(s *testServer) (*usage, error) { return p.compete(s, callers) })
}

// reportShares prints a measure of the shares on each server. The function of computes it from the
// tokens of each caller; measure is its name.
func (p *peers) reportShares(servers []contender, results [][]*usage, what, goal, measure string, of func([]float64) float64) {
	for i, c := range servers {
		if i > 0 {
			what, goal = "  "+c.name, ""
		}
		fresh := summed(results[i], func(g *usage) []float64 { return g.fresh })
		p.report(what, goal, "%s %.3f (%s tokens/s)", measure, of(fresh), perSecond(fresh, p.watched(results[i])))
	}
	reportVersus(p, results, figure[*usage]{measure, false, func(g *usage) float64 { return of(g.fresh) }},
		figure[*usage]{"tokens/s of all", false, func(g *usage) float64 { return sum(g.fresh) / p.backlog.Seconds() }})
}

// watched returns the time that the results cover.
func (p *peers) watched(results []*usage) time.Duration {
	return time.Duration(len(results)) * p.backlog
}

// A usage has the tokens of each caller in one measurement.
type usage struct {
	fresh []float64 // tokens that were computed
	all   []float64 // tokens that were computed or cached
}

// summed adds up the tokens of each caller over all rounds. of chooses the fresh or all tokens.
func summed(results []*usage, of func(*usage) []float64) []float64 {
	total := slices.Clone(of(results[0]))
	for _, g := range results[1:] {
		for i, tokens := range of(g) {
			total[i] += tokens
		}
	}
	return total
}

func sum(all []float64) float64 {
	total := 0.0
	for _, x := range all {
		total += x
	}
	return total
}

// A backlogged caller always has a request on each of its connections.
type backlogged struct {
	clients     []load.Doer
	connections int // connections of each client
	in, out     int // tokens of the prompt and of the answer of a request
}

// compete runs callers at once, and returns the tokens of each during the measurement. The
// measurement begins when each caller has had two answers: the first requests take the free slots
// regardless of shares, and keep them until they are answered.
func (p *peers) compete(s *testServer, callers []backlogged) (*usage, error) {
	ctx, leave := context.WithCancel(p.ctx)
	defer leave()
	var (
		failed   settled
		waits    []func()
		mu       sync.Mutex // guards the fields below
		answers  = make([][]load.Outcome, len(callers))
		answered = make([]int, len(callers))
		underWay = make(chan struct{}, len(callers))
	)
	for i, a := range callers {
		for _, client := range a.clients {
			waits = append(waits, again(ctx, client, a.connections, func() load.Shot {
				return load.Shot{Target: s.target, Request: prompt(a.in, a.out), Trace: true}
			}, func(o *load.Outcome) {
				if !o.Gone && o.Code != "queue_full" { // the queue is shorter than the number of connections
					failed.add(o.Err())
				}
				mu.Lock()
				defer mu.Unlock()
				answers[i] = append(answers[i], *o)
				if o.Err() == nil {
					if answered[i]++; answered[i] == 2 {
						underWay <- struct{}{}
					}
				}
			}))
		}
	}
	for range callers {
		select {
		case <-underWay:
		case <-ctx.Done():
		}
	}
	from := load.Now()
	sleepFor(ctx, p.backlog)
	to := load.Now()
	leave()
	for _, wait := range waits {
		wait()
	}
	g := &usage{make([]float64, len(callers)), make([]float64, len(callers))}
	for i, a := range callers {
		for _, o := range answers[i] {
			written := served(&o, from, to)
			g.fresh[i], g.all[i] = g.fresh[i]+written, g.all[i]+written
			if o.First > from && o.First <= to {
				g.fresh[i] += float64(a.in - o.Cached)
				g.all[i] += float64(a.in)
			}
		}
		if g.fresh[i] == 0 {
			failed.add(fmt.Errorf("caller %d of %d got no tokens", i+1, len(callers)))
		}
	}
	return g, failed.err()
}

// jain returns Jain's index of fairness: 1 if all shares are equal, and 1/n if one of n callers
// has everything.
func jain(all []float64) float64 {
	squares := 0.0
	for _, x := range all {
		squares += x * x
	}
	return sum(all) * sum(all) / (float64(len(all)) * squares)
}

// share returns the share of the second of two callers.
func share(tokens []float64) float64 { return tokens[1] / (tokens[0] + tokens[1]) }

func perSecond(got []float64, in time.Duration) string {
	each := make([]string, len(got))
	for i, x := range got {
		each[i] = fmt.Sprintf("%.1f", x/in.Seconds())
	}
	return strings.Join(each, " : ")
}
