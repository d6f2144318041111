package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
)

// A report has the figures of a run.
type report struct {
	Tokens     int            `json:"tokens"` // number of tokens in the vocabulary
	MaskBench  map[string]row `json:"maskbench,omitempty"`
	Instances  map[string]row `json:"maskbench_with_instances,omitempty"` // only schemas that have an instance
	Suite      row            `json:"suite,omitzero"`                     // counts tests, not schemas
	Refused    map[string]int `json:"refused,omitempty"`                  // number of schemas of MaskBench, by keyword
	Masks      spread         `json:"mask_us"`
	Theirs     spread         `json:"mask_us_llguidance,omitzero"`
	Ratio      float64        `json:"mask_ratio,omitempty"` // ratio of the mean times of masks, over the schemas that both compile
	Start      spread         `json:"compile_ms"`
	TheirStart spread         `json:"compile_ms_llguidance,omitzero"`
	Memory     spread         `json:"memory_kib"`

	slowMasks, slowStarts []slow
	masks, theirs         []time.Duration
	start, theirStart     []time.Duration
	memory                []int
	both, bothTheirs      [2]time.Duration // sum of times and number of masks, over the schemas that both compile
}

// A row counts schemas, or tests of the suite, by verdict.
type row struct {
	All          int `json:"all"`
	Right        int `json:"right"`
	Refused      int `json:"refused"`
	GoodRejected int `json:"good_rejected"`
	BadTaken     int `json:"bad_taken"`
	Crashed      int `json:"crashed"`
}

func (r *row) add(v verdict) {
	r.All++
	switch v {
	case right:
		r.Right++
	case refused:
		r.Refused++
	case goodRejected:
		r.GoodRejected++
	case badTaken:
		r.BadTaken++
	case crashed:
		r.Crashed++
	case absent:
	}
}

// A spread summarises measured durations or sizes: their number, mean, percentiles and maximum.
type spread struct {
	N    int     `json:"n"`
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P99  float64 `json:"p99"`
	Max  float64 `json:"max"`
}

func spreadOf[T cmp.Ordered](all []T, scale func(T) float64) (s spread) {
	if len(all) == 0 {
		return s
	}
	slices.Sort(all)
	s.N = len(all)
	for _, x := range all {
		s.Mean += scale(x) / float64(s.N)
	}
	s.P50, s.P99, s.Max = scale(all[s.N/2]), scale(all[s.N*99/100]), scale(all[s.N-1])
	return s
}

// Names of the measured rows.
const (
	rowOurs  = "inferd"
	rowPeer  = "llguidance " + peerVersion
	measured = "measured"
)

// add counts the outcomes of a problem: ours, and theirs unless its verdict is absent. Of a problem
// of the suite, only ours counts.
func (r *report) add(p *problem, ours, theirs outcome) {
	if r.MaskBench == nil {
		r.MaskBench, r.Instances, r.Refused = make(map[string]row), make(map[string]row), make(map[string]int)
	}
	if p.suite {
		r.addTests(p, ours)
		return
	}
	for name, v := range map[string]verdict{rowOurs: ours.Verdict, rowPeer: theirs.Verdict} {
		if v == absent {
			continue
		}
		all := r.MaskBench[name]
		all.add(v)
		r.MaskBench[name] = all
		if len(p.instances) > 0 {
			some := r.Instances[name]
			some.add(v)
			r.Instances[name] = some
		}
	}
	if ours.Verdict == refused {
		r.Refused[cmp.Or(ours.Keyword, ours.Why)]++
	}
	r.masks, r.theirs = append(r.masks, ours.Masks...), append(r.theirs, theirs.Masks...)
	r.start = append(r.start, ours.Start)
	if len(ours.Masks) > 0 {
		r.slowMasks = append(r.slowMasks, slow{p.name, slices.Max(ours.Masks)})
	}
	r.slowStarts = append(r.slowStarts, slow{p.name, ours.Start})
	if theirs.Verdict != absent {
		r.theirStart = append(r.theirStart, theirs.Start)
	}
	if ours.Bytes > 0 {
		r.memory = append(r.memory, ours.Bytes)
	}
	if len(ours.Masks) > 0 && len(theirs.Masks) > 0 {
		for i, masks := range [2][]time.Duration{ours.Masks, theirs.Masks} {
			sum := &r.both
			if i == 1 {
				sum = &r.bothTheirs
			}
			for _, t := range masks {
				sum[0] += t
				sum[1]++
			}
		}
	}
}

// A slow is a schema with the time of its slowest mask, or of its compile.
type slow struct {
	name string
	time time.Duration
}

// printSlow prints the n slowest schemas.
func printSlow(out io.Writer, what string, all []slow, n int) {
	slices.SortFunc(all, func(x, y slow) int { return cmp.Compare(y.time, x.time) })
	for _, s := range all[:min(n, len(all))] {
		fmt.Fprintf(out, "%s %8.1f ms  %s\n", what, milli(s.time), s.name)
	}
}

// addTests counts the tests of a schema of the suite: those with the right result as right, the
// others by the verdict on the schema. If the schema is refused or crashes, none counts as right.
func (r *report) addTests(p *problem, o outcome) {
	v := o.Verdict
	if v != right && v != refused && v != crashed {
		r.Suite.Right += o.Right
		r.Suite.All += o.Right
		for range len(p.instances) - o.Right {
			r.Suite.add(v)
		}
		return
	}
	for range p.instances {
		r.Suite.add(v)
	}
}

// A published is a row of published results, over the 11,306 schemas of MaskBench.
type published struct {
	name string
	row  row
}

// others are rows that the authors of MaskBench have published.
var others = []published{
	{"llguidance 2026-08", row{11306, 9489, 1797, 20, 0, 0}},
	{"XGrammar 0.1.17", row{11306, 8122, 90, 1408, 1368, 278}},
	{"Outlines 0.2.3", row{11306, 7050, 1773, 1415, 822, 248}},
	{"llama.cpp", row{11306, 6505, 1301, 2850, 649, 1}},
}

func micro(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
func milli(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }
func kib(n int) float64             { return float64(n) / 1024 }

// write prints the report, and also writes it to a file if --out names one.
func (r *report) write(out io.Writer, o options) error {
	r.Masks, r.Theirs = spreadOf(r.masks, micro), spreadOf(r.theirs, micro)
	r.Start, r.TheirStart = spreadOf(r.start, milli), spreadOf(r.theirStart, milli)
	r.Memory = spreadOf(r.memory, kib)
	if r.both[1] > 0 && r.bothTheirs[1] > 0 {
		r.Ratio = float64(r.both[0]) / float64(r.both[1]) / (float64(r.bothTheirs[0]) / float64(r.bothTheirs[1]))
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if o.out != "" {
		if err := os.WriteFile(o.out, append(text, '\n'), 0o600); err != nil {
			return err
		}
	}
	if o.json {
		_, err = fmt.Fprintf(out, "%s\n", text)
		return err
	}
	r.print(out)
	printSlow(out, "mask", r.slowMasks, o.slow)
	printSlow(out, "compile", r.slowStarts, o.slow)
	return nil
}

// print prints the report as tables.
func (r *report) print(out io.Writer) {
	if n := r.MaskBench[rowOurs].All; n > 0 {
		head := func(what string) {
			fmt.Fprintf(out, "\n%-46s %7s %7s %7s %9s %9s %8s\n", what, "schemas", "right", "refused", "good rej.", "bad taken", "crashed")
		}
		line := func(name string, x row) {
			fmt.Fprintf(out, "%-46s %7d %7d %7d %9d %9d %8d\n", name, x.All, x.Right, x.Refused, x.GoodRejected, x.BadTaken, x.Crashed)
		}
		head("MaskBench, all")
		for _, name := range []string{rowOurs, rowPeer} {
			if x, ok := r.MaskBench[name]; ok {
				line(name+", "+measured, x)
			}
		}
		for _, p := range others {
			line(p.name+", published", p.row)
		}
		head("MaskBench, those with an instance")
		for _, name := range []string{rowOurs, rowPeer} {
			if x, ok := r.Instances[name]; ok {
				line(name+", "+measured, x)
			}
		}
		r.printRefused(out)
	}
	if r.Suite.All > 0 {
		fmt.Fprintf(out, "\nJSON Schema test suite, draft 2020-12, %d tests: right %d, refused %d, good rejected %d, bad taken %d, crashed %d\n",
			r.Suite.All, r.Suite.Right, r.Suite.Refused, r.Suite.GoodRejected, r.Suite.BadTaken, r.Suite.Crashed)
	}
	if r.Start.N == 0 {
		return
	}
	fmt.Fprintf(out, "\n%-46s %9s %9s %9s %9s %9s\n", "thread CPU time", "n", "mean", "p50", "p99", "max")
	line := func(name string, s spread) {
		if s.N > 0 {
			fmt.Fprintf(out, "%-46s %9d %9.1f %9.1f %9.1f %9.1f\n", name, s.N, s.Mean, s.P50, s.P99, s.Max)
		}
	}
	line(fmt.Sprintf("mask over %d tokens, µs", r.Tokens), r.Masks)
	line("  "+rowPeer, r.Theirs)
	line("compile and shortest value, ms", r.Start)
	line("  "+rowPeer+", compile", r.TheirStart)
	line("memory of a compiled schema without masks, KiB", r.Memory)
	if r.Ratio > 0 {
		fmt.Fprintf(out, "mean mask beside %s, schemas that both compile: %.2f ×\n", rowPeer, r.Ratio)
	}
}

// printRefused prints the number of refused schemas by keyword, or by reason if there is no keyword, the
// commonest first.
func (r *report) printRefused(out io.Writer) {
	names := slices.SortedFunc(maps.Keys(r.Refused), func(x, y string) int {
		return cmp.Or(r.Refused[y]-r.Refused[x], strings.Compare(x, y))
	})
	var all []string
	for _, name := range names {
		all = append(all, fmt.Sprintf("%s %d", name, r.Refused[name]))
	}
	if len(all) > 0 {
		fmt.Fprintf(out, "refused by keyword: %s\n", strings.Join(all, ", "))
	}
}
