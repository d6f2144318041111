package main

import (
	"fmt"
	"slices"

	"github.com/inferd-go/inferd/bench/load"
)

// declared are tools like those of a coding agent.
const declared = `[{"name":"read_file","description":"Reads a file","input_schema":{"type":"object","properties":` +
	`{"path":{"type":"string"},"from":{"type":"integer","minimum":1},"lines":{"type":"integer","minimum":1}},"required":["path"],"additionalProperties":false}},` +
	`{"name":"run","description":"Runs a command","input_schema":{"type":"object","properties":` +
	`{"command":{"type":"string"},"timeout_s":{"type":"number"}},"required":["command"]}}]`

// tooled compares the rate of streams with tools in their requests with the rate of streams without
// tools. Both prompts have the same number of tokens.
func (p *peers) tooled() error {
	return p.compareAddition("tools", func(s *testServer) (func(n, addition int) (float64, error), error) {
		requests, err := p.alike(s)
		if err != nil {
			return nil, err
		}
		return func(n, addition int) (float64, error) { return p.rateOf(s, n, requests[addition]) }, nil
	})
}

// alike returns a request without tools and one with tools. Their prompts have the same number of
// tokens.
func (p *peers) alike(s *testServer) (requests [2]load.Request, err error) {
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
func (p *peers) rateOf(s *testServer, n int, r load.Request) (float64, error) {
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
