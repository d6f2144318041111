package test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/builtin"
)

// agentsVariable is the environment variable that enables TestAgents.
const agentsVariable = "INFERD_TEST_AGENTS"

// An agent is a coding agent that runs one task without a terminal.
type agent struct {
	client   string // name for inferdctl client
	pins     string
	tool     string // name of its shell tool
	input    string // input for the shell tool that creates the file made.txt
	settings string // file below the home folder for the text that inferdctl prints
	command  string // command for sh, with the packages' programs in PATH; the task is $1
	variable []string
	// word returns the last message of the agent, from its output.
	word func(t *testing.T, out string) string
}

var agents = []agent{
	{
		client: "codex", pins: "codex", tool: "exec_command",
		input:    `{"cmd": "echo run by codex > made.txt"}`,
		settings: ".codex/config.toml",
		command:  `exec codex exec --json --skip-git-repo-check --dangerously-bypass-approvals-and-sandbox "$1"`,
		word: func(t *testing.T, out string) (word string) {
			for _, event := range lines(t, out) {
				if item, ok := event["item"].(map[string]any); ok && event["type"] == "item.completed" && item["type"] == "agent_message" {
					word, _ = item["text"].(string)
				}
			}
			return word
		},
	},
	{
		client: "opencode", pins: "opencode", tool: "bash",
		input:    `{"command": "echo run by opencode > made.txt", "description": "makes a file"}`,
		settings: ".config/opencode/opencode.json",
		command:  `exec opencode run --format json "$1"`,
		variable: []string{"OPENCODE_DISABLE_MODELS_FETCH=1", "OPENCODE_DISABLE_AUTOUPDATE=1"},
		word: func(t *testing.T, out string) (word string) {
			for _, event := range lines(t, out) {
				if part, ok := event["part"].(map[string]any); ok && event["type"] == "text" {
					word, _ = part["text"].(string)
				}
			}
			return word
		},
	},
	{
		client: "claude", pins: "claude", tool: "Bash",
		input:    `{"command": "echo run by claude > made.txt", "description": "makes a file"}`,
		settings: "claude.sh",
		command:  `. ~/claude.sh && exec claude -p --output-format json --allowedTools Bash -- "$1"`,
		word: func(t *testing.T, out string) string {
			all := lines(t, out)
			word, _ := all[len(all)-1]["result"].(string)
			return word
		},
	},
}

// lines returns the lines of an output that are JSON objects.
func lines(t *testing.T, out string) (all []map[string]any) {
	t.Helper()
	for line := range strings.Lines(out) {
		var object map[string]any
		if json.Unmarshal([]byte(line), &object) == nil {
			all = append(all, object)
		}
	}
	if len(all) == 0 {
		t.Fatalf("no JSON in %q", out)
	}
	return all
}

// mocked returns the config of a mock that calls the agent's shell once, and then answers
// "pineapple".
func (a agent) mocked(*testing.T) string {
	return `{"kind":"mock","name":"gen","tokens":["pine","apple"],"prompt_tokens":7,
		"emit_tool_use":"` + a.tool + `","emit_tool_input":` + a.input + `,"emit_tool_once":true}`
}

// recited returns the config of an entry with the real engine. Its model writes the same call and
// the same answer as the mock, in the notation of its template.
func (a agent) recited(t *testing.T) string {
	t.Helper()
	call := "\n" + `{"name": "` + a.tool + `", "arguments": ` + a.input + "}\n"
	said := []string{"<think>", "\nHm", ".\n", "</think>", "\n\n", "I", " look.", "\n", "<tool_call>"}
	model := recite(t, agentTemplate,
		"{% if messages | selectattr('role', 'equalto', 'tool') | list %}{{- '<|second|>' -}}{% else %}{{- '<|first|>' -}}{% endif %}",
		builtin.Recital{After: "<|first|>", Tokens: slices.Concat(said, pieces(call, 7), []string{"</tool_call>"})},
		builtin.Recital{After: "<|second|>", Tokens: []string{"pine", "apple"}})
	return `{"kind":"llamacpp","name":"gen","n_ctx":16384,"model":{"path":"` + model + `"}}`
}

// pieces cuts a text into pieces of n bytes.
func pieces(text string, n int) (all []string) {
	for piece := range slices.Chunk([]byte(text), n) {
		all = append(all, string(piece))
	}
	return all
}

// agentTemplate cuts the long texts of agents after 200 characters, because each byte is a token of
// the model.
var agentTemplate = strings.NewReplacer("tool | tojson", "(tool | tojson)[:200]", "{{ m.content }}", "{{ m.content[:200] }}").Replace(hermes)

// With the settings that inferdctl prints, agents run a tool and finish their task, both with the
// mock and with the engine. The engine's model writes the call.
func TestAgents(t *testing.T) {
	if os.Getenv(agentsVariable) == "" {
		t.Skip("run by make test-agents")
	}
	for _, a := range agents {
		for backend, config := range map[string]func(*testing.T) string{"mock": a.mocked, "engine": a.recited} {
			t.Run(a.client+"/"+backend, func(t *testing.T) {
				packages, ok := tryNode(t, a.pins)
				if !ok {
					t.Skip("no agent")
				}
				d := startOffline(t, `{"http":{"listen":["127.0.0.1:0"]},"backends":[`+config(t)+`]}`)
				d.waitReady()
				a.finishes(t, d, packages)
			})
		}
	}
}

// finishes checks that the agent finishes its task.
func (a agent) finishes(t *testing.T, d *daemon, packages string) {
	t.Helper()
	home, work := t.TempDir(), t.TempDir()
	a.configure(t, d, home)
	out, errs := a.run(t, d, packages, home, work)
	if word := a.word(t, out); word != "pineapple" {
		t.Errorf("its last word is %q:\n%s%s", word, out, errs)
	}
	if made, err := os.ReadFile(filepath.Join(work, "made.txt")); err != nil || string(made) != "run by "+a.client+"\n" {
		t.Errorf("the tool made %q, %v:\n%s%s", made, err, out, errs)
	}
	d.recorded("http_request_done", 2)
	refused, failed := d.records("http_request_refused"), d.records("http_request_error_mid_stream")
	if len(refused)+len(failed) > 0 {
		t.Errorf("refused %v, failed %v", refused, failed)
	}
}

// configure writes the agent's settings as inferdctl prints them.
func (a agent) configure(t *testing.T, d *daemon, home string) {
	t.Helper()
	text, err := d.beside(t.Context(), filepath.Join(bin, "inferdctl"), "client", a.client, "--addr", d.httpAddr(), "--model", "gen").Output()
	if err != nil {
		t.Fatalf("inferdctl client %s: %v", a.client, err)
	}
	file := filepath.Join(home, a.settings)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// run runs the agent with its task in a clean environment, and returns its output.
func (a agent) run(t *testing.T, d *daemon, packages, home, work string) (stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cmd := d.beside(ctx, "sh", "-c", a.command, "sh", "Make the file made.txt.")
	cmd.Dir = work
	cmd.Env = append([]string{
		"PATH=" + filepath.Join(packages, "node_modules", ".bin") + ":" + os.Getenv("PATH"),
		"HOME=" + home, "TMPDIR=" + t.TempDir(), "SHELL=/bin/sh",
	}, a.variable...)
	out, errs := &output{}, &output{}
	cmd.Stdout, cmd.Stderr = out, errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s%s", err, out, errs)
	}
	return out.String(), errs.String()
}
