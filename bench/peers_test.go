package main

import (
	"bytes"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/inferd-go/inferd/bench/load"
)

func TestAUC(t *testing.T) {
	for name, test := range map[string]struct {
		a, b []time.Duration
		want float64
	}{
		"the first are always faster":   {[]time.Duration{1, 2, 3}, []time.Duration{4, 5}, 1},
		"the first are always slower":   {[]time.Duration{6, 7}, []time.Duration{4, 5}, 0},
		"they are the same":             {[]time.Duration{1, 2, 3}, []time.Duration{1, 2, 3}, 0.5},
		"all are alike":                 {[]time.Duration{1, 1}, []time.Duration{1, 1, 1}, 0.5},
		"three of four pairs say first": {[]time.Duration{1, 3}, []time.Duration{2, 4}, 0.75},
	} {
		if got, _ := auc(test.a, test.b); math.Abs(got-test.want) > 1e-9 {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

func TestJain(t *testing.T) {
	for _, test := range []struct {
		got  []float64
		want float64
	}{
		{[]float64{5, 5, 5, 5}, 1},
		{[]float64{8, 0, 0, 0}, 0.25},
		{[]float64{1, 3}, 0.8},
	} {
		if got := jain(test.got); math.Abs(got-test.want) > 1e-9 {
			t.Errorf("%v: %v, want %v", test.got, got, test.want)
		}
	}
}

func TestServed(t *testing.T) {
	// Twelve tokens arrive in six frames.
	o := load.Outcome{Arrivals: []load.Stamp{10, 20, 30, 40, 50, 60}, Frames: 6, Out: 12}
	for name, test := range map[string]struct {
		from, to load.Stamp
		want     float64
	}{
		"all":                            {0, 100, 12},
		"none":                           {60, 100, 0},
		"after the first, with the last": {10, 60, 10},
		"the middle":                     {25, 45, 4},
	} {
		if got := served(&o, test.from, test.to); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
	o.Gone = true
	if got := served(&o, 0, 100); got != 6 {
		t.Errorf("of an answer that was left: %v, want a token a frame", got)
	}
}

func TestChoose(t *testing.T) {
	if all, err := choose(""); err != nil || len(all) != len(table) {
		t.Errorf("%d rows, %v", len(all), err)
	}
	if some, err := choose("c,a"); err != nil || len(some) != 2 || some[0].key != "c" || some[1].key != "a" {
		t.Errorf("%v, %v", some, err)
	}
	if _, err := choose("a,x"); err == nil {
		t.Error("there is a row x")
	}
}

func TestOverlap(t *testing.T) {
	answer := func(first, gap load.Stamp, n int) load.Outcome {
		o := load.Outcome{First: first, Frames: n, Out: n}
		for i := range n {
			o.Arrivals = append(o.Arrivals, first+load.Stamp(i)*gap)
		}
		o.End = o.Arrivals[n-1]
		return o
	}
	const second = load.Stamp(time.Second)
	for name, test := range map[string]struct {
		answers    []load.Outcome
		rate, part float64
	}{
		"one answer":                   {[]load.Outcome{answer(0, second/10, 11)}, 10, 10. / 11},
		"two at once":                  {[]load.Outcome{answer(0, second/10, 11), answer(0, second/10, 11)}, 20, 10. / 11},
		"the second half of the first": {[]load.Outcome{answer(0, second/10, 11), answer(second/2, second/10, 11)}, 20, 5. / 11},
		"one after the other":          {[]load.Outcome{answer(0, second/10, 11), answer(2*second, second/10, 11)}, 0, 0},
	} {
		rate, part := overlap(test.answers)
		if math.Abs(rate-test.rate) > 1e-9 || math.Abs(part-test.part) > 1e-9 {
			t.Errorf("%s: %v, %v, want %v, %v", name, rate, part, test.rate, test.part)
		}
	}
}

func TestGapsWithin(t *testing.T) {
	answers := []load.Outcome{{Arrivals: []load.Stamp{10, 20, 50, 60}}, {Arrivals: []load.Stamp{100, 130}}}
	for name, test := range map[string]struct {
		from, to load.Stamp
		want     []time.Duration
	}{
		"all, but for the gap between two answers": {0, 200, []time.Duration{10, 30, 10, 30}},
		"a window inside a gap":                    {30, 40, []time.Duration{30}},
		"a window between answers":                 {70, 90, nil},
	} {
		if got := gapsWithin(answers, test.from, test.to); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

func TestVersus(t *testing.T) {
	same := func(x float64) float64 { return x }
	for name, test := range map[string]struct {
		lower bool
		want  []float64
	}{
		"a rate: present / older": {false, []float64{2, 0.5}},
		"a time: older / present": {true, []float64{0.5, 2}},
	} {
		f := figure[float64]{name, test.lower, same}
		if got := f.versus([]float64{20, 10}, []float64{10, 20}); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

func TestInTurns(t *testing.T) {
	var order []string
	results, err := inTurns([]string{"a", "b"}, 3, func(s string) (int, error) {
		order = append(order, s)
		return len(order), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(order, " "), "a b b a a b"; got != want {
		t.Errorf("order %s, want %s", got, want)
	}
	for i, want := range [][]int{{1, 4, 5}, {2, 3, 6}} {
		if !slices.Equal(results[i], want) {
			t.Errorf("results of %d: %v, want %v", i, results[i], want)
		}
	}
	broken := errors.New("broken")
	if _, err := inTurns([]int{1}, 1, func(int) (int, error) { return 0, broken }); !errors.Is(err, broken) {
		t.Errorf("error %v, want %v", err, broken)
	}
}

func TestShorts(t *testing.T) {
	var s shorts
	const limit = 5 * time.Second
	s.add(&load.Outcome{Due: 10, First: 30, Arrivals: []load.Stamp{30, 35, 45}}, limit)
	s.add(&load.Outcome{Due: 10, Gone: true}, limit)
	if want := []time.Duration{20, limit}; !slices.Equal(s.ttft, want) || s.missed != 1 || s.why != "no token in 5s" {
		t.Errorf("%v, %d missed: %s; want %v", s.ttft, s.missed, s.why, want)
	}
	if want := []time.Duration{5, 10}; !slices.Equal(s.gaps, want) {
		t.Errorf("gaps %v, want %v", s.gaps, want)
	}
}

func TestFirstWorking(t *testing.T) {
	illegal := errors.New("illegal instruction")
	in := func(dir string) func() (string, error) { return func() (string, error) { return dir, nil } }
	dies := func(dirs ...string) func(string) error {
		return func(dir string) error {
			if slices.Contains(dirs, dir) {
				return illegal
			}
			return nil
		}
	}
	variants := []variant{{"built", in("b")}, {"packaged", in("p")}, {"native", in("n")}}
	for name, test := range map[string]struct {
		try       func(string) error
		dir, line string
	}{
		"the built programs run": {dies(), "b", "llama.cpp's programs run with built\n"},
		"their variants die":     {dies("b"), "p", "llama.cpp's programs run with packaged; built: illegal instruction\n"},
		"only a native build runs": {
			dies("b", "p"), "n", "llama.cpp's programs run with native; built: illegal instruction; packaged: illegal instruction\n",
		},
	} {
		var out bytes.Buffer
		dir, err := firstWorking(&out, variants, test.try)
		if err != nil || dir != test.dir || out.String() != test.line {
			t.Errorf("%s: %s, %v, %q", name, dir, err, out.String())
		}
	}
	if _, err := firstWorking(io.Discard, variants, dies("b", "p", "n")); !errors.Is(err, illegal) {
		t.Errorf("error %v, want %v", err, illegal)
	}
	missing := []variant{{"built", func() (string, error) { return "", os.ErrNotExist }}, {"native", in("n")}}
	if dir, err := firstWorking(io.Discard, missing, dies()); dir != "n" || err != nil {
		t.Errorf("without the first: %s, %v", dir, err)
	}
}

func TestJoinLlama(t *testing.T) {
	built, libraries := t.TempDir(), t.TempDir()
	for _, path := range []string{
		filepath.Join(built, "llama-bench"), filepath.Join(built, "libllama.so"), filepath.Join(built, "libggml-cpu-x64.so"),
		filepath.Join(libraries, "libggml-cpu-x64.so"), filepath.Join(libraries, "libllama.so"),
	} {
		if err := os.WriteFile(path, []byte(path), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(t.TempDir(), "joined")
	if err := joinLlama(dir, built, libraries); err != nil {
		t.Fatal(err)
	}
	for leaf, from := range map[string]string{"llama-bench": built, "libllama.so": built, "libggml-cpu-x64.so": libraries} {
		got, err := os.ReadFile(filepath.Join(dir, leaf))
		if want := filepath.Join(from, leaf); err != nil || string(got) != want {
			t.Errorf("%s is %q, %v; want that of %s", leaf, got, err, want)
		}
	}
	if info, err := os.Lstat(filepath.Join(dir, "llama-bench")); err != nil || !info.Mode().IsRegular() {
		t.Errorf("the program is no file of its own: %v, %v", info, err)
	}
	if err := joinLlama(filepath.Join(t.TempDir(), "none"), built, t.TempDir()); err == nil {
		t.Error("a folder without CPU variants is taken")
	}
}
