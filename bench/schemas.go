package main

import (
	"fmt"
	"slices"

	"github.com/inferd-go/inferd/bench/load"
)

// records is a schema for long answers with strings, numbers and words.
const records = `{"type":"object","properties":{"records":{"type":"array","minItems":4,"items":{"type":"object",` +
	`"properties":{"name":{"type":"string","minLength":4,"maxLength":24},"count":{"type":"integer","minimum":0,"maximum":9999},` +
	`"kind":{"enum":["alpha","beta","gamma"]},"done":{"type":"boolean"}},` +
	`"required":["name","count","kind","done"],"additionalProperties":false}}},"required":["records"],"additionalProperties":false}`

// schemas measures the rate of streams with a schema, and of streams without one.
func (p *peers) schemas() error {
	return p.compareAddition("a schema", func(s *testServer) (func(n, addition int) (float64, error), error) {
		return func(n, addition int) (float64, error) { return p.constrained(s, n, [2]string{"", records}[addition]) }, nil
	})
}

// constrained measures the rate of n streams while all of them run. A schema may end an answer
// early. If an answer has less than a quarter of its tokens, or the answers hardly overlap, all
// are requested again, at most eight times.
func (p *peers) constrained(s *testServer, n int, schema string) (float64, error) {
	const tokens, tries = 256, 8
	client, err := p.caller(0, 0)
	if err != nil {
		return 0, err
	}
	shot := func() load.Shot {
		r := prompt(32, tokens)
		r.Schema = schema
		return load.Shot{Target: s.target, Request: r, Trace: true}
	}
	for range tries {
		outcomes := p.together(client, n, shot)
		for i := range outcomes {
			if err := outcomes[i].Err(); err != nil {
				return 0, err
			}
		}
		if rate, part := overlap(outcomes); part >= 0.3 && !slices.ContainsFunc(outcomes, func(o load.Outcome) bool { return o.Out < tokens/4 }) {
			return rate, nil
		}
	}
	return 0, fmt.Errorf("%d answers did not overlap", n)
}
