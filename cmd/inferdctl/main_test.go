package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/inferd-go/inferd/client"
	"github.com/inferd-go/inferd/internal/broadcast"
	"github.com/inferd-go/inferd/internal/control"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/shortdir"
	"github.com/inferd-go/inferd/internal/status"
)

// waitLimit bounds each wait. It is long enough for a busy machine.
const waitLimit = 20 * time.Second

// A fakeDaemon is a folder in which the test serves the sockets of a daemon.
type fakeDaemon struct {
	t   *testing.T
	dir string
}

func newFake(t *testing.T) *fakeDaemon {
	t.Helper()
	dir := shortdir.New(t)
	return &fakeDaemon{t, dir}
}

// serve runs fn on a socket until the end of the test or a call of stop.
func (f *fakeDaemon) serve(leaf string, fn func(context.Context, net.Listener) error) (stop func()) {
	f.t.Helper()
	ln, err := net.Listen("unix", filepath.Join(f.dir, leaf))
	if err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(f.t.Context())
	var served sync.WaitGroup
	served.Go(func() {
		if err := fn(ctx, ln); err != nil && ctx.Err() == nil {
			f.t.Errorf("%s: %v", leaf, err)
		}
	})
	stop = func() {
		cancel()
		_ = ln.Close()
		served.Wait()
	}
	f.t.Cleanup(stop)
	return stop
}

// admin serves the admin socket with the events of the returned board.
func (f *fakeDaemon) admin(initial status.Event) (board *status.Board, stop func()) {
	board = status.NewBoard(initial)
	return board, f.serve("admin.sock", func(ctx context.Context, ln net.Listener) error {
		return broadcast.Serve(ctx, ln, board, nil, nil, slog.New(slog.DiscardHandler))
	})
}

// scripted serves a socket: on each connection it reads one line if reads is set, writes lines, and
// closes the connection. The returned channel yields the lines that it has read.
func (f *fakeDaemon) scripted(leaf string, reads bool, lines ...string) <-chan string {
	asked := make(chan string, 16)
	f.serve(leaf, func(_ context.Context, ln net.Listener) error {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return err
			}
			if reads {
				line, _ := bufio.NewReader(nc).ReadString('\n')
				asked <- line
			}
			for _, l := range lines {
				_, _ = io.WriteString(nc, l+"\n")
			}
			_ = nc.Close()
		}
	})
	return asked
}

// A result is the exit code and the output of a run.
type result struct {
	Code        int
	Out, Stderr string
}

// run runs the program against the fake daemon.
func (f *fakeDaemon) run(args ...string) result { return f.runWith(f.t.Context(), "", args...) }

func (f *fakeDaemon) runWith(ctx context.Context, stdin string, args ...string) result {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(ctx, waitLimit)
	defer cancel()
	var out, stderr bytes.Buffer
	all := append([]string{"--addr", filepath.Join(f.dir, "infer.sock"), "--log-dir", filepath.Join(f.dir, "logs")}, args...)
	code := run(ctx, all, strings.NewReader(stdin), &out, &stderr)
	return result{code, out.String(), strings.ReplaceAll(stderr.String(), f.dir, "DIR")}
}

func (f *fakeDaemon) want(got, want result) {
	f.t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		f.t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestUsage(t *testing.T) {
	for name, test := range map[string]struct {
		args   []string
		code   int
		out    string // a part of stdout; empty means no output
		stderr string // a part of stderr; empty means no output
	}{
		"nothing":                   {nil, 2, "", "Usage: inferdctl"},
		"help":                      {[]string{"--help"}, 0, "retry NAME", ""},
		"help as a command":         {[]string{"help"}, 0, "retry NAME", ""},
		"help of a command":         {[]string{"chat", "-h"}, 0, "--max-tokens", ""},
		"version":                   {[]string{"--version"}, 0, "inferdctl ", ""},
		"version after the command": {[]string{"status", "--version"}, 0, "inferdctl ", ""},
		"unknown command":           {[]string{"dance"}, 2, "", `error: no command is called "dance"`},
		"unknown flag":              {[]string{"status", "--loud"}, 2, "", "error: no flag is called --loud"},
		"a misspelt flag":           {[]string{"chat", "--max-tokesn", "1"}, 2, "", "error: no flag is called --max-tokesn: did you mean --max-tokens?"},
		"a misspelt command":        {[]string{"statsu"}, 2, "", `error: no command is called "statsu": did you mean status?`},
		"a flag without a value":    {[]string{"chat", "-m"}, 2, "", "error: -m needs a value"},
		"help with a command":       {[]string{"help", "chat"}, 0, "--max-tokens", ""},
		"help with no such command": {[]string{"help", "dance"}, 2, "", `error: no command is called "dance"`},
		"a question without a flag": {[]string{"chat", "hi"}, 2, "", `error: chat does not take "hi": a question follows -m, as in inferdctl chat -m "hi"`},
		"an argument too many":      {[]string{"status", "now"}, 2, "", `error: status does not take "now"`},
		"an argument too few":       {[]string{"retry"}, 2, "", "error: retry needs NAME"},
		"no question":               {[]string{"chat"}, 2, "", "error: chat needs -m TEXT, or a question on stdin"},
		"no schema":                 {[]string{"chat", "-m", "x", "--schema", "/nowhere/schema.json"}, 2, "", "error: open /nowhere/schema.json: "},
		"a schema from stdin":       {[]string{"chat", "--schema", "-"}, 2, "", "--schema needs the name of a file"},
		"a schema over v1":          {[]string{"chat", "-m", "x", "--schema", "s.json", "--addr", "/nowhere/infer.sock"}, 2, "", "--schema needs the length-prefixed socket inferd.sock"},
		"no tokens":                 {[]string{"chat", "-m", "x", "--max-tokens", "0"}, 2, "", "it must be at least 1"},
		"nothing to embed":          {[]string{"embed"}, 2, "", "error: no text"},
		"nothing to rank by":        {[]string{"rerank", "a"}, 2, "", "error: rerank needs --query TEXT"},
		"an invalid number":         {[]string{"chat", "-m", "x", "--seed", "1.5"}, 2, "", `error: invalid value "1.5" for --seed`},
		"an invalid time":           {[]string{"log", "--since", "yesterday"}, 2, "", `error: invalid value "yesterday" for --since: want an age`},
		"a time in the future":      {[]string{"usage", "--since", "-10m"}, 2, "", `error: invalid value "-10m" for --since: want an age`},
		"no log":                    {[]string{"log"}, 2, "", "error: activity log: stat "},
		"no usage":                  {[]string{"usage"}, 2, "", "error: activity log: stat "},
		"an empty folder for a log": {[]string{"log", "--log-dir", "."}, 2, "", "error: there is no activity log in .: is that"},
		"a file for a folder":       {[]string{"usage", "--log-dir", "main.go"}, 2, "", "not a directory"},
		"an unknown status":         {[]string{"watch", "--until", "raedy"}, 2, "", `error: --until: no status is called "raedy"`},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			t.Setenv("XDG_RUNTIME_DIR", dir)
			t.Setenv("HOME", dir)
			var out, stderr bytes.Buffer
			code := run(t.Context(), test.args, strings.NewReader(""), &out, &stderr)
			if code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			if !strings.Contains(out.String(), test.out) || (test.out == "") != (out.Len() == 0) {
				t.Errorf("stdout %q, want %q", out.String(), test.out)
			}
			if !strings.Contains(stderr.String(), test.stderr) || (test.stderr == "") != (stderr.Len() == 0) {
				t.Errorf("stderr %q, want %q", stderr.String(), test.stderr)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("left on disk: %v, %v", left, err)
			}
		})
	}
}

// Without a daemon, each command that needs one exits with 2 and names the socket.
func TestNoDaemon(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		leaf string
	}{
		"status": {[]string{"status"}, "admin.sock"},
		"watch":  {[]string{"watch"}, "admin.sock"},
		"retry":  {[]string{"retry", "gen"}, "control.sock"},
		"stats":  {[]string{"stats"}, "control.sock"},
		"top":    {[]string{"top"}, "control.sock"},
		"chat":   {[]string{"chat", "-m", "hi"}, "infer.sock"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			want := result{2, "", "error: no daemon at DIR/" + test.leaf + ": is inferd running?\n"}
			f.want(f.run(test.args...), want)
			// The sockets of a daemon that was killed give the same result.
			for _, leaf := range []string{"admin.sock", "control.sock", "infer.sock"} {
				ln, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: filepath.Join(f.dir, leaf)})
				if err != nil {
					t.Fatal(err)
				}
				ln.SetUnlinkOnClose(false)
				if err := ln.Close(); err != nil {
					t.Fatal(err)
				}
			}
			f.want(f.run(test.args...), want)
		})
	}
}

func TestSocketsAreFound(t *testing.T) {
	f := newFake(t)
	f.scripted("infer.sock", true, `{"type":"done","id":"1","stop_reason":"end"}`)
	f.scripted("other.sock", true, `{"type":"token","id":"1","content":"other"}`, `{"type":"done","id":"1","stop_reason":"end"}`)
	f.admin(status.Ready{})
	at := func(leaf string) string { return filepath.Join(f.dir, leaf) }
	for name, test := range map[string]struct {
		args []string
		want int
		out  string
	}{
		"in the folder of the main one": {[]string{"--addr", at("infer.sock"), "status"}, 0, `{"id":"admin","status":"ready","type":"status"}` + "\n"},
		"after the command":             {[]string{"status", "--addr", at("infer.sock")}, 0, `{"id":"admin","status":"ready","type":"status"}` + "\n"},
		"by its own flag":               {[]string{"status", "--addr", "/nowhere/infer.sock", "--admin-addr", at("admin.sock")}, 0, `{"id":"admin","status":"ready","type":"status"}` + "\n"},
		"the last flag counts":          {[]string{"--addr", at("infer.sock"), "chat", "-m", "hi", "--addr", at("other.sock")}, 0, "other\n"},
		"v1 at any other name":          {[]string{"--addr", at("other.sock"), "chat", "-m", "hi"}, 0, "other\n"},
		"a missing socket":              {[]string{"--admin-addr", at("no.sock"), "status"}, 2, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			if got := run(t.Context(), test.args, strings.NewReader(""), &out, io.Discard); got != test.want || out.String() != test.out {
				t.Errorf("exit code %d, stdout %q, want %d, %q", got, out.String(), test.want, test.out)
			}
		})
	}
}

const (
	capsEmbed = `{"accelerator":"cpu","audio":false,"backend":"embed","embed":true,"gpu_layers":0,"id":"admin","status":"capabilities","thinking":false,"tools":false,"type":"status","v2":false,"vision":false,"wire_version":1}` + "\n"
	capsGen   = `{"accelerator":"cpu","audio":false,"backend":"gen","embed":false,"gpu_layers":0,"id":"admin","status":"capabilities","thinking":false,"tools":false,"type":"status","v2":true,"vision":false,"wire_version":1}` + "\n"
	ready     = `{"id":"admin","status":"ready","type":"status"}` + "\n"
	starting  = `{"id":"admin","status":"starting","type":"status"}` + "\n"
	draining  = `{"id":"admin","status":"draining","type":"status"}` + "\n"
	kvCache   = `{"backend":"gen","id":"admin","n_ctx":8192,"phase":"kv_cache","status":"loading_model","type":"status"}` + "\n"
)

func loading() status.Event {
	return status.Loading{Backend: "gen", Phase: status.KVCache{NCtx: 8192}}
}

func TestStatusOfTwoBackends(t *testing.T) {
	f := newFake(t)
	board, _ := f.admin(loading())
	f.want(f.run("status"), result{1, kvCache, ""})
	board.Publish(status.Capabilities{Backend: "gen", Abilities: infer.Abilities{Generate: true}, Accelerator: "cpu"})
	board.Publish(status.Capabilities{Backend: "embed", Abilities: infer.Abilities{Embed: true}, Accelerator: "cpu"})
	f.want(f.run("status"), result{1, capsEmbed + capsGen + kvCache, ""})
	board.Publish(status.Ready{})
	f.want(f.run("status"), result{0, capsEmbed + capsGen + ready, ""})
	board.Publish(status.Draining{})
	f.want(f.run("status"), result{1, capsEmbed + capsGen + draining, ""})
}

func TestStatus(t *testing.T) {
	strange := `{"status":"capabilities","backend":"x","of_2040":{"deep":[1.50,null]}}`
	for name, test := range map[string]struct {
		lines []string
		want  result
	}{
		"unknown members and statuses are printed": {
			[]string{strange, `{"status":"dreaming","sheep":3}`, `{"type":"status","status":"ready","uptime":1e3}`},
			result{0, strange + "\n" + `{"status":"dreaming","sheep":3}` + "\n" + `{"type":"status","status":"ready","uptime":1e3}` + "\n", ""},
		},
		"status ends at the first lifecycle state": {
			[]string{`{"status":"starting"}`, `{"status":"ready"}`},
			result{1, `{"status":"starting"}` + "\n", ""},
		},
		"a daemon that closes the connection": {
			[]string{strange},
			result{1, strange + "\n", "error: the daemon has gone away\n"},
		},
		"the socket of another program": {
			[]string{"220 mail.example ESMTP"},
			result{1, "", "error: read status: decode admin frame: "},
		},
		"a daemon that never sends its state": {
			slicesRepeat(strange, 100),
			result{1, strings.Repeat(strange+"\n", 64), "error: the daemon does not send its state\n"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.scripted("admin.sock", false, test.lines...)
			got := f.run("status")
			if i := strings.Index(got.Stderr, "decode admin frame: "); i >= 0 { // the rest is the text of a library
				got.Stderr = got.Stderr[:i+len("decode admin frame: ")]
			}
			f.want(got, test.want)
		})
	}
}

func slicesRepeat(s string, n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = s
	}
	return all
}

func TestStatusOfASilentDaemon(t *testing.T) {
	f := newFake(t)
	f.serve("admin.sock", func(ctx context.Context, ln net.Listener) error {
		nc, err := ln.Accept()
		if err != nil {
			return err
		}
		<-ctx.Done()
		return nc.Close()
	})
	start := time.Now()
	got := f.run("status")
	if took := time.Since(start); took < 400*time.Millisecond || took > waitLimit/2 {
		t.Errorf("gave up after %s, want some 500ms", took)
	}
	if got.Code != 1 || !strings.Contains(got.Stderr, "timeout") {
		t.Errorf("got %+v, want exit code 1 and a timeout", got)
	}
}

func TestWatch(t *testing.T) {
	f := newFake(t)
	board, stop := f.admin(status.Starting{})
	lines := newLineWriter()
	code := make(chan int, 1)
	var stderr bytes.Buffer
	go func() {
		code <- run(t.Context(), []string{"watch", "--admin-addr", filepath.Join(f.dir, "admin.sock")}, nil, lines, &stderr)
	}()
	lines.want(t, starting)
	for _, step := range []struct {
		ev   status.Event
		want string
	}{
		{loading(), kvCache}, {status.Ready{}, ready}, {status.Draining{}, draining},
	} {
		board.Publish(step.ev)
		lines.want(t, step.want) // at once: the output is not buffered
	}
	stop()
	if got := <-code; got != 2 || stderr.String() != "error: the daemon has gone away\n" {
		t.Errorf("exit code %d, stderr %q, want 2 and the reason", got, stderr.String())
	}
}

// A lineWriter sends each Write to a channel.
type lineWriter chan string

func newLineWriter() lineWriter { return make(lineWriter, 100) }

func (w lineWriter) Write(p []byte) (int, error) {
	w <- string(p)
	return len(p), nil
}

func (w lineWriter) want(t *testing.T, want string) {
	t.Helper()
	select {
	case got := <-w:
		if got != want {
			t.Fatalf("written %q, want %q", got, want)
		}
	case <-time.After(waitLimit):
		t.Fatalf("nothing was written, want %q", want)
	}
}

func TestWatchUntilReady(t *testing.T) {
	t.Run("it becomes ready", func(t *testing.T) {
		f := newFake(t)
		f.scripted("admin.sock", false, `{"status":"starting"}`, `{"status":"ready"}`, `{"status":"draining"}`)
		f.want(f.run("watch", "--until", "ready"), result{0, `{"status":"starting"}` + "\n" + `{"status":"ready"}` + "\n", ""})
	})
	t.Run("it goes away before", func(t *testing.T) {
		f := newFake(t)
		f.scripted("admin.sock", false, `{"status":"starting"}`)
		f.want(f.run("watch", "--until=ready"), result{1, `{"status":"starting"}` + "\n", "error: the daemon went away before it was ready\n"})
	})
	t.Run("it is started later", func(t *testing.T) {
		f := newFake(t)
		got := make(chan result, 1)
		go func() { got <- f.run("watch", "--wait", "--until", "ready") }()
		f.admin(status.Ready{})
		f.want(<-got, result{0, ready, ""})
	})
	t.Run("it is never started", func(t *testing.T) {
		f := newFake(t)
		f.want(f.run("watch", "--wait=60ms"), result{2, "", "error: no daemon at DIR/admin.sock: is inferd running? (waited 60ms)\n"})
	})
}

func TestRetry(t *testing.T) {
	f := newFake(t)
	f.serve("control.sock", func(ctx context.Context, ln net.Listener) error {
		return control.Serve(ctx, ln, control.Verbs{Retry: func(_ context.Context, name string) error {
			if name == "gen" {
				return nil
			}
			return infer.Errorf(infer.Invalid, "invalid request: no engine is called %q", name)
		}}, nil, nil, slog.New(slog.DiscardHandler))
	})
	f.want(f.run("retry", "gen"), result{0, "", ""})
	f.want(f.run("retry", "ghost"), result{2, "", "error: invalid_request: invalid request: no engine is called \"ghost\"\n"})
}

const doneFrame = `{"type":"done","id":"1","content":"","usage":{"prompt_tokens":1,"completion_tokens":2},"stop_reason":"%s","backend":"mock"}`

func TestChat(t *testing.T) {
	end, length, cancelled := fmt.Sprintf(doneFrame, "end"), fmt.Sprintf(doneFrame, "length"), fmt.Sprintf(doneFrame, "cancelled")
	token := func(s string) string { return fmt.Sprintf(`{"type":"token","id":"1","content":%q}`, s) }
	for name, test := range map[string]struct {
		args    []string
		stdin   string
		answer  []string
		request string // the request that the daemon must get
		want    result
	}{
		"a question": {
			[]string{"-m", "Hi"},
			"",
			[]string{token("Hel"), token("lo"), end},
			`{"id":"1","messages":[{"role":"user","content":"Hi"}],"stream":true}`,
			result{0, "Hello\n", ""},
		},
		"an answer with a final newline": {
			[]string{"-m", "Hi"},
			"",
			[]string{token("a\n"), token("b\n"), end},
			`{"id":"1","messages":[{"role":"user","content":"Hi"}],"stream":true}`,
			result{0, "a\nb\n", ""},
		},
		"an empty answer": {
			[]string{"-m", ""},
			"",
			[]string{end},
			`{"id":"1","messages":[{"role":"user","content":""}],"stream":true}`,
			result{0, "", ""},
		},
		"every flag, also with zero": {
			[]string{"--system", "Be brief.", "--max-tokens", "1", "--temperature=0", "--seed", "0", "--model", "gen", "-m", "Hi"},
			"",
			[]string{token("x"), end},
			`{"id":"1","messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Hi"}],"temperature":0,"max_tokens":1,"stream":true,"seed":0,"model":"gen"}`,
			result{0, "x\n", ""},
		},
		"a question from stdin": {
			[]string{"-m", "-"},
			"first\nsecond\n",
			[]string{token("x"), end},
			`{"id":"1","messages":[{"role":"user","content":"first\nsecond"}],"stream":true}`,
			result{0, "x\n", ""},
		},
		"cut off by the token limit": {
			[]string{"-m", "Hi", "--max-tokens", "1"},
			"",
			[]string{token("Hel"), length},
			`{"id":"1","messages":[{"role":"user","content":"Hi"}],"max_tokens":1,"stream":true}`,
			result{0, "Hel\n", "note: " + notes[client.MaxTokens] + "\n"},
		},
		"cut off by the daemon": {
			[]string{"-m", "Hi"},
			"",
			[]string{token("Hel"), cancelled},
			`{"id":"1","messages":[{"role":"user","content":"Hi"}],"stream":true}`,
			result{0, "Hel\n", "note: " + notes[client.Cancelled] + "\n"},
		},
		"refused": {
			[]string{"-m", "Hi"},
			"",
			[]string{`{"type":"error","id":"1","code":"queue_full","message":"queue full"}`},
			`{"id":"1","messages":[{"role":"user","content":"Hi"}],"stream":true}`,
			result{2, "", "error: queue_full: queue full\n"},
		},
		"failure after some text": {
			[]string{"-m", "Hi"},
			"",
			[]string{token("Hel"), `{"type":"error","id":"1","code":"backend_unavailable","message":"gone"}`},
			`{"id":"1","messages":[{"role":"user","content":"Hi"}],"stream":true}`,
			result{2, "Hel\n", "error: backend_unavailable: gone\n"},
		},
		"a daemon that dies": {
			[]string{"-m", "Hi"},
			"",
			[]string{token("Hel")},
			`{"id":"1","messages":[{"role":"user","content":"Hi"}],"stream":true}`,
			result{2, "Hel\n", "error: the daemon went away before the end of the answer\n"},
		},
		"raw frames, also unknown ones": {
			[]string{"--json", "-m", "Hi"},
			"",
			[]string{token("Hel"), `{"type":"later","x":1.0}`, length},
			`{"id":"1","messages":[{"role":"user","content":"Hi"}],"stream":true}`,
			result{0, token("Hel") + "\n" + `{"type":"later","x":1.0}` + "\n" + length + "\n", ""},
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			asked := f.scripted("infer.sock", true, test.answer...)
			f.want(f.runWith(t.Context(), test.stdin, append([]string{"chat"}, test.args...)...), test.want)
			if got := <-asked; got != test.request+"\n" {
				t.Errorf("asked %s, want %s", got, test.request)
			}
		})
	}
}

// Ctrl-C during an answer closes the connection, so that the daemon stops the request, and ends the
// line of output. The exit code is 130.
func TestInterrupt(t *testing.T) {
	f := newFake(t)
	hungUp := make(chan error, 1)
	f.serve("infer.sock", func(_ context.Context, ln net.Listener) error {
		nc, err := ln.Accept()
		if err != nil {
			return err
		}
		defer nc.Close()
		lines := bufio.NewReader(nc)
		if _, err := lines.ReadString('\n'); err != nil {
			return err
		}
		if _, err := io.WriteString(nc, `{"type":"token","id":"1","content":"Hel"}`+"\n"); err != nil {
			return err
		}
		_, err = lines.ReadString('\n')
		hungUp <- err
		return nil
	})
	ctx, interrupt := context.WithCancel(t.Context())
	out := newLineWriter()
	code := make(chan int, 1)
	var stderr bytes.Buffer
	go func() {
		code <- run(ctx, []string{"--addr", filepath.Join(f.dir, "infer.sock"), "chat", "-m", "Hi"}, nil, out, &stderr)
	}()
	out.want(t, "Hel") // printed before the answer is complete
	interrupt()
	if err := <-hungUp; !errors.Is(err, io.EOF) {
		t.Errorf("the daemon saw %v, want the end", err)
	}
	out.want(t, "\n")
	if got := <-code; got != 130 || stderr.Len() > 0 {
		t.Errorf("exit code %d, stderr %q, want 130 and no output", got, stderr.String())
	}
}

func TestInterruptWhileWaiting(t *testing.T) {
	for name, args := range map[string][]string{
		"for a daemon":       {"chat", "--wait", "-m", "Hi", "--admin-addr", "/nowhere/admin.sock"},
		"for it to be ready": {"chat", "--wait", "-m", "Hi"},
		"for events":         {"watch"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.admin(loading())
			ctx, interrupt := context.WithCancel(t.Context())
			defer interrupt()
			time.AfterFunc(20*time.Millisecond, interrupt)
			if got := f.runWith(ctx, "", args...); got.Code != 130 || got.Stderr != "" {
				t.Errorf("got %+v, want exit code 130 and no output", got)
			}
		})
	}
}

func TestChatWithADaemonThatIsNotReady(t *testing.T) {
	t.Run("says so", func(t *testing.T) {
		f := newFake(t)
		board, _ := f.admin(loading())
		board.Publish(status.Capabilities{Backend: "gen"})
		f.want(f.run("chat", "-m", "Hi"), result{2, "", "error: the daemon is not ready: loading_model kv_cache gen; try again later, or with --wait\n"})
	})
	t.Run("waits if it is told to", func(t *testing.T) {
		f := newFake(t)
		got := make(chan result, 1)
		go func() { got <- f.run("chat", "--wait", "-m", "Hi") }()
		board, _ := f.admin(status.Starting{})
		board.Publish(loading())
		f.scripted("infer.sock", true, `{"type":"token","id":"1","content":"here"}`, fmt.Sprintf(doneFrame, "end"))
		board.Publish(status.Ready{})
		f.want(<-got, result{0, "here\n", ""})
	})
	t.Run("waits no longer than it is told to", func(t *testing.T) {
		f := newFake(t)
		f.admin(loading())
		f.want(f.run("chat", "--wait=60ms", "-m", "Hi"), result{2, "", "error: the daemon is not ready: loading_model kv_cache gen (waited 60ms)\n"})
	})
	t.Run("learns that v1 is off", func(t *testing.T) {
		f := newFake(t)
		f.admin(status.Ready{})
		f.want(f.run("chat", "-m", "Hi"), result{2, "", "error: the daemon is ready, but nothing listens at DIR/infer.sock: is this surface switched off, or is there no model for it?\n"})
	})
}
