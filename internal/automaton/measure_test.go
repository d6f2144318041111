package automaton_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/automaton"
)

// A chain of nodes compiles in work proportional to its length, in whatever order its nodes were made.
// An open object with thousands of members is such a chain, in which nodes refer to later ones.
func TestLongChains(t *testing.T) {
	work := func(order []int) int {
		b := &automaton.Builder{Budget: &automaton.Budget{Time: time.Minute}}
		nodes := make([]automaton.Node, len(order))
		for _, i := range order {
			nodes[i] = b.Forward()
		}
		for i, n := range nodes {
			next := b.End()
			if i+1 < len(nodes) {
				next = nodes[i+1]
			}
			b.Define(n, b.Bytes("a", next))
		}
		r := b.Rule()
		b.Body(r, nodes[0])
		g, err := b.Build(r)
		if err != nil {
			t.Fatal(err)
		}
		if text, ok := automaton.New(g).Open().Shortest(len(order)); !ok || len(text) != len(order) {
			t.Fatalf("the shortest text of %d nodes has %d symbols", len(order), len(text))
		}
		return b.Budget.Calls()
	}
	const n = 1000
	r := rand.New(rand.NewPCG(1, 2))
	for name, order := range map[string]func(n int) []int{
		"forwards":  ascending,
		"backwards": descending,
		"random":    r.Perm,
	} {
		if few, many := work(order(n)), work(order(8*n)); many > 12*few {
			t.Errorf("%s: %d units of work for %d nodes, %d for %d", name, few, n, many, 8*n)
		}
	}
}

func ascending(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

func descending(n int) []int {
	all := ascending(n)
	slices.Reverse(all)
	return all
}
