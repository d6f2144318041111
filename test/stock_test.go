package test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// clientsVariable is the environment variable that selects the stock clients to run: only the SDKs,
// or all of them.
const clientsVariable = "INFERD_TEST_CLIENTS"

// needsClients skips the test unless it is run by make test-clients-all or, if all is false, by make
// test-clients.
func needsClients(t *testing.T, all bool) {
	t.Helper()
	if which := os.Getenv(clientsVariable); which != "all" && (all || which != "sdk") {
		t.Skip("run by make test-clients-all, and if it is an SDK by make test-clients")
	}
}

// stockConfig has an entry for each case of the stock clients.
var stockConfig = `{"http":{"listen":["127.0.0.1:0"]},"backends":[
	{"kind":"mock","name":"gen","tokens":["Hel","lo"],"prompt_tokens":7},
	{"kind":"mock","name":"tool","emit_tool_use":"look"},
	{"kind":"mock","name":"loop","tokens":["a ","cat"],"prompt_tokens":7,"emit_tool_use":"look","emit_tool_input":{"place":"Oslo"},"emit_tool_once":true},
	{"kind":"mock","name":"inside","emit_tool_use":"files__open"},
	{"kind":"mock","name":"custom","emit_tool_use":"patch"},
	{"kind":"mock","name":"thinks","thinking_tokens":["hm, ","so"],"tokens":["Hello"]},
	{"kind":"mock","name":"json","tokens":["{\"city\":","\"Oslo\"}"],"prompt_tokens":7},
	{"kind":"mock","name":"place","emit_tool_use":"Place","emit_tool_input":{"city":"Oslo"}},
	{"kind":"mock","name":"final","emit_tool_use":"final_result","emit_tool_input":{"city":"Oslo"}},
	{"kind":"mock","name":"vec","embed_dimensions":2},
	{"kind":"mock","name":"down","pre_stream_error":"unavailable"},
	{"kind":"mock","name":"drop","tokens":["a","b","c"],"mid_stream_drop_after":2,"token_delay_ms":20},
	{"kind":"mock","name":"drop-too","tokens":["a","b","c"],"mid_stream_drop_after":2,"token_delay_ms":20},
	{"kind":"mock","name":"drop-json","tokens":["{\"city\":","\"Oslo\"","}"],"mid_stream_drop_after":2,"token_delay_ms":20},
	{"kind":"mock","name":"flaky","tokens":["Hello"],"fail_first":2},
	{"kind":"mock","name":"slow-start","tokens":["a"],"token_delay_ms":12000},
	{"kind":"mock","name":"slow","n_slots":1,"tokens":[` + strings.Repeat(`"a",`, 6000) + `"a"],"token_delay_ms":200}]}`

// A stockClient is a program that uses a stock client, and prints a line for each case that holds.
type stockClient struct {
	script, pins string // files of testdata and of testdata/pins
	path         string // path of the base URL
	cases        int    // least number of cases that the program prints
	config       string
	library      bool // takes longer to install and to start than an SDK
}

var stockClients = []stockClient{
	{"openai_client.py", "openai", "/v1", 14, stockConfig, false},
	{"responses_client.py", "openai", "/v1", 12, stockConfig, false},
	{"completions_client.py", "openai", "/v1", 7, builtinModels, false},
	{"anthropic_client.py", "anthropic", "", 16, stockConfig, false},
	{"ollama_client.py", "ollama", "", 15, stockConfig, false},
	{"openai_client.mjs", "openai", "/v1", 12, stockConfig, false},
	{"anthropic_client.mjs", "anthropic", "", 11, stockConfig, false},
	{"ollama_client.mjs", "ollama", "", 7, stockConfig, false},
	{"vercel_client.mjs", "vercel", "/v1", 10, stockConfig, true},
	{"langchain_client.py", "langchain", "/v1", 10, stockConfig, true},
	{"litellm_client.py", "litellm", "", 9, stockConfig, true},
	{"instructor_client.py", "instructor", "", 7, stockConfig, true},
	{"llm_client.py", "llm", "/v1", 9, stockConfig, true},
	{"pydantic_client.py", "pydantic-ai", "", 7, stockConfig, true},
}

// program installs the client. It returns the program that runs the script, and the arguments of the
// script after the address. It skips the test if the installation fails.
func (c stockClient) program(t *testing.T) (program string, args []string) {
	t.Helper()
	ok := true
	if strings.HasSuffix(c.script, ".py") {
		program, ok = tryPython(t, c.pins)
	} else if program, _ = exec.LookPath("node"); program == "" {
		t.Skip("there is no node")
	} else {
		var folder string
		folder, ok = tryNode(t, c.pins)
		args = []string{folder}
	}
	if !ok {
		t.Skip("no stock client")
	}
	return program, args
}

// The stock clients work unchanged.
func TestStockClients(t *testing.T) {
	needsClients(t, false)
	for _, c := range stockClients {
		t.Run(c.script, func(t *testing.T) {
			needsClients(t, c.library)
			program, args := c.program(t)
			t.Parallel()
			d := startOffline(t, c.config)
			d.waitReady()
			cmd := d.beside(t.Context(), program, append([]string{"testdata/" + c.script, "http://" + d.httpAddr() + c.path}, args...)...)
			cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
			errs := &output{}
			cmd.Stderr = errs
			out, err := cmd.Output()
			if err != nil {
				t.Errorf("%v\n%s%s", err, out, errs)
			}
			if n := strings.Count(string(out), "\n"); err == nil && n < c.cases {
				t.Errorf("only %d cases:\n%s", n, out)
			}
		})
	}
}

// The stock Go clients work unchanged. They are in a module of their own.
func TestStockGoClients(t *testing.T) {
	needsClients(t, false)
	ctx, cancel := context.WithTimeout(t.Context(), installTime)
	defer cancel()
	if err := runQuietly(ctx, "go", "mod", "download", "-C", "sdk"); err != nil {
		t.Skipf("the Go clients are not run: %v", err)
	}
	program := filepath.Join(t.TempDir(), "sdk.test")
	build := exec.CommandContext(t.Context(), "go", "test", "-C", "sdk", "-c", "-o", program)
	build.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { // the tests set it, and with it Go's build cache would be empty
		return strings.HasPrefix(v, "XDG_CACHE_HOME=")
	})
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Parallel()
	d := startOffline(t, stockConfig)
	d.waitReady()
	cmd := d.beside(t.Context(), program, "-test.v")
	cmd.Env = append(os.Environ(), "INFERD_TEST_URL=http://"+d.httpAddr())
	if out, err := cmd.CombinedOutput(); err != nil || strings.Count(string(out), "--- PASS") < 9 {
		t.Errorf("%v\n%s", err, out)
	}
}
