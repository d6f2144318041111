package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// fences matches the code blocks of a page, with their language and their text.
var fences = regexp.MustCompile("(?ms)^```(\\w+)\n(.*?)^```$")

// pageConfig is a config with the entries of the examples.
const pageConfig = `{"http":{"listen":["127.0.0.1:0"]},"backends":[
	{"kind":"llamacpp","name":"gen","n_ctx":512,"model":{"builtin":"chain"}},
	{"kind":"llamacpp","name":"code","n_ctx":512,"model":{"builtin":"fim"}},
	{"kind":"llamacpp","name":"rank","rerank_n_ctx":64,"model":{"builtin":"rerank"}},
	{"kind":"llamacpp","name":"embed","embed_n_ctx":64,"model":{"builtin":"embed"}}]}`

// A page runs the examples of a documentation page against a daemon. In a block of output "…"
// stands for any text.
type page struct {
	d         *daemon
	addresses *strings.Replacer // replaces the addresses of the page by real ones
	ran       int
}

// run runs the examples of a file. Each must print the text of the block of output that follows it.
func (p *page) run(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	last := "" // output of the last example; empty if it did not run
	for _, block := range fences.FindAllStringSubmatch(string(text), -1) {
		kind, text := block[1], p.addresses.Replace(block[2])
		switch kind {
		case "sh", "python", "js":
			last = p.example(t, kind, text)
			if last != "" {
				p.ran++
			}
		case "output":
			if last != "" && !pattern(text).MatchString(strings.TrimSpace(last)) {
				t.Errorf("the page says\n%s\nit prints\n%s", text, last)
			}
		case "json", "toml", "console", "vim": // belongs to another program
		default:
			t.Errorf("a block of %s is not run", kind)
		}
	}
}

// pattern returns the expression that matches an output from its beginning.
func pattern(text string) *regexp.Regexp {
	pieces := strings.Split(strings.TrimSpace(text), "…")
	for i, piece := range pieces {
		pieces[i] = regexp.QuoteMeta(piece)
	}
	return regexp.MustCompile("^" + strings.Join(pieces, "(?s:.*)"))
}

// packagesOf maps a word in an example to the packages that the example needs. Other examples need
// no packages.
var packagesOf = []struct{ word, pins string }{
	{"import anthropic", "anthropic"},
	{"from langchain_openai", "langchain"},
	{"import litellm", "litellm"},
	{"import instructor", "instructor"},
	{"from pydantic_ai", "pydantic-ai"},
	{"import ollama", "ollama"},
	{"llm -m", "llm"},
	{`from "ai"`, "vercel"},
	{`from "ollama"`, "ollama"},
	{`from "openai"`, "openai"},
	{`from "@anthropic-ai/sdk"`, "anthropic"},
	{"import openai", "openai"},
}

func pinsOf(text string) string {
	for _, of := range packagesOf {
		if strings.Contains(text, of.word) {
			return of.pins
		}
	}
	return ""
}

// example runs an example and returns its output. It returns an empty text if the packages are
// missing.
func (p *page) example(t *testing.T, kind, text string) string {
	t.Helper()
	dir := t.TempDir()
	pins := pinsOf(text)
	file := filepath.Join(dir, "example.mjs")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	switch kind {
	case "js":
		folder, ok := tryNode(t, pins)
		if !ok {
			return ""
		}
		if err := os.Symlink(filepath.Join(folder, "node_modules"), filepath.Join(dir, "node_modules")); err != nil {
			t.Fatal(err)
		}
		return p.d.runBeside(t, "node", file)
	case "python":
		program, ok := tryPython(t, pins)
		if !ok {
			return ""
		}
		return p.d.runBeside(t, program, file)
	}
	if pins != "" {
		program, ok := tryPython(t, pins)
		if !ok {
			return ""
		}
		text = "HOME=" + dir + "; PATH=" + filepath.Dir(program) + `:"$PATH"` + "\n" + text
	}
	return p.d.runBeside(t, "bash", "-euo", "pipefail", "-c", text)
}

// runBeside runs a program beside the daemon, and returns its output.
func (d *daemon) runBeside(t *testing.T, program string, args ...string) string {
	t.Helper()
	return outputOf(t, d.beside(t.Context(), program, args...))
}

// run runs a program, and returns its output.
func run(t *testing.T, program string, args ...string) string {
	t.Helper()
	return outputOf(t, exec.CommandContext(t.Context(), program, args...))
}

func outputOf(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	errs := &output{}
	cmd.Stderr = errs
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("%s: %v\n%s%s", cmd, err, out, errs)
	}
	return string(out)
}

// The examples of docs/http.md run, and print the output on the page.
func TestHTTPPage(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("no curl")
	}
	d := startWith(t, pageConfig)
	d.waitReady()
	p := page{d: d, addresses: strings.NewReplacer("localhost:8080", d.httpAddr(), "http://127.0.0.1:8081", d.gateway().base, `$XDG_RUNTIME_DIR/inferd/http.sock`, d.socket("http.sock"))}
	p.run(t, "../docs/http.md")
	if p.ran < 6 {
		t.Errorf("only %d examples", p.ran)
	}
}

// clientPages returns the pages about clients, one for each family.
func clientPages(t *testing.T) []string {
	t.Helper()
	pages, err := filepath.Glob("../docs/clients/*.md")
	if err != nil || len(pages) < 6 {
		t.Fatalf("pages %q, %v", pages, err)
	}
	return pages
}

// The examples of the pages about clients run, and print the output on the page.
func TestStockPage(t *testing.T) {
	needsClients(t, true)
	d := startOffline(t, pageConfig)
	d.waitReady()
	p := page{d: d, addresses: strings.NewReplacer("localhost:8080", d.httpAddr())}
	for _, file := range clientPages(t) {
		p.run(t, file)
	}
	if p.ran == 0 {
		t.Skip("no example was run")
	}
}

// Each page about clients has an example that is run, or says that it was not run, and the index links to
// it. The examples of the page about llama-server need only curl.
func TestClientPages(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("no curl")
	}
	index, err := os.ReadFile("../docs/clients.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range clientPages(t) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if name := filepath.Base(file); !strings.Contains(string(index), "](clients/"+name+")") {
			t.Errorf("the index lacks %s", name)
		}
		if !regexp.MustCompile("(?m)^```(sh|python|js)$|\\*not run\\*").Match(text) {
			t.Errorf("%s has no example that is run, and does not say so", file)
		}
	}
	d := startWith(t, pageConfig)
	d.waitReady()
	p := page{d: d, addresses: strings.NewReplacer("localhost:8080", d.httpAddr())}
	if p.run(t, "../docs/clients/llama-server.md"); p.ran != 1 {
		t.Errorf("%d examples", p.ran)
	}
}

// The settings of agents in docs/clients/agents.md are those that inferdctl prints.
func TestSettingsOfAgents(t *testing.T) {
	text, err := os.ReadFile("../docs/clients/agents.md")
	if err != nil {
		t.Fatal(err)
	}
	d := startWith(t, `{"http":{"listen":["127.0.0.1:0"]},"backends":[{"kind":"mock","name":"gen"}]}`)
	d.waitReady()
	for _, a := range agents {
		settings := d.runBeside(t, filepath.Join(bin, "inferdctl"), "client", a.client, "--addr", d.httpAddr(), "--model", "gen")
		if want := strings.ReplaceAll(settings, d.httpAddr(), "localhost:8080"); !strings.Contains(string(text), "\n"+want+"```\n") {
			t.Errorf("the page lacks the settings of %s:\n%s", a.client, want)
		}
	}
}
