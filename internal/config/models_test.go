package config_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/internal/backend"
	"github.com/inferd-go/inferd/internal/config"
)

// A string or an object can name a model, both in an entry and at the top of the file; a flag takes
// the string.
func TestModelsByName(t *testing.T) {
	digest := strings.Repeat("0a", 32)
	for name, test := range map[string]struct {
		value string
		want  backend.Model
		err   string // the part after the position
	}{
		"a name":               {`"qwen3-0.6b"`, backend.Model{Name: "qwen3-0.6b"}, ""},
		"of a hub":             {`"hf:O/R:Q8_0@main"`, backend.Model{Name: "hf:O/R:Q8_0@main"}, ""},
		"an address":           {`"https://h/x.gguf#sha256=` + digest + `"`, backend.Model{Name: "https://h/x.gguf#sha256=" + digest}, ""},
		"a path":               {`"/m/x.gguf"`, backend.Model{Path: "/m/x.gguf"}, ""},
		"a file's address":     {`"file:///m/x"`, backend.Model{Path: "/m/x"}, ""},
		"a generated one":      {`"builtin:chain"`, backend.Model{Builtin: "chain"}, ""},
		"described":            {`{"name":"x","sha256":"` + digest + `"}`, backend.Model{Name: "x", SHA256: digest}, ""},
		"described, wholly":    {`{"name":"x","sha256":"` + digest + `","size_bytes":7,"source_url":"https://h/x","license":"l"}`, backend.Model{Name: "x", SHA256: digest, Size: 7, URL: "https://h/x", License: "l"}, ""},
		"without source":       {`{"name":"x","sha256":"` + digest + `","source_url":""}`, backend.Model{Name: "x", SHA256: digest}, ""},
		"a path and a name":    {`{"path":"p","name":"x","source_url":"https://h/x"}`, backend.Model{Path: "p"}, ""},
		"an empty string":      {`""`, backend.Model{}, `the name of the model is empty`},
		"no such built-in":     {`"builtin:gpt"`, backend.Model{}, `no built-in model is called "gpt"`},
		"out of the store":     {`"hf:../x"`, backend.Model{}, `is not an owner`},
		"a NUL":                {`"a\u0000"`, backend.Model{}, `control characters`},
		"10,000 characters":    {`"` + strings.Repeat("a", 10_000) + `"`, backend.Model{}, `10000 bytes`},
		"not encrypted":        {`"http://h/x.gguf"`, backend.Model{}, `model URL must be https://`},
		"a number":             {`7`, backend.Model{}, `must be an object, not a number`},
		"nothing":              {`{}`, backend.Model{}, `one of name, path and builtin is needed`},
		"no digest":            {`{"name":"x"}`, backend.Model{}, `sha256 is missing: a model without it is named by a string: "model": "x"`},
		"a short digest":       {`{"name":"x","sha256":"0a"}`, backend.Model{}, `sha256 must be 64 lower-case hex digits`},
		"a digest in capitals": {`{"name":"x","sha256":"` + strings.ToUpper(digest) + `"}`, backend.Model{}, `sha256 must be 64 lower-case hex digits`},
		"an http source":       {`{"name":"x","sha256":"` + digest + `","source_url":"http://h/x"}`, backend.Model{}, `source_url must be an https:// address`},
		"a name with ..":       {`{"name":"../x","sha256":"` + digest + `"}`, backend.Model{}, `name is not a valid name in the model store: model name "../x"`},
		"a negative size":      {`{"name":"x","sha256":"` + digest + `","size_bytes":-1}`, backend.Model{}, `size_bytes must be at least 0`},
	} {
		t.Run(name, func(t *testing.T) {
			for place, file := range map[string]string{"backends[0].model": `{"backends":[{"kind":"llamacpp","name":"g","model":%s}]}`, "model": `{"model":%s}`} {
				c, err := load(t, fmt.Sprintf(file, test.value), nil)
				if test.err != "" {
					if err == nil || !strings.Contains(err.Error(), place) || !strings.Contains(err.Error(), test.err) {
						t.Errorf("%s: error %v, want %q", place, err, test.err)
					}
				} else if err != nil || engineOf(c.Backends[0]).Model != test.want || len(c.Warnings) > 0 {
					t.Errorf("%s: got %+v, %v", place, c, err)
				}
			}
			if typed := strings.Trim(test.value, `"`); typed != test.value && typed != "" && !strings.Contains(typed, `\`) {
				c, err := load(t, "", nil, "--model", typed)
				if test.err != "" {
					if err == nil || !strings.Contains(err.Error(), "--model: ") || !strings.Contains(err.Error(), test.err) {
						t.Errorf("as a flag: error %v, want %q", err, test.err)
					}
				} else if err != nil || engineOf(c.Backends[0]).Model != test.want {
					t.Errorf("as a flag: got %+v, %v", c, err)
				}
			}
		})
	}
	for text, args := range map[string][]string{
		"--model and --model-path exclude each other": {"--model", "x", "--model-path", "y"},
		"--model-sha256 needs --model-path":           {"--model", "x", "--model-sha256", digest},
		"--backend llamacpp needs --model":            {"--backend", "llamacpp"},
	} {
		if _, err := load(t, "", nil, args...); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%q: %v, want %q", args, err, text)
		}
	}
}

// The catalog gives the context size of an entry that names one of its models. A size in the config
// or a flag overrides it.
func TestContextOfTheCatalog(t *testing.T) {
	catalog := filepath.Join(t.TempDir(), "catalog.json")
	text := `[{"name":"ours","file":"o.gguf","size_bytes":1,"sha256":"` + strings.Repeat("0a", 32) + `","n_ctx":3000},
		{"name":"silent","file":"s.gguf","size_bytes":1,"sha256":"` + strings.Repeat("0b", 32) + `"}]`
	if err := os.WriteFile(catalog, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		file string
		args []string
		want int
	}{
		"at the top":            {`"model":"ours"`, nil, 3000},
		"in another case":       {`"model":"OURS"`, nil, 3000},
		"in an entry":           {`"backends":[{"kind":"llamacpp","name":"g","model":"ours"}]`, nil, 3000},
		"to embed":              {`"backends":[{"kind":"llamacpp","name":"g","model":"embeddinggemma-300m"}]`, nil, 2048},
		"of the command line":   {`"model":"builtin:chain"`, []string{"--model", "ours"}, 3000},
		"written in the entry":  {`"backends":[{"kind":"llamacpp","name":"g","model":"ours","n_ctx":500}]`, nil, 500},
		"written for all":       {`"n_ctx":600,"model":"ours"`, nil, 600},
		"a flag":                {`"model":"ours"`, []string{"--n-ctx", "700"}, 700},
		"none suggested":        {`"model":"silent"`, nil, config.DefaultNCtx},
		"not in the catalog":    {`"model":"hf:O/R"`, nil, config.DefaultNCtx},
		"described by a digest": {`"model":{"name":"ours","sha256":"` + strings.Repeat("0c", 32) + `"}`, nil, config.DefaultNCtx},
		"a path":                {`"model":"./ours"`, nil, config.DefaultNCtx},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := load(t, fmt.Sprintf(`{"catalog":%q,%s}`, catalog, test.file), nil, test.args...)
			if err != nil {
				t.Fatal(err)
			}
			if got := c.Backends[0].NCtx; got != test.want || engineOf(c.Backends[0]).EmbedNCtx != test.want {
				t.Errorf("n_ctx %d, want %d, and to embed %d", got, test.want, engineOf(c.Backends[0]).EmbedNCtx)
			}
		})
	}
	// Without a config file, the catalog is that of the release, extended by the file of --catalog.
	if c, err := load(t, "", nil, "--model", "ours", "--catalog", catalog); err != nil || c.Backends[0].NCtx != 3000 {
		t.Errorf("%+v, %v", c, err)
	}
	if c, err := load(t, "", nil, "--model", "bge-reranker-v2-m3"); err != nil || c.Backends[0].NCtx != 2048 {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestModelSettings(t *testing.T) {
	const entry = `"model":"x"`
	for name, test := range map[string]struct {
		file   string
		shared string // MODELS_HOME
		args   []string
		want   config.Models
		err    string
	}{
		"defaults":           {"", "", nil, config.Models{ModelsHome: "/home/u/.local/share/models", AutoPull: true, Verify: "once"}, ""},
		"all":                {`"models_home":"~/m","auto_pull":false,"catalog":"/c","verify":"always",`, "", nil, config.Models{ModelsHome: "/home/u/m", Catalog: "/c", Verify: "always"}, ""},
		"a shared folder":    {"", "/srv", nil, config.Models{ModelsHome: "/srv", AutoPull: true, Verify: "once"}, ""},
		"the file before it": {`"models_home":"/m",`, "/srv", nil, config.Models{ModelsHome: "/m", AutoPull: true, Verify: "once"}, ""},
		"paranoid":           {`"verify":"once",`, "", []string{"--paranoid"}, config.Models{ModelsHome: "/home/u/.local/share/models", AutoPull: true, Verify: "always"}, ""},
		"a flag":             {`"auto_pull":true,`, "", []string{"--auto-pull=false"}, config.Models{ModelsHome: "/home/u/.local/share/models", Verify: "once"}, ""},
		"no word":            {`"verify":"never",`, "", nil, config.Models{}, `verify "never" is not known: want once or always`},
		"no boolean":         {`"auto_pull":"yes",`, "", nil, config.Models{}, `auto_pull must be true or false, not a string`},
	} {
		t.Run(name, func(t *testing.T) {
			for name, value := range map[string]string{"HOME": "/home/u", "XDG_DATA_HOME": "", "MODELS_HOME": test.shared} {
				t.Setenv(name, value)
			}
			c, err := load(t, "{"+test.file+entry+"}", nil, test.args...)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("%v, want %q", err, test.err)
				}
			} else if err != nil || c.Models != test.want {
				t.Errorf("got %+v, %v", c, err)
			}
		})
	}
	if _, err := config.ParseFlags([]string{"--verify", "never"}, environment(nil), kinds, io.Discard); err == nil || !strings.Contains(err.Error(), "want once or always") {
		t.Error(err)
	}
}

// model_autoselect adds models only if every entry of an engine embeds or reranks.
func TestAutoselect(t *testing.T) {
	const (
		gen   = `{"kind":"llamacpp","name":"g","model":"x"}`
		embed = `{"kind":"llamacpp","name":"e","embed":true,"n_ctx":100,"model":"y"}`
		mock  = `{"kind":"mock","name":"m"}`
	)
	for name, test := range map[string]struct{ file, want string }{
		"nothing":            {`{"model_autoselect":"auto","n_ctx":4096}`, "gemma-4-e4b=gemma-4-e4b/4096 embeddinggemma-300m=embeddinggemma-300m/2048"},
		"an empty list":      {`{"model_autoselect":"auto","backends":[]}`, "gemma-4-e4b=gemma-4-e4b/8192 embeddinggemma-300m=embeddinggemma-300m/2048"},
		"one that embeds":    {`{"model_autoselect":"auto","backends":[` + embed + `]}`, "gemma-4-e4b=gemma-4-e4b/8192 e=y/100"},
		"one that generates": {`{"model_autoselect":"auto","backends":[` + embed + `,` + gen + `]}`, "e=y/100 g=x/8192"},
		"another kind":       {`{"model_autoselect":"auto","backends":[` + mock + `]}`, "gemma-4-e4b=gemma-4-e4b/8192 m=/8192 embeddinggemma-300m=embeddinggemma-300m/2048"},
		"a model at the top": {`{"model_autoselect":"auto","model":"z"}`, "llamacpp=z/8192"},
		"switched off":       {`{"model_autoselect":"off","backends":[` + embed + `]}`, "e=y/100"},
		"off, and nothing":   {`{"model_autoselect":"off"}`, "no model is configured"},
		"a word":             {`{"model_autoselect":"on","model":"z"}`, `model_autoselect "on" is not known: off or auto`},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := load(t, test.file, nil)
			var got []string
			for _, e := range c.Backends {
				model := ""
				if s, ok := e.Settings.(interface{ Members() map[string]any }); ok {
					model, _ = s.Members()["model"].(string)
				}
				got = append(got, fmt.Sprintf("%s=%s/%d", e.Name, model, e.NCtx))
			}
			if text := strings.Join(got, " "); text != test.want && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %s, %v", text, err)
			}
		})
	}
}
