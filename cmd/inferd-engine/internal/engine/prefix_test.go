package engine

import (
	"math"
	"slices"
	"testing"

	"github.com/inferd-go/inferd/internal/infer"
)

func TestPrefix(t *testing.T) {
	for name, test := range map[string]struct {
		architecture, name string
		purpose            infer.EmbedTask
		want               string
	}{
		"a model nobody knows":  {"bert", "builtin-embed", infer.RetrievalQuery, ""},
		"by its architecture":   {"gemma-embedding", "x", infer.RetrievalDocument, "title: none | text: "},
		"by its name":           {"gemma3", "EmbeddingGemma 300m", infer.Similarity, "task: sentence similarity | query: "},
		"no purpose":            {"gemma-embedding", "x", infer.NoEmbedTask, ""},
		"one it was not taught": {"nomic-bert", "x", infer.CodeRetrievalQuery, ""},
		"a multilingual one":    {"bert", "multilingual-E5-small", infer.RetrievalDocument, "passage: "},
	} {
		t.Run(name, func(t *testing.T) {
			if got := prefix(test.architecture, test.name, test.purpose); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestNormalize(t *testing.T) {
	nan := float32(math.NaN())
	for name, test := range map[string]struct {
		v, want []float32
		ok      bool
	}{
		"a vector":          {[]float32{3, 4}, []float32{0.6, 0.8}, true},
		"zeros stay":        {[]float32{0, 0}, []float32{0, 0}, true},
		"what is no number": {[]float32{1, nan}, nil, false},
		"infinity":          {[]float32{float32(math.Inf(1))}, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			if ok := normalize(test.v); ok != test.ok || ok && !slices.Equal(test.v, test.want) {
				t.Errorf("%v, %v, want %v, %v", test.v, ok, test.want, test.ok)
			}
		})
	}
}
