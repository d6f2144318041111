package llama_test

import (
	"slices"
	"testing"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/llama"
	"github.com/inferd-go/inferd/internal/builtin"
)

// TokenTexts counts a user-defined token as special exactly if it is a tag that the chat template
// contains. A token with an empty spelling, which llama.cpp replaces by another one, is not special.
func TestTags(t *testing.T) {
	s := &builtin.Scripted{
		Template: "<think>{{ messages }} xy <a b> []", Defined: []string{"", "xy", "[]", "<think>", "<a b>", "<other>"},
		Recitals: []builtin.Recital{{After: "<|bos|>", Tokens: []string{"Hi"}}},
	}
	m, _ := loadFile(t, file(t, s.Write), llama.ContextOptions{NCtx: 64, NBatch: 32, NSeq: 1, Threads: 1})
	specials := m.TokenTexts().Specials
	for _, text := range s.Defined {
		if got, want := slices.Contains(specials, text), text == "<think>"; got != want {
			t.Errorf("%q is special: %v", text, got)
		}
	}
}
