package builtin_test

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/inferd-go/inferd/internal/builtin"
)

// scripted generates a model with two answers.
func scripted(t *testing.T, change func(*builtin.Scripted)) header {
	t.Helper()
	s := &builtin.Scripted{
		Template: "{{ messages }}", Controls: []string{"<call>", "</call>"}, Unused: []string{"<unused>"}, Defined: []string{"<think>"}, Wrong: []string{"<unused>"},
		Recitals: []builtin.Recital{
			{After: "<|bos|>", Skip: 7, Tokens: []string{"Hi", " ", "<call>", "Hi", "é", "</call>"}},
			{After: "<|im_start|>", Tokens: []string{" ok", "."}},
		},
	}
	if change != nil {
		change(s)
	}
	var file bytes.Buffer
	if err := s.Write(&file); err != nil {
		t.Fatal(err)
	}
	return parse(t, file.Bytes())
}

func TestScriptedVocabulary(t *testing.T) {
	h := scripted(t, nil)
	tokens, _ := h.meta["tokenizer.ggml.tokens"].([]string)
	kinds, _ := h.meta["tokenizer.ggml.token_type"].([]int32)
	if diff := cmp.Diff([]string{"<call>", "</call>", "Hi", "Ã©", "Ġok", "<unused>", "<think>"}, tokens[260:]); diff != "" {
		t.Errorf("tokens (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]int32{3, 3, 1, 1, 1, 5, 4}, kinds[260:]); diff != "" {
		t.Errorf("kinds (-want +got):\n%s", diff)
	}
	if merges, ok := h.meta["tokenizer.ggml.merges"].([]string); !ok || len(merges) > 0 {
		t.Errorf("merges %q", merges)
	}
}

// A head gives an anchor a high score if and only if the head's bit is set in the remainder of the
// index in the script, which follows from the distance to the anchor.
func TestScriptedHeads(t *testing.T) {
	h := scripted(t, nil)
	width := int(h.tensors["token_embd.weight"].dims[0])
	root := math.Sqrt(float64(width))
	factors := h.floats(t, "rope_freqs.weight")
	queries, keys := h.floats(t, "blk.0.attn_q.weight"), h.floats(t, "blk.0.attn_k.weight")
	embedding := h.floats(t, "token_embd.weight")
	length, _ := h.meta["llama.attention.key_length"].(uint32)
	head := int(length)
	for anchor, first := range map[int]int{256: -7, 257: 7} { // indexes of the tokens after them
		flag := slices.Index(embedding[anchor*width+1:(anchor+1)*width], 1) + 1
		for distance := range 1287 {
			index := (distance + first + 1287) % 1287
			for bit := range 12 {
				score := 0.0
				for pair := range head / 2 {
					angle := float64(distance) * math.Pow(10000, -2*float64(pair)/float64(head)) / float64(factors[pair])
					q := func(i int) float64 { return float64(queries[(bit*head+2*pair+i)*width]) * root }
					k := func(i int) float64 { return float64(keys[(2*pair+i)*width+flag]) * root / math.Sqrt2 }
					sin, cos := math.Sincos(angle)
					score += (q(0)*cos-q(1)*sin)*k(0) + (q(0)*sin+q(1)*cos)*k(1)
				}
				score /= math.Sqrt(float64(head))
				period := []int{9, 11, 13}[bit/4]
				if set := index%period>>(bit%4)&1 == 1; set && score < 29 || !set && score > -29 {
					t.Fatalf("anchor %d, distance %d, index %d: bit %d mod %d has a score of %.1f", anchor, distance, index, bit%4, period, score)
				}
			}
		}
	}
}

// A model with random weights has the same vocabulary.
func TestScriptedRandom(t *testing.T) {
	want := scripted(t, nil)
	got := scripted(t, func(s *builtin.Scripted) { s.Random = 3 })
	if diff := cmp.Diff(want.meta["tokenizer.ggml.tokens"], got.meta["tokenizer.ggml.tokens"]); diff != "" {
		t.Errorf("tokens (-script +random):\n%s", diff)
	}
	if got.meta["llama.block_count"] != uint32(2) {
		t.Errorf("blocks: %v", got.meta["llama.block_count"])
	}
}

func TestScriptedRefusals(t *testing.T) {
	for want, recitals := range map[string][]builtin.Recital{
		"is no control token":              {{After: "a", Tokens: []string{"b"}}},
		"has 0 tokens":                     {{After: "<|bos|>"}},
		"skips -1":                         {{After: "<|bos|>", Skip: -1, Tokens: []string{"b"}}},
		"two answers after":                {{After: "<|bos|>", Tokens: []string{"b"}}, {After: "<|bos|>", Tokens: []string{"c"}}},
		"1287 are possible":                {{After: "<|bos|>", Tokens: slices.Repeat([]string{"b"}, 1287)}},
		"token 1 of an answer has no text": {{After: "<|bos|>", Tokens: []string{"a", ""}}},
	} {
		var file bytes.Buffer
		err := (&builtin.Scripted{Recitals: recitals}).Write(&file)
		if err == nil || !strings.Contains(err.Error(), want) || file.Len() > 0 {
			t.Errorf("%v, want %q", err, want)
		}
	}
	s := &builtin.Scripted{Recitals: []builtin.Recital{{After: "<|bos|>", Tokens: []string{"b"}}}}
	if err := s.Write(brokenWriter{}); !errors.Is(err, errEnough) {
		t.Errorf("%v, want the writer's error", err)
	}
}
