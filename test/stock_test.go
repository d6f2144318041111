package test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The stock clients, in Python and in JavaScript.
const (
	openaiPin      = "openai==3.57.0"
	anthropicPin   = "anthropic==2.14.0"
	openaiJSPin    = "openai@7.59.0"
	anthropicJSPin = "@anthropic-ai/sdk@1.14.0"
)

// tryPython returns an interpreter with a package, which is installed once and kept. It reports
// false, with a line in the log, if that fails.
func tryPython(t *testing.T, pin string) (program string, ok bool) {
	t.Helper()
	cache, err := os.UserHomeDir()
	if err != nil {
		t.Logf("%s is not run: %v", pin, err)
		return "", false
	}
	name, _, _ := strings.Cut(pin, "==")
	venv := filepath.Join(cache, ".cache", "inferd-test", strings.ReplaceAll(pin, "==", "-"))
	program = filepath.Join(venv, "bin", "python")
	if exec.Command(program, "-c", "import "+name).Run() == nil {
		return program, true
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	for _, args := range [][]string{
		{"python3", "-m", "venv", "--clear", venv},
		{program, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", pin},
	} {
		if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
			_ = os.RemoveAll(venv)
			t.Logf("%s is not run: %v %.200s", pin, err, strings.TrimSpace(string(out)))
			return "", false
		}
	}
	return program, true
}

// tryNode returns a folder with an npm package, which is installed once and kept. It reports
// false, with a line in the log, if that fails.
func tryNode(t *testing.T, pin string) (folder string, ok bool) {
	t.Helper()
	cache, err := os.UserHomeDir()
	if err == nil {
		_, err = exec.LookPath("npm")
	}
	if err != nil {
		t.Logf("%s is not run: %v", pin, err)
		return "", false
	}
	folder = filepath.Join(cache, ".cache", "inferd-test", "npm", strings.NewReplacer("@", "-", "/", "-").Replace(pin))
	name := pin[:strings.LastIndexByte(pin, '@')]
	if exec.Command("node", "-e", "require('node:module').createRequire(process.argv[1]+'/')(process.argv[2])", folder, name).Run() == nil {
		return folder, true
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Logf("%s is not run: %v", pin, err)
		return "", false
	}
	install := exec.CommandContext(ctx, "npm", "install", "--silent", "--no-audit", "--no-fund", "--no-save", "--ignore-scripts", "--prefix", folder, pin)
	if out, err := install.CombinedOutput(); err != nil {
		_ = os.RemoveAll(folder)
		t.Logf("%s is not run: %v %.200s", pin, err, strings.TrimSpace(string(out)))
		return "", false
	}
	return folder, true
}

// stockConfig has an entry for each case of the stock clients.
var stockConfig = `{"http":{"listen":["127.0.0.1:0"]},"backends":[
	{"kind":"mock","name":"gen","tokens":["Hel","lo"],"prompt_tokens":7},
	{"kind":"mock","name":"tool","emit_tool_use":"look"},
	{"kind":"mock","name":"inside","emit_tool_use":"files__open"},
	{"kind":"mock","name":"custom","emit_tool_use":"patch"},
	{"kind":"mock","name":"thinks","thinking_tokens":["hm, ","so"],"tokens":["Hello"]},
	{"kind":"mock","name":"json","tokens":["{\"city\":","\"Oslo\"}"]},
	{"kind":"mock","name":"vec","embed_dimensions":2},
	{"kind":"mock","name":"down","pre_stream_error":"unavailable"},
	{"kind":"mock","name":"drop","tokens":["a","b","c"],"mid_stream_drop_after":2,"token_delay_ms":20},
	{"kind":"mock","name":"flaky","tokens":["Hello"],"fail_first":2},
	{"kind":"mock","name":"slow-start","tokens":["a"],"token_delay_ms":12000},
	{"kind":"mock","name":"slow","n_slots":1,"tokens":[` + strings.Repeat(`"a",`, 600) + `"a"],"token_delay_ms":200}]}`

// The stock clients of OpenAI and of Anthropic work unchanged.
func TestStockClients(t *testing.T) {
	for script, test := range map[string]struct {
		pin, base string
		cases     int
	}{
		"openai_client.py":     {openaiPin, "/v1", 14},
		"responses_client.py":  {openaiPin, "/v1", 12},
		"anthropic_client.py":  {anthropicPin, "", 16},
		"openai_client.mjs":    {openaiJSPin, "/v1", 12},
		"anthropic_client.mjs": {anthropicJSPin, "", 11},
	} {
		t.Run(script, func(t *testing.T) {
			program, args := "node", []string{"testdata/" + script, test.base}
			var ok bool
			if strings.HasSuffix(script, ".py") {
				program, ok = tryPython(t, test.pin)
			} else {
				var folder string
				folder, ok = tryNode(t, test.pin)
				args = append(args, folder)
			}
			if !ok {
				t.Skip("no stock client")
			}
			d := startWith(t, stockConfig)
			d.waitReady()
			args[1] = "http://" + d.httpAddr() + test.base
			out, err := exec.Command(program, args...).CombinedOutput()
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			if n := strings.Count(string(out), "\n"); err == nil && n < test.cases {
				t.Errorf("only %d cases:\n%s", n, out)
			}
		})
	}
}

// The stock Go clients, which are a module of their own, and take minutes to build.
func TestStockGoClients(t *testing.T) {
	if os.Getenv("INFERD_TEST_GO_CLIENTS") == "" {
		t.Skip("run by make test-clients")
	}
	if out, err := exec.Command("go", "mod", "download", "-C", "sdk").CombinedOutput(); err != nil {
		t.Skipf("the Go clients are not run: %v %.200s", err, out)
	}
	d := startWith(t, stockConfig)
	d.waitReady()
	cmd := exec.Command("go", "test", "-C", "sdk", "-count=1", "./...")
	cmd.Env = append(os.Environ(), "INFERD_TEST_URL=http://"+d.httpAddr())
	if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "no tests to run") {
		t.Errorf("%v\n%s", err, out)
	}
}
