package refhttp

import (
	"net/http"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/client"
	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// Embeddings is a request for embeddings.
type Embeddings struct {
	Request *client.EmbedRequest
	Base64  bool // encode the vectors in base64
}

// ReadEmbeddings decodes the body of a request.
func ReadEmbeddings(body []byte) (*Embeddings, error) {
	var m struct {
		Model          *string        `json:"model"`
		Input          jsontext.Value `json:"input"`
		Dimensions     *wire.Integer  `json:"dimensions"`
		EncodingFormat *string        `json:"encoding_format"`
	}
	if err := unmarshal(body, &m); err != nil {
		return nil, err
	}
	if m.Model == nil {
		return nil, missing("model")
	}
	e := &Embeddings{Request: &client.EmbedRequest{}}
	switch m.Input.Kind() {
	case jsontext.KindString:
		e.Request.Inputs = make([]string, 1)
		if err := wire.Unmarshal(m.Input, &e.Request.Inputs[0]); err != nil {
			return nil, Plain(http.StatusUnprocessableEntity, "the body is not a request: input: %v", err)
		}
	case jsontext.KindBeginArray:
		if err := wire.Unmarshal(m.Input, &e.Request.Inputs); err != nil {
			return nil, Invalid("input must be a string or a list of strings: token ids are not supported")
		}
	default:
		return nil, missing("input")
	}
	switch {
	case m.EncodingFormat == nil || *m.EncodingFormat == "float":
	case *m.EncodingFormat == "base64":
		e.Base64 = true
	default:
		return nil, Invalid("encoding_format must be one of: float, base64")
	}
	if m.Dimensions != nil {
		n, err := m.Dimensions.Within("dimensions", 1)
		if err != nil {
			return nil, Invalid("%v", err)
		}
		e.Request.Dimensions = n
	}
	return e, nil
}

// Append appends answer as the body of the HTTP answer. model is the name of the model in the body.
func (e *Embeddings) Append(dst []byte, answer *client.Embeddings, model string) []byte {
	dst = append(dst, `{"object":"list","data":[`...)
	for i, v := range answer.Vectors {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"object":"embedding","index":`...)
		dst = strconv.AppendInt(dst, int64(i), 10)
		dst = append(dst, `,"embedding":`...)
		dst = append(e.vector(dst, v), '}')
	}
	dst = append(dst, `],"model":`...)
	dst = wire.AppendString(dst, model)
	dst = append(dst, `,"usage":`...)
	return append(appendUsage(dst, answer.InputTokens, -1), '}')
}

// vector appends a vector in the requested form.
func (e *Embeddings) vector(dst []byte, v []float32) []byte {
	if e.Base64 {
		return web.AppendVector64(dst, v)
	}
	return web.AppendVector(dst, v)
}
