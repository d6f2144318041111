package setup_test

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/cmd/inferdctl/internal/setup"
)

// all are the tools in the order of the documentation.
var all = []string{
	"aider", "anthropic-js", "anthropic-python", "claude", "codex", "continue", "curl", "ollama-python", "openai-js", "openai-python", "opencode",
}

func TestNames(t *testing.T) {
	if got := setup.Names(); !slices.Equal(got, all) {
		t.Errorf("Names = %q", got)
	}
	if err := setup.Check("codx"); err == nil || !strings.Contains(err.Error(), `no client is called "codx": did you mean codex? (known: aider, anthropic-js,`) {
		t.Errorf("Check: %v", err)
	}
	for _, name := range all {
		if got := setup.NeedsTCP(name); got != (name != "curl") {
			t.Errorf("NeedsTCP(%s) = %v", name, got)
		}
	}
	if _, err := setup.Text("none", setup.Target{}); err == nil {
		t.Error("a text for no client")
	}
}

// odd is the name of a model that must be quoted in every language.
const odd = `it's "a$b" \ ` + "`c`"

// Every text has the address and the model, is valid in its language, and names the variable of the
// key only if there is a key.
func TestTexts(t *testing.T) {
	for i, name := range all {
		for _, model := range []string{"gen", odd} {
			for _, key := range []bool{false, true} {
				text, err := setup.Text(name, setup.Target{Base: "http://127.0.0.1:8080", Model: model, Key: key})
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if !strings.Contains(text, "http://127.0.0.1:8080") || model == "gen" && !strings.Contains(text, "gen") || strings.Contains(text, "<no value>") || !strings.HasSuffix(text, "\n") {
					t.Errorf("%s:\n%s", name, text)
				}
				if strings.Contains(text, setup.KeyVariable) != key {
					t.Errorf("%s: key %v:\n%s", name, key, text)
				}
				if !testing.Short() || model == odd && key && i%2 == 0 { // the longest of four texts, for every second client
					check(t, name, text)
				}
			}
		}
	}
}

// check parses the text with a program for its language, if that is installed.
func check(t *testing.T, name, text string) {
	t.Helper()
	switch name {
	case "opencode":
		if !jsontext.Value(text).IsValid() {
			t.Errorf("%s is no JSON:\n%s", name, text)
		}
	case "codex":
		read(t, name, text, "python3", "-c", "import sys, tomllib\nd = tomllib.loads(sys.stdin.read())\nassert d['model_providers']['inferd']['wire_api'] == 'responses' and d['model']")
	case "continue":
		read(t, name, text, "python3", "-c", "import sys\ntry:\n import yaml\nexcept ImportError:\n sys.exit(0)\nd = yaml.safe_load(sys.stdin.read())\nassert d['models'][0]['provider'] == 'openai'")
	case "aider", "claude", "curl":
		read(t, name, text, "sh", "-n")
	case "anthropic-js", "openai-js":
		read(t, name, text, "node", "--check", "--input-type=module", "-")
	default:
		read(t, name, text, "python3", "-c", "import ast, sys; ast.parse(sys.stdin.read())")
	}
}

func read(t *testing.T, name, text, program string, args ...string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		return
	}
	cmd := exec.Command(program, args...)
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		if strings.Contains(string(out), "tomllib") && strings.Contains(string(out), "ModuleNotFound") {
			return // Python before 3.11
		}
		t.Errorf("%s: %s: %v\n%s\n%s", name, filepath.Base(program), err, out, text)
	}
}

// A shell reads the name of the model unchanged.
func TestShellQuotes(t *testing.T) {
	text, err := setup.Text("claude", setup.Target{Base: "http://x:1", Model: odd})
	if err != nil {
		t.Fatal(err)
	}
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("no shell")
	}
	cmd := exec.Command(sh, "-c", text+"\nprintf %s \"$ANTHROPIC_MODEL\"")
	if out, err := cmd.Output(); err != nil || string(out) != odd {
		t.Errorf("the shell reads %q, %v", out, err)
	}
}

// Without an address the text for curl uses the socket.
func TestSocket(t *testing.T) {
	text, err := setup.Text("curl", setup.Target{Socket: "/run/user/1000/inferd/http.sock", Model: "gen"})
	if err != nil || !strings.HasPrefix(text, "curl -s --unix-socket /run/user/1000/inferd/http.sock http://inferd/v1/chat/completions") {
		t.Errorf("%v\n%s", err, text)
	}
}
