package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/client"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/libraries"
	"github.com/inferd-go/inferd/internal/status"
)

func TestEmbed(t *testing.T) {
	for name, test := range map[string]struct {
		args    []string
		stdin   string
		answer  string
		request string
		want    result
	}{
		"arguments": {
			[]string{"embed", "--dimensions", "2", "a", "b", "--task", "similarity", "--model", "m"},
			"",
			`{"type":"embeddings","id":"1","embeddings":[[1,0.5],[0,-1]],"dimensions":2}`,
			`{"id":"1","input":["a","b"],"dimensions":2,"task":"similarity","model":"m"}`,
			result{0, `{"text":"a","embedding":[1,0.5]}` + "\n" + `{"text":"b","embedding":[0,-1]}` + "\n", ""},
		},
		"lines": {
			[]string{"embed"},
			"first line\n\nsecond\n",
			`{"type":"embeddings","embeddings":[[1],[2]]}`,
			`{"id":"1","input":["first line","second"]}`,
			result{0, `{"text":"first line","embedding":[1]}` + "\n" + `{"text":"second","embedding":[2]}` + "\n", ""},
		},
		"a model": {
			[]string{"embed", "--model", "m", "a"},
			"",
			`{"type":"embeddings","embeddings":[[1]]}`,
			`{"id":"1","input":["a"],"model":"m"}`,
			result{0, `{"text":"a","embedding":[1]}` + "\n", ""},
		},
		"refused": {
			[]string{"embed", "a"},
			"",
			`{"type":"error","code":"embed_unsupported","message":"no"}`,
			`{"id":"1","input":["a"]}`,
			result{2, "", "error: embed_unsupported: no\n"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			asked := f.scripted("infer.embed.sock", true, test.answer)
			f.want(f.runWith(t.Context(), test.stdin, test.args...), test.want)
			if got := <-asked; got != test.request+"\n" {
				t.Errorf("asked %s, want %s", got, test.request)
			}
		})
	}
}

// Input that is not UTF-8 is refused before any request is sent.
func TestStdinIsNotUTF8(t *testing.T) {
	for name, test := range map[string]struct {
		stdin string
		args  []string
		want  string
	}{
		"a question":       {"caf\xe9", []string{"chat"}, "error: stdin is not UTF-8 text (byte 4 is 0xe9): convert it first, for example with iconv -f latin1 -t utf-8\n"},
		"a question by -m": {"\xff", []string{"chat", "-m", "-"}, "error: stdin is not UTF-8 text (byte 1 is 0xff): convert it first, for example with iconv -f latin1 -t utf-8\n"},
		"texts":            {"good\nb\xe9d\n", []string{"embed"}, "error: line 2: stdin is not UTF-8 text (byte 2 is 0xe9): convert it first, for example with iconv -f latin1 -t utf-8\n"},
		"documents":        {"\xc3\n", []string{"rerank", "--query", "q"}, "error: line 1: stdin is not UTF-8 text (byte 1 is 0xc3): convert it first, for example with iconv -f latin1 -t utf-8\n"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.want(f.runWith(t.Context(), test.stdin, test.args...), result{2, "", test.want})
		})
	}
}

// A relative runtime folder is ignored with a warning, since each program would resolve it to
// another folder.
func TestRelativeRuntimeFolder(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", "run")
	t.Setenv("HOME", t.TempDir())
	var out, stderr bytes.Buffer
	run(t.Context(), []string{"status"}, strings.NewReader(""), &out, &stderr)
	if want := "warning: XDG_RUNTIME_DIR is ignored: it is not an absolute path\n"; runtime.GOOS == "linux" && !strings.HasPrefix(stderr.String(), want) {
		t.Errorf("stderr %q, want %q first", stderr.String(), want)
	}
}

func TestRerank(t *testing.T) {
	f := newFake(t)
	asked := f.scripted("infer.rerank.sock", true, `{"type":"rerank","id":"1","results":[{"index":1,"score":2.5},{"index":0,"score":-1}]}`)
	f.want(f.run("rerank", "--query", "q", "--top-n", "2", "a", "b", "c"),
		result{0, `{"score":2.5,"index":1,"text":"b"}` + "\n" + `{"score":-1,"index":0,"text":"a"}` + "\n", ""})
	if got, want := <-asked, `{"id":"1","query":"q","documents":["a","b","c"],"top_n":2}`+"\n"; got != want {
		t.Errorf("asked %s, want %s", got, want)
	}
	f = newFake(t)
	f.scripted("infer.rerank.sock", true, `{"type":"rerank","results":[{"index":9,"score":1}]}`)
	f.want(f.run("rerank", "--query", "q", "a"), result{2, "", "error: the daemon ranks document 9 of 1\n"})
}

const statsJSON = `{"uptime_ms":3723000,"version":"1.2","running":1,"waiting":2,"connections":3,"callers":[` +
	`{"user":"4242","program":"8:1","exe":"/bin/editor","running":1,"waiting":2,"requests":7,"refused":4,"input_tokens":50,"output_tokens":60,` +
	`"cached_tokens":20,"tokens_per_s":12.34,"kv_tokens":10},{"user":""}],` +
	`"backends":[{"name":"gen","kind":"llamacpp","state":"ready","slots":4,"running":1,"waiting":2,"requests":7,"input_tokens":50,"output_tokens":60,` +
	`"tokens_per_s":12.34}],"later":1}`

func TestStats(t *testing.T) {
	f := newFake(t)
	asked := f.scripted("control.sock", true, `{"type":"stats","id":"1","stats":`+statsJSON+`}`)
	f.want(f.run("stats"), result{0, statsJSON + "\n", ""})
	if got, want := <-asked, `{"id":"1","type":"stats"}`+"\n"; got != want {
		t.Errorf("asked %s, want %s", got, want)
	}
}

// Without a terminal, top prints the table once.
func TestTopWithoutATerminal(t *testing.T) {
	f := newFake(t)
	f.scripted("control.sock", true, `{"type":"stats","id":"1","stats":`+statsJSON+`}`)
	want := result{0, `inferd 1.2, up 1h2m3s: 1 running, 2 waiting, 0 parked, 12.3 tok/s, 3 connections

ENTRY  STATE  RUN  WAIT  PARK  UNREAD  TOK/S  KV  KEPT  HIT  STEP MS  STALLS  STEPS  DROP  REQS  IN  OUT  RESTARTS  CTX  PID  MODEL
gen    ready  1/4     2     0       0   12.3   -     -    -        -       -      -     -     7  50   60         -    -    -  llamacpp

USER  PROGRAM  RUN  WAIT  PARK  UNREAD  TOK/S  KV  HIT  REQS  REFUSED  IN  OUT
4242  editor     1     2     0       0   12.3  10  40%     7        4  50   60
-     -          0     0     0       0      0   0    -     0        0   0    0
`, ""}
	f.want(f.run("top"), want)
	f.want(f.run("top", "--once"), want)
	lost := strings.Replace(statsJSON, `"version"`, `"log_lost":3,"version"`, 1)
	g := newFake(t)
	g.scripted("control.sock", true, `{"type":"stats","id":"1","stats":`+lost+`}`)
	if got := g.run("top"); !strings.Contains(got.Out, "\n3 lines of the activity log are lost: inferdctl doctor\n") {
		t.Errorf("with lost lines: %+v", got)
	}
	f.want(f.run("top", "--interval", "1ms"), result{2, "", "error: --interval: 1ms is too short, it must be at least 100ms\n"})
}

func TestLogLevel(t *testing.T) {
	f := newFake(t)
	asked := f.scripted("control.sock", true, `{"type":"done","id":"1"}`)
	f.want(f.run("log-level", "debug"), result{0, "", ""})
	if got, want := <-asked, `{"id":"1","type":"log_level","level":"debug"}`+"\n"; got != want {
		t.Errorf("asked %s, want %s", got, want)
	}
}

func TestBar(t *testing.T) {
	for want, s := range map[string]client.Status{
		"":                         {State: "capabilities", Backend: "gen"},
		"starting":                 {State: "starting"},
		"loading_model verify gen": {State: "loading_model", Phase: "verify", Backend: "gen"},
		"loading_model mmap gen [############------------]  50%": {State: "loading_model", Phase: "mmap", Backend: "gen", Progress: 0.5},
		"restarting mmap gen [########################] 100%":    {State: "restarting", Phase: "mmap", Backend: "gen", Progress: 1},
		"restarting engine_exited gen: killed by SIGKILL":        {State: "restarting", Phase: "engine_exited", Backend: "gen", Reason: "killed by SIGKILL"},
		"loading_model mmap gen [------------------------]   0%": {State: "loading_model", Phase: "mmap", Backend: "gen"},
		"loading_model mmap gen [########################] 100%": {State: "loading_model", Phase: "mmap", Backend: "gen", Progress: 123},
	} {
		if got := bar(s); got != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	}
}

// A conversation keeps its messages, continues after a failed question, and ends with the input.
func TestConversation(t *testing.T) {
	f := newFake(t)
	answers := []string{
		`{"type":"token","id":"1","content":"Hello"}` + "\n" + fmt.Sprintf(doneFrame, "end"),
		`{"type":"error","id":"1","code":"queue_full","message":"queue full"}`,
		`{"type":"token","id":"1","content":"Bye"}` + "\n" + fmt.Sprintf(doneFrame, "end"),
	}
	asked := make(chan string, len(answers))
	f.serve("infer.sock", func(_ context.Context, ln net.Listener) error {
		for _, a := range answers {
			nc, err := ln.Accept()
			if err != nil {
				return err
			}
			buf := make([]byte, 4096)
			n, _ := nc.Read(buf)
			asked <- string(buf[:n])
			fmt.Fprintln(nc, a)
			_ = nc.Close()
		}
		return nil
	})
	var out, stderr bytes.Buffer
	c := &command{stdin: strings.NewReader("hi\n\nlost\nbye\n"), stdout: &out, stderr: &stderr, addr: filepath.Join(f.dir, "infer.sock")}
	if err := c.converse(t.Context(), v1Client{c.client(wait{})}, &client.Request{}); err != nil {
		t.Error(err)
	}
	if want := "> Hello\n> > > Bye\n> \n"; out.String() != want || stderr.String() != "error: queue_full: queue full\n" {
		t.Errorf("stdout %q, want %q; stderr %q", out.String(), want, stderr.String())
	}
	contents := regexp.MustCompile(`"content":"(\w*)"`)
	for _, want := range []string{"hi", "hi Hello lost", "hi Hello bye"} {
		var said []string
		for _, m := range contents.FindAllStringSubmatch(<-asked, -1) {
			said = append(said, m[1])
		}
		if got := strings.Join(said, " "); got != want {
			t.Errorf("asked %q, want %q", got, want)
		}
	}
}

func TestDoctor(t *testing.T) {
	t.Setenv("MODELS_HOME", filepath.Join(t.TempDir(), "none"))
	lib := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	for _, name := range libraries.Core() {
		if err := os.WriteFile(filepath.Join(lib, libraries.File(name)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	configured := func(f *fakeDaemon, content string) string {
		path := filepath.Join(f.dir, "config.json")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	engine := `{"engine":{"lib_dir":"` + lib + `"},"backends":[{"kind":"llamacpp","name":"gen","model":{"path":"/nowhere/m.gguf"}},{"kind":"llamacpp","name":"e","model":{"builtin":"embed"}}]}`
	t.Run("all is well", func(t *testing.T) {
		f := newFake(t)
		board, _ := f.admin(status.Starting{})
		board.Publish(status.Capabilities{Backend: "m", Abilities: infer.Abilities{Generate: true, Tools: true, ToolsDialect: "hermes", Thinking: true}, Accelerator: "cpu"})
		board.Publish(status.Ready{})
		f.scripted("infer.sock", false)
		f.scripted("control.sock", true, `{"type":"stats","id":"1","stats":`+statsJSON+`}`)
		got := f.run("doctor", "--config", configured(f, `{"backends":[{"kind":"mock","name":"m"}]}`))
		got.Out = strings.ReplaceAll(got.Out, f.dir, "DIR")
		f.want(got, result{0, `[ ok ] config: DIR/config.json, 1 backends
[ ok ] model[m]: a mock needs none
[ ok ] sockets: DIR, mode 0700
[ ok ] activity log: DIR/logs does not exist yet: the daemon makes it
[ ok ] backend: m accelerator=cpu gpu_layers=0 wire_version=1 v2=true vision=false audio=false tools=true thinking=true embed=false rerank=false
[ ok ] backend: m spells the calls of tools as hermes
[ ok ] admin: the daemon at DIR/admin.sock is ready
[ ok ] surface[v1]: DIR/infer.sock accepts
[ ok ] surface[v2]: not bound: it is switched off
[ ok ] surface[lp]: not bound: it is switched off
[ ok ] surface[embed]: not bound: no entry can serve it
[ ok ] surface[rerank]: not bound: no entry can serve it
[ ok ] control: inferd 1.2: 1 running, 2 waiting
[ ok ] activity log: the daemon has lost no line
`, ""})
	})
	t.Run("nothing is there", func(t *testing.T) {
		f := newFake(t)
		got := f.run("doctor", "--config", configured(f, engine))
		got.Out = strings.ReplaceAll(strings.ReplaceAll(got.Out, f.dir, "DIR"), lib, "LIB")
		f.want(got, result{1, `[ ok ] config: DIR/config.json, 2 backends
[ ok ] engine: warning: llama.cpp's libraries in LIB are unverified: it is not the folder that "make engine" makes
[FAIL] model[gen]: stat /nowhere/m.gguf: no such file or directory
[ ok ] model[e]: built-in embed
[ ok ] sockets: DIR, mode 0700
[ ok ] activity log: DIR/logs does not exist yet: the daemon makes it
[FAIL] admin: no daemon at DIR/admin.sock: is inferd running?
`, ""})
	})
	t.Run("libraries and folders that others can change", func(t *testing.T) {
		f := newFake(t)
		logs := filepath.Join(f.dir, "logs")
		if err := os.Mkdir(logs, 0o700); err != nil {
			t.Fatal(err)
		}
		path := configured(f, engine)
		llama := filepath.Join(lib, libraries.File("llama"))
		for open, want := range map[string][]string{
			f.dir: {"config: folder " + f.dir, "sockets: folder " + f.dir},
			logs:  {"activity log: folder " + logs},
			llama: {"engine: llama.cpp's libraries: " + llama},
		} {
			if err := os.Chmod(open, 0o777); err != nil {
				t.Fatal(err)
			}
			got := f.run("doctor", "--config", path)
			for _, want := range want {
				if want = "[FAIL] " + want + " can be written to by every user"; got.Code != 1 || !strings.Contains(got.Out, want) {
					t.Errorf("no %q in\n%s", want, got.Out)
				}
			}
			if err := os.Chmod(open, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		memory := filepath.Join(os.Getenv("XDG_CACHE_HOME"), "inferd", "cpu-variants.json")
		if err := errors.Join(os.MkdirAll(filepath.Dir(memory), 0o700), os.WriteFile(memory, []byte("{"), 0o600)); err != nil {
			t.Fatal(err)
		}
		if got := f.run("doctor", "--config", path); !strings.Contains(got.Out, "[ ok ] engine: warning: avoided CPU variants: "+memory+" is ignored") {
			t.Errorf("no warning of the invalid file of avoided variants:\n%s", got.Out)
		}
	})
	t.Run("a config that is broken, a daemon that loads", func(t *testing.T) {
		f := newFake(t)
		f.admin(loading())
		got := f.run("doctor", "--config", configured(f, `{"backends":[]}`))
		got.Out = strings.ReplaceAll(got.Out, f.dir, "DIR")
		f.want(got, result{1, `[FAIL] config: DIR/config.json:1: backends must not be empty
[ ok ] sockets: DIR, mode 0700
[ ok ] activity log: DIR/logs does not exist yet: the daemon makes it
[FAIL] admin: the daemon is not ready: loading_model kv_cache gen
`, ""})
	})
	t.Run("a dead surface, an engine that was given up", func(t *testing.T) {
		f := newFake(t)
		board, _ := f.admin(status.Starting{})
		board.Publish(status.Capabilities{Backend: "gen", Abilities: infer.Abilities{Generate: true}})
		board.Publish(status.Liveness{Backend: "gen", Silent: true, Reason: "its process is stopped"})
		board.Publish(status.Ready{})
		f.scripted("control.sock", true, `{"type":"stats","stats":{"log_lost":7,"unknown_peers":3,"backends":[{"name":"gen","state":"gave_up","cpu_variant":"haswell","libraries":"unverified"}]}}`)
		if err := os.WriteFile(filepath.Join(f.dir, "logs"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(f.dir, "inferd.sock"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		got := f.run("doctor", "--config", configured(f, `{"backends":[{"kind":"mock","name":"m"}]}`))
		if got.Code != 1 || !strings.Contains(got.Out, "[FAIL] surface[lp]: ") || !strings.Contains(got.Out, "[FAIL] backend: gen was given up") ||
			!strings.Contains(got.Out, "[FAIL] backend: the engine of gen is silent: its process is stopped\n") ||
			!strings.Contains(got.Out, "[ ok ] backend: gen computes with the CPU variant haswell of unverified libraries\n") ||
			!strings.Contains(got.Out, "[ ok ] http: warning: the users of 3 connections over TCP were unknown: such clients need a key, see http.keys\n") ||
			!strings.Contains(got.Out, "[FAIL] activity log: the daemon has lost 7 lines") || !strings.Contains(got.Out, "[FAIL] activity log: lines are lost: ") {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("a daemon that never sends its state", func(t *testing.T) {
		const strange = `{"status":"dreaming"}`
		for want, frames := range map[string]int{
			"[FAIL] admin: timeout: no message for 500ms\n":      1,
			"[FAIL] admin: the daemon does not send its state\n": statusFrames + 1,
		} {
			f := newFake(t)
			f.serve("admin.sock", func(ctx context.Context, ln net.Listener) error {
				nc, err := ln.Accept()
				if err != nil {
					return err
				}
				defer nc.Close()
				_, err = io.WriteString(nc, strings.Repeat(strange+"\n", frames))
				<-ctx.Done() // silent, but connected
				return err
			})
			got := f.run("doctor", "--config", configured(f, `{"backends":[{"kind":"mock","name":"m"}]}`))
			if got.Code != 1 || !strings.HasSuffix(got.Out, want) {
				t.Errorf("got %+v, want %q", got, want)
			}
		}
	})
	t.Run("entries that need attention", func(t *testing.T) {
		for name, test := range map[string]struct {
			entry string
			code  int
			want  string
		}{
			"no fault":         {`"state":"ready","breaker":"closed","pid":7,"restarts":9,"restarts_hour":2,"engine":{"kv_size_tokens":1000,"kv_used_tokens":949}`, 0, ""},
			"given up":         {`"state":"gave_up"`, 1, "[FAIL] backend: gen was given up: fix the cause, then run inferdctl retry gen\n"},
			"breaker open":     {`"breaker":"open"`, 1, "[FAIL] backend: gen keeps failing: it gets one request every 30 s as a trial; the daemon's log has the errors\n"},
			"exact":            {`"exact":true`, 0, ""},
			"not exact":        {`"exact":false,"inexact":"a GPU computes"`, 1, "[FAIL] backend: gen is not exact, though its config asks for it: a GPU computes\n"},
			"dies often":       {`"restarts_hour":3`, 1, "[FAIL] backend: gen was restarted 3 times within an hour: the daemon's log has the reasons\n"},
			"was wedged":       {`"wedged_kills":2,"last_kill":"spin, at noon"`, 0, "[ ok ] backend: warning: gen: the watchdog killed 2 wedged engines, the last one for: spin, at noon; the daemon's log has its stacks\n"},
			"silent":           {`"silent":true,"pid":7`, 1, "[FAIL] backend: gen does not report: its engine (process 7) is stopped, or the machine is too busy\n"},
			"a full cache":     {`"engine":{"kv_size_tokens":1000,"kv_used_tokens":950}`, 0, "[ ok ] backend: warning: the cache of gen is full, 950 of 1000 tokens: requests take turns; a larger n_ctx lets more run at once\n"},
			"has no cache":     {`"engine":{"steps":1}`, 0, ""},
			"a small cache":    {`"engine":{"kv_size_tokens":8,"kv_used_tokens":7}`, 0, ""},
			"a small full one": {`"engine":{"kv_size_tokens":8,"kv_used_tokens":8}`, 0, "[ ok ] backend: warning: the cache of gen is full, 8 of 8 tokens: requests take turns; a larger n_ctx lets more run at once\n"},
		} {
			t.Run(name, func(t *testing.T) {
				f := newFake(t)
				board, _ := f.admin(status.Starting{})
				board.Publish(status.Ready{})
				f.scripted("control.sock", true, `{"type":"stats","stats":{"backends":[{"name":"gen",`+test.entry+`}]}}`)
				got := f.run("doctor", "--config", configured(f, `{"backends":[{"kind":"mock","name":"m"}]}`))
				_, found, _ := strings.Cut(got.Out, "the daemon has lost no line\n")
				if got.Code != test.code || found != test.want {
					t.Errorf("exit code %d, found %q, want %d, %q", got.Code, found, test.code, test.want)
				}
			})
		}
	})
}
