package openai

import (
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// Embeddings is a request for embeddings.
type Embeddings struct {
	Task    *infer.Embed
	Model   string // as the client spells it; may be empty
	Base64  bool   // encode the vectors in base64
	Ignored []string

	vectors [][]float32
}

// ReadEmbeddings decodes the body of a request. The caller must have checked it with [wire.Weigh].
func ReadEmbeddings(body []byte) (*Embeddings, error) {
	var m struct {
		Model          string         `json:"model"`
		Input          jsontext.Value `json:"input"`
		Dimensions     *wire.Integer  `json:"dimensions"`
		EncodingFormat string         `json:"encoding_format"`
		User           jsontext.Value `json:"user"`
	}
	if err := wire.Unmarshal(body, &m); err != nil {
		return nil, err
	}
	inputs, err := readInputs(m.Input)
	if err != nil {
		return nil, err
	}
	e := &Embeddings{Task: &infer.Embed{Model: m.Model, Inputs: inputs}, Model: m.Model}
	switch m.EncodingFormat {
	case "", "float":
	case "base64":
		e.Base64 = true
	default:
		return nil, web.Invalid("encoding_format", "encoding_format must be one of: float, base64")
	}
	if m.Dimensions != nil {
		if e.Task.Dimensions, err = web.Integer("dimensions", m.Dimensions, 1); err != nil {
			return nil, err
		}
	}
	if web.Present(m.User) {
		e.Ignored = append(e.Ignored, "user")
	}
	return e, nil
}

// readInputs returns the texts of the member input, which is a text or a list of texts.
func readInputs(input jsontext.Value) ([]string, error) {
	const param = "input"
	var texts []string
	switch {
	case !web.Present(input):
		return nil, web.Invalid(param, "input is missing")
	case input.Kind() == jsontext.KindString:
		texts = make([]string, 1)
		if err := web.Decode(param, input, &texts[0]); err != nil {
			return nil, err
		}
	default:
		var list []jsontext.Value
		if err := web.Decode(param, input, &list); err != nil {
			return nil, err
		}
		if len(list) > MaxInputs {
			return nil, web.Invalid(param, "input has %d texts, at most %d are allowed", len(list), MaxInputs)
		}
		for i, one := range list {
			switch one.Kind() {
			case jsontext.KindString:
				var text string
				if err := web.Decode(param, one, &text); err != nil {
					return nil, err
				}
				texts = append(texts, text)
			case jsontext.KindNumber, jsontext.KindBeginArray:
				return nil, web.Invalid(param, "input has token ids: send text (with LangChain: check_embedding_ctx_length=False)")
			default:
				return nil, web.Invalid(param, "input[%d] is not a string", i)
			}
		}
	}
	if len(texts) == 0 {
		return nil, web.Invalid(param, "input must not be empty")
	}
	for i, text := range texts {
		if text == "" {
			return nil, web.Invalid(param, "input[%d] must not be empty", i)
		}
	}
	return texts, nil
}

// Collect takes an event of the answer. For the Done it returns the body of the answer, otherwise
// nil.
func (e *Embeddings) Collect(ev infer.Event) ([]byte, error) {
	switch ev := ev.(type) {
	case *infer.Admitted:
		return nil, nil
	case *infer.Vectors:
		e.vectors = ev.Values
		return nil, nil
	case *infer.Done:
		return e.body(ev), nil
	default:
		return nil, infer.Errorf(infer.Internal, "embeddings cannot encode a %T", ev)
	}
}

func (e *Embeddings) body(ev *infer.Done) []byte {
	dst := append([]byte(nil), `{"object":"list","data":[`...)
	for i, v := range e.vectors {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"object":"embedding","index":`...)
		dst = strconv.AppendInt(dst, int64(i), 10)
		dst = append(dst, `,"embedding":`...)
		dst = e.vector(dst, v)
		dst = append(dst, '}')
	}
	dst = append(dst, `],"model":`...)
	dst = wire.AppendString(dst, e.Model)
	dst = append(dst, `,"usage":{"prompt_tokens":`...)
	dst = strconv.AppendInt(dst, int64(ev.In), 10)
	dst = append(dst, `,"total_tokens":`...)
	dst = strconv.AppendInt(dst, int64(ev.In), 10)
	dst = append(dst, '}')
	dst = web.AppendTimings(dst, ev.Timings)
	return append(dst, '}')
}

// vector appends a vector in the requested form.
func (e *Embeddings) vector(dst []byte, v []float32) []byte {
	if e.Base64 {
		return web.AppendVector64(dst, v)
	}
	return web.AppendVector(dst, v)
}
