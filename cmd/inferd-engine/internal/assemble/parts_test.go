package assemble

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/progress"
	"github.com/inferd-go/inferd/internal/launch"
	"github.com/inferd-go/inferd/internal/link"
)

func TestChoose(t *testing.T) {
	var (
		writer   = []bool{true, false}
		embedder = []bool{false, false}
		reranker = []bool{false, true}
		both     = []bool{true, true} // a model with a decoder that was trained to rank
	)
	for name, test := range map[string]struct {
		want  launch.Tasks
		model []bool // whether it generates, and whether it ranks
		tasks tasks  // the zero value if the model is refused
	}{
		"a writer":                          {launch.Tasks{}, writer, tasks{generate: true}},
		"an embedder":                       {launch.Tasks{}, embedder, tasks{embed: true}},
		"a reranker":                        {launch.Tasks{}, reranker, tasks{rerank: true}},
		"a reranker with a decoder":         {launch.Tasks{}, both, tasks{rerank: true}},
		"a writer that embeds":              {launch.Tasks{Embed: true}, writer, tasks{generate: true, embed: true}},
		"a writer that reranks":             {launch.Tasks{Rerank: true}, writer, tasks{generate: true, rerank: true}},
		"a writer of all tasks":             {launch.Tasks{Embed: true, Rerank: true}, writer, tasks{true, true, true}},
		"a writer that only embeds":         {launch.Tasks{NoGenerate: true, Embed: true}, writer, tasks{embed: true}},
		"a writer with nothing to do":       {launch.Tasks{NoGenerate: true}, writer, tasks{}},
		"an embedder that does not write":   {launch.Tasks{NoGenerate: true}, embedder, tasks{embed: true}},
		"an embedder, asked to":             {launch.Tasks{Embed: true}, embedder, tasks{embed: true}},
		"an old reranker's file":            {launch.Tasks{Rerank: true}, embedder, tasks{rerank: true}},
		"a reranker, asked to embed":        {launch.Tasks{Embed: true}, reranker, tasks{embed: true}},
		"a reranking decoder that embeds":   {launch.Tasks{Embed: true, Rerank: true}, both, tasks{embed: true, rerank: true}},
		"a reranking decoder, not to write": {launch.Tasks{NoGenerate: true}, both, tasks{rerank: true}},
	} {
		got, err := choose(test.want, test.model[0], test.model[1])
		if got != test.tasks || (err != nil) != (test.tasks == tasks{}) {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, test.tasks)
		}
	}
}

// The beat of several loops describes a loop that hangs, whatever the other loops do.
func TestJoin(t *testing.T) {
	report := func(units uint64, phase progress.Phase, seconds int, calls ...uint64) progress.Report {
		return progress.Report{Units: units, Phase: phase, Since: time.Duration(seconds) * time.Second, Calls: calls, CPU: time.Duration(units) * time.Millisecond}
	}
	for name, test := range map[string]struct {
		loops []progress.Report
		want  link.Beat
	}{
		"one loop": {
			[]progress.Report{report(7, progress.Decode, 2, 1)},
			link.Beat{Steps: 7, Phase: "decode", SinceMS: 2000, Calls: []uint64{1}, StepCPUMS: 7},
		},
		"nothing to do": {
			[]progress.Report{report(7, progress.Idle, 2), report(5, progress.Idle, 3)},
			link.Beat{Steps: 12, Phase: "idle", SinceMS: 2000, StepCPUMS: 7},
		},
		"one computes, the other is idle": {
			[]progress.Report{report(7, progress.Idle, 2), report(5, progress.Decode, 1, 4)},
			link.Beat{Loop: 2, Steps: 5, Phase: "decode", SinceMS: 1000, Calls: []uint64{4}, StepCPUMS: 5},
		},
		"one computes, the other waits for it": {
			[]progress.Report{report(7, progress.Lock, 20, 3), report(5, progress.Decode, 1, 4)},
			link.Beat{Loop: 2, Steps: 5, Phase: "decode", SinceMS: 1000, Calls: []uint64{4}, StepCPUMS: 5},
		},
		"one hangs while another computes": {
			[]progress.Report{report(7, progress.Sample, 20, 3), report(5, progress.Decode, 1, 4)},
			link.Beat{Loop: 1, Steps: 7, Phase: "sample", SinceMS: 20000, Calls: []uint64{3}, StepCPUMS: 7},
		},
		"both wait for another engine": {
			[]progress.Report{report(7, progress.Idle, 20), report(5, progress.Lock, 1, 4)},
			link.Beat{Steps: 12, Phase: "lock", SinceMS: 1000, Calls: []uint64{4}, StepCPUMS: 5},
		},
	} {
		got := join(test.loops)
		if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", test.want) {
			t.Errorf("%s: %+v, want %+v", name, got, test.want)
		}
	}
}

// Loops compute one at a time, in the order of their calls of Do. So a loop that calls Do again at
// once does not delay the others.
func TestExclusion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := exclusion{computing: make(chan struct{}, 1)}
		var order []string
		ended := make(chan struct{})
		for _, name := range []string{"a", "b", "c"} {
			go func() {
				defer func() { ended <- struct{}{} }()
				for range 3 {
					shared.Do(func() {
						order = append(order, name) // the race detector reports two at once
						time.Sleep(time.Second)
					})
				}
			}()
			synctest.Wait()
		}
		for range 3 {
			<-ended
		}
		if want := []string{"a", "b", "c", "a", "b", "c", "a", "b", "c"}; !slices.Equal(order, want) {
			t.Errorf("%q", order)
		}
	})
	computed := false
	if alone := new(exclusion); alone.shared() {
		t.Error("the exclusion of one loop is shared")
	} else if alone.Do(func() { computed = true }); !computed {
		t.Error("nothing is computed")
	}
}
