package openai

import (
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// Defaults returns the defaults of this interface. Only the context limits the tokens of an answer.
func Defaults() infer.Defaults { return defaults }

// defaults are shared by all requests, and must not be changed.
var defaults = infer.Defaults{Sampling: infer.Sampling{Temperature: new(1.0), TopP: new(1.0), TopK: new(0)}}

// sampling has the members of OpenAI and of llama.cpp's server that control the choice of tokens.
type sampling struct {
	web.Sampling

	LogitBias map[string]wire.Number `json:"logit_bias"`
	Stop      jsontext.Value         `json:"stop"`
}

// apply checks the members and copies them to gen.
func (m *sampling) apply(gen *infer.Generate) error {
	if err := m.Apply(&gen.Sampling); err != nil {
		return err
	}
	if err := m.bias(&gen.Sampling); err != nil {
		return err
	}
	var err error
	gen.Stop, err = web.ReadStops("stop", m.Stop)
	return err
}

func (m *sampling) bias(s *infer.Sampling) error {
	for name, bias := range m.LogitBias {
		token, err := strconv.ParseUint(name, 10, 31)
		if err != nil {
			return web.Invalid("logit_bias", "logit_bias: %.20q is no token id", name)
		}
		if !(bias >= -maxBias && bias <= maxBias) {
			return web.Invalid("logit_bias", "logit_bias[%d] must be between -%d and %d", token, maxBias, maxBias)
		}
		if s.LogitBias == nil {
			s.LogitBias = make(map[int]float64, len(m.LogitBias))
		}
		s.LogitBias[int(token)] = float64(bias)
	}
	return nil
}
