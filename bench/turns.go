package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// A build is a folder with the programs inferd and inferd-engine.
type build struct {
	name string
	dir  string
}

// olderBuild returns the build in dir, the programs of an older commit.
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
	return build{name: "the older build", dir: dir}, nil
}

// sides starts a server of each build. The present build is the first.
func (p *peers) sides(o inferdOptions) ([]*side, error) {
	all := make([]*side, len(p.builds))
	for i, b := range p.builds {
		s, err := p.startBuild(b, o)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", b.name, err)
		}
		all[i] = s
	}
	return all, nil
}

// rounds returns the number of measurements of each build in a row that needs one for its
// own figures and several for the ratios of two builds.
func (p *peers) rounds() int {
	if len(p.builds) == 1 {
		return 1
	}
	return 3
}

// repeats returns the number of short measurements in a row: more for the ratios of two
// builds.
func (p *peers) repeats() int {
	if len(p.builds) == 1 {
		return p.size(7, 3)
	}
	return p.size(15, 7)
}

// inTurns measures each of all warm+n times, in turns; the order rotates from round to
// round. The results of the first warm rounds are dropped. results[i] are those of all[i].
func inTurns[T, R any](p *peers, all []T, warm, n int, measure func(T) (R, error)) (results [][]R, err error) {
	results = make([][]R, len(all))
	for round := range warm + n {
		for i := range all {
			k := (i + round) % len(all)
			p.rest()
			r, err := measure(all[k])
			if err != nil {
				return nil, err
			}
			if round >= warm {
				results[k] = append(results[k], r)
			}
		}
	}
	return results, nil
}

// A figure is a number derived from the result of a round.
type figure[R any] struct {
	name  string
	lower bool // lower values are better
	of    func(R) float64
}

// each returns the figure of every round.
func (f figure[R]) each(results []R) []float64 {
	all := make([]float64, len(results))
	for i, r := range results {
		all[i] = f.of(r)
	}
	return all
}

// versus divides the figures of two builds round by round. A ratio of 1 or more means that
// the present build is as good or better.
func (f figure[R]) versus(present, older []R) []float64 {
	a, b := f.each(present), f.each(older)
	if f.lower {
		a, b = b, a
	}
	return ratios(a, b)
}

// olderReach is the reach of every ratio of the present build to an older one.
const olderReach = ">= 0.97, aim 1.00"

// reportVersus prints ratios of the present build, results[0], to the older one, results[1].
// It prints nothing if there is no older one.
func reportVersus[R any](p *peers, results [][]R, figures ...figure[R]) {
	if len(p.builds) == 1 {
		return
	}
	for _, f := range figures {
		p.report("  of "+p.builds[1].name+": "+f.name, olderReach, "%s (%s)", spread(f.versus(results[0], results[1])), spread(f.each(results[1])))
	}
}

// pooled joins the results of all rounds.
func pooled[R, V any](results []R, of func(R) []V) []V {
	var all []V
	for _, r := range results {
		all = append(all, of(r)...)
	}
	return all
}

// medianOf returns the median of a figure over all rounds.
func medianOf[R any, V int | float64](results []R, of func(R) V) V {
	all := make([]V, len(results))
	for i, r := range results {
		all[i] = of(r)
	}
	return median(all)
}

// A runner measures a rate of tokens, of a server or of a program without one.
type runner struct {
	name, reach string
	rate        func() (float64, error)
}

// compareRates measures all runners in turns, after a round that warms them.
func (p *peers) compareRates(all []runner, n int) ([][]float64, error) {
	return inTurns(p, all, 1, n, func(r runner) (float64, error) {
		rate, err := r.rate()
		if err != nil {
			return 0, fmt.Errorf("%s: %w", r.name, err)
		}
		return rate, nil
	})
}

// reportRates prints the rates of the first runner, and their ratios to those of the others.
func (p *peers) reportRates(what string, all []runner, rates [][]float64) {
	p.report(what, "", "%s tokens/s", spread(rates[0]))
	for i, r := range all[1:] {
		p.report("  of "+r.name, r.reach, "%s (%s)", spread(ratios(rates[0], rates[i+1])), spread(rates[i+1]))
	}
}

// fastest returns the index of the runner with the highest median rate among those chosen,
// or -1 without one.
func fastest(rates [][]float64, chosen ...int) int {
	if len(chosen) == 0 {
		return -1
	}
	return slices.MaxFunc(chosen, func(a, b int) int { return cmp.Compare(median(rates[a]), median(rates[b])) })
}
