package engine_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/batch"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/encode"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/engine"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/llama"
	"github.com/inferd-go/inferd/internal/builtin"
	"github.com/inferd-go/inferd/internal/infer"
)

// loadEncoder runs an encoder with a built-in model during a test. Its context has room for the given
// number of tokens.
func loadEncoder(t *testing.T, name string, tokens int) *engine.Encoder {
	t.Helper()
	path, err := builtin.Ensure(t.TempDir(), name)
	if err != nil {
		t.Fatal(err)
	}
	model, err := llama.Load(path, llama.Options{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	const sequences = 16
	pooling := llama.OwnPooling
	if model.IsGenerative() {
		pooling = llama.Mean
	}
	lctx, err := llama.NewContext(model, llama.ContextOptions{
		NCtx: tokens, NBatch: tokens, NSeq: sequences, Threads: 1, Encodes: true, Pooling: pooling,
	})
	if err != nil {
		t.Fatal(err)
	}
	width := model.Width()
	if model.IsReranker() {
		width = 1
	}
	e := &engine.Encoder{
		Model: model, Ranks: model.IsReranker(), LongestToken: model.TokenTexts().Longest,
		Loop: &encode.Loop{Model: lctx, Limits: encode.Limits{Tokens: tokens, Sequences: sequences}, Width: width},
	}
	ctx, cancel := context.WithCancel(context.Background())
	var loop sync.WaitGroup
	loop.Go(func() { _ = e.Loop.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		loop.Wait()
		lctx.Close()
		model.Close()
	})
	return e
}

func vectors(t *testing.T, e *engine.Encoder, task *infer.Embed) ([][]float32, infer.Done) {
	t.Helper()
	var values [][]float32
	var done infer.Done
	err := e.Handle(t.Context(), &infer.Request{Task: task}, func(ev infer.Event) error {
		switch ev := ev.(type) {
		case *infer.Vectors:
			values = ev.Values
		case *infer.Done:
			done = *ev
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return values, done
}

func scores(t *testing.T, e *engine.Encoder, query string, documents ...string) []float64 {
	t.Helper()
	var values []float64
	err := e.Handle(t.Context(), &infer.Request{Task: &infer.Rerank{Query: query, Documents: documents}}, func(ev infer.Event) error {
		if ev, ok := ev.(*infer.Scores); ok {
			values = ev.Values
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return values
}

func cosine(a, b []float32) (c float64) {
	for i := range a {
		c += float64(a[i]) * float64(b[i])
	}
	return c
}

func TestEmbed(t *testing.T) {
	e := loadEncoder(t, "embed", 512)
	inputs := []string{"red apple", "green apple", "fast car"}
	got, done := vectors(t, e, &infer.Embed{Inputs: inputs})
	if len(got) != 3 || len(got[0]) != 64 || done.In != 7+8+6 || done.Backend != "llamacpp" || done.Model != "builtin-embed" {
		t.Fatalf("%d vectors of %d, %+v", len(got), len(got[0]), done)
	}
	for i, v := range got {
		if l := math.Sqrt(cosine(v, v)); math.Abs(l-1) > 1e-6 {
			t.Errorf("the vector of %q has length %v", inputs[i], l)
		}
	}
	if near, far := cosine(got[0], got[1]), cosine(got[0], got[2]); near < far+0.3 {
		t.Errorf("apples are %.2f from each other and %.2f from a car", near, far)
	}

	// A vector of fewer dimensions has the leading values, scaled to length 1 again.
	short, _ := vectors(t, e, &infer.Embed{Inputs: inputs, Dimensions: 8})
	for i, v := range short {
		scale := math.Sqrt(cosine(got[i][:8], got[i][:8]))
		for j, x := range v {
			if want := float64(got[i][j]) / scale; len(v) != 8 || math.Abs(float64(x)-want) > 1e-6 {
				t.Errorf("value %d of %q is %v of %d, want %v", j, inputs[i], x, len(v), want)
			}
		}
	}
}

// A text has the same vector alone and among many others. The vectors are in the order of the
// texts.
func TestEmbedTogether(t *testing.T) {
	e := loadEncoder(t, "embed", 128)
	var inputs []string
	for i := range 100 {
		inputs = append(inputs, fmt.Sprintf("text number %d %s", i, strings.Repeat("x", i%20)))
	}
	together, _ := vectors(t, e, &infer.Embed{Inputs: inputs})
	for i, text := range inputs {
		alone, _ := vectors(t, e, &infer.Embed{Inputs: []string{text}})
		if c := cosine(alone[0], together[i]); c < 0.9999 {
			t.Errorf("%q alone and together: %v", text, c)
		}
	}
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			got, _ := vectors(t, e, &infer.Embed{Inputs: inputs[i*10 : i*10+10]})
			for j, v := range got {
				if c := cosine(v, together[i*10+j]); c < 0.9999 {
					t.Errorf("beside others: %v", c)
				}
			}
		})
	}
	all.Wait()
}

func TestRerank(t *testing.T) {
	e := loadEncoder(t, "rerank", 512)
	docs := []string{"fast car", "green apple", "red apple", "an apple and nothing else of what is asked for here", "日本"}
	got := scores(t, e, "red apple", docs...)
	order := []int{0, 1, 2, 3, 4}
	slices.SortStableFunc(order, func(a, b int) int {
		if got[a] > got[b] {
			return -1
		}
		return 1
	})
	if !slices.Equal(order[:3], []int{2, 1, 3}) {
		t.Errorf("scores %v", got)
	}
	for i, doc := range docs {
		if alone := scores(t, e, "red apple", doc); math.Abs(alone[0]-got[i]) > 0.1 {
			t.Errorf("%q alone %v, among others %v", doc, alone[0], got[i])
		}
	}
	many := make([]string, 256)
	for i := range many {
		many[i] = fmt.Sprintf("document %d", i)
	}
	many[77] = "red apple"
	if all := scores(t, e, "red apple", many...); len(all) != 256 || slices.Max(all) != all[77] {
		t.Errorf("of 256: %d, %v", len(all), all)
	}
}

func TestEncoderRefuses(t *testing.T) {
	embed, rerank := loadEncoder(t, "embed", 32), loadEncoder(t, "rerank", 32)
	writer := load(t, "chain", batch.Limits{Context: 64, Batch: 16, Sequences: 1})
	long := strings.Repeat("a ", 31)
	for name, test := range map[string]struct {
		handler infer.Handler
		task    infer.Task
		code    infer.Code
		want    string
	}{
		"an input that is too long":    {embed, &infer.Embed{Inputs: []string{"a", long}}, infer.Invalid, "input[1] has 33 tokens, embed_n_ctx allows 32"},
		"one that is far too long":     {embed, &infer.Embed{Inputs: []string{strings.Repeat("ab", 1<<20)}}, infer.Invalid, "input[0] has more than"},
		"a document that is too long":  {rerank, &infer.Rerank{Query: "q", Documents: []string{long}}, infer.Invalid, "documents[0] with the query has 35 tokens, rerank_n_ctx allows 32"},
		"a query that is too long":     {rerank, &infer.Rerank{Query: long, Documents: []string{"d"}}, infer.Invalid, "query has 3"},
		"a query that is far too long": {rerank, &infer.Rerank{Query: strings.Repeat("ab", 1<<20), Documents: []string{"d"}}, infer.Invalid, "query has more than"},
		"too many dimensions":          {embed, &infer.Embed{Inputs: []string{"a"}, Dimensions: 65}, infer.Invalid, "dimensions 65 exceeds model n_embd 64"},
		"to rerank with an embedder":   {embed, &infer.Rerank{Query: "q", Documents: []string{"d"}}, infer.Unsupported, "rerank not supported by this backend"},
		"to embed with a reranker":     {rerank, &infer.Embed{Inputs: []string{"a"}}, infer.Unsupported, "embed not supported by this backend"},
		"to write with an embedder":    {embed, &infer.Generate{}, infer.Unsupported, "generation not supported by this backend"},
		"to embed with a generator":    {writer, &infer.Embed{Inputs: []string{"a"}}, infer.Unsupported, "this model only generates"},
	} {
		t.Run(name, func(t *testing.T) {
			err := test.handler.Handle(t.Context(), &infer.Request{Task: test.task}, func(infer.Event) error { return nil })
			if infer.CodeOf(err) != test.code || err == nil || !strings.HasPrefix(err.Error(), test.want) {
				t.Errorf("got %v (%s), want %s (%s)", err, infer.CodeOf(err), test.want, test.code)
			}
		})
	}
	// The longest input that fits is embedded, even after the failures.
	if got, _ := vectors(t, embed, &infer.Embed{Inputs: []string{strings.Repeat("a ", 30)}}); len(got) != 1 {
		t.Errorf("%d vectors", len(got))
	}
}

func TestEncodeCanceled(t *testing.T) {
	e := loadEncoder(t, "embed", 64)
	gone := errors.New("gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(gone)
	err := e.Handle(ctx, &infer.Request{Task: &infer.Embed{Inputs: []string{"a"}}}, func(infer.Event) error { return nil })
	if !errors.Is(err, gone) {
		t.Errorf("got %v", err)
	}
}

// The vector and the score of a text do not depend on the other texts of the batch.
func TestTogetherAsAlone(t *testing.T) {
	var texts []string
	for i := range 10 {
		texts = append(texts, strings.Repeat("red apple, fast car. ", i/2+1)+string(rune('a'+i)))
	}
	for _, name := range []string{"embed", "tiny"} {
		e := loadEncoder(t, name, 1024)
		all, _ := vectors(t, e, &infer.Embed{Inputs: texts})
		for i, text := range texts {
			alone, _ := vectors(t, e, &infer.Embed{Inputs: []string{text}})
			if c := cosine(alone[0], all[i]); c < 0.9999 {
				t.Errorf("%s: the vector of text %d has a cosine of %v to the one among ten", name, i, c)
			}
		}
	}
	e := loadEncoder(t, "rerank", 512)
	all := scores(t, e, "red apple", texts[:5]...)
	for i, text := range texts[:5] {
		if alone := scores(t, e, "red apple", text)[0]; math.Abs(alone-all[i]) > 0.0005 {
			t.Errorf("document %d has score %v alone and %v among five", i, alone, all[i])
		}
	}
}

// An input that does not fit is refused, or truncated at its end if the request has Truncate.
func TestTruncate(t *testing.T) {
	e := loadEncoder(t, "embed", 16)
	long := strings.Repeat("red apple ", 100)
	if err := e.Handle(t.Context(), &infer.Request{Task: &infer.Embed{Inputs: []string{long}}}, func(infer.Event) error { return nil }); infer.CodeOf(err) != infer.Invalid {
		t.Errorf("without: %v", err)
	}
	cut, done := vectors(t, e, &infer.Embed{Inputs: []string{long, "red"}, Truncate: true})
	short, _ := vectors(t, e, &infer.Embed{Inputs: []string{"red"}})
	if len(cut) != 2 || done.In <= 16 || done.In > 16+16 || !slices.Equal(cut[1], short[0]) {
		t.Errorf("%d tokens, %v", done.In, cut)
	}
	if c := cosine(cut[0], short[0]); math.IsNaN(c) || c <= 0 {
		t.Errorf("the vector of the beginning is unlike it: %v", c)
	}
	if cut, _ = vectors(t, e, &infer.Embed{Inputs: []string{strings.Repeat("é", 1000)}, Truncate: true}); len(cut[0]) != 64 {
		t.Errorf("%d values", len(cut[0]))
	}
}
