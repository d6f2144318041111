package ollama

import (
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// Embeddings is a request for embeddings, in the current or in the older form.
type Embeddings struct {
	Task    *infer.Embed
	Model   string // as the client spells it; may be empty
	Ignored []string

	old     bool // the older form: one text, one vector
	vectors [][]float32
}

// maxInputs bounds the texts of a request.
const maxInputs = 2048

// ignoredEmbed has the members of a request for embeddings that have no effect.
type ignoredEmbed struct {
	Options   jsontext.Value `json:"options"`
	KeepAlive jsontext.Value `json:"keep_alive"`
}

func (m *ignoredEmbed) names() (all []string) {
	if web.Present(m.KeepAlive) {
		all = append(all, "keep_alive")
	}
	var options map[string]jsontext.Value
	if web.Present(m.Options) && wire.Unmarshal(m.Options, &options) == nil && len(options) > 0 {
		all = append(all, "options")
	}
	return all
}

// ReadEmbed decodes the body of /api/embed. The caller must have checked it with [wire.Weigh]. If the
// result has no Task.Inputs, the request only loads the model.
func ReadEmbed(body []byte) (*Embeddings, error) {
	var m struct {
		names
		ignoredEmbed

		Input      jsontext.Value `json:"input"` // a text or a list
		Truncate   *bool          `json:"truncate"`
		Dimensions *wire.Integer  `json:"dimensions"`
	}
	if err := wire.Unmarshal(body, &m); err != nil {
		return nil, err
	}
	e := &Embeddings{Task: &infer.Embed{Model: m.name(), Truncate: wire.ValueOr(m.Truncate, true)}, Model: m.name(), Ignored: m.ignoredEmbed.names()}
	switch {
	case !web.Present(m.Input):
	case m.Input.Kind() == jsontext.KindString:
		var text string
		if err := web.Decode("input", m.Input, &text); err != nil {
			return nil, err
		}
		if text != "" {
			e.Task.Inputs = []string{text}
		}
	default:
		if err := web.Decode("input", m.Input, &e.Task.Inputs); err != nil {
			return nil, web.Invalid("input", "input must be a text or a list of texts")
		}
	}
	if n := len(e.Task.Inputs); n > maxInputs {
		return nil, web.Invalid("input", "input has %d texts, at most %d are allowed", n, maxInputs)
	}
	for i, text := range e.Task.Inputs {
		if text == "" {
			return nil, web.Invalid("input", "input[%d] must not be empty", i)
		}
	}
	if m.Dimensions != nil && !m.Dimensions.Is(0) {
		n, err := web.Integer("dimensions", m.Dimensions, 1)
		if err != nil {
			return nil, err
		}
		e.Task.Dimensions = n
	}
	return e, nil
}

// ReadEmbeddings decodes the body of /api/embeddings. The caller must have checked it with
// [wire.Weigh]. As for ReadEmbed, a result without Task.Inputs only loads the model.
func ReadEmbeddings(body []byte) (*Embeddings, error) {
	var m struct {
		names
		ignoredEmbed

		Prompt string `json:"prompt"`
	}
	if err := wire.Unmarshal(body, &m); err != nil {
		return nil, err
	}
	e := &Embeddings{Task: &infer.Embed{Model: m.name(), Truncate: true}, Model: m.name(), Ignored: m.ignoredEmbed.names(), old: true}
	if m.Prompt != "" {
		e.Task.Inputs = []string{m.Prompt}
	}
	return e, nil
}

// Collect takes an event of the answer. For the Done it returns the body of the answer, otherwise
// nil.
func (e *Embeddings) Collect(ev infer.Event) ([]byte, error) {
	switch ev := ev.(type) {
	case *infer.Admitted:
	case *infer.Vectors:
		e.vectors = ev.Values
	case *infer.Done:
		return e.body(ev), nil
	default:
		return nil, infer.Errorf(infer.Internal, "embeddings cannot encode a %T", ev)
	}
	return nil, nil
}

// Loaded returns the answer to a request without inputs.
func (e *Embeddings) Loaded() []byte { return e.body(&infer.Done{}) }

func (e *Embeddings) body(ev *infer.Done) []byte {
	if e.old {
		dst := []byte(`{"embedding":`)
		if len(e.vectors) == 0 {
			return append(dst, "[]}"...)
		}
		return append(web.AppendVector(dst, e.vectors[0]), '}')
	}
	dst := wire.AppendString([]byte(`{"model":`), e.Model)
	dst = append(dst, `,"embeddings":[`...)
	for i, v := range e.vectors {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = web.AppendVector(dst, v)
	}
	t := ev.Timings
	dst = append(dst, `],"total_duration":`...)
	dst = strconv.AppendInt(dst, int64(t.Queue+t.Prefill+t.Decode), 10)
	dst = append(dst, `,"load_duration":`...)
	dst = strconv.AppendInt(dst, int64(t.Queue), 10)
	dst = append(dst, `,"prompt_eval_count":`...)
	dst = strconv.AppendInt(dst, int64(ev.In), 10)
	return append(dst, '}')
}
