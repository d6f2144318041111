package engine

import (
	"context"
	"fmt"
	"math"
	"strings"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/encode"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/llama"
	"github.com/inferd-go/inferd/internal/infer"
)

// An Encoder is a Handler over one loaded model that embeds or reranks.
type Encoder struct {
	Model *llama.Model
	Loop  *encode.Loop
	Ranks bool // it reranks, and does not embed
	// LongestToken is the maximum number of bytes in a token's text; 0 is unknown.
	LongestToken int
}

var _ Handler = (*Encoder)(nil)

// Abilities returns the one task of the encoder: to embed or to rerank.
func (e *Encoder) Abilities() infer.Abilities {
	return infer.Abilities{Embed: !e.Ranks, Rerank: e.Ranks}
}

// Handle answers req. The error for a request that does not fit the model is [infer.Invalid] and
// has the reason; for a task beyond [Encoder.Abilities] it is [infer.Unsupported].
func (e *Encoder) Handle(ctx context.Context, req *infer.Request, emit infer.Sink) error {
	switch t := req.Task.(type) {
	case *infer.Embed:
		if e.Ranks {
			return infer.Errorf(infer.Unsupported, "embed not supported by this backend")
		}
		return e.embed(ctx, callOf(req), t, emit)
	case *infer.Rerank:
		if !e.Ranks {
			return infer.Errorf(infer.Unsupported, "rerank not supported by this backend")
		}
		return e.rerank(ctx, callOf(req), t, emit)
	case *infer.Generate, *infer.Count:
		return infer.Errorf(infer.Unsupported, "generation not supported by this backend")
	}
	return infer.Errorf(infer.Internal, "this engine does not know a %T", req.Task)
}

func (e *Encoder) embed(ctx context.Context, call uint64, t *infer.Embed, emit infer.Sink) error {
	width := e.Loop.Width
	if t.Dimensions > width {
		return infer.Errorf(infer.Invalid, "dimensions %d exceeds model n_embd %d", t.Dimensions, width)
	}
	if t.Dimensions > 0 {
		width = t.Dimensions
	}
	architecture, _ := e.Model.Metadata("general.architecture")
	before := prefix(architecture, e.Model.Name(), t.Task)
	vectors, count, err := e.encode(ctx, call, len(t.Inputs), func(i int) ([]encode.Token, error) {
		text := before + t.Inputs[i]
		if t.Truncate {
			return e.truncate(fmt.Sprintf("input[%d]", i), text)
		}
		return e.tokenize(fmt.Sprintf("input[%d]", i), "embed_n_ctx", len(text), func() ([]encode.Token, error) { return e.Model.TokenizeWhole(text) })
	})
	if err != nil {
		return err
	}
	for i, v := range vectors {
		if !normalize(v[:width]) {
			return infer.Errorf(infer.Internal, "the vector of input[%d] is not a number", i)
		}
		vectors[i] = v[:width]
	}
	if err := emit(&infer.Vectors{Values: vectors}); err != nil {
		return err
	}
	return e.done(count, emit)
}

func (e *Encoder) rerank(ctx context.Context, call uint64, t *infer.Rerank, emit infer.Sink) error {
	const setting = "rerank_n_ctx"
	pair := func(name, document string) ([]encode.Token, error) {
		return e.tokenize(name, setting, len(t.Query)+len(document), func() ([]encode.Token, error) { return e.Model.TokenizePair(t.Query, document) })
	}
	alone, err := pair("query", "")                                     // an error names the query
	if most := e.Loop.Limits.Tokens; err == nil && len(alone) >= most { // no document fits behind the query
		err = infer.Errorf(infer.Invalid, "query has %d tokens without any document, %s allows %d for both", len(alone), setting, most)
	}
	if err != nil {
		return err
	}
	results, count, err := e.encode(ctx, call, len(t.Documents), func(i int) ([]encode.Token, error) {
		return pair(fmt.Sprintf("documents[%d] with the query", i), t.Documents[i])
	})
	if err != nil {
		return err
	}
	scores := make([]float64, len(results))
	for i, r := range results {
		scores[i] = float64(r[0])
		if math.IsNaN(scores[i]) || math.IsInf(scores[i], 0) {
			return infer.Errorf(infer.Internal, "the score of documents[%d] is not a number", i)
		}
	}
	if err := emit(&infer.Scores{Values: scores}); err != nil {
		return err
	}
	return e.done(count, emit)
}

func (e *Encoder) done(count int, emit infer.Sink) error {
	return emit(&infer.Done{Reason: infer.EndOfTurn, In: count, Backend: Kind, Model: e.Model.Name()})
}

// encode computes the vectors or scores of n texts; tokens returns the tokens of text i. It also
// returns the number of tokens of all texts.
func (e *Encoder) encode(ctx context.Context, call uint64, n int, tokens func(i int) ([]encode.Token, error)) ([][]float32, int, error) {
	inputs := make([][]encode.Token, n)
	total := 0
	for i := range n {
		if ctx.Err() != nil {
			return nil, 0, context.Cause(ctx)
		}
		tokens, err := tokens(i)
		if err != nil {
			return nil, 0, err
		}
		inputs[i] = tokens
		total += len(tokens)
	}
	results, err := e.Loop.Do(ctx, call, inputs)
	return results, total, err
}

// tokenize returns the result of the function tokenize for a text of the given number of bytes, or an error
// if it has no tokens or too many. In errors, name stands for the text, and setting for the bound.
func (e *Encoder) tokenize(name, setting string, bytes int, tokenize func() ([]encode.Token, error)) ([]encode.Token, error) {
	most := e.Loop.Limits.Tokens
	// A text that cannot fit is not tokenised, which could take a second per 100 KB.
	if e.LongestToken > 0 && bytes/e.LongestToken > most {
		return nil, infer.Errorf(infer.Invalid, "%s has more than %d tokens, %s allows %d", name, bytes/e.LongestToken, setting, most)
	}
	tokens, err := tokenize()
	switch {
	case err != nil:
		return nil, infer.Errorf(infer.Internal, "tokenize: %w", err)
	case len(tokens) == 0:
		return nil, infer.Errorf(infer.Invalid, "%s produced zero tokens", name)
	case len(tokens) > most:
		return nil, infer.Errorf(infer.Invalid, "%s has %d tokens, %s allows %d", name, len(tokens), setting, most)
	}
	return tokens, nil
}

// truncate returns the first tokens of a text, as many as fit. If the model ends a text with a
// control token, that token is the last one.
func (e *Encoder) truncate(name, text string) ([]encode.Token, error) {
	most := e.Loop.Limits.Tokens
	if n := e.LongestToken * most; n > 0 && len(text) > n {
		text = strings.ToValidUTF8(text[:n], "") // the cut may have divided a character
	}
	tokens, err := e.Model.TokenizeWhole(text)
	switch {
	case err != nil:
		return nil, infer.Errorf(infer.Internal, "tokenize: %w", err)
	case len(tokens) == 0:
		return nil, infer.Errorf(infer.Invalid, "%s produced zero tokens", name)
	case len(tokens) <= most:
		return tokens, nil
	}
	last := tokens[len(tokens)-1]
	if tokens = tokens[:most]; e.Model.IsControl(last) {
		tokens[most-1] = last
	}
	return tokens, nil
}

// normalize scales v to length 1, but leaves a vector of zeros unchanged. It reports false if a
// value of v is not finite.
func normalize(v []float32) bool {
	sum := 0.0
	for _, x := range v {
		sum += float64(x) * float64(x)
	}
	if math.IsNaN(sum) || math.IsInf(sum, 0) {
		return false
	}
	if sum > 0 {
		scale := 1 / math.Sqrt(sum)
		for i, x := range v {
			v[i] = float32(float64(x) * scale)
		}
	}
	return true
}

// prefixes are the texts that models were trained to expect before an input, by the purpose of the
// vector. They are from the model cards.
var prefixes = []struct {
	architecture, name string // either the architecture, or a part of the model's name, in lower case
	texts              map[infer.EmbedTask]string
}{
	{"gemma-embedding", "embeddinggemma", map[infer.EmbedTask]string{
		infer.RetrievalQuery:     "task: search result | query: ",
		infer.RetrievalDocument:  "title: none | text: ",
		infer.Similarity:         "task: sentence similarity | query: ",
		infer.Classification:     "task: classification | query: ",
		infer.Clustering:         "task: clustering | query: ",
		infer.QuestionAnswering:  "task: question answering | query: ",
		infer.FactVerification:   "task: fact checking | query: ",
		infer.CodeRetrievalQuery: "task: code retrieval | query: ",
	}},
	{"nomic-bert", "nomic-embed", map[infer.EmbedTask]string{
		infer.RetrievalQuery:    "search_query: ",
		infer.RetrievalDocument: "search_document: ",
		infer.Classification:    "classification: ",
		infer.Clustering:        "clustering: ",
		infer.QuestionAnswering: "search_query: ",
		infer.FactVerification:  "search_query: ",
	}},
	{"", "e5-", map[infer.EmbedTask]string{
		infer.RetrievalQuery:    "query: ",
		infer.RetrievalDocument: "passage: ",
		infer.Similarity:        "query: ",
		infer.Classification:    "query: ",
		infer.Clustering:        "query: ",
		infer.QuestionAnswering: "query: ",
		infer.FactVerification:  "query: ",
	}},
}

// prefix returns the text to put before an input; empty for a model without prefixes.
func prefix(architecture, name string, p infer.EmbedTask) string {
	name = strings.ToLower(name)
	for _, m := range prefixes {
		if m.architecture != "" && architecture == m.architecture || strings.Contains(name, m.name) {
			return m.texts[p]
		}
	}
	return ""
}
