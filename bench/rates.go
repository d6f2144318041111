package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/inferd-go/inferd/bench/load"
)

// decode measures how many tokens a second come out of one, four and eight streams: of
// inferd, of the bare loops, which have no socket, and of both modes of llama-server.
func (p *peers) decode() error {
	sequences := []int{1, 4, 8}
	rounds, tokens := p.size(7, 2), p.size(128, 32)
	ours, err := p.inferd(inferdOptions{})
	if err != nil {
		return err
	}
	split, err := p.llamaServer(p.model, false)
	if err != nil {
		return err
	}
	unified, err := p.llamaServer(p.model, true)
	if err != nil {
		return err
	}
	bare, err := p.bareLoop(p.model, p.threads)
	if err != nil {
		return err
	}
	defer bare.stop()
	const batched, looped = "llama-batched-bench", "our bare loop"
	rates := make(map[string]map[int][]float64)
	add := func(name string, n int, rate float64) {
		if rates[name] == nil {
			rates[name] = make(map[int][]float64)
		}
		rates[name][n] = append(rates[name][n], rate)
	}
	servers := []*side{ours, split, unified}
	for round := range rounds + 1 { // the first one warms
		if round == 1 {
			clear(rates)
		}
		all, err := p.batchedBench(tokens, sequences)
		if err != nil {
			return err
		}
		for _, n := range sequences {
			add(batched, n, all[n])
			p.rest()
			rate, err := bare.run(tokens, n)
			if err != nil {
				return err
			}
			add(looped, n, rate)
			for i := range servers { // each is first as often as last
				s := servers[(i+round)%len(servers)]
				p.rest()
				rate, err := p.streams(s, n, tokens)
				if err != nil {
					return fmt.Errorf("%s, %d streams: %w", s.name, n, err)
				}
				add(s.name, n, rate)
			}
		}
	}
	for i, n := range sequences {
		got := rates[ours.name][n]
		p.report(fmt.Sprintf("%d streams through the socket", n), "", "%s tokens/s", spread(got))
		for _, name := range []string{batched, looped} {
			p.report("  of "+name, fmt.Sprintf(">= %.2f, aim 0.98", []float64{0.93, 0.95, 0.95}[i]), "%s (%s)", spread(ratios(got, rates[name][n])), spread(rates[name][n]))
		}
		best := split.name
		if median(rates[unified.name][n]) > median(rates[best][n]) {
			best = unified.name
		}
		for _, name := range []string{split.name, unified.name} {
			reach := ""
			if name == best {
				reach = fmt.Sprintf(">= %.2f, aim 1.00 (its better mode)", []float64{0.95, 0.92, 0.95}[i])
			}
			p.report("  of "+name, reach, "%s (%s)", spread(ratios(got, rates[name][n])), spread(rates[name][n]))
		}
	}
	return nil
}

// rest waits until threads that have just computed spin no more.
func (p *peers) rest() { sleepFor(p.ctx, 500*time.Millisecond) }

// ratios divides what was measured in the same round.
func ratios(a, b []float64) []float64 {
	all := make([]float64, len(a))
	for i := range a {
		all[i] = a[i] / b[i]
	}
	return all
}

// spread prints the median of some numbers, and their ends if there are more.
func spread(all []float64) string {
	if len(all) == 0 {
		return "none"
	}
	format := "%.1f"
	if median(all) < 10 {
		format = "%.3f"
	}
	if len(all) == 1 {
		return fmt.Sprintf(format, all[0])
	}
	return fmt.Sprintf(format+" ("+format+"–"+format+")", median(all), slices.Min(all), slices.Max(all))
}

// streams asks for n answers at once and returns how many tokens of them came a second,
// while all were running.
func (p *peers) streams(s *side, n, tokens int) (float64, error) {
	who, err := p.caller(0, 0)
	if err != nil {
		return 0, err
	}
	outcomes := make([]load.Outcome, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			outcomes[i] = who.Ask(p.ctx, load.Shot{Target: s.target, Request: prompt(32, tokens), Trace: true}, nil)
		})
	}
	all.Wait()
	from, to := load.Stamp(0), outcomes[0].End
	for i := range outcomes {
		o := &outcomes[i]
		switch err := o.Err(); {
		case err != nil:
			return 0, err
		case o.Out != tokens:
			return 0, fmt.Errorf("an answer of %d tokens, not %d", o.Out, tokens)
		}
		from, to = max(from, o.First), min(to, o.Arrivals[len(o.Arrivals)-1])
	}
	if to <= from {
		return 0, errors.New("they did not run at once")
	}
	came := 0.0
	for i := range outcomes {
		came += served(&outcomes[i], from, to)
	}
	return came / to.Sub(from).Seconds(), nil
}

// served is how many tokens of an answer came after from, until to. A frame may have more
// than one.
func served(o *load.Outcome, from, to load.Stamp) float64 {
	frames := 0
	for _, at := range o.Arrivals {
		if at > from && at <= to {
			frames++
		}
	}
	if frames == 0 {
		return 0
	}
	if o.Gone { // the server has not said how many tokens there were
		return float64(frames)
	}
	return float64(frames) * float64(o.Out) / float64(o.Frames)
}

// prefill measures how fast a prompt of 512 tokens is read, from when it is asked until the
// first token comes.
func (p *peers) prefill() error {
	const tokens = 512
	ours, err := p.inferd(inferdOptions{})
	if err != nil {
		return err
	}
	theirs, err := p.llamaServer(p.model, false)
	if err != nil {
		return err
	}
	who, err := p.caller(0, 0)
	if err != nil {
		return err
	}
	var got, server, bench []float64
	for round := range p.size(8, 3) { // the first one warms
		rate := func(s *side) (float64, error) {
			p.rest()
			o, err := p.ask(who, load.Shot{Target: s.target, Request: prompt(tokens, 1)})
			if err == nil && o.In != tokens {
				err = fmt.Errorf("%s read %d tokens of %d", s.name, o.In, tokens)
			}
			return tokens / o.TTFT().Seconds(), err
		}
		a, err := rate(ours)
		if err != nil {
			return err
		}
		b, err := p.llamaBench(tokens, 2)
		if err != nil {
			return err
		}
		c, err := rate(theirs)
		if err != nil {
			return err
		}
		if round > 0 {
			got, bench, server = append(got, a), append(bench, b), append(server, c)
		}
	}
	p.report("prompt of 512 tokens through the socket", "", "%s tokens/s", spread(got))
	p.report("  of llama-bench", ">= 0.95, aim 0.98", "%s (%s)", spread(ratios(got, bench)), spread(bench))
	p.report("  of llama-server", "", "%s (%s)", spread(ratios(got, server)), spread(server))
	return nil
}

// stall measures the gaps between the tokens of running streams while somebody else's
// prompt is read, and what that does to the reading.
func (p *peers) stall() error {
	prompts := []int{1800, 8000}
	if p.quick {
		prompts = []int{600}
	}
	for _, kind := range []struct {
		start func() (*side, error)
		stall string // max_stall_ms, in words
		limit time.Duration
	}{
		{func() (*side, error) { return p.inferd(inferdOptions{}) }, "inferd", 0},
		{func() (*side, error) { return p.inferd(inferdOptions{maxStall: 600}) }, "inferd, max_stall_ms 600", 600 * time.Millisecond},
		{func() (*side, error) { return p.llamaServer(p.model, true) }, "llama-server --kv-unified", -1},
	} {
		s, err := kind.start()
		if err != nil {
			return err
		}
		for _, tokens := range prompts {
			who, err := p.caller(1, 0)
			if err != nil {
				return err
			}
			for _, n := range []int{1, 4} {
				p.rest()
				alone, err := p.ask(who, load.Shot{Target: s.target, Request: prompt(tokens, 1)})
				if err != nil {
					return err
				}
				st, err := p.beside(s, n, tokens)
				if err != nil {
					return fmt.Errorf("%s, %d streams, %d tokens: %w", kind.stall, n, tokens, err)
				}
				limit, least := kind.limit, map[int]string{1: ">= 0.70", 4: ">= 0.55"}[n]
				switch {
				case limit > 0:
					least = ">= 0.85"
				case limit == 0:
					limit = max(100*time.Millisecond, 4*st.step)
				}
				reachGap := ""
				if limit > 0 {
					reachGap = "<= " + ms(limit)
				} else {
					least = ""
				}
				what := fmt.Sprintf("%s: %d streams, prompt of %d", kind.stall, n, tokens)
				p.report(what+": gap", reachGap, "p99.9 %s, max %s, before %s", ms(percentile(st.gaps, 99.9)), ms(slices.Max(st.gaps)), ms(st.step))
				p.report("  its prefill, of undisturbed", least, "%.2f (%s, alone %s)", alone.TTFT().Seconds()/st.took.Seconds(),
					st.took.Round(10*time.Millisecond), alone.TTFT().Round(10*time.Millisecond))
			}
		}
		p.stop(s)
	}
	return nil
}

// A stalled is what happened to streams beside a prompt.
type stalled struct {
	step time.Duration   // between two tokens, before the prompt came
	gaps []time.Duration // while it was read
	took time.Duration   // the prompt
}

// beside runs n streams, has another caller's prompt read, and ends them.
func (p *peers) beside(s *side, n, tokens int) (*stalled, error) {
	who, err := p.caller(0, 0)
	if err != nil {
		return nil, err
	}
	stranger, err := p.caller(1, 0)
	if err != nil {
		return nil, err
	}
	ctx, leave := context.WithCancel(p.ctx)
	defer leave()
	var (
		all      sync.WaitGroup
		outcomes = make([]load.Outcome, n)
		came     = make(chan error, 2*n)
		room     = min((peerContext-tokens)/n-64, 4000)
	)
	for i := range n {
		all.Go(func() {
			outcomes[i] = who.Ask(ctx, load.Shot{Target: s.target, Request: prompt(32, room), Trace: true}, func() { came <- nil })
			came <- outcomes[i].Err()
		})
	}
	for range n {
		if err := <-came; err != nil {
			return nil, err
		}
	}
	sleepFor(p.ctx, 2*time.Second)
	o, err := p.ask(stranger, load.Shot{Target: s.target, Request: prompt(tokens, 1)})
	if err != nil {
		return nil, err
	}
	sleepFor(p.ctx, time.Second) // the gap in which it ended, too
	leave()
	all.Wait()
	st := &stalled{took: o.TTFT()}
	var before []time.Duration
	for i := range outcomes {
		if !outcomes[i].Gone {
			return nil, errors.New("a stream ended before the prompt was read")
		}
		at := outcomes[i].Arrivals
		for j := 1; j < len(at); j++ {
			gap := at[j].Sub(at[j-1])
			switch {
			case at[j] <= o.Due:
				before = append(before, gap)
			case at[j-1] <= o.First:
				st.gaps = append(st.gaps, gap)
			}
		}
	}
	if len(before) == 0 || len(st.gaps) == 0 {
		return nil, errors.New("no tokens came, before or beside the prompt")
	}
	st.step = median(before)
	return st, nil
}
