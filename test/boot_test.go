package test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/inferd-go/inferd/internal/shortdir"
)

func TestBootIsWatched(t *testing.T) {
	d := start(t, "", "--model-path", "builtin:chain")
	frames := d.waitStatus("ready", "")
	var seen []string
	for _, f := range frames {
		if f["id"] != "admin" || f["type"] != "status" {
			t.Errorf("frame %v", f)
		}
		what := f["status"].(string)
		if phase, ok := f["phase"].(string); ok {
			what += " " + phase
		}
		seen = append(seen, what)
	}
	seen = slices.Compact(seen)
	all := []string{"starting", "loading_model checking_local", "loading_model mmap", "loading_model kv_cache", "capabilities", "ready"}
	// The watcher connects at a random moment, so it may miss the first frames.
	if len(seen) > len(all) || !slices.Equal(seen, all[len(all)-len(seen):]) {
		t.Errorf("seen %q, want an end of %q", seen, all)
	}
	// A watcher that connects later gets the backlog.
	late := d.waitStatus("ready", "")
	if len(late) != 2 || late[0]["status"] != "capabilities" || late[0]["backend"] != "llamacpp" || late[0]["wire_version"] != 1.0 {
		t.Errorf("a late watcher saw %v", late)
	}
	for _, absent := range []string{"device_name", "vram_total_bytes", "audio_sample_rate", "rerank"} {
		if v, ok := late[0][absent]; ok {
			t.Errorf("capabilities say %s is %v", absent, v)
		}
	}
	facts := map[string]any{"architecture": "llama", "n_ctx": 8192.0, "quantization": "F32", "tools": true, "tools_dialect": "generic", "thinking": false}
	for fact, want := range facts {
		if got := late[0][fact]; got != want {
			t.Errorf("capabilities say %s is %v, want %v", fact, got, want)
		}
	}
	for _, fact := range []string{"model", "n_params", "size_bytes"} {
		if late[0][fact] == nil {
			t.Errorf("capabilities do not say %s: %v", fact, late[0])
		}
	}
}

func TestSockets(t *testing.T) {
	d := serve(t, "--model-path", "builtin:chain")
	for leaf, want := range map[string]os.FileMode{"infer.sock": 0o660, "admin.sock": 0o600, "control.sock": 0o600} {
		info, err := os.Lstat(d.socket(leaf))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want || info.Mode().Type() != os.ModeSocket {
			t.Errorf("%s is %v, want a socket of %v", leaf, info.Mode(), want)
		}
	}
	d.signal(syscall.SIGTERM)
	if code := d.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	left, err := filepath.Glob(filepath.Join(d.dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{d.socket("infer.lock")}; !slices.Equal(left, want) && !slices.Equal(left, []string{d.socket("inferd.lock")}) {
		t.Errorf("left behind: %q", left)
	}
}

// If only the model is given, the sockets are in the default folder, which only the user can read.
func TestDefaults(t *testing.T) {
	run := shortdir.New(t)
	t.Setenv("XDG_RUNTIME_DIR", run)
	t.Setenv("HOME", shortdir.New(t))
	if os.Getenv("INFERD_ENGINE_LIB") == "" {
		t.Setenv("INFERD_ENGINE_LIB", engineLib)
	}
	d := start(t, filepath.Join(run, "inferd"), "--model-path", "builtin:chain", "--uds", "")
	d.waitReady()
	d.works()
	info, err := os.Stat(filepath.Join(run, "inferd"))
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestSecondDaemon(t *testing.T) {
	d := serve(t, "--model-path", "builtin:chain")
	second := start(t, d.dir, "--model-path", "builtin:chain")
	want := fmt.Sprintf("another inferd-daemon (pid %d) already holds the lock at %s", d.cmd.Process.Pid, d.socket("inferd.lock"))
	if code := second.exit(); code != 1 || !strings.Contains(second.stderr.String(), want) {
		t.Errorf("exit %d, stderr %s", code, second.stderr)
	}
	d.works()
}

func TestLockPath(t *testing.T) {
	for name, test := range map[string]struct {
		make func(t *testing.T, path string)
		want string
	}{
		"a symlink": {func(t *testing.T, path string) {
			if err := os.WriteFile(path+".target", []byte("precious"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(path+".target", path); err != nil {
				t.Fatal(err)
			}
		}, "is a symlink"},
		"a folder": {func(t *testing.T, path string) {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, "not a regular file"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := shortdir.New(t)
			path := filepath.Join(dir, "inferd.lock")
			test.make(t, path)
			d := start(t, dir, "--model-path", "builtin:chain")
			if code := d.exit(); code != 1 || !strings.Contains(d.stderr.String(), test.want) || !strings.Contains(d.stderr.String(), path) {
				t.Errorf("exit %d, stderr %s", code, d.stderr)
			}
			if kept, err := os.ReadFile(path + ".target"); err == nil && string(kept) != "precious" {
				t.Errorf("the target holds %q", kept)
			}
		})
	}
}

func TestStaleSockets(t *testing.T) {
	d := serve(t, "--model-path", "builtin:chain")
	engine := d.engine()
	d.signal(syscall.SIGKILL)
	d.exit()
	eventually(t, "the engine has gone with its daemon", func() bool { return gone(engine) })
	if _, err := os.Lstat(d.socket("infer.sock")); err != nil {
		t.Fatalf("kill -9 leaves no stale socket, so there is nothing to test: %v", err)
	}
	again := start(t, d.dir, "--model-path", "builtin:chain")
	again.waitReady()
	again.works()
}

// An engine that is stopped by a signal still ends when its daemon is killed.
func TestStoppedEngineGoesWithItsDaemon(t *testing.T) {
	d := serve(t, "--model-path", "builtin:chain")
	engine := d.engine()
	kill(t, engine, syscall.SIGSTOP)
	d.signal(syscall.SIGKILL)
	d.exit()
	eventually(t, "the stopped engine has gone", func() bool { return gone(engine) })
}

func TestSymlinkAtTheSocket(t *testing.T) {
	for _, leaf := range []string{"infer.sock", "admin.sock"} {
		t.Run(leaf, func(t *testing.T) {
			dir := shortdir.New(t)
			target := filepath.Join(dir, "target")
			if err := os.WriteFile(target, []byte("precious"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(target, filepath.Join(dir, leaf)); err != nil {
				t.Fatal(err)
			}
			d := start(t, dir, "--model-path", "builtin:chain")
			if code := d.exit(); code != 1 || !strings.Contains(d.stderr.String(), "is a symlink (refused): "+filepath.Join(dir, leaf)) {
				t.Errorf("exit %d, stderr %s", code, d.stderr)
			}
			if kept, _ := os.ReadFile(target); string(kept) != "precious" {
				t.Errorf("the target holds %q", kept)
			}
		})
	}
}

func TestConfigErrors(t *testing.T) {
	for name, test := range map[string]struct {
		config string
		want   []string
	}{
		"not JSON":            {"{\n\"backends\": [\n{]\n}", []string{"config.json:3"}},
		"a wrong type":        {"{\n\"n_ctx\": \"many\"}", []string{"config.json:2", "n_ctx"}},
		"a duplicate key":     {"{\n\"n_ctx\": 1,\n\"n_ctx\": 2}", []string{"config.json:3", "n_ctx"}},
		"model and backends":  {`{"model":{"builtin":"chain"},"backends":[]}`, []string{"config.json", "mutually exclusive"}},
		"no entry":            {`{"backends":[]}`, []string{"backends must not be empty"}},
		"an unknown kind":     {`{"backends":[{"kind":"vllm","name":"a"}]}`, []string{"backends[0].kind", "vllm"}},
		"no kind":             {`{"backends":[{"name":"a"}]}`, []string{"backends[0].kind"}},
		"no name":             {`{"backends":[{"kind":"mock"}]}`, []string{"backends[0].name"}},
		"a duplicate name":    {`{"backends":[{"kind":"mock","name":"a"},{"kind":"mock","name":"a"}]}`, []string{"backends[1].name", "an alias of an earlier entry"}},
		"no model":            {`{"backends":[{"kind":"llamacpp","name":"a"}]}`, []string{"backends[0].model"}},
		"an unknown built-in": {`{"backends":[{"kind":"llamacpp","name":"a","model":{"builtin":"gpt"}}]}`, []string{"backends[0].model", "gpt", "chain"}},
		"a context of zero":   {`{"backends":[{"kind":"llamacpp","name":"a","n_ctx":0,"model":{"builtin":"chain"}}]}`, []string{"backends[0].n_ctx"}},
		"a short digest":      {`{"backends":[{"kind":"llamacpp","name":"a","model":{"path":"x","sha256":"abc"}}]}`, []string{"backends[0].model", "sha256"}},
		"an empty file":       {``, []string{"config.json"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := shortdir.New(t)
			if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(test.config), 0o600); err != nil {
				t.Fatal(err)
			}
			d := start(t, dir)
			code := d.exit()
			for _, want := range test.want {
				if code != 1 || !strings.Contains(d.stderr.String(), want) {
					t.Errorf("exit %d, want %q in %s", code, want, d.stderr)
				}
			}
		})
	}
}

func TestConfig(t *testing.T) {
	dir := shortdir.New(t)
	config := `{
		"colour": "green",
		"admission": {"queue_depth": 3, "depht": 4},
		"backends": [
			{"kind":"llamacpp","name":"gen","aliases":["small"],"n_ctx":1024,"n_slots":2,"model":{"builtin":"chain"}},
			{"kind":"mock","name":"fake","tokens":["one","two"],"unheard_of":true}
		]}`
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	d := start(t, dir)
	d.waitReady()
	for _, want := range []string{"config.json:2: unknown key colour", "config.json:3: unknown key admission.depht", "config.json:6: unknown key backends[1].unheard_of"} {
		if !strings.Contains(d.stderr.String(), want) {
			t.Errorf("no warning %q in %s", want, d.stderr)
		}
	}
	for model, want := range map[string]string{"": "xyz", "gen": "xyz", "small": "xyz", "fake": "onetwo"} {
		if text, end := d.ask("w", `,"model":"`+model+`"`); text != want {
			t.Errorf("model %q: %q, %+v", model, text, end)
		}
	}
	caps := d.waitStatus("ready", "")
	if len(caps) != 3 || caps[0]["backend"] != "fake" || caps[1]["backend"] != "gen" {
		t.Errorf("capabilities %v", caps)
	}
}

func TestNoModel(t *testing.T) {
	d := start(t, "")
	if code := d.exit(); code != 1 {
		t.Errorf("exit %d", code)
	}
	for _, way := range []string{"--model-path FILE", "builtin:chain", "config.json"} {
		if !strings.Contains(d.stderr.String(), way) {
			t.Errorf("%q is not named in %s", way, d.stderr)
		}
	}
}

func TestUsage(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		code int
	}{
		"an unknown flag":     {[]string{"--nonsense"}, 2},
		"an argument":         {[]string{"serve"}, 2},
		"uds and pipe":        {[]string{"--pipe", "x"}, 2}, // start adds --uds
		"a negative depth":    {[]string{"--queue-depth", "-1"}, 2},
		"a word for a number": {[]string{"--n-ctx", "many"}, 2},
		"help":                {[]string{"--help"}, 0},
		"version":             {[]string{"--version"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			d := start(t, "", test.args...)
			if code := d.exit(); code != test.code {
				t.Errorf("exit %d, want %d: %s", code, test.code, d.stderr)
			}
			if left, _ := filepath.Glob(filepath.Join(d.dir, "*")); len(left) > 0 {
				t.Errorf("made %q", left)
			}
		})
	}
}

// modelFile returns a path in a temporary folder, and the content of a built-in model to write
// there.
func modelFile(t *testing.T) (path string, content []byte) {
	t.Helper()
	d := serve(t, "--model-path", "builtin:chain")
	d.signal(syscall.SIGTERM)
	d.exit()
	made, err := filepath.Glob(filepath.Join(os.Getenv("XDG_CACHE_HOME"), "inferd", "builtin", "chain-*.gguf"))
	if err != nil || len(made) != 1 {
		t.Fatalf("models %q, %v", made, err)
	}
	content, err = os.ReadFile(made[0])
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(shortdir.New(t), "model.gguf"), content
}

func TestModelFiles(t *testing.T) {
	path, content := modelFile(t)
	for name, test := range map[string]struct {
		content []byte
		args    []string
		want    []string // parts of the error; nil means that the daemon becomes ready
	}{
		"whole":             {content, nil, nil},
		"missing":           {nil, nil, []string{path, "no such file"}},
		"empty":             {[]byte{}, nil, []string{path}},
		"truncated":         {content[:len(content)/2], nil, []string{path}},
		"cut in its header": {content[:1000], nil, []string{path}},
		"not a GGUF":        {[]byte("#!/bin/sh\necho hello\n"), nil, []string{path}},
		"the wrong digest":  {content, []string{"--model-sha256", strings.Repeat("0", 64)}, []string{path, strings.Repeat("0", 64)}},
	} {
		t.Run(name, func(t *testing.T) {
			_ = os.Remove(path)
			if test.content != nil {
				if err := os.WriteFile(path, test.content, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			d := start(t, "", append([]string{"--model-path", path}, test.args...)...)
			if test.want == nil {
				d.waitReady()
				d.works()
				return
			}
			if code := d.exit(); code != 1 {
				t.Errorf("exit %d", code)
			}
			last := d.stderr.String()
			last = last[strings.LastIndex(last, "Error:"):]
			for _, want := range test.want {
				if !strings.Contains(last, want) {
					t.Errorf("no %q in %q", want, last)
				}
			}
			if strings.Contains(last, "goroutine") || len(last) > 1000 {
				t.Errorf("that is no message: %s", last)
			}
		})
	}
	t.Run("a folder", func(t *testing.T) {
		d := start(t, "", "--model-path", filepath.Dir(path))
		if code := d.exit(); code != 1 || !strings.Contains(d.stderr.String(), "not a regular file") {
			t.Errorf("exit %d, stderr %s", code, d.stderr)
		}
	})
}

// libraries returns a folder with links to the real libraries, except those in except.
func libraries(t *testing.T, except ...string) string {
	t.Helper()
	dir := shortdir.New(t)
	names, err := os.ReadDir(engineLib)
	if err != nil {
		t.Fatalf("%v: run \"make engine\"", err)
	}
	for _, e := range names {
		if slices.Contains(except, e.Name()) {
			continue
		}
		if err := os.Symlink(filepath.Join(engineLib, e.Name()), filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestLibraries(t *testing.T) {
	for name, test := range map[string]struct {
		dir  func(t *testing.T) string
		want string
	}{
		"all there":  {func(t *testing.T) string { return libraries(t) }, ""},
		"none there": {func(t *testing.T) string { t.Helper(); return shortdir.New(t) }, `make engine`},
		"one is missing": {func(t *testing.T) string {
			return libraries(t, "libggml-base.so")
		}, "libggml-base"},
		"another version": {func(t *testing.T) string {
			dir := libraries(t, "libllama.so")
			// This library loads, but lacks the version function of llama.cpp 0.5.0.
			if err := os.Symlink(filepath.Join(engineLib, "libggml-base.so"), filepath.Join(dir, "libllama.so")); err != nil {
				t.Fatal(err)
			}
			return dir
		}, "make engine"},
		"no libffi": {func(t *testing.T) string {
			dir := libraries(t)
			// The loader searches this folder first, so an invalid file hides the system's library.
			if err := os.WriteFile(filepath.Join(dir, "libffi.so.8"), []byte("none"), 0o600); err != nil {
				t.Fatal(err)
			}
			return dir
		}, "apt-get install libffi8"},
	} {
		t.Run(name, func(t *testing.T) {
			d := start(t, "", "--model-path", "builtin:chain", "--engine-lib", test.dir(t))
			if test.want == "" {
				d.waitReady()
				return
			}
			if code := d.exit(); code != 1 || !strings.Contains(d.stderr.String(), test.want) {
				t.Errorf("exit %d, want %q in %s", code, test.want, d.stderr)
			}
		})
	}
}

func TestEngineProgramIsMissing(t *testing.T) {
	d := start(t, "", "--model-path", "builtin:chain", "--engine", "/nonexistent/engine")
	if code := d.exit(); code != 1 || !strings.Contains(d.stderr.String(), "/nonexistent/engine") {
		t.Errorf("exit %d, stderr %s", code, d.stderr)
	}
}

func TestStatusCommand(t *testing.T) {
	d := serve(t, "--model-path", "builtin:chain")
	out, _, code := d.ctl("status")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	var last map[string]any
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || last["status"] != "ready" || code != 0 || len(lines) != 2 {
		t.Errorf("exit %d: %s (%v)", code, out, err)
	}
	if out, errs, code := d.ctl("chat", "-m", "w"); out != "xyz\n" || code != 0 {
		t.Errorf("chat: exit %d, %q, %q", code, out, errs)
	}
	d.signal(syscall.SIGTERM)
	d.exit()
	if _, errs, code := d.ctl("status"); code != 2 || !strings.HasPrefix(errs, "error: ") {
		t.Errorf("without a daemon: exit %d, %q", code, errs)
	}
	if _, errs, code := d.ctl("chat", "-m", "w"); code != 2 || !strings.HasPrefix(errs, "error: ") {
		t.Errorf("chat without a daemon: exit %d, %q", code, errs)
	}
}
