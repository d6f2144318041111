package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/inferd-go/inferd/internal/shortdir"
)

// An entry has some of the stats of a config entry.
type entry struct {
	Name, Kind, State, Model, Device string
	PID                              int
	Restarts, Parked                 int
	NCtx                             int `json:"n_ctx"`
	Silent                           bool
	CPUVariant                       string `json:"cpu_variant"`
	Libraries                        string
	Exact                            *bool
	Inexact                          string
	Engine                           *struct {
		Steps   int64
		Prefill int64 `json:"prefill_tokens"`
	}
}

// entries returns the entries in the stats by name.
func (d *daemon) entries() map[string]entry {
	d.t.Helper()
	out, errs, code := d.ctl("stats")
	var s struct{ Backends []entry }
	if err := json.Unmarshal([]byte(out), &s); err != nil || code != 0 {
		d.t.Fatalf("stats: exit code %d, %v\n%s%s", code, err, out, errs)
	}
	all := make(map[string]entry)
	for _, e := range s.Backends {
		all[e.Name] = e
	}
	return all
}

// Stats have the report of an engine, its restarts, and whether it is silent. While one engine is
// stopped by a signal, they have the reports of the others.
func TestStatsOfEngines(t *testing.T) {
	d := mocked(t, `{"backends":[
		{"kind":"llamacpp","name":"gen","model":{"builtin":"chain"},"n_ctx":256},
		{"kind":"llamacpp","name":"vec","model":{"builtin":"embed"},"embed":true,"embed_n_ctx":128},
		{"kind":"mock","name":"fake"}]}`)
	p := d.peer("infer.embed.sock")
	fmt.Fprintln(p, `{"id":"1","input":["one","two"]}`)
	if m, err := p.terminal(); err != nil || m["type"] != "embeddings" {
		t.Fatalf("%v, %v", m, err)
	}
	before := d.entries()
	gen, vec, fake := before["gen"], before["vec"], before["fake"]
	if gen.State != "ready" || gen.NCtx != 256 || gen.Model == "" || gen.Device != "cpu" || gen.Restarts != 0 || gen.Engine == nil {
		t.Errorf("gen: %+v", gen)
	}
	if vec.NCtx != 128 || vec.Engine == nil || vec.Engine.Steps != 1 || vec.Engine.Prefill < 2 {
		t.Errorf("vec: %+v, %+v", vec, vec.Engine)
	}
	if fake.Kind != "mock" || fake.PID != 0 || fake.Engine != nil {
		t.Errorf("fake: %+v", fake)
	}
	engines := d.engines()
	if len(engines) != 2 || gen.PID+vec.PID != engines[0]+engines[1] || gen.PID == vec.PID {
		t.Errorf("processes %d and %d, there are %d", gen.PID, vec.PID, engines)
	}

	kill(t, gen.PID, syscall.SIGSTOP)
	eventually(t, "gen is silent, and vec is not", func() bool {
		now := d.entries()
		return now["gen"].Silent && now["gen"].Engine == nil && !now["vec"].Silent && now["vec"].Engine != nil
	})
	if out, _, code := d.ctl("doctor"); code != 1 || !strings.Contains(out, "[FAIL] backend: gen does not report") {
		t.Errorf("doctor: exit code %d\n%s", code, out)
	}
	kill(t, gen.PID, syscall.SIGCONT)
	eventually(t, "gen answers again", func() bool { e := d.entries()["gen"]; return !e.Silent && e.Engine != nil })

	kill(t, gen.PID, syscall.SIGKILL)
	eventually(t, "gen is replaced", func() bool {
		e := d.entries()["gen"]
		return e.State == "ready" && e.Restarts == 1 && e.PID != gen.PID && e.PID != 0
	})
}

// A screen is a program on a terminal, and its output.
type screen struct {
	t      *testing.T
	master *os.File
	out    *output
	cmd    *exec.Cmd
	ended  chan struct{}
	wide   bool
}

// onTerminal runs a program on a new terminal.
func onTerminal(t *testing.T, cmd *exec.Cmd) *screen {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	s := &screen{t: t, master: master, out: &output{}, cmd: cmd, ended: make(chan struct{})}
	s.resize()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			_, _ = s.out.Write(buf[:n])
			if err != nil { // the program has ended
				close(s.ended)
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-s.ended
		_ = cmd.Wait() // harmless if the test has waited already
		_ = master.Close()
	})
	return s
}

// resize changes the width of the terminal, so that the program redraws the screen.
func (s *screen) resize() {
	s.t.Helper()
	s.wide = !s.wide
	size := &unix.Winsize{Row: 30, Col: 100}
	if s.wide {
		size.Col = 160
	}
	if err := unix.IoctlSetWinsize(int(s.master.Fd()), unix.TIOCSWINSZ, size); err != nil {
		s.t.Fatal(err)
	}
}

var escapes = regexp.MustCompile(`\x1b(\[[0-9;?<=>]*[a-zA-Z]|\][^\x07\x1b]*(\x07|\x1b\\)|[()].|[=>78])`)

// shows waits until the screen matches pattern. It resizes the terminal every 200 ms, since only a
// complete redraw can be matched.
func (s *screen) shows(pattern string) {
	s.t.Helper()
	re := regexp.MustCompile(pattern)
	mark := len(s.out.String())
	var last time.Time
	defer func() {
		if s.t.Failed() {
			s.t.Logf("the terminal got %q", s.out.String()[mark:])
		}
	}()
	eventually(s.t, "the terminal shows "+pattern, func() bool {
		if time.Since(last) > 200*time.Millisecond {
			last = time.Now()
			s.resize()
		}
		return re.MatchString(escapes.ReplaceAllString(s.out.String()[mark:], " "))
	})
}

func (s *screen) press(keys string) {
	s.t.Helper()
	if _, err := s.master.WriteString(keys); err != nil {
		s.t.Fatal(err)
	}
}

// top runs inferdctl top on a terminal.
func (d *daemon) top(env ...string) *screen {
	d.t.Helper()
	cmd := exec.Command(filepath.Join(bin, "inferdctl"), "--control-addr", d.socket("control.sock"), "top", "--interval", "100ms")
	cmd.Env = append(append(os.Environ(), "TERM=xterm-256color", "COLORTERM=truecolor"), env...)
	return onTerminal(d.t, cmd)
}

// exit waits for the end of the program, and returns its exit code.
func (s *screen) exit() int {
	s.t.Helper()
	select {
	case <-s.ended:
	case <-time.After(patience):
		s.t.Fatal("the program does not end")
	}
	_ = s.cmd.Wait()
	return s.cmd.ProcessState.ExitCode()
}

// top shows a real daemon on a real terminal, and continues after a restart of the daemon.
func TestTop(t *testing.T) {
	dir := shortdir.New(t)
	write(t, filepath.Join(dir, "config.json"), `{"backends":[
		{"kind":"llamacpp","name":"gen","model":{"builtin":"chain"}},
		{"kind":"mock","name":"fake"}]}`)
	d := start(t, dir)
	d.waitReady()
	d.works()

	s := d.top()
	s.shows(`(?s)ENTRY.*gen\s+ready\s+0/4.*fake\s+ready.*USER.*PROGRAM`)
	s.press("s")
	s.shows(`sort: running`)
	s.press("p")
	s.shows(`PAUSED`)
	s.press("p")

	d.signal(syscall.SIGTERM)
	if code := d.exit(); code != 0 {
		t.Errorf("the daemon's exit code is %d", code)
	}
	s.shows(`(?s)inferd\s+is\s+not\s+running.*asking\s+again`)
	d = start(t, dir)
	d.waitReady()
	s.shows(`(?s)ENTRY.*gen\s+ready`)

	s.press("q")
	if code := s.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	const leavesAltScreen, showsCursor = "\x1b[?1049l", "\x1b[?25h"
	if all := s.out.String(); !strings.Contains(all, leavesAltScreen) || strings.LastIndex(all, showsCursor) < strings.LastIndex(all, "\x1b[?25l") {
		t.Errorf("the terminal is left as %q", all[max(len(all)-200, 0):])
	}
}

// On a terminal stats are a table, or JSON with --json.
func TestStatsOnATerminal(t *testing.T) {
	d := mocked(t, oneMock)
	for _, test := range []struct{ flag, begins string }{{"--json=false", "inferd "}, {"--json", `{"uptime_ms"`}} {
		s := onTerminal(t, exec.Command(filepath.Join(bin, "inferdctl"), "--control-addr", d.socket("control.sock"), "stats", test.flag))
		if code, got := s.exit(), s.out.String(); code != 0 || !strings.HasPrefix(got, test.begins) {
			t.Errorf("%s: exit code %d\n%s", test.flag, code, got)
		}
	}
}

var colours = regexp.MustCompile(`\x1b\[([0-9;]*;)?(3[0-8]|9[0-7])(;[0-9;]*)?m`)

// Faults are in colour, unless NO_COLOR is set. SIGTERM restores the terminal.
func TestTopColours(t *testing.T) {
	d := mocked(t, `{"backends":[{"kind":"mock","name":"fails","mid_stream_drop_after":1},{"kind":"mock","name":"fake"}]}`)
	for range 3 {
		d.ask("x", `,"model":"fails"`)
	}
	for _, test := range []struct {
		env  []string
		want bool
	}{{nil, true}, {[]string{"NO_COLOR=1"}, false}} {
		s := d.top(test.env...)
		s.shows(`fails\s+resting`)
		if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if code := s.exit(); code != 0 {
			t.Errorf("exit code %d", code)
		}
		all := []byte(s.out.String())
		if got := colours.Match(all); got != test.want {
			t.Errorf("with %q: colours %t, want %t", test.env, got, test.want)
		}
		if !bytes.Contains(all, []byte("\x1b[?1049l")) {
			t.Errorf("with %q the terminal is left as %q", test.env, all[max(len(all)-200, 0):])
		}
	}
}
