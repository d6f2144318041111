package openai

import (
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
)

// Defaults returns this interface's defaults. An answer may fill the context.
func Defaults() infer.Defaults {
	return infer.Defaults{Sampling: infer.Sampling{Temperature: new(1.0), TopP: new(1.0), TopK: new(0)}}
}

// sampling are the members of a request that choose tokens: those of OpenAI, and of llama.cpp's
// server.
type sampling struct {
	Temperature      *wire.Number           `json:"temperature"`
	TopP             *wire.Number           `json:"top_p"`
	PresencePenalty  *wire.Number           `json:"presence_penalty"`
	FrequencyPenalty *wire.Number           `json:"frequency_penalty"`
	Seed             *wire.Integer          `json:"seed"`
	LogitBias        map[string]wire.Number `json:"logit_bias"`
	Stop             jsontext.Value         `json:"stop"`

	TopK          *wire.Integer `json:"top_k"`
	MinP          *wire.Number  `json:"min_p"`
	RepeatPenalty *wire.Number  `json:"repeat_penalty"`
}

// apply checks the members and copies them into gen.
func (m *sampling) apply(gen *infer.Generate) error {
	s := &gen.Sampling
	for _, number := range []struct {
		param    string
		value    *wire.Number
		min, max float64
		to       **float64
	}{
		{"temperature", m.Temperature, 0, maxNumber, &s.Temperature},
		{"top_p", m.TopP, 0, 1, &s.TopP},
		{"min_p", m.MinP, 0, 1, &s.MinP},
		{"repeat_penalty", m.RepeatPenalty, 0, maxNumber, &s.RepeatPenalty},
		{"presence_penalty", m.PresencePenalty, -maxNumber, maxNumber, &s.PresencePenalty},
		{"frequency_penalty", m.FrequencyPenalty, -maxNumber, maxNumber, &s.FrequencyPenalty},
	} {
		if number.value == nil {
			continue
		}
		value := float64(*number.value)
		if !(value >= number.min && value <= number.max) {
			return Invalid(number.param, "%s must be between %.0f and %.0f", number.param, number.min, number.max)
		}
		*number.to = &value
	}
	if s.TopP != nil { // 0 allows only the likeliest token; in infer.Sampling it is no limit
		*s.TopP = max(*s.TopP, minTopP)
	}
	if m.TopK != nil {
		k, err := integer("top_k", m.TopK, 0)
		if err != nil {
			return err
		}
		s.TopK = &k
	}
	if m.Seed != nil {
		seed, err := m.Seed.Seed()
		if err != nil {
			return Invalid("seed", "%v", err)
		}
		s.Seed = &seed
	}
	if err := m.bias(s); err != nil {
		return err
	}
	var err error
	gen.Stop, err = m.stops()
	return err
}

func (m *sampling) bias(s *infer.Sampling) error {
	for name, bias := range m.LogitBias {
		token, err := strconv.ParseUint(name, 10, 31)
		if err != nil {
			return Invalid("logit_bias", "logit_bias: %.20q is no token id", name)
		}
		if !(bias >= -maxBias && bias <= maxBias) {
			return Invalid("logit_bias", "logit_bias[%d] must be between -%d and %d", token, maxBias, maxBias)
		}
		if s.LogitBias == nil {
			s.LogitBias = make(map[int]float64, len(m.LogitBias))
		}
		s.LogitBias[int(token)] = float64(bias)
	}
	return nil
}

// stops returns the texts of stop, which is a text or a list.
func (m *sampling) stops() ([]string, error) {
	if !present(m.Stop) {
		return nil, nil
	}
	var all []string
	if m.Stop.Kind() == jsontext.KindString {
		all = make([]string, 1)
		if err := decode("stop", m.Stop, &all[0]); err != nil {
			return nil, err
		}
	} else if err := decode("stop", m.Stop, &all); err != nil {
		return nil, err
	}
	if len(all) > maxStops {
		return nil, Invalid("stop", "stop has %d strings, at most %d are allowed", len(all), maxStops)
	}
	for i, s := range all {
		if len(s) == 0 || len(s) > maxStop {
			return nil, Invalid("stop", "stop[%d] has %d bytes, it must have 1 to %d", i, len(s), maxStop)
		}
	}
	return all, nil
}
