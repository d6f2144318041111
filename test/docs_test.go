package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// fences are the code blocks of a page: their language and their text.
var fences = regexp.MustCompile("(?ms)^```(\\w+)\n(.*?)^```$")

// The examples of docs/http.md run, and print what the page says: "…" stands for any text.
func TestHTTPPage(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("no curl")
	}
	page, err := os.ReadFile("../docs/http.md")
	if err != nil {
		t.Fatal(err)
	}
	d := startWith(t, `{"http":{"listen":["127.0.0.1:0"]},"backends":[
		{"kind":"llamacpp","name":"gen","n_ctx":512,"model":{"builtin":"chain"}},
		{"kind":"llamacpp","name":"code","n_ctx":512,"model":{"builtin":"fim"}},
		{"kind":"llamacpp","name":"rank","rerank_n_ctx":64,"model":{"builtin":"rerank"}},
		{"kind":"llamacpp","name":"embed","embed_n_ctx":64,"model":{"builtin":"embed"}}]}`)
	d.waitReady()
	place := strings.NewReplacer("localhost:8080", d.httpAddr(), `$XDG_RUNTIME_DIR/inferd/http.sock`, d.socket("http.sock"))
	ran, last := 0, ""
	for _, block := range fences.FindAllStringSubmatch(string(page), -1) {
		kind, text := block[1], place.Replace(block[2])
		switch kind {
		case "sh":
			last = run(t, "bash", "-euo", "pipefail", "-c", text)
			ran++
		case "python":
			file := filepath.Join(t.TempDir(), "example.py")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			pin := openaiPin
			if strings.Contains(text, "import anthropic") {
				pin = anthropicPin
			}
			program, ok := tryPython(t, pin)
			if !ok {
				last = "" // not run
				continue
			}
			last = run(t, program, file)
			ran++
		case "output":
			if last == "" {
				continue
			}
			var pattern strings.Builder
			for i, piece := range strings.Split(strings.TrimSpace(text), "…") {
				if i > 0 {
					pattern.WriteString("(?s:.*)")
				}
				pattern.WriteString(regexp.QuoteMeta(piece))
			}
			if !regexp.MustCompile("^" + pattern.String()).MatchString(strings.TrimSpace(last)) {
				t.Errorf("the page says\n%s\nit prints\n%s", text, last)
			}
		case "json", "toml", "console": // of other programs, and marked as not run
		default:
			t.Errorf("a block of %s is not run", kind)
		}
	}
	if ran < 6 {
		t.Errorf("only %d examples", ran)
	}
}

func run(t *testing.T, program string, args ...string) string {
	t.Helper()
	cmd := exec.Command(program, args...)
	errs := &output{}
	cmd.Stderr = errs
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("%s: %v\n%s%s", args[len(args)-1], err, out, errs)
	}
	return string(out)
}
