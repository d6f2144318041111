package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/internal/builtin"
	"github.com/inferd-go/inferd/internal/store"
)

// A storeTest is the model store of a test, and a file with a model to import.
type storeTest struct {
	t            *testing.T
	home, config string
	file, digest string
}

func newStoreTest(t *testing.T) *storeTest {
	t.Helper()
	dir := t.TempDir()
	s := &storeTest{t: t, home: filepath.Join(dir, "models"), config: filepath.Join(dir, "config.json")}
	for name, value := range map[string]string{"HOME": dir, "USERPROFILE": dir, "MODELS_HOME": s.home, "XDG_STATE_HOME": filepath.Join(dir, "state"), "LOCALAPPDATA": dir, "INFERD_CONFIG": ""} {
		t.Setenv(name, value)
	}
	path, err := builtin.Ensure(t.TempDir(), "chain")
	if err != nil {
		t.Fatal(err)
	}
	if s.digest, err = builtin.Digest("chain"); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s.file = filepath.Join(dir, "Chain.gguf")
	if err := os.WriteFile(s.file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

// run runs a verb, and compares its exit code with code.
func (s *storeTest) run(code int, args ...string) (stdout, stderr string) {
	s.t.Helper()
	var out, errs bytes.Buffer
	if got := run(s.t.Context(), args, strings.NewReader(""), &out, &errs); got != code {
		s.t.Errorf("%q ends with %d, want %d: %s%s", args, got, code, out.String(), errs.String())
	}
	return out.String(), errs.String()
}

func (s *storeTest) blob() string {
	return filepath.Join(s.home, "blobs", "sha256", s.digest[:2], s.digest, "data")
}

func (s *storeTest) configure(text string) {
	s.t.Helper()
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func TestImportListShowRemove(t *testing.T) {
	s := newStoreTest(t)
	if out, errs := s.run(0, "list"); out != "" || !strings.Contains(errs, "no models in "+s.home) {
		t.Errorf("%q, %q", out, errs)
	}
	out, errs := s.run(0, "import", s.file)
	if out != s.blob()+"\n" || errs != "" {
		t.Errorf("import printed %q, %q", out, errs)
	}
	if out, _ := s.run(0, "import", "--name", "chain", "--expect-sha256", strings.ToUpper(s.digest), s.file); out != s.blob()+"\n" {
		t.Errorf("again: %q", out)
	}
	s.configure(fmt.Sprintf(`{"models_home":null,"backends":[{"kind":"llamacpp","name":"gen","model":"chain"},{"kind":"later","name":"emb","model":{"name":"x","sha256":%q}}]}`, s.digest))
	out, _ = s.run(0, "--config", s.config, "list")
	if want := regexp.MustCompile(`(?m)\ANAME +SIZE +ARCH +QUANT +CONTEXT +STATE +USED BY\nchain +\d+\.\d MB +llama +F32 +16384 +ok +gen, emb\n\z`); !want.MatchString(out) {
		t.Errorf("list printed\n%s", out)
	}
	out, _ = s.run(0, "--config", s.config, "list", "--json")
	var got struct {
		Models []struct {
			Name, Digest, Arch, Quant, State string
			Size                             int64 `json:"size_bytes"`
			NCtx                             int   `json:"n_ctx_train"`
			License, Refers                  any
			Parts                            []any
			UsedBy                           []string `json:"used_by"`
			Source                           map[string]string
		}
		Ingests, Problems []any
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	m := got.Models[0]
	if m.Name != "chain" || m.Digest != "sha256:"+s.digest || m.State != "ok" || m.NCtx != 16384 || len(m.UsedBy) != 2 || m.Source["registry"] != "local-import" || m.Parts == nil || got.Ingests == nil || got.Problems == nil {
		t.Errorf("%s", out)
	}
	one, _ := s.run(0, "--config", s.config, "show", "chain", "--json")
	if !strings.Contains(out, strings.TrimSpace(one)) {
		t.Errorf("show printed %s, not one of %s", one, out)
	}
	if out, _ := s.run(0, "show", "chain"); !strings.Contains(out, s.blob()) || !strings.Contains(out, s.digest) {
		t.Errorf("show printed %s", out)
	}
	if out, _ := s.run(0, "rm", "chain"); !strings.Contains(out, s.blob()) {
		t.Errorf("rm printed %s", out)
	}
	for _, verb := range []string{"rm", "show", "verify"} {
		if _, errs := s.run(2, verb, "chain"); !strings.Contains(errs, `error: model "chain" is not in the model store`) {
			t.Errorf("%s printed %s", verb, errs)
		}
	}
}

func TestImportIsRefused(t *testing.T) {
	s := newStoreTest(t)
	other := strings.Repeat("0", 64)
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"no file":        {[]string{"import"}, "import needs FILE"},
		"a bad name":     {[]string{"import", s.file, "--name", ".."}, "model name"},
		"a short digest": {[]string{"import", s.file, "--expect-sha256", "12"}, "--expect-sha256 must be 64 hex characters (got 12)"},
		"another digest": {[]string{"import", s.file, "--expect-sha256", other}, fmt.Sprintf("SHA-256 mismatch: expected %s, file is %s (nothing imported)", other, s.digest)},
		"a folder":       {[]string{"import", filepath.Dir(s.file), "--name", "x"}, filepath.Dir(s.file) + " is not a regular file"},
		"a bad config":   {[]string{"import", "--config", s.file, s.file}, "config " + s.file},
	} {
		t.Run(name, func(t *testing.T) {
			if _, errs := s.run(2, test.args...); !strings.HasPrefix(errs, "error: ") || !strings.Contains(errs, test.want) {
				t.Errorf("%q, want %q", errs, test.want)
			}
			if _, err := os.Stat(filepath.Join(s.home, "manifests", "chain.json")); !errors.Is(err, os.ErrNotExist) {
				t.Error(err)
			}
		})
	}
	// An import into the default store needs no config file.
	s.run(0, "--config", filepath.Join(s.home, "none.json"), "import", s.file)
}

// A config file that the operator names must exist. Otherwise another store would be changed, and
// models that the file names would not count as in use.
func TestNamedConfigIsMissing(t *testing.T) {
	s := newStoreTest(t)
	s.run(0, "import", s.file)
	missing := filepath.Join(s.home, "none.json")
	verbs := [][]string{{"gc"}, {"rm", "chain"}, {"list"}, {"show", "chain"}, {"verify"}, {"adopt"}}
	for _, args := range verbs {
		if _, errs := s.run(2, append([]string{"--config", missing}, args...)...); !strings.Contains(errs, "config "+missing) {
			t.Errorf("%q: %q", args, errs)
		}
	}
	t.Setenv("INFERD_CONFIG", missing)
	for _, args := range verbs {
		s.run(2, args...)
	}
	t.Setenv("INFERD_CONFIG", "")
	s.run(0, "verify", "chain")
	// doctor checks the settings of a daemon, which runs even if the file is missing.
	if out, _ := s.run(1, "doctor", "--config", missing); !strings.Contains(out, "[ ok ] models: "+s.home+", 1 models") {
		t.Errorf("doctor printed\n%s", out)
	}
}

func TestVerify(t *testing.T) {
	s := newStoreTest(t)
	s.run(0, "import", s.file)
	if out, _ := s.run(0, "verify"); out != "chain: ok\n" {
		t.Errorf("%q", out)
	}
	if err := errors.Join(os.Chmod(s.blob(), 0o600), os.WriteFile(s.blob(), []byte("x"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if out, _ := s.run(1, "verify", "chain"); !strings.Contains(out, "chain: damaged: "+s.blob()) {
		t.Errorf("%q", out)
	}
	if out, _ := s.run(1, "verify", "--json"); !strings.Contains(out, `"state":"damaged"`) {
		t.Errorf("%q", out)
	}
	if out, _ := s.run(0, "list"); !strings.Contains(out, "damaged: chain: "+s.blob()) {
		t.Errorf("%q", out)
	}
	torn := filepath.Join(s.home, "manifests", "torn.json")
	if err := os.WriteFile(torn, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	out, _ := s.run(1, "doctor")
	for _, want := range []string{"[FAIL] models: chain is damaged: " + s.blob(), "[FAIL] models: " + torn, "[ ok ] models: " + s.home + ", 0 models"} {
		if !strings.Contains(out, want) {
			t.Errorf("doctor lacks %q:\n%s", want, out)
		}
	}
	s.run(0, "import", s.file) // repairs the blob
	if out, _ := s.run(1, "verify"); !strings.Contains(out, "chain: ok\n") || !strings.Contains(out, "problem: "+torn) {
		t.Errorf("%q", out)
	}
	s.run(0, "rm", "torn")
	s.run(0, "verify")
}

func TestCollect(t *testing.T) {
	s := newStoreTest(t)
	s.run(0, "import", s.file)
	if err := os.Remove(filepath.Join(s.home, "manifests", "chain.json")); err != nil {
		t.Fatal(err)
	}
	if out, errs := s.run(0, "gc"); out != "" || errs != "nothing to remove\n" { // the blob is not old enough
		t.Errorf("%q, %q", out, errs)
	}
	old := func() {
		info, err := os.Stat(s.blob())
		if err == nil {
			hours := info.ModTime().Add(-2 * 3600e9)
			err = os.Chtimes(s.blob(), hours, hours)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	old()
	s.configure(fmt.Sprintf(`{"auto_pull":false,"models_home":%q,"backends":[{"name":"gen","model":{"name":"m","sha256":%q}}]}`, s.home, s.digest))
	s.run(0, "--config", s.config, "gc")
	if _, err := os.Stat(s.blob()); err != nil {
		t.Errorf("what the config names was removed: %v", err)
	}
	if out, _ := s.run(0, "gc", "--dry-run"); !strings.Contains(out, "would remove blob without a manifest: "+s.blob()) {
		t.Errorf("%q", out)
	}
	if out, _ := s.run(0, "gc"); !strings.Contains(out, "removed blob without a manifest: "+s.blob()) {
		t.Errorf("%q", out)
	}
	if _, err := os.Stat(s.blob()); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	s.configure(`{"backends":`)
	if _, errs := s.run(2, "--config", s.config, "gc"); !strings.Contains(errs, "config "+s.config) {
		t.Errorf("%q", errs)
	}
}

func TestRemoveInUse(t *testing.T) {
	s := newStoreTest(t)
	s.run(0, "import", s.file)
	daemon := &store.Store{Home: s.home}
	defer daemon.Close()
	m, err := daemon.Ensure(t.Context(), store.Ref{Name: "chain"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	by := fmt.Sprintf("process %d", os.Getpid())
	if out, _ := s.run(0, "list"); !strings.Contains(out, by) {
		t.Errorf("%q", out)
	}
	if _, errs := s.run(2, "rm", "chain"); !strings.Contains(errs, "in use by "+by) || !strings.Contains(errs, "--force") {
		t.Errorf("%q", errs)
	}
	s.run(0, "rm", "--force", "chain")
}

// models_home in the config takes precedence over the environment. A leading ~/ is the home folder.
func TestModelsHome(t *testing.T) {
	s := newStoreTest(t)
	home := filepath.Join(filepath.Dir(s.home), "elsewhere")
	s.configure(`{"models_home":"~/elsewhere"}`)
	t.Setenv("INFERD_CONFIG", s.config)
	if out, _ := s.run(0, "import", s.file); !strings.HasPrefix(out, home) {
		t.Errorf("%q, want it in %s", out, home)
	}
	if out, _ := s.run(0, "list"); !strings.Contains(out, "chain") {
		t.Errorf("%q", out)
	}
}

// Other programs also write manifests. Control characters in them do not reach the terminal.
func TestManifestsOfStrangers(t *testing.T) {
	s := newStoreTest(t)
	s.run(0, "import", s.file)
	name := filepath.Join(s.home, "manifests", "chain.json")
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	strange := strings.NewReplacer(`"llama"`, `"lla\u001b[2Jma"`, `"license": null`, `"license": "\u0007bell\nname  other"`).Replace(string(text))
	if strange == string(text) {
		t.Fatal(strange)
	}
	if err := os.WriteFile(name, []byte(strange), 0o600); err != nil {
		t.Fatal(err)
	}
	// Control characters in file names and in quoted texts do not reach the terminal either.
	bell := filepath.Join(filepath.Dir(s.home), "bell\a.gguf")
	if err := os.WriteFile(bell, []byte("no model"), 0o600); err == nil {
		if _, errs := s.run(0, "import", bell, "--name", "bell"); !strings.Contains(errs, "bell .gguf") || strings.Contains(errs, "\a") {
			t.Errorf("a warning prints %q", errs)
		}
		if _, errs := s.run(2, "import", bell+"x", "--name", "x"); strings.Contains(errs, "\a") {
			t.Errorf("an error prints %q", errs)
		}
	}
	for _, args := range [][]string{{"list"}, {"show", "chain"}, {"list", "--json"}, {"show", "chain", "--json"}} {
		out, _ := s.run(0, args...)
		if strings.ContainsAny(out, "\x1b\a") || strings.Contains(out, "\nname  other") {
			t.Errorf("%q prints %q", args, out)
		}
	}
}
