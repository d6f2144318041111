package openai

import (
	"cmp"
	"math"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// Limits of a request to rerank.
const (
	maxDocuments     = 256
	maxDocumentBytes = 8 << 20 // bytes of the query and all documents
)

// A Rerank is a request to sort documents by their relevance to a query, in the form of Jina and
// Cohere, which many servers have in addition to OpenAI's interface.
type Rerank struct {
	Task    *infer.Rerank
	ID      string // ID of the answer
	Model   string // as the client spells it; may be empty
	Ignored []string

	texts  bool // return the documents
	raw    bool // return the model's own scores
	scores []float64
}

// ReadRerank decodes the body of a request. The caller must have checked it with [wire.Weigh].
func ReadRerank(body []byte) (*Rerank, error) {
	var m struct {
		Model     string           `json:"model"`
		Query     *string          `json:"query"`
		Documents []jsontext.Value `json:"documents"` // texts, or objects with a text
		TopN      *wire.Integer    `json:"top_n"`
		Return    bool             `json:"return_documents"`
		Raw       bool             `json:"raw_scores"` // an extension of inferd
		User      jsontext.Value   `json:"user"`
		Chunks    jsontext.Value   `json:"max_chunks_per_doc"`
		MaxTokens jsontext.Value   `json:"max_tokens_per_doc"`
		Fields    jsontext.Value   `json:"rank_fields"`
	}
	if err := wire.Unmarshal(body, &m); err != nil {
		return nil, err
	}
	switch {
	case wire.ValueOr(m.Query, "") == "":
		return nil, web.Invalid("query", "query must not be empty")
	case len(m.Documents) == 0:
		return nil, web.Invalid("documents", "documents must not be empty")
	case len(m.Documents) > maxDocuments:
		return nil, web.Invalid("documents", "documents: %d are too many, at most %d are allowed", len(m.Documents), maxDocuments)
	case web.Present(m.Fields):
		return nil, web.Invalid("rank_fields", "rank_fields is not supported: send the text of each document")
	}
	r := &Rerank{Model: m.Model, Task: &infer.Rerank{Model: m.Model, Query: *m.Query}, texts: m.Return, raw: m.Raw}
	for name, value := range map[string]jsontext.Value{"user": m.User, "max_chunks_per_doc": m.Chunks, "max_tokens_per_doc": m.MaxTokens} {
		if web.Present(value) {
			r.Ignored = append(r.Ignored, name)
		}
	}
	slices.Sort(r.Ignored)
	if err := r.documents(m.Documents); err != nil {
		return nil, err
	}
	if m.TopN != nil {
		n, err := web.Integer("top_n", m.TopN, 1)
		if err != nil {
			return nil, err
		}
		r.Task.TopN = n
	}
	return r, nil
}

func (r *Rerank) documents(all []jsontext.Value) error {
	size := len(r.Task.Query)
	for i, value := range all {
		text := struct {
			Text string `json:"text"`
		}{}
		var err error
		if value.Kind() == jsontext.KindString {
			err = web.Decode("documents", value, &text.Text)
		} else {
			err = web.Decode("documents", value, &text)
		}
		switch {
		case err != nil:
			return web.Invalid("documents", "documents[%d] must be a text, or an object with one", i)
		case text.Text == "":
			return web.Invalid("documents", "documents[%d] must not be empty", i)
		}
		size += len(text.Text)
		r.Task.Documents = append(r.Task.Documents, text.Text)
	}
	if size > maxDocumentBytes {
		return web.Invalid("documents", "query and documents have %d bytes, at most %d are allowed", size, maxDocumentBytes)
	}
	return nil
}

// Collect takes an event of the answer. For the Done it returns the body of the answer, otherwise
// nil.
func (r *Rerank) Collect(ev infer.Event) ([]byte, error) {
	switch ev := ev.(type) {
	case *infer.Admitted:
		return nil, nil
	case *infer.Scores:
		r.scores = slices.Clone(ev.Values)
		return nil, nil
	case *infer.Done:
		return r.body(ev)
	default:
		return nil, infer.Errorf(infer.Internal, "rerank cannot encode a %T", ev)
	}
}

// body returns the results, best first. Results with equal scores keep the order of the request.
func (r *Rerank) body(ev *infer.Done) ([]byte, error) {
	order := make([]int, min(len(r.scores), len(r.Task.Documents)))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(r.scores[b], r.scores[a]) })
	if r.Task.TopN > 0 {
		order = order[:min(r.Task.TopN, len(order))]
	}
	dst := wire.AppendString([]byte(`{"id":`), r.ID)
	dst = append(dst, `,"object":"list","model":`...)
	dst = wire.AppendString(dst, r.Model)
	dst = append(dst, `,"results":[`...)
	for n, i := range order {
		score := r.scores[i]
		if math.IsNaN(score) || math.IsInf(score, 0) {
			return nil, infer.Errorf(infer.Internal, "backend returned a non-finite score")
		}
		if !r.raw {
			score = 1 / (1 + math.Exp(-score))
		}
		if n > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"index":`...)
		dst = strconv.AppendInt(dst, int64(i), 10)
		dst = append(dst, `,"relevance_score":`...)
		dst = strconv.AppendFloat(dst, score, 'g', -1, 64)
		if r.texts {
			dst = append(dst, `,"document":{"text":`...)
			dst = append(wire.AppendString(dst, r.Task.Documents[i]), '}')
		}
		dst = append(dst, '}')
	}
	dst = append(dst, `],"usage":{"prompt_tokens":`...)
	dst = strconv.AppendInt(dst, int64(ev.In), 10)
	dst = append(dst, `,"total_tokens":`...)
	dst = strconv.AppendInt(dst, int64(ev.In), 10)
	return append(dst, `},"meta":null}`...), nil
}
