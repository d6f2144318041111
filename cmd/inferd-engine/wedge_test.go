//go:build wedge && linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/link"
	"github.com/inferd-go/inferd/internal/proc"
)

// patience bounds the wait for an event that must come.
const patience = 60 * time.Second

// An engineProcess is a running engine, and the file through which a test requests faults in it;
// see wedge_wedge.go in package llama.
type engineProcess struct {
	t      *testing.T
	child  *proc.Child
	client *link.Client
	file   string // path; the content is the mode of the fault
}

func startEngine(t *testing.T) *engineProcess {
	t.Helper()
	e := &engineProcess{t: t, file: filepath.Join(t.TempDir(), "wedge")}
	e.child = startTest(t, "tiny", "INFERD_ENGINE_WEDGE="+e.file)
	e.client = link.NewClient(e.child.Conn())
	ready := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		_ = e.client.Run(func(r link.Report) {
			if r.State == link.Ready {
				close(ready)
			}
		})
	})
	t.Cleanup(func() {
		e.child.Kill()
		running.Wait()
		<-e.child.Done()
	})
	select {
	case <-ready:
	case <-time.After(patience):
		t.Fatal("the engine is not ready")
	}
	return e
}

func (e *engineProcess) generate(ctx context.Context, gen infer.Generate, text string, emit infer.Sink) error {
	gen.Messages = []infer.Message{infer.TextMessage(infer.User, text)}
	gen.Sampling = infer.Sampling{Temperature: new(1.0)}
	return e.client.Handle(ctx, &infer.Request{Task: &gen}, emit)
}

// stream generates text until the test ends, in one request after another. It returns once the
// first text has arrived.
func (e *engineProcess) stream() {
	e.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	e.t.Cleanup(func() { cancel(); all.Wait() })
	streaming := make(chan struct{})
	var once sync.Once
	all.Go(func() {
		for ctx.Err() == nil {
			err := e.generate(ctx, infer.Generate{MaxTokens: 2000}, "hello", func(infer.Event) error {
				once.Do(func() { close(streaming) })
				return nil
			})
			if err != nil {
				return
			}
		}
	})
	select {
	case <-streaming:
	case <-time.After(patience):
		e.t.Fatal("the stream has emitted no text")
	}
}

// wedge requests a fault of the given mode, and returns once the engine has removed the file, as a
// sign that it has taken the request.
func (e *engineProcess) wedge(mode string) {
	e.t.Helper()
	temp := e.file + ".new"
	if err := errors.Join(os.WriteFile(temp, []byte(mode+"\n"), 0o600), os.Rename(temp, e.file)); err != nil {
		e.t.Fatal(err)
	}
	e.wait("the engine removes the file of the fault", func(link.Beat) bool {
		_, err := os.Stat(e.file)
		return errors.Is(err, os.ErrNotExist)
	})
}

// wait requests beats until one satisfies condition, and returns that beat. If none does so within
// patience, it fails the test with what, the description of the expected event.
func (e *engineProcess) wait(what string, condition func(link.Beat) bool) link.Beat {
	e.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if b := e.beat(); condition(b) {
			return b
		}
		time.Sleep(20 * time.Millisecond)
	}
	e.t.Fatalf("%s: not within %v", what, patience)
	return link.Beat{}
}

func (e *engineProcess) beat() link.Beat {
	e.t.Helper()
	before := e.client.Pulse().Beats
	e.client.AskBeat()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if p := e.client.Pulse(); p.Beats > before {
			return p.Beat
		}
		time.Sleep(time.Millisecond)
	}
	e.t.Fatal("no beat")
	return link.Beat{}
}

// cpu returns the CPU time of each thread of the engine so far, by the path of its schedstat, and
// the total time that the threads have waited for a processor.
func (e *engineProcess) cpu() (used map[string]time.Duration, waited time.Duration) {
	e.t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", e.child.PID()))
	if err != nil {
		e.t.Fatal(err)
	}
	used = make(map[string]time.Duration)
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue // the thread has ended
		}
		fields := bytes.Fields(text)
		run, _ := strconv.ParseInt(string(fields[0]), 10, 64)
		wait, _ := strconv.ParseInt(string(fields[1]), 10, 64)
		used[f] = time.Duration(run)
		waited += time.Duration(wait)
	}
	return used, waited
}

// busy returns the number of threads that used more than 100 ms of CPU time between before and
// after, the CPU times from two calls of cpu.
func busy(before, after map[string]time.Duration) int {
	n := 0
	for thread, used := range after {
		if used-before[thread] > 100*time.Millisecond {
			n++
		}
	}
	return n
}

func TestStepsThatHang(t *testing.T) {
	for mode, threads := range map[string]int{"spin": 2, "block": 1, "sleep": 0} {
		t.Run(mode, func(t *testing.T) {
			e := startEngine(t)
			e.stream()
			e.wedge(mode)
			hung := e.wait("a step hangs", func(b link.Beat) bool { return b.SinceMS > 1000 })
			if hung.Phase != "decode" || !slices.Equal(hung.Calls, []uint64{1}) || hung.StepCPUMS < 1 {
				t.Errorf("the beat of the step that hangs is %+v", hung)
			}
			before, waitedBefore := e.cpu()
			n := 0
			for begun := time.Now(); n < threads && time.Since(begun) < patience || time.Since(begun) < time.Second; time.Sleep(100 * time.Millisecond) {
				after, _ := e.cpu()
				n = busy(before, after)
			}
			if n != threads {
				t.Errorf("%d threads use CPU time, want %d", n, threads)
			}
			after, waited := e.cpu()
			var sum time.Duration
			for thread, used := range after {
				sum += used - before[thread]
			}
			if sum += waited - waitedBefore; threads == 0 && sum > 200*time.Millisecond {
				t.Errorf("its threads wanted %v of CPU time", sum)
			}
			if b := e.beat(); b.Steps != hung.Steps {
				t.Errorf("steps went from %d to %d", hung.Steps, b.Steps)
			}
		})
	}
}

func TestSlowStep(t *testing.T) {
	e := startEngine(t)
	e.stream()
	e.wedge("slow")
	hung := e.wait("a step hangs", func(b link.Beat) bool { return b.SinceMS > 2000 })
	e.wait("the steps continue", func(b link.Beat) bool { return b.Steps > hung.Steps+10 })
}

func TestWorkerThatHangs(t *testing.T) {
	e := startEngine(t)
	e.stream()
	e.wedge("worker")
	for i := range 3 {
		if err := e.generate(t.Context(), infer.Generate{MaxTokens: 5}, strings.Repeat(strconv.Itoa(i)+" word", 200), func(infer.Event) error { return nil }); err != nil {
			t.Errorf("prompt %d: %v", i, err)
		}
	}
}
