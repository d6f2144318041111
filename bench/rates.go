package main

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/inferd-go/inferd/bench/load"
)

// decode measures the rate of one, four and eight streams of inferd, of both modes of llama-server,
// and of the bare loops, which have no socket.
func (p *peers) decode() error {
	streams := []int{1, 4, 8}
	tokens := slices.Repeat([]int{p.size(128, 64)}, len(streams))
	// ratesOf returns the rate for each number of streams.
	ratesOf := func(rate func(i int) (float64, error)) ([]float64, error) {
		rates := make([]float64, len(streams))
		for i := range streams {
			p.rest()
			var err error
			if rates[i], err = rate(i); err != nil {
				return nil, fmt.Errorf("%d streams: %w", streams[i], err)
			}
		}
		return rates, nil
	}
	through := func(s *testServer) ([]float64, error) {
		return ratesOf(func(i int) (float64, error) { return p.streams(s, streams[i], &tokens[i]) })
	}
	none := make([]string, len(streams))
	loops := []string{">= 0.93, aim 0.98", ">= 0.95, aim 0.98", ">= 0.95, aim 0.98"}
	var all []runner
	for i, c := range p.inferds(inferdOptions{}) {
		all = append(all, p.runner(c, slices.Repeat([]string{p.builds[i].goal}, len(streams)), through))
	}
	if p.llama != "" {
		all = append(all, runner{"llama-batched-bench", loops, func() ([]float64, error) {
			return ratesOf(func(i int) (float64, error) { return p.batchedBench(p.model, tokens[i], streams[i]) })
		}})
	}
	all = append(all, runner{"our bare loop", loops, func() ([]float64, error) {
		bare, err := p.baseline(p.model, p.threads)
		if err != nil {
			return nil, err
		}
		defer bare.stop()
		if _, err := bare.run(8, 1); err != nil { // warm-up
			return nil, err
		}
		return ratesOf(func(i int) (float64, error) { return bare.run(tokens[i], streams[i]) })
	}})
	modes := len(all) // the following runners are the modes of llama-server
	for _, c := range p.llamaServers(false, true) {
		all = append(all, p.runner(c, none, through))
	}
	rates, err := compareRates(all, p.repeats(), len(streams))
	if err != nil {
		return err
	}
	for i, n := range streams {
		printed := slices.Clone(all)
		if best := fastest(rates, modes, i); best < len(all) {
			printed[best].goals = slices.Repeat([]string{fmt.Sprintf(">= %.2f, aim 1.00 (its better mode)", []float64{0.95, 0.92, 0.95}[i])}, len(streams))
		}
		p.reportRates(fmt.Sprintf("%d streams through the socket", n), printed, rates, i)
	}
	return nil
}

// fastest returns the index of the runner with the highest median rate of a kind, such as that of
// eight streams. It ignores the runners before index from.
func fastest(rates [][][]float64, from, kind int) int {
	best := from
	for i := from + 1; i < len(rates); i++ {
		if median(rates[i][kind]) > median(rates[best][kind]) {
			best = i
		}
	}
	return best
}

// rest waits until the threads of the last computation sleep.
func (p *peers) rest() { sleepFor(p.ctx, 500*time.Millisecond) }

// ratios divides each figure in a by the figure of the same round in b.
func ratios(a, b []float64) []float64 {
	all := make([]float64, len(a))
	for i := range a {
		all[i] = a[i] / b[i]
	}
	return all
}

// spread formats the median of all and, if there are several, the minimum and the maximum.
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

// streams measures the rate of n streams while all of them run. The answers have *tokens tokens. If
// they do not overlap enough, streams doubles *tokens and measures again.
func (p *peers) streams(s *testServer, n int, tokens *int) (float64, error) {
	const longest = peerContext/peerSlots - 64 // tokens of an answer that fit beside the prompt in a slot of a split cache
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

// answers requests n answers of the given length at once.
func (p *peers) answers(s *testServer, n, tokens int) ([]load.Outcome, error) {
	client, err := p.caller(0, 0)
	if err != nil {
		return nil, err
	}
	outcomes := p.together(client, n, func() load.Shot {
		return load.Shot{Target: s.target, Request: prompt(32, tokens), Trace: true}
	})
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

// together sends n requests at once.
func (p *peers) together(client load.Doer, n int, shot func() load.Shot) []load.Outcome {
	outcomes := make([]load.Outcome, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { outcomes[i] = client.Ask(p.ctx, shot(), nil) })
	}
	all.Wait()
	return outcomes
}

// overlap returns the rate of answers during the time in which all of them run, and the share of
// their tokens in that time.
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

// served returns how many tokens of an answer arrived after from, up to to. A frame may have
// several tokens.
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
	if o.Gone { // the number of tokens is unknown: the server reports it at the end
		return float64(frames)
	}
	return float64(frames) * float64(o.Out) / float64(o.Frames)
}

// prefill measures the rate at which 512 tokens are prefilled, from the request to the first token.
func (p *peers) prefill() error {
	const tokens = 512
	client, err := p.caller(0, 0)
	if err != nil {
		return err
	}
	through := func(s *testServer) ([]float64, error) {
		o, err := p.ask(client, load.Shot{Target: s.target, Request: prompt(tokens, 1)})
		if err == nil && o.In != tokens {
			err = fmt.Errorf("prefill of %d tokens, not %d", o.In, tokens)
		}
		return []float64{tokens / o.TTFT().Seconds()}, err
	}
	var all []runner
	for i, c := range p.inferds(inferdOptions{}) {
		all = append(all, p.runner(c, []string{p.builds[i].goal}, through))
	}
	for _, c := range p.llamaServers(false) {
		all = append(all, runner{"llama-bench", []string{">= 0.95, aim 0.98"}, func() ([]float64, error) {
			rate, err := p.llamaBench(tokens, 2)
			return []float64{rate}, err
		}}, p.runner(c, []string{""}, through))
	}
	rates, err := compareRates(all, p.repeats(), 1)
	if err != nil {
		return err
	}
	p.reportRates("prefill of 512 tokens through the socket", all, rates, 0)
	return nil
}
