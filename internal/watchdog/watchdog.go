// Package watchdog decides whether an engine process is wedged, and what to do about it. It is
// pure: it reads no clock and no file; its caller takes the samples and carries out the actions.
//
// The caller takes a [Sample] of the engine every [State.Interval] and passes it to
// [State.Next]. The bounds are in CPU time, not in wall time: an engine that gets no CPU
// has used none of its budget, so a busy machine is no evidence against it.
//
//	            steps or frames move, or no call is active
//	   ┌────────────────────────────────────────────────────────┐
//	   ▼                                                        │
//	Healthy ──active calls, no step for quiet──▶ Stuck ─────────┤
//	 │  │ ▲                                        │            │
//	 │  │ └──────runs again──┐                     ├ CPU over the budget ─▶ Kill "spin"
//	 │  └──state T──▶ Stopped┤                     └ idle for 5 s, twice ─▶ Kill "deadlock"
//	 │                       ├ 5 s ─▶ Resume (SIGCONT), once
//	 │                       └ 10 s, or 5 s within 60 s of a SIGCONT ─▶ Kill "stopped"
//	 └──no call, CPU > 50 % for 60 s──▶ Canary ──▶ Healthy or Stuck, by its answer
//
// In every state a debugger, a frozen cgroup, a late sample or a suspended machine discards the
// evidence, and every rule starts to count again.
package watchdog

import (
	"fmt"
	"time"
)

// Thresholds of the rules.
const (
	activeInterval = 1 * time.Second // between samples
	idleInterval   = 5 * time.Second
	lateFactor     = 3 // a sample is late after more than this many planned intervals

	minSamples = 3 // samples before a kill

	minQuiet    = 2 * time.Second // the least time without a step before a kill
	quietSteps  = 20              // the same, in planned wall times of the step; the longer time counts
	minBudget   = 10 * time.Second
	budgetSteps = 10              // the CPU budget, in planned CPU times of the step
	unknownStep = 5 * time.Minute // CPU budget of a step whose cost is unknown

	stillWindow  = 5 * time.Second
	stillWindows = 2  // in a row
	stillCPU     = 1  // percent of a window: the maximum CPU time of a deadlocked engine
	stillWait    = 10 // percent of a window: its maximum wait for a CPU
	stillRunning = 4  // in a still window, at most one sample in this many finds a runnable thread

	missedBeats = 5
	diskGrace   = 120 * time.Second // without a step, before a kill of an engine that waits for its disk

	// Times in state T, until the engine is published as silent, resumed, and killed.
	stopSilent  = 2 * time.Second
	stopResume  = 5 * time.Second
	stopKill    = 10 * time.Second
	stopAgain   = 5 * time.Second  // before a kill, if the engine is stopped again during the probation
	probation   = 60 * time.Second // after a SIGCONT
	stuckSilent = 5 * time.Second  // without a step, before the engine is published as silent
	firstSilent = 30 * time.Second // the same, if the step's cost is unknown

	overrunCPU = 5 * time.Second // CPU time of an overrun, before a kill

	spinIdle    = 60 * time.Second // of computing without active calls, before a canary
	spinPercent = 50               // percent of a sample: the CPU time above which an idle engine computes
	canaryPause = time.Minute      // between two canaries

	cooldown = 30 * time.Second // after the start of a replacement
)

// A Process is the scheduling state of a process with all its threads. The set is closed.
type Process int

// Scheduling states.
const (
	Other    Process = iota // none of the below, for example a zombie
	Running                 // a thread runs or waits for a CPU
	Sleeping                // every thread sleeps
	Disk                    // a thread is in uninterruptible sleep (D)
	Stopped                 // stopped by a signal (T)
)

// A Sample is one observation of an engine. Unless noted otherwise, durations and counts
// cover the time since the previous sample.
type Sample struct {
	Elapsed   time.Duration // since the previous sample
	Planned   time.Duration // the planned interval; 0 or less means 1 s
	Suspended bool          // the machine was suspended during the interval

	Active   int  // calls that need progress: not ended, paused or canceled, and not counting tokens
	Answered bool // the engine has answered a call since its start
	Moved    bool // it reported a step, or sent a frame other than a beat
	Locked   bool // it waits for another engine that computes on the same cores
	Beat     bool // a beat has arrived

	// StepCPU is the planned CPU time of the current step, over all threads, and StepWall is its
	// planned wall time. 0 is unknown.
	StepCPU, StepWall time.Duration
	// Overrun is the CPU time that a phase, such as "render", has used since its call failed
	// because it exceeded its CPU time. 0 means that no such phase runs.
	Overrun      time.Duration
	OverrunPhase string

	// Known reports whether the fields below are known. If the platform does not report them,
	// no engine is killed.
	Known   bool
	Process Process
	Traced  bool          // a debugger is attached
	Frozen  bool          // its cgroup is frozen
	CPU     time.Duration // used, over all threads
	Wait    time.Duration // spent waiting for a CPU, over all threads
	Faults  int64         // major page faults
}

// late reports whether the sample was taken much later than planned, for example because the daemon
// was stopped.
func (x *Sample) late() bool {
	planned := x.Planned
	if planned <= 0 {
		planned = activeInterval
	}
	return x.Elapsed > lateFactor*planned
}

// disk reports whether the engine waits for a disk or for swap.
func (x *Sample) disk() bool { return x.Process == Disk || x.Faults > 0 }

// A Verb is an action for the caller to carry out. The set is closed.
type Verb int

// Verbs.
const (
	Nothing Verb = iota
	Resume       // send SIGCONT
	Canary       // send a tiny request
	Kill         // replace the engine
)

// An Action is a verb and, for Kill, its reason, which names the rule and has the measured figures.
type Action struct {
	Verb   Verb
	Reason string
}

// A State is the watchdog's memory of one engine process. The zero State is the start for a first
// engine, [Replaced] the start for an engine that replaces a killed one. States are comparable.
type State struct {
	cooldown time.Duration // left of the time without a kill, unless answered
	answered bool          // the engine has answered a call
	canary   time.Duration // left until the next canary may be sent
	resumed  time.Duration // left of the probation after a SIGCONT

	stop  stopPeriod
	stuck stuckPeriod
	idle  idlePeriod
	over  int // samples in a row that reported an overrun
}

// A stopPeriod describes a period in state T.
type stopPeriod struct {
	samples int
	dur     time.Duration
	resumed bool // SIGCONT was sent
	again   bool // it began within the probation of an earlier SIGCONT
}

// A stuckPeriod describes a period in which calls are active and nothing progresses.
type stuckPeriod struct {
	open   bool // calls are active; each sample that shows progress resets the fields below
	dur    time.Duration
	missed int           // samples in a row without a beat, at most missedBeats
	beat   bool          // the last sample brought a beat
	step   time.Duration // planned CPU time of the step; 0 is unknown
	wall   time.Duration // planned wall time of the step
	cpu    time.Duration // used since the beginning, or since the last wait for a disk
	counts int           // samples that cpu covers
	still  stillness
}

// An idlePeriod describes a period in which an engine without active calls uses much CPU time.
type idlePeriod struct {
	samples  int
	dur, cpu time.Duration
}

// Replaced returns the State for an engine that replaces a killed one: in its first 30 s it is
// killed only if it has answered a call.
func Replaced() State { return State{cooldown: cooldown} }

// Interval returns the planned time until the next sample. active is true if calls are active.
func (s State) Interval(active bool) time.Duration {
	if active || s.stuck.open || s.stop.samples > 0 || s.over > 0 {
		return activeInterval
	}
	return idleInterval
}

// Suspicious reports whether the next sample needs every field. If it returns false, the sample may
// omit Frozen.
func (s State) Suspicious() bool {
	return s.stuck.dur > 0 || s.stop.samples > 0 || s.idle.samples > 0
}

// A Silence is the reason why an engine is published as silent. The set is closed.
type Silence string

// Reasons of a silence.
const (
	Responding Silence = ""
	Halted     Silence = "its process is stopped"
	NoReport   Silence = "it reports nothing"
	NoStep     Silence = "its steps make no progress"
)

// Silence returns the reason why the engine is published as silent, or Responding.
func (s State) Silence() Silence {
	switch {
	case s.stop.dur >= stopSilent:
		return Halted
	case s.stuck.missed >= missedBeats:
		return NoReport
	case s.stuck.step > 0 && s.stuck.dur >= max(stuckSilent, s.stuck.quiet()), s.stuck.dur >= firstSilent && s.stuck.step <= 0:
		return NoStep
	}
	return Responding
}

// Next returns the State after the sample x, and the action that the caller must take.
func (s State) Next(x Sample) (State, Action) {
	s.cooldown = max(0, s.cooldown-x.Elapsed)
	s.canary = max(0, s.canary-x.Elapsed)
	s.resumed = max(0, s.resumed-x.Elapsed)
	s.answered = s.answered || x.Answered
	if x.late() || x.Suspended || x.Frozen || x.Traced {
		s.stop, s.stuck, s.idle, s.over = stopPeriod{}, stuckPeriod{}, idlePeriod{}, 0
		return s, Action{}
	}
	if s.overran(&x) {
		return s.kill("%s does not end: %s of CPU since its call failed", x.OverrunPhase, round(x.Overrun))
	}
	if x.Known && x.Process == Stopped {
		s.stuck, s.idle = stuckPeriod{}, idlePeriod{}
		return s.addStopped(&x)
	}
	s.stop = stopPeriod{}
	if x.Active == 0 {
		s.stuck = stuckPeriod{}
		return s.addIdle(&x)
	}
	s.idle = idlePeriod{}
	if x.Moved || x.Locked || !s.stuck.open { // a first sample may cover time without calls
		s.stuck = stuckPeriod{open: true}
		return s, Action{}
	}
	return s.addStuck(&x)
}

// kill returns s, and the action Kill with that reason. During the cooldown of an engine that has not
// answered a call, the action is Nothing.
func (s State) kill(format string, args ...any) (State, Action) {
	if s.cooldown > 0 && !s.answered {
		return s, Action{}
	}
	return s, Action{Verb: Kill, Reason: fmt.Sprintf(format, args...)}
}

// overran counts samples in a row with an overrun, and reports whether they suffice for a kill.
// Samples without a beat are skipped, because they repeat the figure of an earlier beat.
func (s *State) overran(x *Sample) bool {
	switch {
	case x.Beat && x.Overrun > 0:
		s.over = min(s.over+1, minSamples)
	case x.Beat:
		s.over = 0
	}
	return x.Known && x.Beat && x.Overrun >= overrunCPU && s.over >= minSamples
}

// addStopped adds a sample of a stopped process. Its action is Resume, Kill or Nothing.
func (s State) addStopped(x *Sample) (State, Action) {
	if s.stop.samples == 0 { // it stopped at an unknown time within the interval
		s.stop = stopPeriod{samples: 1, again: s.resumed > 0}
		return s, Action{}
	}
	s.stop.samples = min(s.stop.samples+1, minSamples)
	s.stop.dur += x.Elapsed
	switch {
	case s.stop.samples < minSamples:
	case s.stop.again && s.stop.dur >= stopAgain:
		return s.kill("stopped again within %s of a SIGCONT, for %s", probation, round(s.stop.dur))
	case s.stop.resumed && s.stop.dur >= stopKill:
		return s.kill("stopped for %s, also after a SIGCONT", round(s.stop.dur))
	case !s.stop.resumed && !s.stop.again && s.stop.dur >= stopResume:
		s.stop.resumed, s.resumed = true, probation
		return s, Action{Verb: Resume}
	}
	return s, Action{}
}

// addIdle adds a sample without active calls. Its action is Canary or Nothing.
func (s State) addIdle(x *Sample) (State, Action) {
	if !x.Known || percent(x.CPU, x.Elapsed) <= spinPercent {
		s.idle = idlePeriod{}
		return s, Action{}
	}
	s.idle.samples = min(s.idle.samples+1, minSamples)
	s.idle.dur += x.Elapsed
	s.idle.cpu += x.CPU
	if s.idle.samples < minSamples || s.idle.dur < spinIdle || s.canary > 0 {
		return s, Action{}
	}
	s.canary = canaryPause
	return s, Action{Verb: Canary}
}

// addStuck adds a sample of active calls without progress. Its action is Kill or Nothing.
func (s State) addStuck(x *Sample) (State, Action) {
	t := &s.stuck
	t.dur += x.Elapsed
	t.beat = x.Beat
	if x.Beat {
		t.missed = 0
	} else {
		t.missed = min(t.missed+1, missedBeats)
	}
	t.step = max(t.step, x.StepCPU)
	t.wall = max(t.wall, x.StepWall)
	t.cpu += x.CPU
	t.counts = min(t.counts+1, minSamples)
	if x.disk() && t.dur < diskGrace {
		t.cpu, t.counts = 0, 0
	}
	t.still.add(x)
	if !x.Known || !t.beat && t.missed < missedBeats { // without this beat, a step may be unreported
		return s, Action{}
	}
	what := "no step"
	if t.missed >= missedBeats {
		what = "no beat"
	}
	switch {
	case t.counts < minSamples || t.dur < t.quiet():
	case t.cpu >= t.budget():
		return s.kill("spin: %s for %s with %d calls open, %s of CPU", what, round(t.dur), x.Active, round(t.cpu))
	case t.still.windows >= stillWindows:
		return s.kill("deadlock: %s for %s with %d calls open, no CPU for %s", what, round(t.dur), x.Active, stillWindows*stillWindow)
	}
	return s, Action{}
}

// quiet returns the time without a step after which an engine may be killed.
func (t *stuckPeriod) quiet() time.Duration {
	if t.step <= 0 {
		return minQuiet
	}
	return max(minQuiet, quietSteps*max(t.wall, 0))
}

// budget returns the CPU time that an engine may use without a step before it is killed.
func (t *stuckPeriod) budget() time.Duration {
	if t.step <= 0 {
		return unknownStep
	}
	return max(minBudget, budgetSteps*t.step)
}

func round(d time.Duration) time.Duration { return d.Round(100 * time.Millisecond) }
