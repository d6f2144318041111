package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/inferd-go/inferd/bench/load"
)

// A build is a folder with the programs inferd and inferd-engine, and a setting for them.
type build struct {
	name  string
	dir   string
	goal  string // goal for every ratio of the first build to this one
	exact bool   // its entries have "exact": true
}

// olderBuild returns the build in dir, which has the programs of an older commit.
func olderBuild(dir string) (build, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return build{}, err
	}
	for _, program := range []string{"inferd", "inferd-engine"} {
		if _, err := os.Stat(filepath.Join(dir, program)); err != nil {
			return build{}, fmt.Errorf("older build: %w", err)
		}
	}
	return build{name: "the older build", dir: dir, goal: ">= 0.97, aim 1.00"}, nil
}

// A contender is a server that is started for each measurement.
type contender struct {
	name  string
	start func() (*testServer, error)
}

// inferds returns a contender for each build, the present one first.
func (p *peers) inferds(o inferdOptions) []contender {
	all := make([]contender, len(p.builds))
	for i, b := range p.builds {
		all[i] = contender{b.name, func() (*testServer, error) { return p.startBuild(b, o) }}
	}
	return all
}

// rounds returns how often a long measurement is made for each build: once for the figures of one
// build, three times for the ratios of two.
func (p *peers) rounds() int {
	if len(p.builds) == 1 {
		return 1
	}
	return 3
}

// repeats returns how often a short measurement is made for each build: more often for the ratios
// of two builds.
func (p *peers) repeats() int {
	if len(p.builds) == 1 {
		return p.size(7, 3)
	}
	return p.size(15, 5)
}

// inTurns measures each element of all n times, in turns. The order rotates from round to round.
// results[i] belongs to all[i].
func inTurns[T, R any](all []T, n int, measure func(T) (R, error)) (results [][]R, err error) {
	results = make([][]R, len(all))
	for round := range n {
		for i := range all {
			k := (i + round) % len(all)
			r, err := measure(all[k])
			if err != nil {
				return nil, err
			}
			results[k] = append(results[k], r)
		}
	}
	return results, nil
}

// serveInTurns measures servers in turns. Each runs alone: when two equal servers ran at once, the
// first to start was up to 10 % slower all the time.
func serveInTurns[R any](p *peers, all []contender, n int, measure func(*testServer) (R, error)) ([][]R, error) {
	return inTurns(all, n, func(c contender) (R, error) { return serve(p, c, measure) })
}

// serve starts a server, warms it up, measures it, and stops it.
func serve[R any](p *peers, c contender, measure func(*testServer) (R, error)) (r R, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", c.name, err)
		}
	}()
	s, err := c.start()
	if err != nil {
		return r, err
	}
	defer p.stop(s)
	client, err := p.caller(0, 0)
	if err != nil {
		return r, err
	}
	if _, err := p.ask(client, load.Shot{Target: s.target, Request: prompt(64, 8)}); err != nil {
		return r, err
	}
	p.rest()
	return measure(s)
}

// A figure is a number derived from the result of a round.
type figure[R any] struct {
	name  string
	lower bool // lower values are better
	value func(R) float64
}

// each returns the figure of every round.
func (f figure[R]) each(results []R) []float64 {
	all := make([]float64, len(results))
	for i, r := range results {
		all[i] = f.value(r)
	}
	return all
}

// versus divides the figures of two builds round by round. A ratio of 1 or more means that the
// present build is as good or better.
func (f figure[R]) versus(present, older []R) []float64 {
	a, b := f.each(present), f.each(older)
	if f.lower {
		a, b = b, a
	}
	return ratios(a, b)
}

// reportVersus prints the ratios of the present build, results[0], to the older one, results[1].
// Without an older build it prints nothing.
func reportVersus[R any](p *peers, results [][]R, figures ...figure[R]) {
	if len(p.builds) == 1 {
		return
	}
	for _, f := range figures {
		p.report("  of "+p.builds[1].name+": "+f.name, p.builds[1].goal, "%s (%s)", spread(f.versus(results[0], results[1])), spread(f.each(results[1])))
	}
}

// pooled joins the values of all rounds.
func pooled[R, V any](results []R, of func(R) []V) []V {
	var all []V
	for _, r := range results {
		all = append(all, of(r)...)
	}
	return all
}

// medianOf returns the median of a value over all rounds.
func medianOf[R any, V int | float64](results []R, of func(R) V) V {
	all := make([]V, len(results))
	for i, r := range results {
		all[i] = of(r)
	}
	return median(all)
}

// A runner measures token rates, of a server or of a program that has no socket.
type runner struct {
	name  string
	goals []string // goal for each rate
	rates func() ([]float64, error)
}

// runner returns the runner of a server.
func (p *peers) runner(c contender, goals []string, rates func(*testServer) ([]float64, error)) runner {
	return runner{c.name, goals, func() ([]float64, error) { return serve(p, c, rates) }}
}

// compareRates measures all runners in turns, n times. rates[r][i] has the rates of runner r and
// kind i, one for each round.
func compareRates(all []runner, n, kinds int) ([][][]float64, error) {
	results, err := inTurns(all, n, func(r runner) ([]float64, error) { return r.rates() })
	if err != nil {
		return nil, err
	}
	rates := make([][][]float64, len(all))
	for r := range all {
		for i := range kinds {
			rates[r] = append(rates[r], figure[[]float64]{value: func(each []float64) float64 { return each[i] }}.each(results[r]))
		}
	}
	return rates, nil
}

// reportRates prints the rates of one kind of the first runner, and their ratios to the rates of
// the others.
func (p *peers) reportRates(what string, all []runner, rates [][][]float64, kind int) {
	ours := rates[0][kind]
	p.report(what, "", "%s tokens/s", spread(ours))
	for i, r := range all[1:] {
		theirs := rates[i+1][kind]
		p.report("  of "+r.name, r.goals[kind], "%s (%s)", spread(ratios(ours, theirs)), spread(theirs))
	}
}
