// Package test runs the real programs over real sockets: the daemon, the engine with llama.cpp and
// generated models, the operator's command, and inferd-http. Except where it tests the Go client, it
// does not use inferd's codecs: it implements the wire from the specification.
package test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

// bin is the folder of the programs that TestMain has built.
var bin string

// patience bounds each wait of a test. It is not a measurement: a healthy machine needs a fraction
// of it.
const patience = 60 * time.Second

func TestMain(m *testing.M) {
	if os.Getenv(asUser) != "" { // a process of another user, which cannot build
		os.Exit(m.Run())
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "inferd-test-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		bin = dir
		build := exec.Command("go", "build", "-o", dir, "../cmd/inferd", "../cmd/inferdctl", "../cmd/inferd-http", "../cmd/inferd-engine")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
			return 1
		}
		// The models are generated once for all tests, outside of the user's cache.
		_ = os.Setenv("XDG_CACHE_HOME", filepath.Join(dir, "cache"))
		_ = os.Setenv("XDG_STATE_HOME", filepath.Join(dir, "state"))
		_ = os.Unsetenv("JOURNAL_STREAM") // no service manager starts the daemons of tests
		_ = os.Unsetenv("INVOCATION_ID")
		for _, name := range os.Environ() { // keep only the settings of the tests
			if key, _, _ := strings.Cut(name, "="); strings.HasPrefix(key, "INFERD_") && key != "INFERD_ENGINE_LIB" && !strings.HasPrefix(key, "INFERD_TEST_") {
				_ = os.Unsetenv(key)
			}
		}
		return m.Run()
	}())
}

// A daemon is a running inferd.
type daemon struct {
	t      *testing.T
	dir    string // folder of the sockets
	cmd    *exec.Cmd
	stderr *output
	exited chan struct{}
	code   int // valid once it has exited

	offline bool // runs in a network namespace of its own
}

// logDir returns the folder of the activity log.
func (d *daemon) logDir() string { return d.dir + ".logs" }

// output collects the output of a program.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// start starts inferd with its sockets in dir; an empty dir means a new folder.
func start(t *testing.T, dir string, args ...string) *daemon {
	t.Helper()
	if dir == "" {
		dir = shortdir.New(t)
	}
	return startProgram(t, filepath.Join(bin, "inferd"), dir, args...)
}

func startProgram(t *testing.T, program, dir string, args ...string) *daemon {
	t.Helper()
	d := &daemon{t: t, dir: dir, stderr: &output{}, exited: make(chan struct{})}
	all := append([]string{"--uds", d.socket("infer.sock"), "--config", filepath.Join(dir, "config.json")}, args...)
	d.cmd = exec.Command(program, all...)
	d.cmd.Stderr = d.stderr
	d.cmd.Env = append(os.Environ(), "INFERD_LOG_DIR="+d.logDir())
	d.cmd.WaitDelay = 5 * time.Second
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = d.cmd.Wait()
		d.code = d.cmd.ProcessState.ExitCode()
		close(d.exited)
	}()
	t.Cleanup(func() {
		_ = d.cmd.Process.Kill()
		<-d.exited
		_ = os.RemoveAll(d.logDir())
		if t.Failed() {
			t.Logf("stderr of inferd %s:\n%s", strings.Join(args, " "), d.stderr)
		}
	})
	return d
}

func (d *daemon) socket(leaf string) string { return filepath.Join(d.dir, leaf) }

// serve starts a daemon and waits until it is ready.
func serve(t *testing.T, args ...string) *daemon {
	t.Helper()
	d := start(t, "", args...)
	d.waitReady()
	return d
}

func (d *daemon) waitReady() {
	d.t.Helper()
	d.waitStatus("ready", "")
}

// waitStatus reads frames of the admin socket until one has the given status and, if it is not
// empty, the given phase. It returns all frames that it has read.
func (d *daemon) waitStatus(status, phase string) []map[string]any {
	d.t.Helper()
	w := d.watch()
	defer w.Close()
	return w.until(status, phase)
}

// A watcher is a client of the admin socket.
type watcher struct {
	d *daemon
	net.Conn
	r *bufio.Reader
}

func (d *daemon) watch() *watcher {
	d.t.Helper()
	nc := d.dial("admin.sock")
	return &watcher{d: d, Conn: nc, r: bufio.NewReader(nc)}
}

func (w *watcher) until(status, phase string) []map[string]any {
	w.d.t.Helper()
	var all []map[string]any
	for {
		frame, err := w.next()
		if err != nil {
			w.d.t.Fatalf("admin ended (%v) before %s %s; seen %v\n%s", err, status, phase, all, w.d.stderr)
		}
		all = append(all, frame)
		if frame["status"] == status && (phase == "" || frame["phase"] == phase) {
			return all
		}
	}
}

// next reads a frame.
func (w *watcher) next() (frame map[string]any, err error) {
	w.d.t.Helper()
	_ = w.SetReadDeadline(time.Now().Add(patience))
	line, err := w.r.ReadBytes('\n')
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(line, &frame); err != nil {
		w.d.t.Fatalf("admin frame %q: %v", line, err)
	}
	return frame, nil
}

// dial connects to a socket as soon as it exists.
func (d *daemon) dial(leaf string) net.Conn {
	d.t.Helper()
	var last error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		nc, err := net.Dial("unix", d.socket(leaf))
		if err == nil {
			return nc
		}
		last = err
		select {
		case <-d.exited:
			d.t.Fatalf("inferd exited with %d before %s was there:\n%s", d.code, leaf, d.stderr)
		case <-time.After(2 * time.Millisecond): // no event reports that it listens
		}
	}
	d.t.Fatalf("%s: %v\n%s", leaf, last, d.stderr)
	return nil
}

// exit waits for the daemon to exit and returns its code.
func (d *daemon) exit() int {
	d.t.Helper()
	select {
	case <-d.exited:
		return d.code
	case <-time.After(patience):
		d.t.Fatalf("inferd does not exit:\n%s", d.stderr)
		return -1
	}
}

func (d *daemon) signal(sig os.Signal) {
	d.t.Helper()
	if err := d.cmd.Process.Signal(sig); err != nil {
		d.t.Fatal(err)
	}
}

// engines returns the pids of the daemon's engine processes.
func (d *daemon) engines() []int {
	d.t.Helper()
	return childrenOf(d.t, d.cmd.Process.Pid)
}

func childrenOf(t *testing.T, parent int) []int {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, path := range stats {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue // the process has ended
		}
		pid, rest, _ := strings.Cut(string(raw), " ")
		fields := strings.Fields(rest[strings.LastIndex(rest, ")")+1:])
		if fields[1] == strconv.Itoa(parent) && fields[0] != "Z" {
			n, _ := strconv.Atoi(pid)
			pids = append(pids, n)
		}
	}
	return pids
}

// engine waits until there is one engine, and returns its pid.
func (d *daemon) engine() int {
	d.t.Helper()
	var pid int
	eventually(d.t, "one engine runs", func() bool {
		pids := d.engines()
		if len(pids) == 1 {
			pid = pids[0]
		}
		return len(pids) == 1
	})
	return pid
}

func kill(t *testing.T, pid int, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, sig); err != nil {
		t.Fatal(err)
	}
}

// gone reports whether a process has ended. A zombie counts as ended.
func gone(pid int) bool {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, os.ErrNotExist) {
		return true
	}
	s := string(raw)
	return err != nil || strings.HasPrefix(s[strings.LastIndex(s, ")")+1:], " Z")
}

// eventually polls a condition, for states that no event reports.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not true after %s: %s", patience, what)
		}
	}
}

// A client is a connection to the v1 socket.
type client struct {
	t *testing.T
	*net.UnixConn
	r *bufio.Reader
}

func (d *daemon) client() *client {
	d.t.Helper()
	nc, err := net.Dial("unix", d.socket("infer.sock"))
	if err != nil {
		d.t.Fatalf("%v\n%s", err, d.stderr)
	}
	d.t.Cleanup(func() { _ = nc.Close() })
	return &client{t: d.t, UnixConn: nc.(*net.UnixConn), r: bufio.NewReader(nc)}
}

// send writes a line.
func (c *client) send(line string) {
	c.t.Helper()
	if _, err := c.Write([]byte(line + "\n")); err != nil {
		c.t.Fatal(err)
	}
}

// A reply is a v1 frame.
type reply struct {
	Type, ID, Content, Code, Message string
	Usage                            struct {
		Prompt     int `json:"prompt_tokens"`
		Completion int `json:"completion_tokens"`
	}
	Reason  string `json:"stop_reason"`
	Backend string
}

func (r reply) terminal() bool { return r.Type == "done" || r.Type == "error" }

// next reads a frame. At the end of the stream it returns a reply with the type "EOF".
func (c *client) next() reply {
	c.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	line, err := c.r.ReadBytes('\n')
	if err != nil {
		if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
			c.t.Fatal("no frame came")
		}
		if len(line) > 0 {
			c.t.Fatalf("half a frame: %q", line)
		}
		return reply{Type: "EOF"}
	}
	var r reply
	if err := json.Unmarshal(line, &r); err != nil {
		c.t.Fatalf("frame %q: %v", line, err)
	}
	return r
}

// answer reads the frames up to the terminal one. It returns the text of the tokens, and the
// terminal frame or EOF.
func (c *client) answer() (string, reply) {
	c.t.Helper()
	var text strings.Builder
	for {
		r := c.next()
		if r.Type != "token" {
			return text.String(), r
		}
		text.WriteString(r.Content)
	}
}

// prompt returns a v1 request with one message of the user. more is further members, each after a
// comma.
func prompt(id, text, more string) string {
	content, err := json.Marshal(text)
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf(`{"id":%q,"messages":[{"role":"user","content":%s}]%s}`, id, content, more)
}

// ask sends a request on a new connection, and returns the answer; see prompt and answer.
func (d *daemon) ask(text, more string) (string, reply) {
	d.t.Helper()
	c := d.client()
	defer c.Close()
	c.send(prompt("q", text, more))
	return c.answer()
}

// works checks that a client with a valid request gets an answer.
func (d *daemon) works() {
	d.t.Helper()
	if text, end := d.ask("w", ""); text != "xyz" || end.Type != "done" {
		d.t.Errorf("asked w: %q, %+v\n%s", text, end, d.stderr)
	}
}

// ctl runs inferdctl, and returns its output and exit code.
func (d *daemon) ctl(args ...string) (stdout, stderr string, code int) {
	d.t.Helper()
	return d.ctlAt([]string{
		"--admin-addr", d.socket("admin.sock"), "--control-addr", d.socket("control.sock"), "--addr", d.socket("infer.sock"),
	}, args...)
}

// ctlAt runs inferdctl with the addresses of the daemon.
func (d *daemon) ctlAt(addresses []string, args ...string) (stdout, stderr string, code int) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "inferdctl"), append(addresses, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		d.t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// engineLib is the folder of llama.cpp's libraries.
var engineLib = func() string {
	if dir := os.Getenv("INFERD_ENGINE_LIB"); dir != "" {
		return dir
	}
	data := os.Getenv("XDG_DATA_HOME")
	if data == "" {
		data = filepath.Join(os.Getenv("HOME"), ".local", "share")
	}
	return filepath.Join(data, "inferd", "engine", "0.5.0")
}()
