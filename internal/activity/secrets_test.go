package activity

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/internal/exchange"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
)

// No file contains a secret that package redact recognises, whatever its spelling and the kind of
// member, even with two secrets in one record. Every line is JSON.
func TestNoSecretIsWritten(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("..", "redact", "testdata", "secrets.txt"))
	if err != nil {
		t.Fatal(err)
	}
	spellings := strings.Split(strings.TrimSpace(string(raw)), "\n")
	if len(spellings) < 40 {
		t.Fatalf("only %d spellings", len(spellings))
	}
	dir := t.TempDir()
	l := opened(t, dir, 100_000) // small enough to be rotated
	log := slog.New(l.Handler("daemon"))
	var parts []string
	quoted := func(s string) string {
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	search := func(when string) {
		t.Helper()
		l.Flush()
		for n, line := range lines(t, dir) {
			if !json.Valid([]byte(line)) {
				t.Fatalf("%s: line %d is no JSON: %s", when, n, line)
			}
			if !strings.Contains(line, "[REDACTED:") {
				t.Fatalf("%s: line %d has no marker: %s", when, n, line)
			}
			for _, part := range parts {
				if strings.Contains(line, part) {
					t.Fatalf("%s: %q is in line %d: %s", when, part, n, line)
				}
			}
		}
	}
	before := ""
	for _, marked := range spellings {
		text := strings.NewReplacer("«", "", "»", "").Replace(marked)
		parts = parts[:0]
		for piece := range strings.SplitSeq(marked, "«") {
			if part, _, ok := strings.Cut(piece, "»"); ok && len(part) > 4 {
				parts = append(parts, part[1:])
			}
		}
		for _, form := range []string{
			text, quoted(text), quoted(quoted(text)), strconv.Quote(text), "x\r\n" + text, quoted("x\n" + text), "models/" + text + ".gguf",
			`{"id":` + quoted(text) + `}`, "the id " + text + ", and " + text,
		} {
			l.Request(&exchange.Record{
				Outcome: exchange.Done, Task: exchange.Generate, Dialect: wire.V1, ID: form,
				Admission: infer.Admitted{Model: before}, Answered: true, Usage: infer.Done{In: 12345},
			})
			log.Warn("it failed", slog.Any("err", fmt.Errorf("backend: %w", errors.New(form))))
			log.Info("x", slog.Any("panic", []string{form}), slog.Group("g", slog.String("a", form)))
			log.With(slog.String("id", form)).WithGroup("g").Error("x")
			before = form
		}
		search(marked)
	}
	if l.Lost() != 0 {
		t.Errorf("%d lost", l.Lost())
	}
}
