package builtin_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/inferd-go/inferd/internal/builtin"
)

func TestScript(t *testing.T) {
	var file bytes.Buffer
	if err := builtin.Script(&file, " Hi", ".", "\n", "U", ":"); err != nil {
		t.Fatal(err)
	}
	h := parse(t, file.Bytes())
	if template, ok := h.meta["tokenizer.chat_template"]; ok {
		t.Errorf("it has a template: %v", template)
	}
	tokens, _ := h.meta["tokenizer.ggml.tokens"].([]string)
	if diff := cmp.Diff([]string{"ĠH", "ĠHi"}, tokens[260:]); diff != "" {
		t.Errorf("words (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"Ġ H", "ĠH i"}, h.meta["tokenizer.ggml.merges"]); diff != "" {
		t.Errorf("merges (-want +got):\n%s", diff)
	}
	// A token is followed by the token with a weight for it in its output row.
	width := int(h.tensors["output.weight"].dims[0])
	output := h.floats(t, "output.weight")
	for token, want := range map[int]int{':': 261, 261: '.', '.': '\n', '\n': 'U', 'U': ':', 'x': 261, 260: 261} {
		row := func(row []float32) bool { return row[token] > 0 }
		if got := slices.IndexFunc(slices.Collect(slices.Chunk(output, width)), row); got != want {
			t.Errorf("%d is followed by %d, want %d", token, got, want)
		}
	}
	if want := h.tensors["token_embd.weight"].dims[1]; want != 262 || width%32 != 0 {
		t.Errorf("%d embeddings, %d wide", want, width)
	}
}

func TestScriptRefusals(t *testing.T) {
	for name, test := range map[string]struct {
		pieces []string
		want   string
	}{
		"no pieces":      {nil, "no pieces"},
		"an empty piece": {[]string{"a", ""}, "piece 1"},
		"a piece twice":  {[]string{"a", "b", "a"}, "piece 2"},
	} {
		t.Run(name, func(t *testing.T) {
			var file bytes.Buffer
			if err := builtin.Script(&file, test.pieces...); err == nil || !strings.Contains(err.Error(), test.want) || file.Len() > 0 {
				t.Errorf("%d bytes, %v; want %q", file.Len(), err, test.want)
			}
		})
	}
	if err := builtin.Script(new(head), "a"); err != nil { // head has room for the whole file
		t.Error(err)
	}
	if err := builtin.Script(brokenWriter{}, "a"); !errors.Is(err, errEnough) {
		t.Errorf("%v, want the writer's error", err)
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errEnough }
