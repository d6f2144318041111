package main

import (
	"math"
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
	// Twelve tokens in six frames.
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
