package main

import (
	"fmt"
	"slices"

	"github.com/inferd-go/inferd/bench/load"
)

// declared are tools like those of an agent.
const declared = `[{"name":"read_file","description":"Reads a file","input_schema":{"type":"object","properties":` +
	`{"path":{"type":"string"},"from":{"type":"integer","minimum":1},"lines":{"type":"integer","minimum":1}},"required":["path"],"additionalProperties":false}},` +
	`{"name":"run","description":"Runs a command","input_schema":{"type":"object","properties":` +
	`{"command":{"type":"string"},"timeout_s":{"type":"number"}},"required":["command"]}}]`

// tooled measures the rate of one and four streams of text with tools that may be called, beside the same server's
// without tools: in turns, and in the reverse order in every second round. The prompts have equally many tokens.
func (p *peers) tooled() error {
	streams := []int{1, 4}
	servers := p.inferds(inferdOptions{})
	results, err := serveInTurns(p, servers, p.rounds(), func(s *side) ([][]float64, error) {
		requests, err := p.alike(s)
		if err != nil {
			return nil, err
		}
		all := make([][]float64, len(streams))
		for round := range p.size(9, 3) {
			for i, n := range streams {
				var rates [2]float64
				for k := range requests {
					if round%2 == 1 {
						k = 1 - k
					}
					p.rest()
					if rates[k], err = p.rateOf(s, n, requests[k]); err != nil {
						return nil, fmt.Errorf("%d streams: %w", n, err)
					}
				}
				all[i] = append(all[i], rates[1]/rates[0])
			}
		}
		return all, nil
	})
	if err != nil {
		return err
	}
	for b, c := range servers {
		for i, n := range streams {
			var ratios []float64
			for _, r := range results[b] {
				ratios = append(ratios, r[i]...)
			}
			p.report(fmt.Sprintf("%s: %d streams with tools, of those without", c.name, n), ">= 0.97, aim 1.00", "%s", spread(ratios))
		}
	}
	return nil
}

// alike returns a request without tools and one with tools, whose prompts are equally long.
func (p *peers) alike(s *side) (requests [2]load.Request, err error) {
	const longest = 256 // tokens of an answer
	client, err := p.caller(0, 0)
	if err != nil {
		return requests, err
	}
	var in [2]int
	for i := range requests {
		requests[i] = prompt(32, longest)
		if i == 1 {
			requests[i].Tools = declared
		}
		o, err := p.ask(client, load.Shot{Target: s.target, Request: requests[i]})
		if err != nil {
			return requests, err
		}
		in[i] = o.In
	}
	requests[0] = prompt(32+in[1]-in[0], longest)
	return requests, nil
}

// rateOf measures the rate of n streams of a request while all of them run.
func (p *peers) rateOf(s *side, n int, r load.Request) (float64, error) {
	client, err := p.caller(0, 0)
	if err != nil {
		return 0, err
	}
	outcomes := p.together(client, n, func() load.Shot { return load.Shot{Target: s.target, Request: r, Trace: true} })
	if i := slices.IndexFunc(outcomes, func(o load.Outcome) bool { return o.Err() != nil }); i >= 0 {
		return 0, outcomes[i].Err()
	}
	rate, part := overlap(outcomes)
	if part < 0.5 {
		return 0, fmt.Errorf("%d answers did not overlap", n)
	}
	return rate, nil
}
