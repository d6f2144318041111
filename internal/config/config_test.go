package config_test

import (
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/inferd-go/inferd/internal/backend"
	"github.com/inferd-go/inferd/internal/backend/llamacpp"
	"github.com/inferd-go/inferd/internal/backend/mock"
	"github.com/inferd-go/inferd/internal/config"
	"github.com/inferd-go/inferd/internal/paths"
)

// environment returns the environment of a Linux machine with the given variables.
func environment(vars map[string]string) paths.Env {
	return paths.Env{GOOS: "linux", Getenv: func(name string) string { return vars[name] }, Environ: func() (all []string) {
		for name, value := range vars {
			all = append(all, name+"="+value)
		}
		return all
	}, UID: 1000}
}

// load parses a command line and loads a config file with that content. If content is empty, there
// is no file.
func load(t *testing.T, content string, env map[string]string, args ...string) (*config.Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.json")
	if content != "" {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f, err := config.ParseFlags(append([]string{"--config", path}, args...), environment(env), kinds, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return config.Load(&f, paths.Default())
}

const two = `{"n_ctx":1000,"admission":{"queue_depth":3},"backends":[
	{"kind":"llamacpp","name":"a","n_ctx":2000,"model":{"path":"m.gguf"}},
	{"kind":"llamacpp","name":"b","n_slots":2,"model":{"builtin":"chain"}}]}`

func TestPrecedence(t *testing.T) {
	env := map[string]string{"INFERD_N_CTX": "3000", "INFERD_QUEUE_DEPTH": "5"}
	for name, test := range map[string]struct {
		env      map[string]string
		args     []string
		ctxA     int
		ctxB     int
		depth    int
		backends int
	}{
		"the file":                             {nil, nil, 2000, 1000, 3, 2},
		"a variable beats the file":            {env, nil, 3000, 3000, 5, 2},
		"a flag beats the variable":            {env, []string{"--n-ctx", "4000", "--queue-depth", "0"}, 4000, 4000, 0, 2},
		"a model on the line replaces entries": {nil, []string{"--model-path", "x.gguf"}, config.DefaultNCtx, 0, 3, 1},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := load(t, two, test.env, test.args...)
			if err != nil {
				t.Fatal(err)
			}
			if len(c.Backends) != test.backends || c.QueueDepth != test.depth || c.Backends[0].NCtx != test.ctxA {
				t.Errorf("got %+v", c)
			}
			if test.backends == 2 && (c.Backends[1].NCtx != test.ctxB || c.Backends[1].NSlots != 2 || c.Backends[0].NSlots != config.DefaultNSlots) {
				t.Errorf("got %+v", c.Backends)
			}
		})
	}
}

// An explicit zero on the command line overrides the file, like any other value.
func TestZeroFlagsBeatTheFile(t *testing.T) {
	const file = `{"backends":[{"kind":"llamacpp","name":"a","threads":2,"max_stall_ms":50,"n_gpu_layers":-1,"model":{"builtin":"chain"}}]}`
	c, err := load(t, file, nil, "--threads", "0", "--max-stall-ms", "0", "--n-gpu-layers", "0")
	if err != nil {
		t.Fatal(err)
	}
	if b := c.Backends[0]; b.Threads != 0 || b.MaxStallMS != 0 || b.NGPULayers != 0 {
		t.Errorf("got %+v", b.Limits)
	}
}

// A name belongs to one entry; an alias may belong to several.
func TestAliases(t *testing.T) {
	for name, test := range map[string]struct{ a, b, want string }{
		"of their own":              {`"name":"a","aliases":["x"]`, `"name":"b","aliases":["y"]`, ""},
		"a shared one":              {`"name":"a","aliases":["x"]`, `"name":"b","aliases":["x"]`, ""},
		"that of the entry itself":  {`"name":"a","aliases":["a"]`, `"name":"b"`, ""},
		"the name of an earlier":    {`"name":"a"`, `"name":"b","aliases":["x","a"]`, `backends[1].aliases[1] "a" is the name of an earlier entry`},
		"the name of a later entry": {`"name":"a","aliases":["b"]`, `"name":"b"`, `backends[1].name "b" is the name or an alias of an earlier entry`},
		"nothing":                   {`"name":"a","aliases":[""]`, `"name":"b"`, "backends[0].aliases[0] must not be empty"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, `{"backends":[{"kind":"mock",`+test.a+`},{"kind":"mock",`+test.b+`}]}`, nil)
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
}

// FuzzLoad checks that Load returns, for any content of the file, a valid config, or no entries and an
// error. The error names the file, unless it is ErrNoModel or concerns the TCP address.
func FuzzLoad(f *testing.F) {
	f.Add([]byte(two))
	f.Add([]byte(`{"model":{"builtin":"chain"},"n_gpu_layers":0,"engine":{"lib_dir":"x"},"colour":{"a":[1]}}`))
	f.Add([]byte(`{"surfaces":{"v1":false},"admission":{"active_permits":1,"queue_depth":2,"queue_total":3},"listen":{"tcp":"127.0.0.1:1","api_key_env":"K"},
		"backends":[{"kind":"mock","name":"m","aliases":["x"],"tokens":["a"],"token_delay_ms":1,"embed_dimensions":2,"unsupported":["embed"]}]}`))
	path := filepath.Join(f.TempDir(), "config.json")
	f.Fuzz(func(t *testing.T, content []byte) {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		flags, err := config.ParseFlags([]string{"--config", path, "--tcp-no-auth"}, environment(nil), kinds, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		c, err := config.Load(&flags, paths.Default())
		if err != nil {
			if len(c.Backends) > 0 || !errors.Is(err, config.ErrNoModel) && !strings.Contains(err.Error(), path) && !strings.Contains(err.Error(), "tcp") && !strings.Contains(err.Error(), "TCP") {
				t.Fatalf("%v, which does not say where", err)
			}
			return
		}
		names := make(map[string]bool)
		for _, b := range c.Backends {
			if b.Name == "" || names[b.Name] || slices.Contains(b.Aliases, "") {
				t.Errorf("an entry called %q, %q", b.Name, b.Aliases)
			}
			names[b.Name] = true
			if b.NCtx < b.NSlots || b.NSlots < 1 || b.Threads < 0 || b.Settings == nil {
				t.Errorf("%+v", b)
			}
			if e, ok := b.Settings.(*llamacpp.Settings); ok && e.Model == (backend.Model{}) {
				t.Errorf("%+v", e)
			}
			if m, ok := b.Settings.(*mock.Settings); ok && (m.TokenDelay < 0 || m.ReadyAfter < 0 || m.DropAfter < 0 || m.Dimensions < 0) {
				t.Errorf("%+v", m)
			}
		}
		if len(names) == 0 || c.ActivePermits < 0 || c.QueueDepth < 0 || c.QueueTotal < 0 {
			t.Errorf("%+v", c)
		}
		for _, w := range c.Warnings {
			if len(w) > 1000+len(content)+len(path) {
				t.Errorf("a warning of %d bytes", len(w))
			}
		}
	})
}

func TestSurfaces(t *testing.T) {
	const file = `{"surfaces":{"v1":false,"embed":false},"backends":[{"kind":"mock","name":"m"}]}`
	c, err := load(t, file, nil, "--embed", "--rerank=false")
	if want := (config.Surfaces{V2: true, LP: true, Embed: true}); err != nil || c.Surfaces != want {
		t.Errorf("got %+v, %v, want %+v", c.Surfaces, err, want)
	}
}

// A flag of 0 means 1, as in the reference implementation. In the config 0 means the sum of the
// slots, which is also the default.
func TestActivePermits(t *testing.T) {
	for name, test := range map[string]struct {
		config string
		env    map[string]string
		args   []string
		want   int
	}{
		"default":          {`{"backends":[{"kind":"mock","name":"m"}]}`, nil, nil, 0},
		"config":           {`{"admission":{"active_permits":3},"backends":[{"kind":"mock","name":"m"}]}`, nil, nil, 3},
		"config's 0":       {`{"admission":{"active_permits":0},"backends":[{"kind":"mock","name":"m"}]}`, nil, nil, 0},
		"flag":             {`{"admission":{"active_permits":3},"backends":[{"kind":"mock","name":"m"}]}`, nil, []string{"--active-permits", "2"}, 2},
		"flag's 0":         {`{"admission":{"active_permits":3},"backends":[{"kind":"mock","name":"m"}]}`, nil, []string{"--active-permits", "0"}, 1},
		"the variable's 0": {`{"backends":[{"kind":"mock","name":"m"}]}`, map[string]string{"INFERD_ACTIVE_PERMITS": "0"}, nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			if c, err := load(t, test.config, test.env, test.args...); err != nil || c.ActivePermits != test.want {
				t.Errorf("got %+v, %v, want %d", c, err, test.want)
			}
		})
	}
}

func TestWarnings(t *testing.T) {
	c, err := load(t, "{\n\"backend\": [],\n\"model\": {\"builtin\":\"chain\",\n\"colour\":1}}", map[string]string{"INFERD_OPENAI_API_KEY": "k"}, "--chat-template", "x")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{":2: unknown key backend", ":4: unknown key model.colour", "--chat-template is not served", "--openai-api-key is not served"} {
		if !slices.ContainsFunc(c.Warnings, func(w string) bool { return strings.Contains(w, want) }) {
			t.Errorf("no warning %q in %q", want, c.Warnings)
		}
	}
	if len(c.Warnings) != 4 {
		t.Errorf("warnings %q", c.Warnings)
	}
}

// A file that does not hold a config is refused with the reason.
func TestFilesOfNothing(t *testing.T) {
	for content, want := range map[string]string{
		"[]":                "config.json:1: the file must hold a JSON object, this is an array",
		"\n\n7":             "config.json:3: the file must hold a JSON object, this is a number",
		" \n":               "config.json is empty: it must hold a JSON object",
		"{":                 "config.json:1: unexpected EOF",
		`{"backends":7}`:    "config.json:1: backends must be an array, not a number",
		`{"backends":[[]]}`: "config.json:1: backends[0] must be an object, not an array",
	} {
		if _, err := load(t, content, nil); err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%q: %v, want %q", content, err, want)
		}
	}
}

func TestFilesThatAreRefused(t *testing.T) {
	dir := t.TempDir()
	large, full := filepath.Join(dir, "large"), filepath.Join(dir, "full")
	const mocked = `{"backends":[{"kind":"mock","name":"m"}]}`
	for name, size := range map[string]int{large: 1<<20 + 1, full: 1 << 20} {
		if err := os.WriteFile(name, []byte(mocked+strings.Repeat(" ", size-len(mocked))), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]string{
		dir:   "is not a regular file",
		large: "has more than 1048576 bytes",
		full:  "",
	} {
		f, err := config.ParseFlags([]string{"--config", path}, environment(nil), kinds, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		_, err = config.Load(&f, environment(nil))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), path+" "+want)) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
}

// Ignored settings cause warnings, even if the start fails for another reason.
func TestWarningsOfAFailure(t *testing.T) {
	for name, test := range map[string]struct{ file, err, warning string }{
		"an unknown key":     {`{"colour":1,"backends":[]}`, "must not be empty", "unknown key colour"},
		"an unknown key too": {`{"admission":{"queue_dept":1}}`, "no model is configured", "unknown key admission.queue_dept"},
		"no file":            {"", "no model is configured", "does not exist: going on without a config file"},
		"a flag":             {"{", "config.json:1:", "--chat-template is not served"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := load(t, test.file, nil, "--chat-template", "x")
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Fatalf("error %v, want %q", err, test.err)
			}
			if !slices.ContainsFunc(c.Warnings, func(w string) bool { return strings.Contains(w, test.warning) }) {
				t.Errorf("no warning %q in %q", test.warning, c.Warnings)
			}
		})
	}
}

func TestUnknownVariables(t *testing.T) {
	env := map[string]string{
		"INFERD_QUEUE_DETPH": "3", "INFERD_COLOUR": "red", "INFERD_MY_KEY": "k", "INFERD_OTHER_KEY": "k", // unknown, except the last two
		"INFERD_LOG": "info", "INFERD_LOG_DIR": "/x", "INFERD_LOG_FORMAT": "text", "INFERD_ENGINE_SHARED": "[]", "INFERD_ENGINE_LIB": "/x",
		"INFERD_FORCE_BACKEND": "cpu", "INFERD_CLI_LOG": "x", "INFERD_HTTP_LOG": "x", "INFERD_HTTP_KEY": "k", "INFERD_API_KEY": "k", "INFERD_N_GPU_LAYERS": "-1", "HOME": "/home/u",
	}
	path := filepath.Join(t.TempDir(), "config.json")
	const file = `{"listen":{"api_key_env":"INFERD_MY_KEY"},"backends":[{"kind":"mock","name":"m","api_key_env":"INFERD_OTHER_KEY"}]}`
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := config.ParseFlags([]string{"--config", path}, environment(env), kinds, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(&f, environment(env))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"the variable INFERD_COLOUR is unknown and has no effect",
		"the variable INFERD_QUEUE_DETPH is unknown and has no effect: did you mean INFERD_QUEUE_DEPTH?",
	}
	if diff := cmp.Diff(want, c.Warnings); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestUsageErrors(t *testing.T) {
	for name, args := range map[string][]string{
		"an unknown flag":    {"--nonsense"},
		"a log format":       {"--log-format", "xml"},
		"an argument":        {"serve"},
		"two transports":     {"--uds", "a", "--pipe", "b"},
		"a pipe on Linux":    {"--pipe", `\\.\pipe\inferd`},
		"a negative time":    {"--drain-timeout-secs", "-1"},
		"a word as a number": {"--n-ctx", "many"},
	} {
		if _, err := config.ParseFlags(args, environment(nil), kinds, io.Discard); err == nil || errors.Is(err, flag.ErrHelp) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := config.ParseFlags(nil, environment(map[string]string{"INFERD_N_CTX": "x"}), kinds, io.Discard); err == nil || !strings.Contains(err.Error(), "INFERD_N_CTX") {
		t.Errorf("a bad variable: %v", err)
	}
	var help strings.Builder
	if _, err := config.ParseFlags([]string{"--help"}, environment(nil), kinds, &help); !errors.Is(err, flag.ErrHelp) || !strings.Contains(help.String(), "--model-path") {
		t.Errorf("help: %v, %s", err, help.String())
	}
}

// kinds are the daemon's kinds of backends. The tests start no backend.
var kinds = []*backend.Kind{&llamacpp.Kind, &mock.Kind}

func engineOf(e *backend.Entry) *llamacpp.Settings { return e.Settings.(*llamacpp.Settings) }
