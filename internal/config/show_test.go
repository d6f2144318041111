package config_test

import (
	"errors"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/inferd-go/inferd/internal/backend"
	"github.com/inferd-go/inferd/internal/backend/llamacpp"
	"github.com/inferd-go/inferd/internal/backend/mock"
	"github.com/inferd-go/inferd/internal/config"
	"github.com/inferd-go/inferd/internal/modelname"
	"github.com/inferd-go/inferd/internal/paths"
)

// The text that Effective returns loads as the same config, and contains no key.
func TestEffective(t *testing.T) {
	digest := strings.Repeat("0a", 32)
	for name, test := range map[string]struct {
		file string
		args []string
	}{
		"entries": {`{"n_ctx":4096,"admission":{"queue_depth":3,"queue_total":0},"listen":{"tcp":"127.0.0.1:1","api_key_env":"THE_KEY"},"verify":"always","auto_pull":false,
			"http":{"listen":["127.0.0.1:9"],"hosts":["h"],"sock":false,"keys":[{"name":"k","key_env":"THE_KEY"},{"name":"f","key_file":"/k"}]},
			"shared_prefixes":[{"model":"a","text":"be kind"}],"surfaces":{"rerank":false},"backends":[
			{"kind":"llamacpp","name":"a","aliases":["x","y"],"model":"hf:O/R","exact":true},
			{"kind":"llamacpp","name":"b","embed":true,"embed_pooling":1,"n_slots":2,"model":{"name":"d","sha256":"` + digest + `","size_bytes":9,"source_url":"https://h/d"}},
			{"kind":"llamacpp","name":"c","generate":false,"model":{"path":"m.gguf","sha256":"` + digest + `"}},
			{"kind":"mock","name":"m","tokens":[],"thinking_tokens":["t"],"token_delay_ms":7,"unsupported":["rerank"],"embed":false}]}`, nil},
		"flags":           {`{"model":{"builtin":"chain"}}`, []string{"--n-ctx", "100", "--threads", "2", "--queue-depth=0", "--api-key", "secret-key", "--tcp", "127.0.0.1:2"}},
		"a model by flag": {`{"models_home":"/m"}`, []string{"--model", "qwen3-0.6b"}},
		"chosen":          {`{"model_autoselect":"auto"}`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("THE_KEY", "secret-key")
			path := filepath.Join(t.TempDir(), "config.json")
			if err := os.WriteFile(path, []byte(test.file), 0o600); err != nil {
				t.Fatal(err)
			}
			flags, err := config.ParseFlags(append([]string{"--config", path}, test.args...), environment(nil), kinds, io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			text, _, err := config.Effective(&flags, paths.Default())
			if err != nil || strings.Contains(string(text), "secret-key") {
				t.Fatalf("%v: %s", err, text)
			}
			want, err := config.Load(&flags, paths.Default())
			if err != nil {
				t.Fatal(err)
			}
			got, err := load(t, string(text), nil, "--api-key", "secret-key")
			if err != nil {
				t.Fatalf("%v: %s", err, text)
			}
			if len(got.Warnings) > 1 { // the first one is about the flag
				t.Errorf("warnings %q", got.Warnings)
			}
			got.Warnings, want.Warnings = nil, nil
			got.TCP.Key, want.TCP.Key, got.TCP.KeyVariables, want.TCP.KeyVariables = "", "", nil, nil
			if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(mock.Backend{}, llamacpp.Settings{}), cmpopts.IgnoreFields(backend.Entry{}, "Kind"), cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
				t.Errorf("-want +got\n%s\n%s", diff, text)
			}
		})
	}
	flags, err := config.ParseFlags(nil, environment(nil), kinds, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	flags.ConfigFile = filepath.Join(t.TempDir(), "none.json")
	if _, warnings, err := config.Effective(&flags, paths.Default()); !errors.Is(err, config.ErrNoModel) || len(warnings) != 1 {
		t.Errorf("%v, warnings %q", err, warnings)
	}
}

// The text that First returns can be loaded, and has the digests of the catalog.
func TestFirst(t *testing.T) {
	flags, err := config.ParseFlags(nil, environment(nil), kinds, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	text, err := flags.First(modelname.Embedded(), append(slices.Clone(config.FirstModels), "bge-reranker-v2-m3", "hf:O/My-Model-GGUF:Q8_0", "ollama:ns/a:b", "/m/x.gguf")...)
	if err != nil {
		t.Fatal(err)
	}
	c, err := load(t, string(text), nil)
	if err != nil || len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], "mmproj has no effect") {
		t.Fatalf("%v, warnings %q: %s", err, c.Warnings, text)
	}
	var names []string
	for _, e := range c.Backends {
		names = append(names, e.Name)
	}
	if got, want := strings.Join(names, " "), "gemma-4-e4b embeddinggemma-300m bge-reranker-v2-m3 my-model a gen"; got != want {
		t.Errorf("entries %s, want %s", got, want)
	}
	gen, embed, rerank := c.Backends[0], c.Backends[1], c.Backends[2]
	if m := engineOf(gen).Model; m.SHA256 != "30d1e7949597a3446726064e80b876fd1b5cba4aa6eec53d27afa420e731fb36" || m.Size != 5126304928 || !strings.Contains(m.URL, "0720adb23527c2cd5ea01d1db067cd960327fdac") || gen.NCtx != 8192 {
		t.Errorf("got %+v", m)
	}
	if !engineOf(embed).Tasks.Embed || embed.NCtx != 2048 || !engineOf(rerank).Tasks.Rerank {
		t.Errorf("got %+v and %+v", embed, rerank)
	}
	if m := engineOf(c.Backends[3]).Model; m != (backend.Model{Name: "hf:O/My-Model-GGUF:Q8_0"}) {
		t.Errorf("got %+v", m)
	}
}

func TestWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "config.json")
	if err := config.Write(path, []byte("{}\n")); err != nil {
		t.Fatal(err)
	}
	if err := config.Write(path, []byte("other")); !errors.Is(err, fs.ErrExist) {
		t.Error(err)
	}
	text, err := os.ReadFile(path)
	if err != nil || string(text) != "{}\n" {
		t.Errorf("%q, %v", text, err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	link := filepath.Join(filepath.Dir(path), "link.json")
	if err := os.Symlink("nowhere", link); err != nil {
		t.Skip(err)
	}
	if err := config.Write(link, []byte("x")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("through a link: %v", err)
	}
}
