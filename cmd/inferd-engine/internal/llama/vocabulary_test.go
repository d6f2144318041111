package llama_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/llama"
	"github.com/inferd-go/inferd/internal/builtin"
)

// Vocabulary returns the bytes of every token, marks end tokens as control tokens, and calls yield as
// it goes on. The memory that it allocates is linear in the size of the vocabulary, not quadratic.
func TestVocabulary(t *testing.T) {
	pieces := make([]string, 2000)
	if testing.Short() {
		pieces = pieces[:200]
	}
	for i := range pieces {
		pieces[i] = fmt.Sprintf("p%d", i)
	}
	path := filepath.Join(t.TempDir(), "script.gguf")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(builtin.Script(f, pieces...), f.Close()); err != nil {
		t.Fatal(err)
	}
	m, err := llama.Load(path, llama.Options{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	yields := 0
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	tokens, ends := m.Vocabulary(func() { yields++ })
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 400<<10 {
		t.Errorf("%d tokens took %d bytes", len(tokens), took)
	}
	if len(tokens) != m.NTokens() || yields < len(tokens)/1000 {
		t.Errorf("%d tokens of %d, %d yields", len(tokens), m.NTokens(), yields)
	}
	for _, end := range ends {
		if !m.IsEOG(end) || !tokens[end].Control {
			t.Errorf("%d is an end: %v, %+v", end, m.IsEOG(end), tokens[end])
		}
	}
	seen := make(map[string]bool)
	for id, tok := range tokens {
		if !tok.Control && string(tok.Bytes) != string(m.AppendPiece(nil, llama.Token(id))) {
			t.Errorf("token %d is %q", id, tok.Bytes)
		}
		seen[string(tok.Bytes)] = true
	}
	if len(ends) == 0 || !seen[pieces[0]] || !seen[pieces[len(pieces)-1]] {
		t.Errorf("%d ends; first and last piece: %v, %v", len(ends), seen[pieces[0]], seen[pieces[len(pieces)-1]])
	}
}
