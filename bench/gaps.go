package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/inferd-go/inferd/bench/load"
)

// stall measures the gaps between the tokens of running streams while another caller's prompt is
// prefilled, and how much slower that prefill is.
func (p *peers) stall() error {
	prompts := []int{1800, 8000}
	if p.quick {
		prompts = []int{600}
	}
	for _, kind := range []struct {
		servers []contender
		note    string
		// goals returns the goals for the gap and the prefill.
		goals func(streams int, step time.Duration) (gap, prefill string)
		n     int
	}{
		{p.inferds(inferdOptions{}), "", func(streams int, step time.Duration) (string, string) {
			return "<= " + ms(defaultStall(step)), map[int]string{1: ">= 0.70", 4: ">= 0.55"}[streams]
		}, p.rounds()},
		{p.inferds(inferdOptions{maxStall: 600}), ", max_stall_ms 600", func(int, time.Duration) (string, string) {
			return "<= " + ms(600*time.Millisecond), ">= 0.85"
		}, p.rounds()},
		{p.llamaServers(true), "", func(int, time.Duration) (string, string) { return "", "" }, 1},
	} {
		for _, tokens := range prompts {
			for _, streams := range []int{1, 4} {
				label := fmt.Sprintf("%s: %d streams, prompt of %d", kind.note, streams, tokens)
				results, err := serveInTurns(p, kind.servers, kind.n, func(s *testServer) (*stalled, error) { return p.besidePrefill(s, streams, tokens) })
				if err != nil {
					return fmt.Errorf("%s: %w", label, err)
				}
				for i, c := range kind.servers {
					reportStalled(p, c.name+label, results[i], func(step time.Duration) (string, string) {
						if i > 0 {
							return "", ""
						}
						return kind.goals(streams, step)
					})
				}
				if len(results) > 1 {
					reportVersus(p, results,
						figure[*stalled]{"gap p99.9", true, func(st *stalled) float64 { return percentile(st.gaps, 99.9).Seconds() * 1000 }},
						figure[*stalled]{"gap p50", true, func(st *stalled) float64 { return median(st.gaps).Seconds() * 1000 }},
						figure[*stalled]{"prefill beside the streams", true, func(st *stalled) float64 { return st.took.Seconds() * 1000 }},
						figure[*stalled]{"prefill alone", true, func(st *stalled) float64 { return st.alone.Seconds() * 1000 }},
					)
				}
			}
		}
	}
	return nil
}

// reportStalled prints the gaps between tokens, and how much slower the prefill is, on one server.
func reportStalled(p *peers, what string, results []*stalled, goals func(step time.Duration) (gap, prefill string)) {
	gaps := pooled(results, func(st *stalled) []time.Duration { return st.gaps })
	step := time.Duration(medianOf(results, func(st *stalled) int { return int(st.step) }))
	took := time.Duration(medianOf(results, func(st *stalled) int { return int(st.took) }))
	alone := time.Duration(medianOf(results, func(st *stalled) int { return int(st.alone) }))
	gap, prefill := goals(step)
	p.report(what+": gap", gap, "p99.9 %s, max %s, before %s", ms(percentile(gaps, 99.9)), ms(slices.Max(gaps)), ms(step))
	p.report("  its prefill, of undisturbed", prefill, "%.2f (%s, alone %s)",
		medianOf(results, func(st *stalled) float64 { return st.alone.Seconds() / st.took.Seconds() }),
		took.Round(10*time.Millisecond), alone.Round(10*time.Millisecond))
}

// defaultStall returns the default of max_stall_ms for streams with the given step time.
func defaultStall(step time.Duration) time.Duration { return max(100*time.Millisecond, 4*step) }

// A stalled has the figures of streams beside a prefill.
type stalled struct {
	step  time.Duration   // time between two tokens before the prefill
	gaps  []time.Duration // gaps between tokens during the prefill
	took  time.Duration   // time of the prefill beside the streams
	alone time.Duration   // time of the prefill on the idle server
}

// besidePrefill measures a prefill on the idle server, and then beside n streams of another caller.
func (p *peers) besidePrefill(s *testServer, n, tokens int) (*stalled, error) {
	other, err := p.caller(1, 0)
	if err != nil {
		return nil, err
	}
	alone, err := p.ask(other, load.Shot{Target: s.target, Request: prompt(tokens, 1)})
	if err != nil {
		return nil, err
	}
	p.rest()
	end, err := p.startStreams(s, n, min((peerContext-tokens)/n-64, 4000))
	if err != nil {
		return nil, err
	}
	sleepFor(p.ctx, 2*time.Second)
	o, err := p.ask(other, load.Shot{Target: s.target, Request: prompt(tokens, 1)})
	sleepFor(p.ctx, time.Second) // until the last gap has ended
	answers, err2 := end()
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	before, beside := gapsWithin(answers, 0, o.Due), gapsWithin(answers, o.Due, o.First)
	if len(before) == 0 || len(beside) == 0 {
		return nil, errors.New("no tokens before or during the prefill")
	}
	return &stalled{step: median(before), gaps: beside, took: o.TTFT(), alone: alone.TTFT()}, nil
}

// startStreams runs n streams of the first caller, and returns when each has its first token. A
// stream that ends is started again, so that even a fast server always has n streams. end hangs up,
// and returns all answers.
func (p *peers) startStreams(s *testServer, n, tokens int) (end func() ([]load.Outcome, error), err error) {
	client, err := p.caller(0, 0)
	if err != nil {
		return nil, err
	}
	ctx, leave := context.WithCancel(p.ctx)
	var (
		all     sync.WaitGroup
		failed  settled
		mu      sync.Mutex // guards answers
		answers []load.Outcome
		began   = make(chan struct{}, n)
	)
	for range n {
		all.Go(func() {
			started := sync.OnceFunc(func() { began <- struct{}{} })
			defer started()
			for ctx.Err() == nil {
				o := client.Ask(ctx, load.Shot{Target: s.target, Request: prompt(32, tokens), Trace: true}, started)
				mu.Lock()
				answers = append(answers, o)
				mu.Unlock()
				if err := o.Err(); err != nil && !o.Gone {
					failed.add(err)
					return
				}
			}
		})
	}
	end = func() ([]load.Outcome, error) {
		leave()
		all.Wait()
		return answers, failed.err()
	}
	for range n {
		<-began // at the latest when p.ctx ends
	}
	if failed.err() != nil || p.ctx.Err() != nil {
		_, err := end()
		return nil, errors.Join(err, p.ctx.Err())
	}
	return end, nil
}

// gapsWithin returns the gaps between the tokens of each answer that overlap the time between from
// and to.
func gapsWithin(answers []load.Outcome, from, to load.Stamp) []time.Duration {
	var gaps []time.Duration
	for i := range answers {
		at := answers[i].Arrivals
		for j := 1; j < len(at); j++ {
			if at[j] > from && at[j-1] <= to {
				gaps = append(gaps, at[j].Sub(at[j-1]))
			}
		}
	}
	return gaps
}

// costly is a grammar that matches a text in many ways, so its masks take long.
const costly = "root ::= ([a-z]? [a-z]? [a-z]?){0,60}"

// grammars measures the gaps of two streams beside requests of another user with a grammar. The
// cost of a mask grows with the vocabulary, so the big model is measured even if tiny is chosen.
func (p *peers) grammars() error {
	type named struct{ name, file string }
	models := []named{{p.name, p.model}}
	if p.name == "tiny" {
		big, err := bigModel()
		if err != nil {
			return err
		}
		models = append(models, named{"big-q8_0", big})
	}
	for _, model := range models {
		servers := p.inferds(inferdOptions{model: model.file})
		results, err := inTurns(servers, p.rounds(), func(c contender) (*masked, error) {
			m, err := serve(p, c, p.besideGrammars)
			if err != nil && c.name != p.builds[0].name && p.ctx.Err() == nil {
				return &masked{err: err}, nil // an older build may fail here
			}
			return m, err
		})
		if err != nil {
			return fmt.Errorf("%s: %w", model.name, err)
		}
		measured := true
		for i, c := range servers {
			measured = reportMasked(p, c.name+", "+model.name, results[i], i == 0) && measured
		}
		if measured {
			reportVersus(p, results, figure[*masked]{"gap p99.9 beside grammars", true, func(m *masked) float64 { return percentile(m.beside, 99.9).Seconds() * 1000 }},
				figure[*masked]{"gap p50 beside grammars", true, func(m *masked) float64 { return median(m.beside).Seconds() * 1000 }})
		}
	}
	return nil
}

// A masked has the figures of streams beside requests with a grammar.
type masked struct {
	alone, beside []time.Duration // gaps without the requests and beside them
	requests      map[string]int  // number of requests with a grammar, by outcome
	err           error           // why nothing was measured
}

// besideGrammars runs two streams on the idle server, and then beside six requests with a grammar.
func (p *peers) besideGrammars(s *testServer) (*masked, error) {
	other, err := p.caller(1, 0)
	if err != nil {
		return nil, err
	}
	end, err := p.startStreams(s, 2, peerContext/4)
	if err != nil {
		return nil, err
	}
	m := &masked{requests: make(map[string]int)}
	length := time.Duration(p.size(30, 10)) * time.Second
	sleepFor(p.ctx, time.Second)
	begin := load.Now()
	sleepFor(p.ctx, length/2)
	ctx, leave := context.WithCancel(p.ctx)
	middle := load.Now()
	wait := again(ctx, other, 6, func() load.Shot {
		r := prompt(32, 64)
		r.Grammar = costly
		return load.Shot{Target: s.target, Request: r}
	}, func(o *load.Outcome) {
		switch {
		case o.Fault != "":
			m.requests[o.Fault]++
		case o.Gone:
			m.requests["unfinished"]++
		case o.Code != "":
			m.requests[o.Code]++
		default:
			m.requests["answered"]++
		}
	})
	sleepFor(p.ctx, length)
	until := load.Now()
	leave()
	wait()
	sleepFor(p.ctx, time.Second) // until the last gap has ended
	answers, err := end()
	m.alone, m.beside = gapsWithin(answers, begin, middle), gapsWithin(answers, middle, until)
	if err == nil && (len(m.alone) == 0 || len(m.beside) == 0) {
		err = errors.New("no tokens without or beside the grammars")
	}
	return m, err
}

// reportMasked prints the gaps on one server. It returns false if a round was not measured.
func reportMasked(p *peers, what string, results []*masked, hasGoal bool) bool {
	requests := make(map[string]int)
	for _, m := range results {
		if m.err != nil {
			p.report(what, "", "NOT MEASURED: %v", m.err)
			return false
		}
		for kind, n := range m.requests {
			requests[kind] += n
		}
	}
	percentiles := func(gaps []time.Duration) string {
		return fmt.Sprintf("p50 %s, p99 %s, p99.9 %s", ms(median(gaps)), ms(percentile(gaps, 99)), ms(percentile(gaps, 99.9)))
	}
	alone := pooled(results, func(m *masked) []time.Duration { return m.alone })
	beside := pooled(results, func(m *masked) []time.Duration { return m.beside })
	goal := ""
	if hasGoal {
		step := median(alone)
		goal = "p99.9 <= " + ms(defaultStall(step)+step)
	}
	p.report(what+": gap beside grammars", goal, "%s", percentiles(beside))
	p.report("  without them", "", "%s", percentiles(alone))
	counts := make([]string, 0, len(requests))
	for _, kind := range slices.Sorted(maps.Keys(requests)) {
		counts = append(counts, fmt.Sprintf("%d %s", requests[kind], kind))
	}
	p.report("  requests with a grammar", "", "%s", strings.Join(counts, ", "))
	return true
}
