package config_test

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
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
)

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
		`0`:      {"", `backends[0].embed_pooling 0 means no pooling`},
		`"none"`: {"", `backends[0].embed_pooling none means no pooling`},
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

// The config file that a release build of the reference implementation writes at its first start
// can be loaded.
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
	c, err := load(t, top+fmt.Sprintf(writer, model("gemma-4-e4b"), model("gemma-4-e4b-mmproj"))+fmt.Sprintf(embedder, model("embeddinggemma-300m"))+rest, nil)
	if err != nil || len(c.Backends) != 2 || !slices.Equal(c.Warnings, []string{"backends[0].mmproj has no effect in this release"}) {
		t.Fatalf("as it is written: %+v, %v", c, err)
	}
	for _, e := range c.Backends {
		want := backend.Model{Name: e.Name, SHA256: strings.Repeat("0a", 32), Size: 5126304928, URL: "https://example.com/" + e.Name + ".gguf", License: "gemma"}
		if got := engineOf(e).Model; got != want {
			t.Errorf("%s: got %+v, want %+v", e.Name, got, want)
		}
	}
	if !c.AutoPull || c.Verify != config.VerifyOnce || c.ModelsHome == "" {
		t.Errorf("got %+v", c.Models)
	}

	// The same file can be loaded with paths in place of names.
	c, err = load(t, top+fmt.Sprintf(writer, `{"path":"gen.gguf"}`, "null")+fmt.Sprintf(embedder, `{"path":"vec.gguf"}`)+rest, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []*backend.Entry{
		{
			Name: "gemma-4-e4b", Limits: backend.Limits{NCtx: 8192, NSlots: 4, NGPULayers: -1},
			Settings: &llamacpp.Settings{Model: backend.Model{Path: "gen.gguf"}, EmbedNCtx: 2048, RerankNCtx: 2048},
		},
		{
			Name: "embeddinggemma-300m", Limits: backend.Limits{NCtx: 2048, NSlots: 4, NGPULayers: -1},
			Settings: &llamacpp.Settings{Model: backend.Model{Path: "vec.gguf"}, Tasks: llamacpp.Tasks{Embed: true}, EmbedNCtx: 2048, RerankNCtx: 2048},
		},
	}
	if diff := cmp.Diff(want, c.Backends, cmpopts.IgnoreFields(backend.Entry{}, "Kind"), cmpopts.IgnoreUnexported(llamacpp.Settings{})); diff != "" || len(c.Warnings) > 0 {
		t.Errorf("-want +got\n%s\nwarnings %q", diff, c.Warnings)
	}
}

// Members that are null count as absent, at every level and for every kind of backend.
func TestNullMembers(t *testing.T) {
	c, err := load(t, `{"model":null,"n_ctx":null,"n_gpu_layers":null,"engine":null,"admission":null,"surfaces":null,"listen":null,"shared_prefixes":null,
		"auto_pull":null,"models_home":null,"admin_addr":null,"model_autoselect":null,"model_autoselect_min_vram_gib":null,"colour":null,"backends":[
		{"kind":"llamacpp","name":"a","aliases":null,"model":{"path":"m","builtin":null,"sha256":null,"name":null,"size_bytes":null,"source_url":null,"license":null},
			"mmproj":null,"n_ctx":null,"n_slots":null,"threads":null,"n_gpu_layers":null,"exact":null,"generate":null,"embed":null,"rerank":null,"embed_pooling":null,"embed_n_ctx":null,
			"rerank_n_ctx":null,"max_stall_ms":null,"chat_template":null,"colour":null},
		{"kind":"mock","name":"b","tokens":null,"token_delay_ms":null,"pre_stream_error":null,"mid_stream_drop_after":null,"emit_tool_use":null,"emit_tool_input":null,"emit_tool_once":null,
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

// The error for an unknown kind names it, whatever the types of the other members are.
func TestUnknownKind(t *testing.T) {
	for name, test := range map[string]struct{ entry, want string }{
		"an unknown one":                   {`{"kind":"vllm","name":"a"}`, `backends[1].kind "vllm" is not known: want llamacpp or mock`},
		"with members of other types":      {`{"kind":"vllm","name":"a","model":"gpt","tokens":7}`, `backends[1].kind "vllm" is not known: want llamacpp or mock`},
		"of the reference":                 {`{"kind":"openai-compat","name":"a","base_url":"https://example.com","model":"gpt","timeout_secs":300}`, `backends[1].kind "openai-compat" is not served by this release yet`},
		"of the reference, for the cloud":  {`{"kind":"bedrock-invoke","name":"a","region":"r","model_id":"m"}`, `backends[1].kind "bedrock-invoke" is not served by this release yet`},
		"none":                             {`{"name":"a","model":"x"}`, `backends[1].kind is missing`},
		"one that is, with a wrong member": {`{"kind":"llamacpp","name":"a","model":7}`, `backends[1].model`},
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
		want backend.Model
		err  string
	}{
		"a file":               {[]string{"--model-path", "m.gguf"}, backend.Model{Path: "m.gguf"}, ""},
		"with its digest":      {[]string{"--model-path", "m.gguf", "--model-sha256", digest}, backend.Model{Path: "m.gguf", SHA256: digest}, ""},
		"a built-in one":       {[]string{"--model-path", "builtin:loop"}, backend.Model{Builtin: "loop"}, ""},
		"one that is not":      {[]string{"--model-path", "builtin:gpt"}, backend.Model{}, "gpt"},
		"a digest of nothing":  {[]string{"--model-sha256", digest}, backend.Model{}, "--model-path"},
		"a digest in capitals": {[]string{"--model-path", "m", "--model-sha256", strings.ToUpper(digest)}, backend.Model{}, "64 lower-case hex"},
		"no model at all":      {nil, backend.Model{}, "builtin:chain"},
		"a kind without model": {[]string{"--backend", "llamacpp"}, backend.Model{}, "--model-path"},
		"an unknown kind":      {[]string{"--backend", "vllm"}, backend.Model{}, "vllm"},
		"more slots than room": {[]string{"--model-path", "m", "--n-ctx", "3"}, backend.Model{}, "n_ctx 3 is less than n_slots 4"},
		"too many slots":       {[]string{"--model-path", "m", "--n-slots", "1000"}, backend.Model{}, "n_slots"},
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
		"emit_tool_use":"f","emit_tool_input":{"a":[1]},"emit_tool_once":true,"thinking_tokens":["hm"],"ready_after_ms":30,"not_ready_after":3,"fail_first":1,"embed_dimensions":4,"n_slots":1,
		"v2":false,"embed":false,"rerank":false,"vision":true,"audio":true,"tools":true,"unsupported":["embed","rerank"]},
		{"kind":"mock","name":"plain"}]}`, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []*mock.Settings{{
		Backend: mock.Backend{
			Tokens: []string{}, TokenDelay: 20 * time.Millisecond, PreStream: "internal", DropAfter: 2, ToolUse: "f", ToolInput: []byte(`{"a":[1]}`), ToolOnce: true, Thoughts: []string{"hm"},
			NotReadyAfter: 3, FailFirst: 1, Dimensions: 4, NoEmbed: true, NoRerank: true, NoV2: true, Name: "m",
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
	for knob, want := range map[string]string{
		`"pre_stream_error":"tired"`: "tired", `"unsupported":["tired"]`: "tired",
		`"prompt_tokens":1,"cached_tokens":2`: "backends[0].cached_tokens must be at most prompt_tokens",
		`"emit_tool_input":"{}"`:              "backends[0].emit_tool_input must be an object", `"emit_tool_input":[]`: "must be an object", `"emit_tool_once":1`: "emit_tool_once",
	} {
		if _, err := load(t, `{"backends":[{"kind":"mock","name":"m",`+knob+`}]}`, nil); err == nil || !strings.Contains(err.Error(), want) {
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
