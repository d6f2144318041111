package pull_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/internal/pull"
)

func TestEnvironment(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("home/.cache/huggingface/token", "of-home\n")
	write("cache/huggingface/token", "of-cache\n")
	write("hf/token", " of-hf \n")
	bad := write("bad", "two words")
	file := write("file", "of-file")
	for name, test := range map[string]struct {
		env   map[string]string
		token string
		err   string
	}{
		"nothing":         {nil, "", ""},
		"no file":         {map[string]string{"HOME": filepath.Join(dir, "none")}, "", ""},
		"home":            {map[string]string{"HOME": filepath.Join(dir, "home")}, "of-home", ""},
		"cache":           {map[string]string{"HOME": filepath.Join(dir, "home"), "XDG_CACHE_HOME": filepath.Join(dir, "cache")}, "of-cache", ""},
		"the hub's home":  {map[string]string{"HF_HOME": filepath.Join(dir, "hf"), "HOME": filepath.Join(dir, "home")}, "of-hf", ""},
		"a path":          {map[string]string{"HF_TOKEN_PATH": file, "HF_HOME": filepath.Join(dir, "hf")}, "of-file", ""},
		"a variable":      {map[string]string{"HF_TOKEN": " t\n", "HF_TOKEN_PATH": file}, "t", ""},
		"a bad file":      {map[string]string{"HF_TOKEN_PATH": bad}, "", bad + " has no valid token"},
		"a bad variable":  {map[string]string{"HF_TOKEN": "a\nb"}, "", "HF_TOKEN has no valid token"},
		"a folder":        {map[string]string{"HF_TOKEN_PATH": dir}, "", "the token of Hugging Face"},
		"no certificates": {map[string]string{"SSL_CERT_FILE": file}, "", "SSL_CERT_FILE: " + file + " has no certificate"},
		"no such file":    {map[string]string{"SSL_CERT_FILE": filepath.Join(dir, "none")}, "", "SSL_CERT_FILE: "},
	} {
		var p pull.Puller
		err := p.Environment(func(name string) string { return test.env[name] })
		if p.Token != test.token || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: token %q, %v", name, p.Token, err)
		}
	}
	var p pull.Puller
	env := map[string]string{"MODEL_ENDPOINT": "https://m", "OLLAMA_ENDPOINT": "https://o"}
	if err := p.Environment(func(name string) string { return env[name] }); err != nil || p.HubEndpoint != "https://m" || p.OllamaEndpoint != "https://o" {
		t.Errorf("%+v, %v", p, err)
	}
	env["HF_ENDPOINT"] = "https://h"
	if err := p.Environment(func(name string) string { return env[name] }); err != nil || p.HubEndpoint != "https://h" {
		t.Errorf("%+v, %v", p, err)
	}
}
