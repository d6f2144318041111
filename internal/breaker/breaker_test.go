package breaker_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/inferd-go/inferd/internal/breaker"
)

// A step is what happens, so many seconds after the one before.
type step struct {
	after   int
	outcome breaker.Outcome // of one who passes, at once
	want    breaker.State   // then
}

func TestBreaker(t *testing.T) {
	const ok, failure, neither = breaker.Success, breaker.Failure, breaker.Neither
	const closed, open = breaker.Closed, breaker.Open
	for name, steps := range map[string][]step{
		"three failures open it":           {{0, failure, closed}, {0, failure, closed}, {0, failure, open}},
		"within a minute":                  {{0, failure, closed}, {30, failure, closed}, {29, failure, open}},
		"not over a minute":                {{0, failure, closed}, {30, failure, closed}, {30, failure, closed}, {29, failure, open}},
		"a success clears":                 {{0, failure, closed}, {0, failure, closed}, {0, ok, closed}, {0, failure, closed}, {0, failure, closed}, {0, failure, open}},
		"what says nothing clears nothing": {{0, failure, closed}, {0, failure, closed}, {0, neither, closed}, {0, failure, open}},
		"ten that say nothing":             {{0, neither, closed}, {0, neither, closed}, {0, neither, closed}, {0, neither, closed}, {0, neither, closed}},
		"a success after the rest closes":  {{0, failure, closed}, {0, failure, closed}, {0, failure, open}, {30, ok, closed}, {0, failure, closed}, {0, failure, closed}, {0, failure, open}},
		"one failure after it opens again": {{0, failure, closed}, {0, failure, closed}, {0, failure, open}, {30, failure, open}, {30, failure, open}, {30, ok, closed}},
		"who gave up is followed at once":  {{0, failure, closed}, {0, failure, closed}, {0, failure, open}, {30, neither, open}, {0, neither, open}, {0, ok, closed}},
	} {
		t.Run(name, func(t *testing.T) {
			var b breaker.Breaker
			now := time.Unix(0, 0)
			for i, s := range steps {
				now = now.Add(time.Duration(s.after) * time.Second)
				if !b.Lets(now) {
					t.Fatalf("step %d: nobody may pass", i)
				}
				b.End(b.Begin(), now, s.outcome)
				if got := b.State(); got != s.want {
					t.Fatalf("step %d: %s, want %s", i, got, s.want)
				}
			}
		})
	}
}

// Nobody passes while it rests, and then only one.
func TestRest(t *testing.T) {
	var b breaker.Breaker
	now := time.Unix(0, 0)
	early := b.Begin() // and ends late
	for range breaker.Failures {
		b.End(b.Begin(), now, breaker.Failure)
	}
	b.End(early, now, breaker.Success)
	if now = now.Add(breaker.Rest - 1); b.Lets(now) {
		t.Error("somebody may pass too early")
	}
	if now = now.Add(1); !b.Lets(now) {
		t.Error("nobody may pass after the rest")
	}
	probe := b.Begin()
	if b.State() != breaker.HalfOpen || b.Lets(now.Add(time.Hour)) {
		t.Error("a second one may pass")
	}
	b.End(early, now, breaker.Failure)
	if b.State() != breaker.HalfOpen {
		t.Error("somebody else than the probe decides")
	}
	b.End(probe, now, breaker.Success)
	if b.State() != breaker.Closed {
		t.Errorf("%s after a success", b.State())
	}
	b.End(early, now, breaker.Failure)
	b.End(b.Begin(), now, breaker.Failure)
	b.End(b.Begin(), now, breaker.Failure)
	if b.State() != breaker.Closed {
		t.Error("who passed before counts")
	}
}

// Whatever happens: it opens exactly when the last three failures that count are within a
// minute, lets nobody pass while it rests, then one at a time, whose outcome decides.
func TestProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var (
			b      breaker.Breaker
			now    = time.Unix(0, 0)
			passes []breaker.Pass
			opened time.Time
			probe  = -1 // index of who decides
			counts []time.Time
			fresh  = 0 // passes from here on began since it closed last
			open   bool
		)
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 40).Draw(t, "seconds")) * time.Second)
			may := !open || probe < 0 && now.Sub(opened) >= breaker.Rest
			if got := b.Lets(now); got != may {
				t.Fatalf("lets: %v, want %v", got, may)
			}
			if may && rapid.Bool().Draw(t, "begin") {
				if passes = append(passes, b.Begin()); open {
					probe = len(passes) - 1
				}
				continue
			}
			if len(passes) == 0 {
				continue
			}
			i := rapid.IntRange(0, len(passes)-1).Draw(t, "who")
			o := rapid.SampledFrom([]breaker.Outcome{breaker.Neither, breaker.Success, breaker.Failure}).Draw(t, "outcome")
			b.End(passes[i], now, o)
			switch {
			case open && i == probe:
				probe = -1
				switch o {
				case breaker.Success:
					open, counts, fresh = false, nil, len(passes)
				case breaker.Failure:
					opened = now
				case breaker.Neither:
				}
			case open || i < fresh: // decides nothing
			case o == breaker.Success:
				counts = nil
			case o == breaker.Failure:
				counts = append(counts, now)
				if n := len(counts); n >= breaker.Failures && now.Sub(counts[n-breaker.Failures]) < breaker.Within {
					open, opened, counts, fresh = true, now, nil, len(passes)
				}
			}
			if got := b.State() == breaker.Closed; got == open {
				t.Fatalf("%s, want open: %v", b.State(), open)
			}
		}
	})
}
