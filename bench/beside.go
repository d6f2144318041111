package main

import "fmt"

// compareAddition compares streams with an addition in their requests, such as a schema, with streams
// without it. what names the addition in the report. It measures one and four streams on the same
// server, without and with the addition in turns, and in the reverse order in every second round.
// prepare prepares a server, and returns a function that measures the rate of n streams: with the
// addition if addition is 1, without it if addition is 0.
func (p *peers) compareAddition(what string, prepare func(s *testServer) (rate func(n, addition int) (float64, error), err error)) error {
	streams := []int{1, 4}
	servers := p.inferds(inferdOptions{})
	results, err := serveInTurns(p, servers, p.rounds(), func(s *testServer) ([][]float64, error) {
		rate, err := prepare(s)
		if err != nil {
			return nil, err
		}
		all := make([][]float64, len(streams))
		for round := range p.size(9, 3) {
			for i, n := range streams {
				var rates [2]float64
				for k := range rates {
					if round%2 == 1 {
						k = 1 - k
					}
					p.rest()
					if rates[k], err = rate(n, k); err != nil {
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
			p.report(fmt.Sprintf("%s: %d streams with %s, of those without", c.name, n, what), ">= 0.97, aim 1.00", "%s", spread(ratios))
		}
	}
	return nil
}
