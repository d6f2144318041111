package watchdog_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/watchdog"
)

// sample returns a sample that covers one second of a sleeping engine with an open call and without
// progress; changes are applied to it.
func sample(changes ...func(*watchdog.Sample)) watchdog.Sample {
	x := watchdog.Sample{
		Elapsed: time.Second, Active: 1, Beat: true, Known: true, Process: watchdog.Sleeping,
		StepCPU: 100 * time.Millisecond, StepWall: 50 * time.Millisecond,
	}
	for _, change := range changes {
		change(&x)
	}
	return x
}

// Changes to the sample that sample returns.
func moved(x *watchdog.Sample)     { x.Moved = true }
func mute(x *watchdog.Sample)      { x.Beat = false }
func free(x *watchdog.Sample)      { x.Active = 0 }
func halted(x *watchdog.Sample)    { x.Process = watchdog.Stopped }
func swaps(x *watchdog.Sample)     { x.Process = watchdog.Disk }
func faults(x *watchdog.Sample)    { x.Faults = 1 }
func traced(x *watchdog.Sample)    { x.Traced = true }
func frozen(x *watchdog.Sample)    { x.Frozen = true }
func suspended(x *watchdog.Sample) { x.Suspended = true }
func late(x *watchdog.Sample)      { x.Elapsed = 4 * time.Second }
func blind(x *watchdog.Sample)     { x.Known, x.Process = false, watchdog.Other }
func locked(x *watchdog.Sample)    { x.Locked = true }
func answered(x *watchdog.Sample)  { x.Answered = true }
func unplanned(x *watchdog.Sample) { x.StepCPU, x.StepWall = 0, 0 }

// spins sets the figures of an engine that uses two CPUs for the whole second.
func spins(x *watchdog.Sample) {
	x.Process, x.CPU = watchdog.Running, 2*time.Second
}

// runs sets the state of an engine with a runnable thread that did not run.
func runs(x *watchdog.Sample) { x.Process = watchdog.Running }

// starves sets the figures of an engine that runs for 1 % of the second and waits for a CPU otherwise.
func starves(x *watchdog.Sample) {
	x.Process, x.CPU, x.Wait = watchdog.Running, 10*time.Millisecond, 990*time.Millisecond
}

// beats sets the small figures of an engine in which only the thread that sends beats runs.
func beats(x *watchdog.Sample) { x.CPU, x.Wait = time.Millisecond, 20*time.Millisecond }

// overruns returns a sample in which a phase has used the CPU time d since its call failed.
func overruns(d time.Duration) watchdog.Sample {
	return sample(free, func(x *watchdog.Sample) { x.Overrun, x.OverrunPhase = d, "render" })
}

// planned sets the planned times of the step.
func planned(cpu, wall time.Duration) func(*watchdog.Sample) {
	return func(x *watchdog.Sample) { x.StepCPU, x.StepWall = cpu, wall }
}

// times returns n copies of a sample.
func times(n int, x watchdog.Sample) []watchdog.Sample { return slices.Repeat([]watchdog.Sample{x}, n) }

func join(parts ...[]watchdog.Sample) []watchdog.Sample { return slices.Concat(parts...) }

// play passes the samples to s, up to the first that leads to a Kill. It returns the actions other than
// Nothing, each with the number of its sample, counted from 1, and the last State.
func play(s watchdog.State, samples []watchdog.Sample) (actions []string, end watchdog.State) {
	for i, x := range samples {
		var a watchdog.Action
		s, a = s.Next(x)
		switch a.Verb {
		case watchdog.Nothing:
		case watchdog.Resume:
			actions = append(actions, fmt.Sprintf("%d resume", i+1))
		case watchdog.Canary:
			actions = append(actions, fmt.Sprintf("%d canary", i+1))
		case watchdog.Kill:
			rule, _, _ := strings.Cut(a.Reason, ":")
			return append(actions, fmt.Sprintf("%d kill %s", i+1, rule)), s
		}
	}
	return actions, s
}

func TestRules(t *testing.T) {
	for name, test := range map[string]struct {
		begin   watchdog.State
		samples []watchdog.Sample
		want    []string
	}{
		"an idle engine": {samples: times(300, sample(free))},
		"steps that move allow any amount of CPU":             {samples: times(300, sample(moved, spins))},
		"it spins: 10 s of CPU without a step":                {samples: times(9, sample(spins)), want: []string{"6 kill spin"}},
		"an engine starved of CPU does not spin":              {samples: times(300, sample(starves))},
		"a runnable thread that never ran is no deadlock":     {samples: times(300, sample(runs))},
		"a long step has a larger budget":                     {samples: times(90, sample(spins, planned(10*time.Second, time.Second))), want: []string{"51 kill spin"}},
		"a long step has a longer quiet time":                 {samples: times(300, sample(spins, planned(10*time.Second, 10*time.Second))), want: []string{"201 kill spin"}},
		"a step of unknown cost has 5 minutes of CPU":         {samples: times(300, sample(spins, unplanned)), want: []string{"151 kill spin"}},
		"one step 100 times as long as planned":               {samples: join(times(5, sample(spins)), times(1, sample(moved)))},
		"a deadlock: nothing runs for 5 s, twice":             {samples: times(20, sample()), want: []string{"11 kill deadlock"}},
		"beats are not progress":                              {samples: times(20, sample(beats)), want: []string{"11 kill deadlock"}},
		"a runnable thread now and then":                      {samples: slices.Repeat(join(times(4, sample()), times(1, sample(runs))), 4), want: []string{"11 kill deadlock"}},
		"a runnable thread often":                             {samples: slices.Repeat(join(times(3, sample()), times(2, sample(runs))), 60)},
		"a deadlock that computed before":                     {samples: join(times(5, sample(spins)), times(20, sample())), want: []string{"16 kill deadlock"}},
		"an engine that waits for the compute lock":           {samples: times(300, sample(locked))},
		"a missing beat alone is no evidence":                 {samples: join(times(3, sample(moved)), times(4, sample(mute)), times(3, sample(moved)))},
		"five missing beats and no CPU":                       {samples: times(20, sample(mute)), want: []string{"11 kill deadlock"}},
		"five missing beats and all CPU":                      {samples: times(20, sample(mute, spins)), want: []string{"6 kill spin"}},
		"missing beats while text comes":                      {samples: times(300, sample(mute, moved))},
		"stopped: SIGCONT after 5 s, killed after 10":         {samples: times(20, sample(halted)), want: []string{"6 resume", "11 kill stopped for 10s, also after a SIGCONT"}},
		"stopped without calls":                               {samples: times(20, sample(halted, free)), want: []string{"6 resume", "11 kill stopped for 10s, also after a SIGCONT"}},
		"stopped once":                                        {samples: join(times(6, sample(halted)), times(60, sample(moved))), want: []string{"6 resume"}},
		"stopped for 4 s, again and again":                    {samples: slices.Repeat(join(times(5, sample(halted)), times(1, sample(moved))), 20)},
		"stopped again within 60 s":                           {samples: join(times(6, sample(halted)), times(50, sample(moved)), times(9, sample(halted))), want: []string{"6 resume", "62 kill stopped again within 1m0s of a SIGCONT, for 5s"}},
		"stopped again later":                                 {samples: join(times(6, sample(halted)), times(60, sample(moved)), times(6, sample(halted)), times(60, sample(moved))), want: []string{"6 resume", "72 resume"}},
		"a debugger stops it":                                 {samples: times(300, sample(halted, traced))},
		"a debugger watches it":                               {samples: times(300, sample(spins, traced))},
		"a deadlock after a debugger has detached":            {samples: join(times(30, sample(traced)), times(20, sample())), want: []string{"41 kill deadlock"}},
		"a slow disk":                                         {samples: times(119, sample(swaps))},
		"a slow disk between spins":                           {samples: times(200, sample(swaps, spins, swaps)), want: []string{"125 kill spin"}},
		"swapping":                                            {samples: times(119, sample(faults, spins))},
		"swapping, then a spin":                               {samples: join(times(60, sample(faults)), times(20, sample(spins))), want: []string{"65 kill spin"}},
		"a template of a failed call does not end":            {samples: []watchdog.Sample{overruns(1e9), overruns(2e9), overruns(3e9), overruns(4e9), overruns(5e9)}, want: []string{"5 kill render does not end"}},
		"one overrun is no evidence":                          {samples: []watchdog.Sample{overruns(9e9), sample(free), overruns(9e9), overruns(9e9), sample(free)}},
		"an overrun that ends":                                {samples: []watchdog.Sample{overruns(1e9), overruns(2e9), overruns(3e9), overruns(4e9), sample(free)}},
		"a frozen cgroup":                                     {samples: times(300, sample(frozen))},
		"a cgroup frozen for a while":                         {samples: join(times(9, sample()), times(60, sample(frozen)), times(10, sample()))},
		"the daemon was stopped":                              {samples: join(times(9, sample()), times(1, sample(late)), times(10, sample()))},
		"the machine was suspended":                           {samples: join(times(9, sample()), times(1, sample(suspended)), times(10, sample()))},
		"a platform without samples":                          {samples: times(300, sample(blind, mute))},
		"a spin without calls: a canary each minute":          {samples: times(125, sample(free, spins)), want: []string{"60 canary", "120 canary"}},
		"half a processor without calls":                      {samples: times(125, sample(free, func(x *watchdog.Sample) { x.CPU = 500 * time.Millisecond }))},
		"the canary is not answered":                          {samples: join(times(60, sample(free, spins)), times(20, sample(spins))), want: []string{"60 canary", "66 kill spin"}},
		"a new engine is not killed within 30 s":              {begin: watchdog.Replaced(), samples: times(29, sample(spins))},
		"a new engine is killed after 30 s":                   {begin: watchdog.Replaced(), samples: times(40, sample(spins)), want: []string{"30 kill spin"}},
		"a new engine that has answered is killed at once":    {begin: watchdog.Replaced(), samples: times(40, sample(spins, answered)), want: []string{"6 kill spin"}},
		"a new engine that is stopped is resumed within 30 s": {begin: watchdog.Replaced(), samples: times(40, sample(halted)), want: []string{"6 resume", "30 kill stopped for 29s, also after a SIGCONT"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got, _ := play(test.begin, test.samples); !slices.Equal(got, test.want) {
				t.Errorf("got  %q\nwant %q", got, test.want)
			}
		})
	}
}

func TestSilence(t *testing.T) {
	for name, test := range map[string]struct {
		samples []watchdog.Sample
		want    watchdog.Silence
	}{
		"it answers":                    {times(3, sample(moved)), watchdog.Responding},
		"it is stopped for a second":    {times(2, sample(halted)), watchdog.Responding},
		"it is stopped for two seconds": {times(3, sample(halted)), watchdog.Halted},
		"it resumes":                    {join(times(3, sample(halted)), times(1, sample(moved))), watchdog.Responding},
		"four beats are missing":        {times(5, sample(mute)), watchdog.Responding},
		"five beats are missing":        {times(6, sample(mute, unplanned)), watchdog.NoReport},
		"five beats are missing, and the platform reports nothing": {times(6, sample(mute, blind)), watchdog.NoReport},
		"its steps stall":               {times(6, sample()), watchdog.NoStep},
		"a slow disk":                   {times(6, sample(swaps)), watchdog.NoStep},
		"its step is long":              {times(6, sample(planned(time.Second, time.Second))), watchdog.Responding},
		"its step is of unknown length": {times(30, sample(unplanned, starves)), watchdog.Responding},
		"it has no calls":               {times(30, sample(free, mute)), watchdog.Responding},
	} {
		t.Run(name, func(t *testing.T) {
			_, s := play(watchdog.State{}, test.samples)
			if got := s.Silence(); got != test.want {
				t.Errorf("Silence = %q, want %q", got, test.want)
			}
		})
	}
}

func TestInterval(t *testing.T) {
	_, stopped := play(watchdog.State{}, times(1, sample(halted, free)))
	for name, test := range map[string]struct {
		s      watchdog.State
		active bool
		want   time.Duration
	}{
		"without calls":                {watchdog.State{}, false, 5 * time.Second},
		"with calls":                   {watchdog.State{}, true, time.Second},
		"with a stopped engine":        {stopped, false, time.Second},
		"after a call that just ended": {func() watchdog.State { _, s := play(watchdog.State{}, times(2, sample())); return s }(), false, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			if got := test.s.Interval(test.active); got != test.want {
				t.Errorf("Interval = %s, want %s", got, test.want)
			}
		})
	}
}

func TestReasons(t *testing.T) {
	for want, samples := range map[string][]watchdog.Sample{
		"spin: no step for 5s with 1 calls open, 10s of CPU":          times(20, sample(spins)),
		"spin: no beat for 5s with 1 calls open, 10s of CPU":          times(20, sample(spins, mute)),
		"deadlock: no step for 10s with 1 calls open, no CPU for 10s": times(20, sample()),
		"stopped for 10s, also after a SIGCONT":                       times(20, sample(halted)),
		"render does not end: 5s of CPU since its call failed":        times(3, overruns(5*time.Second)),
	} {
		var (
			s watchdog.State
			a watchdog.Action
		)
		for _, x := range samples {
			if s, a = s.Next(x); a.Verb == watchdog.Kill {
				break
			}
		}
		if a.Reason != want {
			t.Errorf("got  %q\nwant %q", a.Reason, want)
		}
	}
}
