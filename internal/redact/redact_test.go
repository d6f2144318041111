package redact_test

import (
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/internal/redact"
)

// secrets are texts with secrets in various spellings. The parts between « and » must be removed.
var secrets = func() []string {
	raw, err := os.ReadFile(filepath.Join("testdata", "secrets.txt"))
	if err != nil {
		panic(err)
	}
	return strings.Split(strings.TrimSpace(string(raw)), "\n")
}()

// cut returns an element of secrets without « and », and its secret parts.
func cut(marked string) (text string, parts []string) {
	for piece := range strings.SplitSeq(marked, "«") {
		if part, _, ok := strings.Cut(piece, "»"); ok {
			parts = append(parts, part)
		}
	}
	return strings.NewReplacer("«", "", "»", "").Replace(marked), parts
}

func inJSON(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// forms returns a text in several contexts, such as alone, inside another text, or quoted.
func forms(text string) map[string]string {
	return map[string]string{
		"plain": text, "within": "req_id is " + text + ", and so on", "in JSON": inJSON(text), "in JSON twice": inJSON(inJSON(text)), "in Go": strconv.Quote(text),
		"a value": `{"id":` + inJSON(text) + `,"type":"x"}`, "after a line break": inJSON("x\r\n" + text), "after a tab": strconv.Quote("\t" + text),
		"after a control character": inJSON("\x1b" + text), "after one in Go": strconv.Quote("\x07\x1b" + text), "after a tag": inJSON("<" + text),
		"a text log": "level=INFO msg=" + strconv.Quote(text), "a model": `model=` + strconv.Quote(text+".gguf"),
	}
}

// Text removes the secret parts of every spelling, in every form.
func TestSecrets(t *testing.T) {
	if len(secrets) < 40 {
		t.Fatalf("only %d spellings", len(secrets))
	}
	for _, marked := range secrets {
		text, parts := cut(marked)
		for how, form := range forms(text) {
			got := redact.Text(form)
			for _, part := range parts {
				if len(part) > 2 && strings.Contains(got, part) || len(part) > 4 && strings.Contains(got, part[1:]) {
					t.Errorf("%s %s: %s", marked, how, got)
				}
			}
			if !strings.Contains(got, "[REDACTED:") {
				t.Errorf("%s %s: no marker in %s", marked, how, got)
			}
		}
	}
}

// A Writer redacts a line even if the line is written in two pieces, wherever it is divided.
func TestWriter(t *testing.T) {
	for _, marked := range secrets {
		text, parts := cut(marked)
		all := forms(text)
		for _, how := range []string{"in Go", "in JSON twice", "a value", "after a line break", "a model"} {
			line := all[how] + "\n"
			for i := range len(line) + 1 {
				var out strings.Builder
				w := redact.Writer{W: &out}
				for _, piece := range []string{"first line\n" + line[:i], line[i:] + "and a rest"} {
					if n, err := w.Write([]byte(piece)); n != len(piece) || err != nil {
						t.Fatal(n, err)
					}
				}
				got := out.String()
				for _, part := range parts {
					if len(part) > 4 && strings.Contains(got, part[1:]) {
						t.Fatalf("%s %s, cut at %d: %s", marked, how, i, got)
					}
				}
				if !strings.HasPrefix(got, "first line\n") || !strings.HasSuffix(got, "\n") || strings.Count(got, "\n") != 2 {
					t.Fatalf("%s %s, cut at %d: %q", marked, how, i, got)
				}
			}
		}
	}
}

// Harmless text is not changed.
func TestHarmless(t *testing.T) {
	for _, text := range []string{
		"", "hello", `{"prompt_tokens":12345,"completion_tokens":6789}`, "input_tokens=12345 output_tokens=12345", "max_tokens: 100000",
		"task-550e8400-e29b-41d4-a716-446655440000", "a token of thanks", "the bearer of news", "token=abc", "tokenizer: something",
		"secretary: somebody", "sk-short", "AKIAshort", "ghp_short", "eyJ.x", "Asia and Akia", "risk-abcdefghijklmnopqrstuvw",
	} {
		if got := redact.Text(text); got != text {
			t.Errorf("%q became %q", text, got)
		}
	}
}

// Attributes are redacted before they are quoted, so a record stays valid JSON.
func TestAttr(t *testing.T) {
	for _, marked := range secrets {
		text, parts := cut(marked)
		for _, value := range []any{text, "x\r\n" + text, text + `\`, errors.New("no: " + text), []string{text}, struct{ A string }{text}} {
			var asJSON, asText strings.Builder
			opts := &slog.HandlerOptions{ReplaceAttr: redact.Attr}
			log := slog.New(slog.NewMultiHandler(slog.NewJSONHandler(&asJSON, opts), slog.NewTextHandler(&asText, opts)))
			log.Warn("it failed", slog.Any("err", value), slog.Group("g", slog.Any("x", value)), slog.Int("token", 12345))
			if !json.Valid([]byte(asJSON.String())) || !strings.Contains(asJSON.String(), `"token":12345`) {
				t.Errorf("%v: not JSON: %s", value, &asJSON)
			}
			for _, part := range parts {
				if len(part) > 4 && strings.Contains(asJSON.String()+asText.String(), part[1:]) {
					t.Errorf("%v: %s%s", value, &asJSON, &asText)
				}
			}
		}
	}
}

// FuzzText checks that redacting a text a second time changes nothing.
func FuzzText(f *testing.F) {
	for _, marked := range secrets {
		text, _ := cut(marked)
		f.Add(text)
		f.Add(strconv.Quote(text))
	}
	f.Fuzz(func(t *testing.T, text string) {
		once := redact.Text(text)
		if twice := redact.Text(once); twice != once {
			t.Errorf("%q became %q, then %q", text, once, twice)
		}
	})
}

func BenchmarkHarmless(b *testing.B) {
	line := strings.Repeat(`{"backend":"llamacpp","completion_tokens":12,"component":"activity"}`, 5)
	for b.Loop() {
		redact.Text(strings.ReplaceAll(line, "token", "taken"))
	}
}
