package config_test

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/inferd-go/inferd/internal/backend"
	"github.com/inferd-go/inferd/internal/backend/llamacpp"
	"github.com/inferd-go/inferd/internal/backend/mock"
	"github.com/inferd-go/inferd/internal/config"
	"github.com/inferd-go/inferd/internal/paths"
)

// environment is a Linux machine with the given variables.
func environment(vars map[string]string) paths.Env {
	return paths.Env{GOOS: "linux", Getenv: func(name string) string { return vars[name] }, Environ: func() (all []string) {
		for name, value := range vars {
			all = append(all, name+"="+value)
		}
		return all
	}, UID: 1000}
}

// load parses a command line and loads a config file of that content; none if empty.
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

// An explicit zero on the line beats the file, as every other value does.
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

func TestGPULayers(t *testing.T) {
	entries := `"backends":[{"kind":"llamacpp","name":"a","model":{"path":"m"}},{"kind":"llamacpp","name":"b","n_gpu_layers":%s,"model":{"path":"m"}}]`
	for name, test := range map[string]struct {
		top, entry string
		args       []string
		a, b       int
		err        string
	}{
		"nothing said":             {"null", "null", nil, 0, 0, ""},
		"all, for every entry":     {"-1", "null", nil, -1, -1, ""},
		"all, but none of one":     {"-1", "0", nil, -1, 0, ""},
		"some, and all of one":     {"3", "-1", nil, 3, -1, ""},
		"the flag for all":         {"3", "5", []string{"--n-gpu-layers", "-1"}, -1, -1, ""},
		"the flag for none":        {"3", "5", []string{"--n-gpu-layers=0"}, 0, 0, ""},
		"more than a model has":    {"99999", "null", nil, 99999, 99999, ""},
		"more than 32 bits":        {"0", "2147483648", nil, 0, 0, "backends[1].n_gpu_layers must be at most 2147483647"},
		"far less than 32 bits":    {"0", "-2147483649", nil, 0, 0, "backends[1].n_gpu_layers must be at least -2147483648"},
		"a fraction":               {"0", "0.5", nil, 0, 0, "backends[1].n_gpu_layers"},
		"more than 32 bits, above": {"2147483648", "0", nil, 0, 0, "n_gpu_layers must be at most"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := load(t, `{"n_gpu_layers":`+test.top+`,`+fmt.Sprintf(entries, test.entry)+`}`, nil, test.args...)
			switch {
			case test.err != "":
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("error %v, want %q", err, test.err)
				}
			case err != nil:
				t.Error(err)
			case c.Backends[0].NGPULayers != test.a || c.Backends[1].NGPULayers != test.b:
				t.Errorf("got %d and %d, want %d and %d", c.Backends[0].NGPULayers, c.Backends[1].NGPULayers, test.a, test.b)
			}
		})
	}
	for _, value := range []string{"2147483648", "-2147483649", "all"} {
		if _, err := config.ParseFlags([]string{"--n-gpu-layers", value}, environment(nil), kinds, io.Discard); err == nil || !strings.Contains(err.Error(), "n-gpu-layers") {
			t.Errorf("--n-gpu-layers %s: %v", value, err)
		}
	}
}

func TestPooling(t *testing.T) {
	for value, test := range map[string]struct{ want, err string }{
		`null`:   {"", ""},
		`""`:     {"", ""},
		`"mean"`: {"mean", ""},
		`1`:      {"mean", ""},
		`2`:      {"cls", ""},
		`3`:      {"last", ""},
		`"last"`: {"last", ""},
		`0`:      {"", `backends[0].embed_pooling 0 is no pooling`},
		`"none"`: {"", `backends[0].embed_pooling none is no pooling`},
		`4`:      {"", `backends[0].embed_pooling "4" is not known`},
		`-1`:     {"", `backends[0].embed_pooling "-1" is not known`},
		`"swim"`: {"", `backends[0].embed_pooling "swim" is not known`},
		`true`:   {"", `backends[0].embed_pooling`},
	} {
		t.Run(value, func(t *testing.T) {
			c, err := load(t, `{"backends":[{"kind":"llamacpp","name":"e","embed":true,"embed_pooling":`+value+`,"model":{"path":"m"}}]}`, nil)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("error %v, want %q", err, test.err)
				}
			} else if err != nil || engineOf(c.Backends[0]).Pooling != test.want {
				t.Errorf("got %+v, %v, want %q", c, err, test.want)
			}
			word := strings.Trim(value, `"`)
			if word == "null" || word == "true" {
				return
			}
			c, err = load(t, "", nil, "--model-path", "m", "--llamacpp-embed", "--llamacpp-embed-pooling", word)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), "--llamacpp-embed-pooling") {
					t.Errorf("as a flag: error %v", err)
				}
			} else if err != nil || engineOf(c.Backends[0]).Pooling != test.want {
				t.Errorf("as a flag: got %+v, %v, want %q", c, err, test.want)
			}
		})
	}
}

// The config that a release build of the reference writes at its first boot: models by name
// are all that this release cannot serve.
func TestFirstBootFile(t *testing.T) {
	const (
		top = `{
  "auto_pull": true,
  "models_home": null,
  "model": null,
  "backends": [`
		rest = `
  ],
  "n_ctx": 8192,
  "n_gpu_layers": -1,
  "admin_addr": null,
  "listen": null,
  "model_autoselect": "off",
  "model_autoselect_min_vram_gib": 20
}`
		writer = `
    {
      "kind": "llamacpp",
      "name": "gemma-4-e4b",
      "model": %s,
      "mmproj": %s,
      "mmproj_image_max_tokens": null,
      "n_ctx": 8192,
      "n_gpu_layers": -1,
      "embed": false,
      "embed_pooling": null,
      "embed_n_ctx": 2048,
      "rerank": false,
      "rerank_n_ctx": 2048,
      "chat_template": null
    },`
		embedder = `
    {
      "kind": "llamacpp",
      "name": "embeddinggemma-300m",
      "model": %s,
      "mmproj": null,
      "n_ctx": 2048,
      "n_gpu_layers": -1,
      "embed": true,
      "embed_pooling": null,
      "embed_n_ctx": 2048,
      "rerank": false,
      "rerank_n_ctx": 2048,
      "chat_template": null
    }`
	)
	model := func(name string) string {
		return `{"name": "` + name + `", "sha256": "` + strings.Repeat("0a", 32) + `", "size_bytes": 5126304928, "source_url": "https://example.com/` + name + `.gguf", "license": "gemma"}`
	}
	_, err := load(t, top+fmt.Sprintf(writer, model("gemma-4-e4b"), model("gemma-4-e4b-mmproj"))+fmt.Sprintf(embedder, model("embeddinggemma-300m"))+rest, nil)
	if err == nil || !strings.Contains(err.Error(), "backends[0].model: models by name need the model store") || strings.Contains(err.Error(), "gpu") {
		t.Errorf("as it is written: %v", err)
	}

	// With files in place of names it is served.
	c, err := load(t, top+fmt.Sprintf(writer, `{"path":"gen.gguf"}`, "null")+fmt.Sprintf(embedder, `{"path":"vec.gguf"}`)+rest, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []*backend.Entry{
		{
			Name: "gemma-4-e4b", Limits: backend.Limits{NCtx: 8192, NSlots: 4, NGPULayers: -1},
			Settings: &llamacpp.Settings{Model: llamacpp.Model{Path: "gen.gguf"}, EmbedNCtx: 2048, RerankNCtx: 2048},
		},
		{
			Name: "embeddinggemma-300m", Limits: backend.Limits{NCtx: 2048, NSlots: 4, NGPULayers: -1},
			Settings: &llamacpp.Settings{Model: llamacpp.Model{Path: "vec.gguf"}, Tasks: llamacpp.Tasks{Embed: true}, EmbedNCtx: 2048, RerankNCtx: 2048},
		},
	}
	if diff := cmp.Diff(want, c.Backends, cmpopts.IgnoreFields(backend.Entry{}, "Kind"), cmpopts.IgnoreUnexported(llamacpp.Settings{})); diff != "" || len(c.Warnings) > 0 {
		t.Errorf("-want +got\n%s\nwarnings %q", diff, c.Warnings)
	}
}

// Members that are null count as absent, on every level and of every kind.
func TestNullMembers(t *testing.T) {
	c, err := load(t, `{"model":null,"n_ctx":null,"n_gpu_layers":null,"engine":null,"admission":null,"surfaces":null,"listen":null,"shared_prefixes":null,
		"auto_pull":null,"models_home":null,"admin_addr":null,"model_autoselect":null,"model_autoselect_min_vram_gib":null,"colour":null,"backends":[
		{"kind":"llamacpp","name":"a","aliases":null,"model":{"path":"m","builtin":null,"sha256":null,"name":null,"size_bytes":null,"source_url":null,"license":null},
			"mmproj":null,"n_ctx":null,"n_slots":null,"threads":null,"n_gpu_layers":null,"exact":null,"generate":null,"embed":null,"rerank":null,"embed_pooling":null,"embed_n_ctx":null,
			"rerank_n_ctx":null,"max_stall_ms":null,"chat_template":null,"colour":null},
		{"kind":"mock","name":"b","tokens":null,"token_delay_ms":null,"pre_stream_error":null,"mid_stream_drop_after":null,"emit_tool_use":null,
			"ready_after_ms":null,"not_ready_after":null,"fail_first":null,"embed_dimensions":null,"v2":null,"vision":null,"audio":null,"tools":null,"unsupported":null}]}`, nil)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := load(t, `{"backends":[{"kind":"llamacpp","name":"a","model":{"path":"m"}},{"kind":"mock","name":"b"}]}`, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(plain, c, cmpopts.IgnoreUnexported(mock.Backend{}, llamacpp.Settings{}), cmpopts.IgnoreFields(backend.Entry{}, "Kind"), cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
		t.Errorf("-absent +null\n%s", diff)
	}
	for name, file := range map[string]string{
		"an entry":       `{"backends":[null]}`,
		"all entries":    `{"backends":null}`,
		"an entry's own": `{"backends":[{"kind":null,"name":"a"}]}`,
	} {
		if _, err := load(t, file, nil); err == nil || !strings.Contains(err.Error(), "kind is missing") && !errors.Is(err, config.ErrNoModel) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A kind that is not known is named, whatever the types of its members.
func TestUnknownKind(t *testing.T) {
	for name, test := range map[string]struct{ entry, want string }{
		"of nobody":                        {`{"kind":"vllm","name":"a"}`, `backends[1].kind "vllm" is not known: llamacpp or mock`},
		"with members of other types":      {`{"kind":"vllm","name":"a","model":"gpt","tokens":7}`, `backends[1].kind "vllm" is not known: llamacpp or mock`},
		"of the reference":                 {`{"kind":"openai-compat","name":"a","base_url":"https://example.com","model":"gpt","timeout_secs":300}`, `backends[1].kind "openai-compat" is not served by this release yet`},
		"of the reference, for the cloud":  {`{"kind":"bedrock-invoke","name":"a","region":"r","model_id":"m"}`, `backends[1].kind "bedrock-invoke" is not served by this release yet`},
		"none":                             {`{"name":"a","model":"x"}`, `backends[1].kind is missing`},
		"one that is, with a wrong member": {`{"kind":"llamacpp","name":"a","model":"x"}`, `backends[1].model`},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := load(t, `{"backends":[{"kind":"mock","name":"m"},`+test.entry+`]}`, nil); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
}

func TestModels(t *testing.T) {
	digest := strings.Repeat("0a", 32)
	for name, test := range map[string]struct {
		args []string
		want llamacpp.Model
		err  string
	}{
		"a file":               {[]string{"--model-path", "m.gguf"}, llamacpp.Model{Path: "m.gguf"}, ""},
		"with its digest":      {[]string{"--model-path", "m.gguf", "--model-sha256", digest}, llamacpp.Model{Path: "m.gguf", SHA256: digest}, ""},
		"a built-in one":       {[]string{"--model-path", "builtin:loop"}, llamacpp.Model{Builtin: "loop"}, ""},
		"one that is not":      {[]string{"--model-path", "builtin:gpt"}, llamacpp.Model{}, "gpt"},
		"a digest of nothing":  {[]string{"--model-sha256", digest}, llamacpp.Model{}, "--model-path"},
		"a digest in capitals": {[]string{"--model-path", "m", "--model-sha256", strings.ToUpper(digest)}, llamacpp.Model{}, "64 lower-case hex"},
		"no model at all":      {nil, llamacpp.Model{}, "builtin:chain"},
		"a kind without model": {[]string{"--backend", "llamacpp"}, llamacpp.Model{}, "--model-path"},
		"an unknown kind":      {[]string{"--backend", "vllm"}, llamacpp.Model{}, "vllm"},
		"more slots than room": {[]string{"--model-path", "m", "--n-ctx", "3"}, llamacpp.Model{}, "n_ctx 3 is less than n_slots 4"},
		"too many slots":       {[]string{"--model-path", "m", "--n-slots", "1000"}, llamacpp.Model{}, "n_slots"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := load(t, "", nil, test.args...)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("error %v, want something of %q", err, test.err)
				}
				return
			}
			if err != nil || engineOf(c.Backends[0]).Model != test.want {
				t.Errorf("got %+v, %v", c, err)
			}
		})
	}
}

func TestMockKnobs(t *testing.T) {
	c, err := load(t, `{"backends":[{"kind":"mock","name":"m","tokens":[],"token_delay_ms":20,"pre_stream_error":"internal","mid_stream_drop_after":2,
		"emit_tool_use":"f","thinking_tokens":["hm"],"ready_after_ms":30,"not_ready_after":3,"fail_first":1,"embed_dimensions":4,"n_slots":1,
		"v2":false,"embed":false,"rerank":false,"vision":true,"audio":true,"tools":true,"unsupported":["embed","rerank"]},
		{"kind":"mock","name":"plain"}]}`, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []*mock.Settings{{
		Backend: mock.Backend{
			Tokens: []string{}, TokenDelay: 20 * time.Millisecond, PreStream: "internal", DropAfter: 2, ToolUse: "f", Thoughts: []string{"hm"}, NotReadyAfter: 3,
			FailFirst: 1, Dimensions: 4, NoEmbed: true, NoRerank: true, NoV2: true, Name: "m",
		},
		ReadyAfter: 30 * time.Millisecond, Vision: true, Audio: true, Tools: true,
	}, {Backend: mock.Backend{Name: "plain"}, V2: true, Embed: true, Rerank: true}}
	for i, b := range c.Backends {
		if diff := cmp.Diff(backend.Settings(want[i]), b.Settings, cmpopts.IgnoreUnexported(mock.Backend{})); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
	}
	if len(c.Warnings) > 0 {
		t.Errorf("warnings %q", c.Warnings)
	}
	for _, knob := range []string{`"pre_stream_error":"tired"`, `"unsupported":["tired"]`} {
		if _, err := load(t, `{"backends":[{"kind":"mock","name":"m",`+knob+`}]}`, nil); err == nil || !strings.Contains(err.Error(), "tired") {
			t.Errorf("%s: %v", knob, err)
		}
	}
	for knob, value := range map[string]int{
		"token_delay_ms": -1, "ready_after_ms": math.MaxInt64, "mid_stream_drop_after": -1, "not_ready_after": -1, "fail_first": -1, "embed_dimensions": 8193,
	} {
		_, err := load(t, fmt.Sprintf(`{"backends":[{"kind":"mock","name":"m",%q:%d}]}`, knob, value), nil)
		if err == nil || !strings.Contains(err.Error(), "backends[0]."+knob+" must be at ") {
			t.Errorf("%s %d: %v", knob, value, err)
		}
	}
}

// A name or alias leads to one entry, or to several that agreed to it by sharing an alias.
func TestAliases(t *testing.T) {
	for name, test := range map[string]struct{ a, b, want string }{
		"of their own":              {`"name":"a","aliases":["x"]`, `"name":"b","aliases":["y"]`, ""},
		"a shared one":              {`"name":"a","aliases":["x"]`, `"name":"b","aliases":["x"]`, ""},
		"that of the entry itself":  {`"name":"a","aliases":["a"]`, `"name":"b"`, ""},
		"the name of an earlier":    {`"name":"a"`, `"name":"b","aliases":["x","a"]`, `backends[1].aliases[1] "a" is the name of another`},
		"the name of a later entry": {`"name":"a","aliases":["b"]`, `"name":"b"`, `backends[1].name "b" is taken`},
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

func TestShared(t *testing.T) {
	engines := `"backends":[{"kind":"llamacpp","name":"a","aliases":["x"],"max_stall_ms":250,"model":{"builtin":"chain"}},{"kind":"mock","name":"m"},
		{"kind":"llamacpp","name":"e","embed":true,"model":{"builtin":"embed"}}`
	for name, test := range map[string]struct {
		shared, more string
		want         string // of the error, or else the texts of the first entry
	}{
		"the only one that can be meant": {`[{"text":"one"},{"text":"two"}]`, "", `["one" "two"]`},
		"by its name":                    {`[{"model":"a","text":"one"}]`, "", `["one"]`},
		"by its alias":                   {`[{"model":"x","text":"one"}]`, "", `["one"]`},
		"no text":                        {`[{"model":"a"}]`, "", "shared_prefixes[0].text must not be empty"},
		"nobody":                         {`[{"model":"b","text":"one"}]`, "", `no entry is called "b"`},
		"one of several":                 {`[{"text":"one"}]`, `,{"kind":"llamacpp","name":"b","model":{"builtin":"loop"}}`, "must say which entry"},
		"a mock":                         {`[{"model":"m","text":"one"}]`, "", "does not generate"},
		"one that may not generate":      {`[{"model":"v","text":"one"}]`, `,{"kind":"llamacpp","name":"v","generate":false,"model":{"builtin":"chain"}}`, `"v" does not generate`},
		"one that embeds, too":           {`[{"model":"e","text":"one"}]`, "", `[]`},
		"too much":                       {`[{"text":"` + strings.Repeat("x", 100_000) + `"}]`, "", "more than"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := load(t, `{"shared_prefixes":`+test.shared+`,`+engines+test.more+`]}`, nil)
			switch {
			case err != nil && !strings.Contains(err.Error(), test.want):
				t.Errorf("%v, want %q", err, test.want)
			case err == nil && (fmt.Sprintf("%q", c.Backends[0].Shared) != test.want || c.Backends[0].MaxStallMS != 250 || len(c.Warnings) > 0):
				t.Errorf("%q, %d ms, warnings %q", c.Backends[0].Shared, c.Backends[0].MaxStallMS, c.Warnings)
			}
		})
	}
	if c, err := load(t, `{`+engines+`]}`, nil, "--max-stall-ms", "70"); err != nil || c.Backends[0].MaxStallMS != 70 || c.Backends[2].MaxStallMS != 70 {
		t.Errorf("%+v, %v", c, err)
	}
}

// FuzzLoad reads any config file: it is refused with an error that names it, or its content
// makes sense.
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
			if e, ok := b.Settings.(*llamacpp.Settings); ok && e.Model == (llamacpp.Model{}) {
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

func TestRoles(t *testing.T) {
	entry := func(more string) string {
		return `{"backends":[{"kind":"llamacpp","name":"e","n_ctx":9000,"model":{"path":"m"}` + more + `}]}`
	}
	type contexts struct{ generate, embed, rerank int }
	for name, test := range map[string]struct {
		file  string
		args  []string
		tasks llamacpp.Tasks
		nCtx  contexts
		err   string
	}{
		"the model says":           {entry(""), nil, llamacpp.Tasks{}, contexts{9000, 9000, 9000}, ""},
		"embed":                    {entry(`,"embed":true,"embed_pooling":"cls"`), nil, llamacpp.Tasks{Embed: true}, contexts{9000, 2048, 2048}, ""},
		"rerank":                   {entry(`,"rerank":true,"rerank_n_ctx":512`), nil, llamacpp.Tasks{Rerank: true}, contexts{9000, 2048, 512}, ""},
		"both":                     {entry(`,"embed":true,"rerank":true`), nil, llamacpp.Tasks{Embed: true, Rerank: true}, contexts{9000, 2048, 2048}, ""},
		"no generation":            {entry(`,"generate":false,"embed":true,"n_slots":4`), []string{"--n-ctx", "1"}, llamacpp.Tasks{NoGenerate: true, Embed: true}, contexts{1, 2048, 2048}, ""},
		"the default, in words":    {entry(`,"generate":true,"embed":false`), nil, llamacpp.Tasks{}, contexts{9000, 9000, 9000}, ""},
		"an unknown pooling":       {entry(`,"embed_pooling":"swimming"`), nil, llamacpp.Tasks{}, contexts{}, "swimming"},
		"no context":               {entry(`,"embed":true,"embed_n_ctx":0`), nil, llamacpp.Tasks{}, contexts{}, "embed_n_ctx must be at least 1"},
		"no context to generate":   {entry(`,"embed":true,"n_slots":4`), []string{"--n-ctx", "1"}, llamacpp.Tasks{}, contexts{}, "n_ctx 1 is less than n_slots 4"},
		"embed, on the line":       {"", []string{"--model-path", "m", "--llamacpp-embed", "--llamacpp-embed-n-ctx", "1024", "--n-ctx", "50"}, llamacpp.Tasks{Embed: true}, contexts{50, 1024, 2048}, ""},
		"both, on the line":        {"", []string{"--model-path", "m", "--llamacpp-embed", "--llamacpp-rerank"}, llamacpp.Tasks{Embed: true, Rerank: true}, contexts{8192, 2048, 2048}, ""},
		"generation off, there":    {"", []string{"--model-path", "m", "--llamacpp-generate=false"}, llamacpp.Tasks{NoGenerate: true}, contexts{8192, 8192, 8192}, ""},
		"a model without a list":   {`{"model":{"path":"m"}}`, nil, llamacpp.Tasks{}, contexts{8192, 8192, 8192}, ""},
		"the flags are not for it": {entry(""), []string{"--llamacpp-embed"}, llamacpp.Tasks{}, contexts{9000, 9000, 9000}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := load(t, test.file, nil, test.args...)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("error %v, want something of %q", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			b := engineOf(c.Backends[0])
			if got := (contexts{c.Backends[0].NCtx, b.EmbedNCtx, b.RerankNCtx}); b.Tasks != test.tasks || got != test.nCtx {
				t.Errorf("got %+v with %+v", b.Tasks, got)
			}
		})
	}
}

// Exact is a setting of each entry; its flag, also switched off, is for all.
func TestExact(t *testing.T) {
	const file = `{"backends":[{"kind":"llamacpp","name":"a","exact":true,"model":{"path":"m"}},{"kind":"llamacpp","name":"b","model":{"path":"m"}}]}`
	for name, test := range map[string]struct {
		file string
		args []string
		want []bool
	}{
		"of one":         {file, nil, []bool{true, false}},
		"of all":         {file, []string{"--exact"}, []bool{true, true}},
		"of none":        {file, []string{"--exact=false"}, []bool{false, false}},
		"on the line":    {"", []string{"--model-path", "m", "--exact"}, []bool{true}},
		"not by default": {"", []string{"--model-path", "m"}, []bool{false}},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := load(t, test.file, nil, test.args...)
			if err != nil {
				t.Fatal(err)
			}
			var got []bool
			for _, b := range c.Backends {
				got = append(got, b.Exact)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("%v, want %v", got, test.want)
			}
		})
	}
	if _, err := load(t, `{"backends":[{"kind":"llamacpp","name":"a","exact":1,"model":{"path":"m"}}]}`, nil); err == nil || !strings.Contains(err.Error(), "backends[0].exact") {
		t.Errorf("a number: %v", err)
	}
}

func TestSurfaces(t *testing.T) {
	const file = `{"surfaces":{"v1":false,"embed":false},"backends":[{"kind":"mock","name":"m"}]}`
	c, err := load(t, file, nil, "--embed", "--rerank=false")
	if want := (config.Surfaces{V2: true, LP: true, Embed: true}); err != nil || c.Surfaces != want {
		t.Errorf("got %+v, %v, want %+v", c.Surfaces, err, want)
	}
}

// The flag's 0 is 1, as in the reference; the config's and the default are the sum of the slots.
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

// A file that holds something else is refused in words.
func TestFilesOfNothing(t *testing.T) {
	for content, want := range map[string]string{
		"[]":                "config.json:1: the file must hold a JSON object, this is an array",
		"\n\n7":             "config.json:3: the file must hold a JSON object, this is a number",
		" \n":               "config.json is empty: it must hold a JSON object",
		"{":                 "config.json:1: unexpected EOF",
		`{"backends":7}`:    "config.json:1: backends: a number does not fit here",
		`{"backends":[[]]}`: "config.json:1: backends[0]: an array does not fit here",
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

// Ignored settings are named, also if the start fails for another reason.
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
		"INFERD_QUEUE_DETPH": "3", "INFERD_COLOUR": "red", "INFERD_MY_KEY": "k", "INFERD_OTHER_KEY": "k", // not known, but for the last two
		"INFERD_LOG": "info", "INFERD_LOG_DIR": "/x", "INFERD_LOG_FORMAT": "text", "INFERD_ENGINE_SHARED": "[]", "INFERD_ENGINE_LIB": "/x",
		"INFERD_FORCE_BACKEND": "cpu", "INFERD_CLI_LOG": "x", "INFERD_HTTP_LOG": "x", "INFERD_API_KEY": "k", "INFERD_N_GPU_LAYERS": "-1", "HOME": "/home/u",
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
		"the variable INFERD_COLOUR has no meaning",
		"the variable INFERD_QUEUE_DETPH has no meaning: did you mean INFERD_QUEUE_DEPTH?",
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

func TestLocate(t *testing.T) {
	beside := func(dir string) config.Sockets {
		return config.Sockets{
			Lock: dir + "/inferd.lock", Admin: dir + "/admin.sock", Control: dir + "/control.sock",
			V1: dir + "/infer.sock", V2: dir + "/infer.v2.sock", LP: dir + "/inferd.sock",
			Embed: dir + "/infer.embed.sock", Rerank: dir + "/infer.rerank.sock",
		}
	}
	mine := beside("/x")
	mine.V1 = "/x/my.sock"
	linux := environment(map[string]string{"HOME": "/home/u"})
	windows := paths.Env{GOOS: "windows", Getenv: func(name string) string { return map[string]string{"LOCALAPPDATA": `C:\L`}[name] }}
	pipes := func(base string) config.Sockets {
		at := `\\.\pipe\` + base
		return config.Sockets{
			Lock: `C:\L\inferd\` + base + ".lock", Admin: at + "-admin", Control: at + "-control",
			V1: at + "-infer", V2: at + "-infer-v2", LP: at, Embed: at + "-infer-embed", Rerank: at + "-infer-rerank",
		}
	}
	for name, test := range map[string]struct {
		env  paths.Env
		args []string
		want config.Sockets
	}{
		"nothing said":           {linux, nil, beside("/home/u/.inferd/run")},
		"the main socket":        {linux, []string{"--uds", "/x/my.sock"}, mine},
		"the newest main socket": {linux, []string{"--uds", "/x/inferd.sock"}, beside("/x")},
		"each by itself": {linux, []string{
			"--uds", "/x/a.sock", "--v1-addr", "/y/b", "--admin-addr", "/y/c", "--control-addr", "/y/d", "--lock", "/y/e",
			"--v2-addr", "/y/f", "--lp-addr", "/y/g", "--embed-addr", "/y/h", "--rerank-addr", "/y/i",
		}, config.Sockets{
			V1: "/y/b", Admin: "/y/c", Control: "/y/d", Lock: "/y/e", V2: "/y/f", LP: "/y/g", Embed: "/y/h", Rerank: "/y/i",
		}},
		"pipes":                {windows, nil, pipes("inferd")},
		"the main pipe":        {windows, []string{"--pipe", `\\.\pipe\mine`}, pipes("mine")},
		"the main pipe of old": {windows, []string{"--pipe", `\\.\pipe\mine-infer`}, pipes("mine")},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := config.ParseFlags(test.args, test.env, kinds, io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			if got := config.Locate(&f, test.env); got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

func TestTCP(t *testing.T) {
	const (
		rest  = `"backends":[{"kind":"mock","name":"m"}]}`
		plain = "{" + rest
		addr  = "127.0.0.1:4000"
	)
	key := map[string]string{"INFERD_API_KEY": "k", "OTHER": "o", "INFERD_V2_TCP": ""}
	for name, test := range map[string]struct {
		config string
		env    map[string]string
		args   []string
		want   config.TCP // without KeyVariables
		fails  string
		warns  int
	}{
		"none":                   {plain, nil, nil, config.TCP{}, "", 0},
		"a key alone":            {plain, key, nil, config.TCP{Key: "k"}, "", 0},
		"a flag":                 {plain, key, []string{"--tcp", addr}, config.TCP{V1: netip.MustParseAddrPort(addr), Key: "k"}, "", 0},
		"all of them":            {plain, key, []string{"--tcp", addr, "--v2-tcp", "[::1]:1", "--embed-tcp", "127.8.8.8:2"}, config.TCP{V1: netip.MustParseAddrPort(addr), V2: netip.MustParseAddrPort("[::1]:1"), Embed: netip.MustParseAddrPort("127.8.8.8:2"), Key: "k"}, "", 0},
		"the config":             {`{"listen":{"tcp":"127.0.0.1:1","tcp_v2":"127.0.0.1:2","tcp_embed":"127.0.0.1:3","api_key_env":"OTHER"},` + rest, map[string]string{"OTHER": "o"}, nil, config.TCP{V1: netip.MustParseAddrPort("127.0.0.1:1"), V2: netip.MustParseAddrPort("127.0.0.1:2"), Embed: netip.MustParseAddrPort("127.0.0.1:3"), Key: "o"}, "", 0},
		"flags beat the config":  {`{"listen":{"tcp":"127.0.0.1:1","api_key_env":"OTHER"},` + rest, key, []string{"--tcp", addr}, config.TCP{V1: netip.MustParseAddrPort(addr), Key: "k"}, "", 0},
		"a key as a flag":        {plain, nil, []string{"--tcp", addr, "--api-key", "f"}, config.TCP{V1: netip.MustParseAddrPort(addr), Key: "f"}, "", 1},
		"an empty key":           {plain, map[string]string{"INFERD_API_KEY": ""}, []string{"--tcp", addr}, config.TCP{}, "INFERD_API_KEY", 0},
		"no key":                 {plain, nil, []string{"--tcp", addr}, config.TCP{}, "--tcp-no-auth", 0},
		"no key, on purpose":     {plain, nil, []string{"--tcp", addr, "--tcp-no-auth"}, config.TCP{V1: netip.MustParseAddrPort(addr)}, "", 1},
		"not a loopback address": {plain, key, []string{"--tcp", "0.0.0.0:1"}, config.TCP{}, "not a loopback address", 0},
		"a name":                 {plain, key, []string{"--v2-tcp", "localhost:1"}, config.TCP{}, "bad tcp addr: --v2-tcp", 0},
		"no port":                {plain, key, []string{"--embed-tcp", "127.0.0.1"}, config.TCP{}, "bad tcp addr: --embed-tcp", 0},
		"a bad one in the file":  {`{"listen":{"tcp_v2":"x"},` + rest, key, nil, config.TCP{}, "bad tcp addr: listen.tcp_v2", 0},
		"switched off":           {plain, key, []string{"--tcp", addr, "--v1=false"}, config.TCP{}, "switched off", 0},
		"an unknown member":      {`{"listen":{"udp":"x"},` + rest, nil, nil, config.TCP{}, "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "config.json")
			if err := os.WriteFile(path, []byte(test.config), 0o600); err != nil {
				t.Fatal(err)
			}
			env := environment(test.env)
			f, err := config.ParseFlags(append([]string{"--config", path}, test.args...), env, kinds, io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			c, err := config.Load(&f, env)
			if test.fails != "" {
				if err == nil || !strings.Contains(err.Error(), test.fails) {
					t.Errorf("got %v, want an error with %q", err, test.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if c.TCP.KeyVariables = nil; !reflect.DeepEqual(c.TCP, test.want) || len(c.Warnings) != test.warns {
				t.Errorf("got %+v, warnings %q, want %+v", c.TCP, c.Warnings, test.want)
			}
		})
	}
}

// kinds are those of the daemon; nothing is started.
var kinds = []*backend.Kind{&llamacpp.Kind, &mock.Kind}

func engineOf(e *backend.Entry) *llamacpp.Settings { return e.Settings.(*llamacpp.Settings) }
