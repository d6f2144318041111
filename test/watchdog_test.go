package test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/shortdir"
)

// soakVariable is the environment variable with the duration of each disturbance in
// TestWatchdogSpares; the default is 10 s.
const soakVariable = "INFERD_TEST_SOAK"

// wedgeVariable is the environment variable with a file that makes an engine wedge, if the engine
// was built with the tag wedge.
const wedgeVariable = "INFERD_ENGINE_WEDGE"

// A backendStats has some of the stats of an entry.
type backendStats struct {
	Restarts    int
	WedgedKills int    `json:"wedged_kills"`
	LastKill    string `json:"last_kill"`
}

// backend returns the stats of the first entry.
func (d *daemon) backend() backendStats {
	d.t.Helper()
	out, errs, code := d.ctl("stats")
	if code != 0 {
		d.t.Fatalf("stats: exit %d, %s", code, errs)
	}
	var s struct{ Backends []backendStats }
	if err := json.Unmarshal([]byte(out), &s); err != nil || len(s.Backends) == 0 {
		d.t.Fatalf("stats %s: %v", out, err)
	}
	return s.Backends[0]
}

// streams starts n endless answers. It returns their clients after each has read a token.
func (d *daemon) streams(n int) (all []*client) {
	d.t.Helper()
	for i := range n {
		c := d.client()
		c.send(prompt(fmt.Sprint(i), "a", `,"max_tokens":1000000`))
		if r := c.next(); r.Type != "token" {
			d.t.Fatalf("stream %d: %+v", i, r)
		}
		all = append(all, c)
	}
	return all
}

// flows checks that the stream is running: it reads tokens for a second, which is longer than
// buffered tokens last.
func (c *client) flows() {
	c.t.Helper()
	for begin := time.Now(); time.Since(begin) < time.Second; {
		if r := c.next(); r.Type != "token" {
			c.t.Fatalf("a stream ended: %+v", r)
		}
	}
}

// An engine that was stopped by a signal is resumed once, and its streams continue. If it is
// stopped again, it is replaced.
func TestEngineStops(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes 20 s")
	}
	d := serve(t, "--model-path", "builtin:loop", "--n-slots", "3")
	w := d.watch()
	defer w.Close()
	w.until("ready", "")
	running := d.streams(2)
	pid := d.engine()

	stopped := time.Now()
	kill(t, pid, syscall.SIGSTOP)
	frames := w.until("backend_state", "")
	if last := frames[len(frames)-1]; last["state"] != "silent" || last["reason"] != "its process is stopped" {
		t.Errorf("the admin socket sent %v", last)
	}
	newcomer := d.watch()
	frames = newcomer.until("backend_state", "") // the backlog has it before the lifecycle state
	_ = newcomer.Close()
	if last := frames[len(frames)-1]; last["state"] != "silent" {
		t.Errorf("a newcomer learns %v", last)
	}
	if out, _, code := d.ctl("doctor"); code != 1 || !strings.Contains(out, "the engine of llamacpp is silent: its process is stopped") {
		t.Errorf("doctor: exit %d\n%s", code, out)
	}
	frames = w.until("backend_state", "")
	t.Logf("it responds %s after its SIGSTOP", time.Since(stopped).Round(10*time.Millisecond))
	if last := frames[len(frames)-1]; last["state"] != "responding" {
		t.Errorf("the admin socket sent %v", last)
	}
	for _, c := range running {
		c.flows()
	}
	if d.engine() != pid {
		t.Error("the engine was replaced")
	}

	stopped = time.Now()
	kill(t, pid, syscall.SIGSTOP)
	silent, queued := d.client(), d.client()
	silent.send(prompt("silent", "a", `,"max_tokens":2`)) // takes the third slot
	d.admitted(2)
	queued.send(prompt("queued", "a", `,"max_tokens":2`))
	for i, c := range running {
		if _, end := c.answer(); end.Code != "backend_unavailable" || end.ID != fmt.Sprint(i) {
			t.Errorf("stream %d ended with %+v", i, end)
		}
	}
	t.Logf("its clients learn of the end %s after its second SIGSTOP", time.Since(stopped).Round(10*time.Millisecond))
	for name, c := range map[string]*client{"silent": silent, "queued": queued} {
		if text, end := c.answer(); text != "bc" || end.Type != "done" {
			t.Errorf("the %s request: %q, %+v", name, text, end)
		}
	}
	t.Logf("the others are answered %s after it", time.Since(stopped).Round(10*time.Millisecond))
	frames = w.until("restarting", "engine_exited")
	if reason := fmt.Sprint(frames[len(frames)-1]["reason"]); !strings.HasPrefix(reason, "wedged: stopped again within 1m0s of a SIGCONT") {
		t.Errorf("reason %q", reason)
	}
	if b := d.backend(); b.WedgedKills != 1 || b.Restarts != 1 || !strings.HasPrefix(b.LastKill, "stopped again") {
		t.Errorf("%+v", b)
	}
	if out, _, _ := d.ctl("doctor"); !strings.Contains(out, "the watchdog killed 1 wedged engines") {
		t.Errorf("doctor:\n%s", out)
	}
}

// buildWedge builds the engine with the tag wedge, once.
var buildWedge = sync.OnceValues(func() (engine string, err error) {
	engine = filepath.Join(bin, "wedge", "inferd-engine")
	build := exec.Command("go", "build", "-tags", "wedge", "-o", engine, "../cmd/inferd-engine")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return engine, nil
})

// wedgeable returns an engine that wedges on request, and the file that requests it. It skips the
// test if the tag wedge has no effect on the engine.
func wedgeable(t *testing.T) (engine, file string) {
	t.Helper()
	engine, err := buildWedge()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(engine)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(program, []byte(wedgeVariable)) {
		t.Skip("the engine has no tag wedge")
	}
	file = filepath.Join(shortdir.New(t), "wedge")
	t.Setenv(wedgeVariable, file)
	return engine, file
}

// wedge makes the engine wedge in its next step. mode is one of those in wedge_wedge.go, such as
// "spin"; "slow" only delays the step.
func wedge(t *testing.T, file, mode string) {
	t.Helper()
	if err := os.WriteFile(file+".new", []byte(mode), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

// An engine with a step that does not end is replaced. The requests in that step fail, and the next
// engine answers the others.
func TestEngineWedges(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a minute")
	}
	engine, file := wedgeable(t)
	for mode, reason := range map[string]string{
		"spin": "wedged: spin: ", "sleep": "wedged: deadlock: ", "block": "wedged: spin: ",
	} {
		t.Run(mode, func(t *testing.T) {
			d := serve(t, "--model-path", "builtin:loop", "--n-slots", "2", "--engine", engine)
			w := d.watch()
			defer w.Close()
			w.until("ready", "")
			running := d.streams(2)
			queued := d.client()
			queued.send(prompt("queued", "a", `,"max_tokens":2`))
			d.admitted(2)
			began := time.Now()
			wedge(t, file, mode)
			for i, c := range running {
				if _, end := c.answer(); end.Code != "backend_unavailable" {
					t.Errorf("stream %d ended with %+v", i, end)
				}
			}
			t.Logf("its clients learn of the end after %s", time.Since(began).Round(10*time.Millisecond))
			if text, end := queued.answer(); text != "bc" || end.Type != "done" {
				t.Errorf("the queued request: %q, %+v", text, end)
			}
			frames := w.until("restarting", "engine_exited")
			if got := fmt.Sprint(frames[len(frames)-1]["reason"]); !strings.HasPrefix(got, reason) {
				t.Errorf("reason %q, want %q", got, reason)
			}
			if b := d.backend(); b.WedgedKills != 1 {
				t.Errorf("%+v", b)
			}
			if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the file is still there: %v", err)
			}
		})
	}
}

// An engine is not killed while it is slow, starved, frozen or in a debugger, while the daemon is
// stopped, or while clients do not read.
func TestWatchdogSpares(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes minutes")
	}
	duration := 10 * time.Second
	if s := os.Getenv(soakVariable); s != "" {
		var err error
		if duration, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	last := func() { time.Sleep(duration) }
	for name, disturb := range map[string]func(t *testing.T, d *daemon){
		"32 busy processes": func(t *testing.T, _ *daemon) {
			busy(t, 32)
			last()
		},
		"nice 19 beside busy processes": func(t *testing.T, d *daemon) {
			pid := d.engine()
			threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
			if err != nil {
				t.Fatal(err)
			}
			for _, thread := range threads { // each thread has a nice value of its own
				id, _ := strconv.Atoi(filepath.Base(thread))
				if err := syscall.Setpriority(syscall.PRIO_PROCESS, id, 19); err != nil && !errors.Is(err, syscall.ESRCH) {
					t.Fatal(err)
				}
			}
			busy(t, 4)
			last()
		},
		"5 % of a processor": func(t *testing.T, d *daemon) {
			throttled(t, d.engine())
			last()
		},
		"a frozen cgroup": func(t *testing.T, d *daemon) {
			freeze := frozen(t, d.engine())
			freeze("1")
			defer freeze("0")
			last()
		},
		"a stopped daemon": func(_ *testing.T, d *daemon) {
			d.signal(syscall.SIGSTOP)
			defer d.signal(syscall.SIGCONT)
			last()
		},
		"long prompts": func(_ *testing.T, d *daemon) {
			for begin := time.Now(); time.Since(begin) < duration; {
				// On a busy machine 1,000 tokens take seconds. Only a soak has time for 7,000.
				pairs := 500
				if duration > time.Minute {
					pairs = 3500
				}
				d.finishes(prompt("long", strings.Repeat("ab", pairs), `,"max_tokens":1`))
			}
		},
		"clients that never read": func(_ *testing.T, d *daemon) {
			for range 8 {
				d.client().send(prompt("mute", "a", `,"max_tokens":1000000`))
			}
			last()
		},
		"a debugger": func(t *testing.T, d *daemon) {
			gdb, err := exec.LookPath("gdb")
			if err != nil {
				t.Skip("there is no gdb")
			}
			cmd := exec.CommandContext(t.Context(), gdb, "-nx", "-batch", "-p", strconv.Itoa(d.engine()), "-ex", fmt.Sprintf("shell sleep %d", int(duration.Seconds())))
			out, err := cmd.CombinedOutput()
			if err != nil || strings.Contains(string(out), "ptrace: ") {
				t.Skipf("gdb cannot attach: %v\n%s", err, out)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := serve(t, "--model-path", "builtin:loop", "--n-slots", "4")
			spared(t, d, disturb)
		})
	}
	t.Run("a step of 100 times the usual", func(t *testing.T) {
		engine, file := wedgeable(t)
		d := serve(t, "--model-path", "builtin:loop", "--n-slots", "4", "--engine", engine)
		spared(t, d, func(t *testing.T, _ *daemon) {
			for begin := time.Now(); time.Since(begin) < duration; {
				wedge(t, file, "slow")
				eventually(t, "the step begins", func() bool {
					_, err := os.Stat(file)
					return errors.Is(err, os.ErrNotExist)
				})
				// The time limit of a step follows from the steps before it, so many usual steps
				// must come first.
				d.finishes(prompt("usual", "a", `,"max_tokens":50`))
			}
		})
	})
}

// finishes checks that a request is answered, however long a busy machine needs.
func (d *daemon) finishes(request string) {
	d.t.Helper()
	c := d.client()
	defer c.Close()
	c.send(request)
	_ = c.SetReadDeadline(time.Now().Add(10 * patience))
	for line := ""; !strings.Contains(line, `"type":"done"`); {
		var err error
		if line, err = c.r.ReadString('\n'); err != nil || strings.Contains(line, `"type":"error"`) {
			d.t.Fatalf("%s, %v", line, err)
		}
	}
}

// spared calls disturb with a daemon that has streams. It checks that the engine is not killed,
// that the streams continue, and that a client is answered afterwards.
func spared(t *testing.T, d *daemon, disturb func(t *testing.T, d *daemon)) {
	t.Helper()
	pid := d.engine()
	running := d.streams(2)
	var reading sync.WaitGroup
	stop := make(chan struct{})
	for i, c := range running {
		_ = c.SetReadDeadline(time.Time{})
		reading.Go(func() {
			for {
				line, err := c.r.ReadBytes('\n')
				select {
				case <-stop:
					return
				default:
				}
				if err != nil || bytes.Contains(line, []byte(`"type":"error"`)) {
					t.Errorf("stream %d: %s, %v", i, line, err)
					return
				}
				if bytes.Contains(line, []byte(`"type":"done"`)) { // the answer has reached a limit: request another
					_, _ = c.Write([]byte(prompt("on", "a", `,"max_tokens":1000000`) + "\n"))
				}
			}
		})
	}
	end := sync.OnceFunc(func() {
		close(stop)
		for _, c := range running {
			_ = c.Close()
		}
		reading.Wait()
	})
	defer end()
	t.Run("during", func(t *testing.T) { // its cleanup ends the disturbance
		during := *d
		during.t = t
		disturb(t, &during)
	})
	end()
	if text, answer := d.ask("a", `,"max_tokens":2`); text != "bc" || answer.Type != "done" {
		t.Errorf("afterwards: %q, %+v", text, answer)
	}
	if b := d.backend(); b.WedgedKills != 0 || b.Restarts != 0 || d.engine() != pid {
		t.Errorf("the engine was killed: %+v", b)
	}
}

// busy runs n processes that compute until the end of the test.
func busy(t *testing.T, n int) {
	t.Helper()
	for range n {
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", "while :; do :; done")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
	}
}

// newCgroup makes a cgroup, moves a process into it, and returns its folder, or skips the test. It
// makes the cgroup in the first of the roots that has the file.
func newCgroup(t *testing.T, pid int, file string, roots ...string) string {
	t.Helper()
	for _, root := range roots {
		home := filepath.Join(root, "cgroup.procs")
		if _, err := os.Stat(home); err != nil { // a plain folder above the cgroups
			continue
		}
		group := filepath.Join(root, "inferd-test-"+strconv.Itoa(pid))
		if err := os.Mkdir(group, 0o700); err != nil {
			continue
		}
		t.Cleanup(func() {
			_ = os.WriteFile(home, []byte(strconv.Itoa(pid)), 0o600) // fails if the process has ended
			eventually(t, "the cgroup is empty", func() bool { return os.Remove(group) == nil })
		})
		if _, err := os.Stat(filepath.Join(group, file)); err != nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o600); err != nil {
			continue
		}
		return group
	}
	t.Skipf("there is no cgroup with a file %s that we may make", file)
	return ""
}

// throttled limits a process to 5 % of one processor.
func throttled(t *testing.T, pid int) {
	t.Helper()
	file, value := "cpu.max", "5000 100000"
	roots := []string{"/sys/fs/cgroup"}
	if _, err := os.Stat("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"); err == nil { // cgroups of version 1
		file, value, roots = "cpu.cfs_quota_us", "5000", []string{"/sys/fs/cgroup/cpu"}
	}
	group := newCgroup(t, pid, file, roots...)
	if err := os.WriteFile(filepath.Join(group, file), []byte(value), 0o600); err != nil {
		t.Skipf("the cgroup cannot be throttled: %v", err)
	}
}

// frozen puts a process into a cgroup of version 2. It returns a function that freezes the process
// ("1") or thaws it ("0").
func frozen(t *testing.T, pid int) func(value string) {
	t.Helper()
	group := newCgroup(t, pid, "cgroup.freeze", "/sys/fs/cgroup", "/sys/fs/cgroup/unified")
	return func(value string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(group, "cgroup.freeze"), []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// withFiles returns a program that runs inferd with a hard limit of n descriptors.
func withFiles(t *testing.T, n int) string {
	t.Helper()
	script := filepath.Join(shortdir.New(t), "limited")
	text := fmt.Sprintf("#!/bin/sh\nulimit -n %d && exec %s \"$@\"\n", n, filepath.Join(bin, "inferd"))
	if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	return script
}

// A flood of connections does not use up the descriptors that an engine and the log need.
func TestFewDescriptors(t *testing.T) {
	d := startProgram(t, withFiles(t, 64), shortdir.New(t), "--model-path", "builtin:chain")
	d.waitReady()
	w := d.watch()
	defer w.Close()
	w.until("ready", "")
	d.works()
	// Clients that are refused connect again at once. Others stay connected and send no request.
	var flood sync.WaitGroup
	over := make(chan struct{})
	for range 64 {
		flood.Go(func() {
			for {
				nc, err := net.Dial("unix", d.socket("infer.sock"))
				if err != nil {
					continue // the backlog is full
				}
				gone := make(chan struct{})
				go func() {
					defer close(gone)
					_, _ = io.Copy(io.Discard, nc)
				}()
				select {
				case <-gone:
					_ = nc.Close()
				case <-over:
					_ = nc.Close()
					<-gone
					return
				}
			}
		})
	}
	for range 5 {
		kill(t, d.engine(), syscall.SIGKILL)
		w.until("restarting", "engine_exited")
		w.until("ready", "") // during the flood
	}
	close(over)
	flood.Wait()
	ended := time.Now()
	eventually(t, "a client is served", func() bool {
		text, _ := d.ask("w", "")
		return text == "xyz"
	})
	t.Logf("a client is served %s after the flood", time.Since(ended).Round(time.Millisecond)) // at most 5 s on a quiet machine
	if s := d.stats(); s.LogLost > 0 {
		t.Errorf("%d lines of the log are lost", s.LogLost)
	}
	if strings.Contains(d.stderr.String(), "too many open files") {
		t.Errorf("there was a time without descriptors:\n%s", d.stderr)
	}
}

func TestTooFewDescriptors(t *testing.T) {
	d := startProgram(t, withFiles(t, 40), shortdir.New(t), "--model-path", "builtin:chain")
	if code := d.exit(); code != 1 || !strings.Contains(d.stderr.String(), "too few descriptors: the limit is 40") {
		t.Errorf("exit %d, stderr %s", code, d.stderr)
	}
}
