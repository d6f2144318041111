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

// flood measures the first token of a short request while another caller has sixty
// waiting, beside that of an idle server.
func (p *peers) flood() error {
	ours, err := p.inferd(inferdOptions{queueDepth: 64})
	if err != nil {
		return err
	}
	n := p.size(100, 20)
	every, err := p.pause(ours)
	if err != nil {
		return err
	}
	idle, err := p.shortOnes(ours, n, every)
	if err != nil {
		return err
	}
	busy, step, err := p.flooded(ours, n, every)
	if err != nil {
		return err
	}
	bound := 3*percentile(idle, 99)/2 + step
	p.report("TTFT, 60 waiting", "<= "+ms(bound), "p50 %s, p99 %s", ms(median(busy)), ms(percentile(busy, 99)))
	p.report("  idle, and a step beside the flood", "", "p50 %s, p99 %s, step %s", ms(median(idle)), ms(percentile(idle, 99)), ms(step))
	p.stop(ours)

	theirs, err := p.llamaServer(p.model, false)
	if err != nil {
		return err
	}
	if every, err = p.pause(theirs); err != nil {
		return err
	}
	if idle, err = p.shortOnes(theirs, n, every); err != nil {
		return err
	}
	// They wait for so long there that few must do.
	if busy, _, err = p.flooded(theirs, p.size(6, 2), every); err != nil {
		return err
	}
	p.report("  llama-server: TTFT, 60 waiting", "", "median %s, worst %s", ms(median(busy)), ms(slices.Max(busy)))
	p.report("  llama-server: idle", "", "p50 %s, p99 %s", ms(median(idle)), ms(percentile(idle, 99)))
	return nil
}

// pause returns how much time to leave between short requests, so that they do not meet on
// an idle server.
func (p *peers) pause(s *side) (time.Duration, error) {
	who, err := p.caller(1, 0)
	if err != nil {
		return 0, err
	}
	var took []time.Duration
	for range 3 {
		p.rest()
		o, err := p.ask(who, load.Shot{Target: s.target, Request: prompt(32, 8)})
		if err != nil {
			return 0, err
		}
		took = append(took, o.End.Sub(o.Due))
	}
	return max(500*time.Millisecond, 3*median(took)), nil
}

// shortOnes asks for a little at every such time, whether or not it has been answered, and
// returns when the first tokens came.
func (p *peers) shortOnes(s *side, n int, every time.Duration) ([]time.Duration, error) {
	who, err := p.caller(1, 0)
	if err != nil {
		return nil, err
	}
	took := make([]time.Duration, n)
	var all sync.WaitGroup
	var failed settled
	begin := load.Now().After(100 * time.Millisecond)
	for i := range n {
		due := begin.After(time.Duration(i) * every)
		all.Go(func() {
			o, err := p.ask(who, load.Shot{Target: s.target, Request: prompt(32, 8), Due: due})
			took[i] = o.TTFT()
			failed.add(err)
		})
	}
	all.Wait()
	return took, failed.err()
}

// flooded does the same while another caller keeps all slots running and sixty waiting.
// It also returns how long a step takes meanwhile.
func (p *peers) flooded(s *side, n int, every time.Duration) ([]time.Duration, time.Duration, error) {
	who, err := p.caller(0, 0)
	if err != nil {
		return nil, 0, err
	}
	ctx, leave := context.WithCancel(p.ctx)
	defer leave()
	var (
		gaps   []time.Duration
		failed settled
	)
	wait := again(ctx, who, peerSlots+60, func() load.Shot {
		return load.Shot{Target: s.target, Request: prompt(64, 32), Trace: true}
	}, func(o *load.Outcome) {
		// While short ones run, a few more of the flood may wait than it is allowed.
		if !o.Gone && o.Code != "queue_full" {
			failed.add(o.Err())
		}
		for i := 1; i < len(o.Arrivals); i++ {
			gaps = append(gaps, o.Arrivals[i].Sub(o.Arrivals[i-1]))
		}
	})
	sleepFor(ctx, 3*time.Second)
	took, err := p.shortOnes(s, n, every)
	leave()
	wait()
	switch {
	case err != nil:
		return nil, 0, err
	case failed.err() != nil:
		return nil, 0, fmt.Errorf("the flood: %w", failed.err())
	case len(gaps) == 0:
		return nil, 0, errors.New("the flood was not answered")
	}
	return took, median(gaps), nil
}

// shares measures what callers get who all want more than there is.
func (p *peers) shares() error {
	s, err := p.inferd(inferdOptions{queueDepth: 64})
	if err != nil {
		return err
	}
	sizes := []int{1, 4, 16, 64}
	crowd := make([]asking, len(sizes))
	for i, size := range sizes {
		who, err := p.caller(i, 0)
		if err != nil {
			return err
		}
		crowd[i] = asking{[]load.Doer{who}, peerSlots, load.TemplateTokens + 2*size, 2 * size}
	}
	got, all, err := p.compete(s, crowd)
	if err != nil {
		return err
	}
	p.report("tokens of four callers, requests of 1 : 4 : 16 : 64", "Jain >= 0.95, aim 0.99", "Jain %.3f (%s tokens/s)", jain(got), perSecond(got, p.backlog))
	p.report("  with tokens that were known", "", "Jain %.3f (%s tokens/s)", jain(all), perSecond(all, p.backlog))
	if !p.root {
		p.report("200 connections, 200 programs, of one user beside another", "", "not measured: only root can be two users")
		return nil
	}

	one, err := p.caller(1, 0)
	if err != nil {
		return err
	}
	other := asking{[]load.Doer{one}, peerSlots, 32, 16}
	many, err := p.caller(0, 0)
	if err != nil {
		return err
	}
	n := p.size(200, 40)
	if got, _, err = p.compete(s, []asking{{[]load.Doer{many}, n, 32, 16}, other}); err != nil {
		return err
	}
	p.report(fmt.Sprintf("%d connections beside another user's %d: that one's share", n, peerSlots), ">= 0.48", "%.3f (%s tokens/s)", share(got), perSecond(got, p.backlog))
	copies := asking{connections: 1, in: 32, out: 16}
	for i := range n {
		who, err := p.caller(0, i)
		if err != nil {
			return err
		}
		copies.who = append(copies.who, who)
	}
	if got, _, err = p.compete(s, []asking{copies, other}); err != nil {
		return err
	}
	p.report(fmt.Sprintf("%d copies of a program beside another user: that one's share", n), ">= 0.48", "%.3f (%s tokens/s)", share(got), perSecond(got, p.backlog))
	return nil
}

// An asking is somebody who always asks for more.
type asking struct {
	who         []load.Doer
	connections int // of each of them
	in, out     int // tokens of a request
}

// compete lets them ask at once and returns how many tokens each got while it watched: those
// that were read and written for it, and with those that the cache knew. It watches from when
// all have been answered twice: who came first has had the slots that were free, and keeps them
// until it is answered.
func (p *peers) compete(s *side, crowd []asking) (got, all []float64, err error) {
	ctx, leave := context.WithCancel(p.ctx)
	defer leave()
	var (
		failed   settled
		waits    []func()
		mu       sync.Mutex // guards those below
		answers  = make([][]load.Outcome, len(crowd))
		answered = make([]int, len(crowd))
		underWay = make(chan struct{}, len(crowd))
	)
	for i, a := range crowd {
		for _, who := range a.who {
			waits = append(waits, again(ctx, who, a.connections, func() load.Shot {
				return load.Shot{Target: s.target, Request: prompt(a.in, a.out), Trace: true}
			}, func(o *load.Outcome) {
				if !o.Gone && o.Code != "queue_full" { // who asks too much may be told so
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
	for range crowd {
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
	got, all = make([]float64, len(crowd)), make([]float64, len(crowd))
	for i, a := range crowd {
		for _, o := range answers[i] {
			written := served(&o, from, to)
			got[i], all[i] = got[i]+written, all[i]+written
			if o.First > from && o.First <= to {
				got[i] += float64(a.in - o.Cached)
				all[i] += float64(a.in)
			}
		}
		if got[i] == 0 {
			failed.add(fmt.Errorf("caller %d of %d got nothing", i+1, len(crowd)))
		}
	}
	return got, all, failed.err()
}

// jain is 1 if all have the same, and 1/n if one has everything.
func jain(all []float64) float64 {
	sum, squares := 0.0, 0.0
	for _, x := range all {
		sum += x
		squares += x * x
	}
	return sum * sum / (float64(len(all)) * squares)
}

// share is what the second of two has of both.
func share(got []float64) float64 { return got[1] / (got[0] + got[1]) }

func perSecond(got []float64, in time.Duration) string {
	each := make([]string, len(got))
	for i, x := range got {
		each[i] = fmt.Sprintf("%.1f", x/in.Seconds())
	}
	return strings.Join(each, " : ")
}
