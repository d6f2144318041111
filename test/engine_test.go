package test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/inferd-go/inferd/internal/shortdir"
)

// When an engine dies, its requests fail. Connections stay open, and the daemon starts another
// engine.
func TestEngineDies(t *testing.T) {
	for name, die := range map[string]func(t *testing.T, pid int){
		"killed":                  func(t *testing.T, pid int) { kill(t, pid, syscall.SIGKILL) },
		"a fault in native code":  func(t *testing.T, pid int) { kill(t, pid, syscall.SIGSEGV) },
		"stopped and then killed": func(t *testing.T, pid int) { kill(t, pid, syscall.SIGSTOP); kill(t, pid, syscall.SIGKILL) },
	} {
		t.Run(name, func(t *testing.T) {
			d := serve(t, "--model-path", "builtin:loop")
			persistent := d.client() // a connection that is open throughout
			idle := func() {
				t.Helper()
				persistent.send(prompt("i", "a", `,"max_tokens":2`))
				if text, end := persistent.answer(); text != "bc" || end.Type != "done" {
					t.Errorf("%q, %+v", text, end)
				}
			}
			idle()

			t.Run("before a request", func(t *testing.T) {
				w := d.watch()
				defer w.Close()
				w.until("ready", "")
				die(t, d.engine())
				w.until("restarting", "engine_exited")
				idle() // waits for the new engine
				w.until("ready", "")
			})
			t.Run("during requests", func(t *testing.T) {
				w := d.watch()
				defer w.Close()
				w.until("ready", "")
				var running []*client
				for i := range 4 {
					c := d.client()
					c.send(prompt(fmt.Sprint(i), "a", `,"max_tokens":100000`))
					if r := c.next(); r.Type != "token" {
						t.Fatalf("%+v", r)
					}
					running = append(running, c)
				}
				queued := d.client()
				queued.send(prompt("w", "a", `,"max_tokens":2`))
				d.admitted(4)
				die(t, d.engine())
				for i, c := range running {
					if _, end := c.answer(); end.Code != "backend_unavailable" || end.ID != fmt.Sprint(i) {
						t.Errorf("stream %d ended with %+v", i, end)
					}
					// The connection can still be used.
					c.send(prompt("n", "a", `,"max_tokens":2`))
					if text, end := c.answer(); text != "bc" || end.ID != "n" {
						t.Errorf("stream %d then: %q, %+v", i, text, end)
					}
				}
				if text, end := queued.answer(); text != "bc" || end.Type != "done" {
					t.Errorf("a waiting request got %q, %+v", text, end)
				}
				w.until("ready", "")
			})
			t.Run("after a request", func(t *testing.T) {
				idle()
				w := d.watch()
				defer w.Close()
				w.until("ready", "")
				old := d.engine()
				die(t, old)
				w.until("restarting", "engine_exited")
				idle()
				if now := d.engine(); now == old {
					t.Errorf("the same engine, %d", now)
				}
			})
			if !strings.Contains(d.stderr.String(), "engine ended") {
				t.Errorf("the log has no end of the engine: %s", d.stderr)
			}
		})
	}
}

// Requests to an engine that is stopped by a signal are not lost: once the engine is killed, they
// fail, or wait for the next engine.
func TestRequestsAtTheMomentOfDeath(t *testing.T) {
	d := serve(t, "--model-path", "builtin:chain", "--queue-depth", "100")
	for range 5 {
		pid := d.engine()
		kill(t, pid, syscall.SIGSTOP)
		var clients []*client
		for i := range 20 {
			c := d.client()
			c.send(prompt(fmt.Sprint(i), "w", ""))
			clients = append(clients, c)
		}
		kill(t, pid, syscall.SIGKILL)
		for i, c := range clients {
			text, end := c.answer()
			served := end.Type == "done" && text == "xyz"
			refused := end.Type == "error" && end.Code == "backend_unavailable"
			if !served && !refused || end.ID != fmt.Sprint(i) {
				t.Errorf("request %d: %q, %+v", i, text, end)
			}
			_ = c.Close()
		}
		d.works()
	}
}

// An engine that dies three times while loading is given up. Other entries go on, and an operator
// can restart the engine.
func TestGivenUp(t *testing.T) {
	// The programs are in a temporary folder, so that the engine can be replaced.
	dir := shortdir.New(t)
	for _, name := range []string{"inferd", "inferd-engine"} {
		copyFile(t, filepath.Join(bin, name), filepath.Join(dir, name))
	}
	engine := filepath.Join(dir, "inferd-engine")
	run := shortdir.New(t)
	config := `{"backends":[
		{"kind":"llamacpp","name":"gen","model":{"builtin":"chain"}},
		{"kind":"mock","name":"fake","tokens":["mock"]}]}`
	if err := os.WriteFile(filepath.Join(run, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	d := startProgram(t, filepath.Join(dir, "inferd"), run)
	d.waitReady()
	w := d.watch()
	defer w.Close()
	w.until("ready", "")

	if _, errs, code := d.ctl("retry", "gen"); code != 2 || !strings.Contains(errs, "has not been given up") {
		t.Errorf("retry of a healthy engine: exit %d, %q", code, errs)
	}

	if err := os.Remove(engine); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(engine, []byte("#!/bin/sh\necho 'ggml.c:1: GGML_ASSERT(false) failed' >&2\nkill -SEGV $$\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	kill(t, d.engine(), syscall.SIGKILL)
	frames := w.until("restarting", "gave_up")
	last := frames[len(frames)-1]
	if last["backend"] != "gen" || !strings.Contains(fmt.Sprint(last["reason"]), "GGML_ASSERT(false) failed") {
		t.Errorf("gave up with %v", last)
	}
	if _, end := d.ask("w", `,"model":"gen"`); end.Code != "backend_unavailable" {
		t.Errorf("a request got %+v", end)
	}
	if text, end := d.ask("w", ""); text != "mock" {
		t.Errorf("the other entry: %q, %+v", text, end)
	}
	if out, _, code := d.ctl("status"); code != 1 || !strings.Contains(out, "gave_up") {
		t.Errorf("status: exit %d, %s", code, out)
	}

	if err := os.Remove(engine); err != nil {
		t.Fatal(err)
	}
	copyFile(t, filepath.Join(bin, "inferd-engine"), engine)
	if _, errs, code := d.ctl("retry", "gen"); code != 0 {
		t.Errorf("retry: exit %d, %s", code, errs)
	}
	w.until("ready", "")
	if text, end := d.ask("w", `,"model":"gen"`); text != "xyz" {
		t.Errorf("after the retry: %q, %+v", text, end)
	}
}

func TestCrashAtBoot(t *testing.T) {
	engine := filepath.Join(shortdir.New(t), "engine")
	if err := os.WriteFile(engine, []byte("#!/bin/sh\necho started >>"+engine+".log\necho 'ggml.c:1: GGML_ASSERT(false) failed' >&2\nexit 2\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	d := start(t, "", "--model-path", "builtin:chain", "--engine", engine)
	if code := d.exit(); code != 1 || !strings.Contains(d.stderr.String(), "GGML_ASSERT(false) failed") {
		t.Errorf("exit %d, stderr %s", code, d.stderr)
	}
	if starts, _ := os.ReadFile(engine + ".log"); string(starts) != "started\nstarted\nstarted\n" {
		t.Errorf("starts: %q, want three", starts)
	}
}

// A load that makes no progress ends at a signal or after a timeout. Until then no request is
// accepted.
func TestSlowLoad(t *testing.T) {
	engine := filepath.Join(shortdir.New(t), "engine")
	if err := os.WriteFile(engine, []byte("#!/bin/sh\nexec sleep 1000\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Run("SIGTERM", func(t *testing.T) {
		d := start(t, "", "--model-path", "builtin:chain", "--engine", engine)
		d.waitStatus("loading_model", "checking_local")
		pid := d.engine()
		d.signal(syscall.SIGTERM)
		if code := d.exit(); code != 0 {
			t.Errorf("exit %d", code)
		}
		if !gone(pid) {
			t.Errorf("the engine %d is still there", pid)
		}
		for _, leaf := range []string{"admin.sock", "control.sock", "infer.sock"} {
			if _, err := os.Lstat(d.socket(leaf)); err == nil {
				t.Errorf("%s is still there", leaf)
			}
		}
	})
	t.Run("a second signal", func(t *testing.T) {
		d := start(t, "", "--model-path", "builtin:chain", "--engine", engine)
		d.waitStatus("loading_model", "checking_local")
		d.signal(syscall.SIGINT)
		d.exit()
	})
	t.Run("patience", func(t *testing.T) {
		d := start(t, "", "--model-path", "builtin:chain", "--engine", engine, "--ready-timeout-secs", "1")
		if code := d.exit(); code != 1 || !strings.Contains(d.stderr.String(), "not ready within 1s") {
			t.Errorf("exit %d, stderr %s", code, d.stderr)
		}
	})
	t.Run("no socket before it is ready", func(t *testing.T) {
		d := start(t, "", "--model-path", "builtin:chain", "--engine", engine)
		d.waitStatus("loading_model", "checking_local")
		if _, err := os.Lstat(d.socket("infer.sock")); err == nil {
			t.Error("infer.sock is there")
		}
		if out, _, code := d.ctl("status"); code != 1 || !strings.Contains(out, "loading_model") {
			t.Errorf("status: exit %d, %s", code, out)
		}
	})
}

// If SIGTERM comes during ten streams, each gets exactly one terminal frame, the daemon exits with
// 0, and no process is left.
func TestDrain(t *testing.T) {
	for name, test := range map[string]struct {
		timeout string
		tokens  int // tokens of each of the four running requests
		want    string
	}{
		"enough time":     {"60", 300, "done"},
		"too little time": {"1", 100000, "ended"},
		"no time":         {"0", 100000, "ended"},
	} {
		t.Run(name, func(t *testing.T) {
			d := serve(t, "--model-path", "builtin:loop", "--drain-timeout-secs", test.timeout)
			w := d.watch()
			defer w.Close()
			w.until("ready", "")
			idle := d.client()
			var clients []*client
			for i := range 10 {
				c := d.client()
				c.send(prompt(fmt.Sprint(i), "a", fmt.Sprintf(`,"max_tokens":%d`, test.tokens)))
				if i < 4 {
					if r := c.next(); r.Type != "token" {
						t.Fatalf("stream %d: %+v", i, r)
					}
				} else {
					d.admitted(i)
				}
				clients = append(clients, c)
			}
			engine := d.engine()
			d.signal(syscall.SIGTERM)
			w.until("draining", "")
			done := 0
			for i, c := range clients {
				_, end := c.answer()
				switch {
				case end.ID != fmt.Sprint(i):
					t.Errorf("stream %d ended with %+v", i, end)
				case end.Type == "done" && end.Reason != "cancelled":
					done++
				case end.Type == "done", end.Code == "backend_unavailable":
				default:
					t.Errorf("stream %d ended with %+v", i, end)
				}
				if after := c.next(); after.Type != "EOF" {
					t.Errorf("stream %d: after its end came %+v", i, after)
				}
			}
			if test.want == "ended" && done > 0 {
				t.Errorf("%d finished", done)
			}
			if test.want == "done" && done < 1 {
				t.Errorf("none of the four finished")
			}
			if got := idle.next(); got.Type != "EOF" {
				t.Errorf("an idle connection got %+v", got)
			}
			if code := d.exit(); code != 0 {
				t.Errorf("exit %d", code)
			}
			if !gone(engine) {
				t.Error("the engine is still there")
			}
			if rest, _ := io.ReadAll(w.r); strings.Contains(string(rest), "ready") {
				t.Errorf("after draining came %s", rest)
			}
			for _, leaf := range []string{"infer.sock", "admin.sock", "control.sock"} {
				if _, err := os.Lstat(d.socket(leaf)); err == nil {
					t.Errorf("%s is still there", leaf)
				}
			}
		})
	}
}

// New requests during a drain are refused with the reason.
func TestNewRequestsWhileDraining(t *testing.T) {
	d := serve(t, "--model-path", "builtin:loop", "--drain-timeout-secs", "60")
	runs := d.client()
	runs.send(prompt("r", "a", `,"max_tokens":100000`))
	runs.next()
	idle := d.client()
	w := d.watch()
	defer w.Close()
	w.until("ready", "")
	d.signal(syscall.SIGTERM)
	w.until("draining", "")
	for name, c := range map[string]*client{"an idle connection": idle, "a new one": d.client()} {
		c.send(prompt("n", "a", ""))
		if got := c.next(); got.Code != "backend_unavailable" || got.ID != "n" {
			t.Errorf("%s got %+v", name, got)
		}
	}
	_ = runs.Close() // ends the last running request, and so the drain
	if code := d.exit(); code != 0 {
		t.Errorf("exit %d", code)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, content, 0o700); err != nil {
		t.Fatal(err)
	}
}
