package breaker_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/inferd-go/inferd/internal/breaker"
)

// A step is one request.
type step struct {
	after   int             // seconds since the step before
	outcome breaker.Outcome // of the request, which ends at once
	want    breaker.State   // after the request
}

func TestBreaker(t *testing.T) {
	const ok, failure, ignored = breaker.Success, breaker.Failure, breaker.Ignored
	const closed, open = breaker.Closed, breaker.Open
	for name, steps := range map[string][]step{
		"three failures open it":           {{0, failure, closed}, {0, failure, closed}, {0, failure, open}},
		"within a minute":                  {{0, failure, closed}, {30, failure, closed}, {29, failure, open}},
		"not over a minute":                {{0, failure, closed}, {30, failure, closed}, {30, failure, closed}, {29, failure, open}},
		"a success clears":                 {{0, failure, closed}, {0, failure, closed}, {0, ok, closed}, {0, failure, closed}, {0, failure, closed}, {0, failure, open}},
		"an ignored outcome clears none":   {{0, failure, closed}, {0, failure, closed}, {0, ignored, closed}, {0, failure, open}},
		"ignored outcomes never open it":   {{0, ignored, closed}, {0, ignored, closed}, {0, ignored, closed}, {0, ignored, closed}, {0, ignored, closed}},
		"a successful probe closes it":     {{0, failure, closed}, {0, failure, closed}, {0, failure, open}, {30, ok, closed}, {0, failure, closed}, {0, failure, closed}, {0, failure, open}},
		"a failed probe opens it again":    {{0, failure, closed}, {0, failure, closed}, {0, failure, open}, {30, failure, open}, {30, failure, open}, {30, ok, closed}},
		"after an ignored probe, the next": {{0, failure, closed}, {0, failure, closed}, {0, failure, open}, {30, ignored, open}, {0, ignored, open}, {0, ok, closed}},
	} {
		t.Run(name, func(t *testing.T) {
			var b breaker.Breaker
			now := time.Unix(0, 0)
			for i, s := range steps {
				now = now.Add(time.Duration(s.after) * time.Second)
				if !b.Allow(now) {
					t.Fatalf("step %d: not allowed", i)
				}
				b.End(b.Begin(), now, s.outcome)
				if got := b.State(); got != s.want {
					t.Fatalf("step %d: %s, want %s", i, got, s.want)
				}
			}
		})
	}
}

// No request passes while the breaker is open; after OpenFor one passes. The outcomes of requests
// that began before the last change of state are ignored.
func TestOpen(t *testing.T) {
	var b breaker.Breaker
	now := time.Unix(0, 0)
	early := b.Begin() // ends late
	for range breaker.Failures {
		b.End(b.Begin(), now, breaker.Failure)
	}
	b.End(early, now, breaker.Success)
	if now = now.Add(breaker.OpenFor - 1); b.Allow(now) {
		t.Error("allowed before OpenFor is over")
	}
	if now = now.Add(1); !b.Allow(now) {
		t.Error("not allowed after OpenFor")
	}
	probe := b.Begin()
	if b.State() != breaker.HalfOpen || b.Allow(now.Add(time.Hour)) {
		t.Error("a second request is allowed beside the probe")
	}
	b.End(early, now, breaker.Failure)
	if b.State() != breaker.HalfOpen {
		t.Error("a request before the probe decides")
	}
	b.End(probe, now, breaker.Success)
	if b.State() != breaker.Closed {
		t.Errorf("%s after a success", b.State())
	}
	b.End(early, now, breaker.Failure)
	b.End(b.Begin(), now, breaker.Failure)
	b.End(b.Begin(), now, breaker.Failure)
	if b.State() != breaker.Closed {
		t.Error("a failure from before the breaker closed failures")
	}
}

// In any order of events, the breaker opens exactly when three failures that count lie within
// Window. It allows no request for OpenFor, and then one at a time until an outcome closes or
// reopens it.
func TestProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var (
			b        breaker.Breaker
			now      = time.Unix(0, 0)
			permits  []breaker.Permit
			opened   time.Time
			probe    = -1 // index of its permit
			failures []time.Time
			fresh    = 0 // index of the first permit after the latest change; earlier ones decide nothing
			open     bool
		)
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 40).Draw(t, "seconds")) * time.Second)
			may := !open || probe < 0 && now.Sub(opened) >= breaker.OpenFor
			if got := b.Allow(now); got != may {
				t.Fatalf("Allow = %v, want %v", got, may)
			}
			if may && rapid.Bool().Draw(t, "begin") {
				if permits = append(permits, b.Begin()); open {
					probe = len(permits) - 1
				}
				continue
			}
			if len(permits) == 0 {
				continue
			}
			i := rapid.IntRange(0, len(permits)-1).Draw(t, "permit")
			o := rapid.SampledFrom([]breaker.Outcome{breaker.Ignored, breaker.Success, breaker.Failure}).Draw(t, "outcome")
			b.End(permits[i], now, o)
			switch {
			case open && i == probe:
				probe = -1
				switch o {
				case breaker.Success:
					open, failures, fresh = false, nil, len(permits)
				case breaker.Failure:
					opened = now
				case breaker.Ignored:
				}
			case open || i < fresh: // decides nothing
			case o == breaker.Success:
				failures = nil
			case o == breaker.Failure:
				failures = append(failures, now)
				if n := len(failures); n >= breaker.Failures && now.Sub(failures[n-breaker.Failures]) < breaker.Window {
					open, opened, failures, fresh = true, now, nil, len(permits)
				}
			}
			if got := b.State() == breaker.Closed; got == open {
				t.Fatalf("%s, want open: %v", b.State(), open)
			}
		}
	})
}
