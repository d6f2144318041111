package main

import (
	"fmt"
	"slices"

	"github.com/inferd-go/inferd/bench/load"
)

// records is a schema whose answers are long, and have free strings, numbers and words.
const records = `{"type":"object","properties":{"records":{"type":"array","minItems":4,"items":{"type":"object",` +
	`"properties":{"name":{"type":"string","minLength":4,"maxLength":24},"count":{"type":"integer","minimum":0,"maximum":9999},` +
	`"kind":{"enum":["alpha","beta","gamma"]},"done":{"type":"boolean"}},` +
	`"required":["name","count","kind","done"],"additionalProperties":false}}},"required":["records"],"additionalProperties":false}`

// schemas measures the rate of one and four streams with a schema, beside the same server's without: in
// turns, and in the reverse order in every second round.
func (p *peers) schemas() error {
	streams := []int{1, 4}
	kinds := []string{"", records}
	servers := p.inferds(inferdOptions{})
	results, err := serveInTurns(p, servers, p.rounds(), func(s *side) ([][]float64, error) {
		all := make([][]float64, len(streams))
		for round := range p.size(9, 3) {
			for i, n := range streams {
				var rates [2]float64
				for k := range kinds {
					if round%2 == 1 {
						k = 1 - k
					}
					var err error
					if rates[k], err = p.constrained(s, n, kinds[k]); err != nil {
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
			p.report(fmt.Sprintf("%s: %d streams with a schema, of those without", c.name, n), ">= 0.97, aim 1.00", "%s", spread(ratios))
		}
	}
	return nil
}

// constrained measures the rate of n streams while all of them run. Their answers may end before their
// last token; those that end soon are asked for again.
func (p *peers) constrained(s *side, n int, schema string) (float64, error) {
	const tokens, tries = 256, 8
	p.rest()
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
