package main

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/inferd-go/inferd/bench/load"
)

// decode measures the rate of one, four and eight streams: of inferd, of the bare loops,
// which have no socket, and of both modes of llama-server.
func (p *peers) decode() error {
	ours, err := p.sides(inferdOptions{})
	if err != nil {
		return err
	}
	theirs, err := p.llamaServers(false, true)
	if err != nil {
		return err
	}
	bare, err := p.bareLoop(p.model, p.threads)
	if err != nil {
		return err
	}
	defer bare.stop()
	for i, n := range []int{1, 4, 8} {
		tokens := p.size(128, 64)
		all := make([]runner, 0, 6)
		add := func(name, reach string, rate func() (float64, error)) {
			all = append(all, runner{name, reach, rate})
		}
		streams := func(s *side) func() (float64, error) {
			return func() (float64, error) { return p.streams(s, n, &tokens) }
		}
		add(ours[0].name, "", streams(ours[0]))
		for _, s := range ours[1:] {
			add(s.name, olderReach, streams(s))
		}
		reach := fmt.Sprintf(">= %.2f, aim 0.98", []float64{0.93, 0.95, 0.95}[i])
		if p.llama != "" {
			add("llama-batched-bench", reach, func() (float64, error) { return p.batchedBench(p.model, tokens, n) })
		}
		add("our bare loop", reach, func() (float64, error) { return bare.run(tokens, n) })
		var modes []int
		for _, s := range theirs {
			modes = append(modes, len(all))
			add(s.name, "", streams(s))
		}
		rates, err := p.compareRates(all, p.repeats())
		if err != nil {
			return fmt.Errorf("%d streams: %w", n, err)
		}
		if best := fastest(rates, modes...); best >= 0 {
			all[best].reach = fmt.Sprintf(">= %.2f, aim 1.00 (its better mode)", []float64{0.95, 0.92, 0.95}[i])
		}
		p.reportRates(fmt.Sprintf("%d streams through the socket", n), all, rates)
	}
	return nil
}

// rest waits until idle compute threads no longer spin.
func (p *peers) rest() { sleepFor(p.ctx, 500*time.Millisecond) }

// ratios divides the figures of a round by each other, for every round.
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

// streams measures the rate of n streams while all of them run. It asks for answers of
// *tokens; if too little of them overlaps, it doubles *tokens and measures again.
func (p *peers) streams(s *side, n int, tokens *int) (float64, error) {
	const longest = peerContext/peerSlots - 64 // beside the prompt, in a slot of a split cache
	for {
		outcomes, err := p.answers(s, n, *tokens)
		if err != nil {
			return 0, err
		}
		rate, part := overlap(outcomes)
		more := min(2**tokens, longest)
		switch {
		case part >= 0.5, part >= 0.1 && more <= *tokens:
			return rate, nil
		case more <= *tokens:
			return 0, fmt.Errorf("%d answers of %d tokens did not overlap", n, *tokens)
		}
		*tokens = more
	}
}

// answers asks for n answers of that length at once.
func (p *peers) answers(s *side, n, tokens int) ([]load.Outcome, error) {
	client, err := p.caller(0, 0)
	if err != nil {
		return nil, err
	}
	outcomes := make([]load.Outcome, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			outcomes[i] = client.Ask(p.ctx, load.Shot{Target: s.target, Request: prompt(32, tokens), Trace: true}, nil)
		})
	}
	all.Wait()
	for i := range outcomes {
		switch err := outcomes[i].Err(); {
		case err != nil:
			return nil, err
		case outcomes[i].Out != tokens:
			return nil, fmt.Errorf("an answer of %d tokens, not %d", outcomes[i].Out, tokens)
		}
	}
	return outcomes, nil
}

// overlap returns the rate of answers within the window in which all of them are running,
// and the part of their tokens that lies in it.
func overlap(outcomes []load.Outcome) (rate, part float64) {
	from, to := outcomes[0].First, outcomes[0].End
	for i := range outcomes {
		o := &outcomes[i]
		from, to = max(from, o.First), min(to, o.Arrivals[len(o.Arrivals)-1])
	}
	if to <= from {
		return 0, 0
	}
	tokens, all := 0.0, 0.0
	for i := range outcomes {
		tokens += served(&outcomes[i], from, to)
		all += float64(outcomes[i].Out)
	}
	return tokens / to.Sub(from).Seconds(), tokens / all
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

// prefill measures the rate of prefill of 512 tokens, from the request to its first token.
func (p *peers) prefill() error {
	const tokens = 512
	client, err := p.caller(0, 0)
	if err != nil {
		return err
	}
	through := func(s *side) func() (float64, error) {
		return func() (float64, error) {
			o, err := p.ask(client, load.Shot{Target: s.target, Request: prompt(tokens, 1)})
			if err == nil && o.In != tokens {
				err = fmt.Errorf("prefill of %d tokens, not %d", o.In, tokens)
			}
			return tokens / o.TTFT().Seconds(), err
		}
	}
	sides, err := p.sides(inferdOptions{})
	if err != nil {
		return err
	}
	var all []runner
	for i, s := range sides {
		all = append(all, runner{s.name, []string{"", olderReach}[i], through(s)})
	}
	theirs, err := p.llamaServers(false)
	if err != nil {
		return err
	}
	for _, s := range theirs {
		all = append(all, runner{"llama-bench", ">= 0.95, aim 0.98", func() (float64, error) { return p.llamaBench(tokens, 2) }},
			runner{s.name, "", through(s)})
	}
	rates, err := p.compareRates(all, p.repeats())
	if err != nil {
		return err
	}
	p.reportRates("prefill of 512 tokens through the socket", all, rates)
	return nil
}
