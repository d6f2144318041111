package llama

import (
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// A Completion is a request to continue a prompt, or to fill a gap.
type Completion struct {
	web.Ask

	text   string   // the text of the prompt; empty if it consists of tokens
	silent bool     // the prompt is only prefilled, for later requests
	probs  int      // number of alternatives to report for each token
	ids    bool     // report the IDs of the tokens
	fields []string // paths of the members to return; none means all
}

// Limits of a request.
const (
	maxProbs  = 20
	maxBias   = 100
	maxFiles  = 256
	maxFields = 64
)

// Defaults returns the defaults of llama.cpp's server. Only the context limits the tokens of an
// answer.
func Defaults() infer.Defaults {
	return infer.Defaults{Sampling: infer.Sampling{Temperature: new(0.8), TopP: new(0.95), TopK: new(40), MinP: new(0.05)}}
}

// A request is the decoded body of a completion or infill request. A null member counts as missing.
type request struct {
	web.Sampling

	Model       string         `json:"model"`
	Prompt      jsontext.Value `json:"prompt"` // a text, or token IDs
	Stream      bool           `json:"stream"`
	NPredict    *wire.Integer  `json:"n_predict"`
	Stop        jsontext.Value `json:"stop"`
	LogitBias   jsontext.Value `json:"logit_bias"` // pairs, or an object
	Grammar     string         `json:"grammar"`
	JSONSchema  jsontext.Value `json:"json_schema"`
	NProbs      *wire.Integer  `json:"n_probs"`
	ReturnIDs   bool           `json:"return_tokens"`
	Fields      []string       `json:"response_fields"`
	IgnoreEOS   bool           `json:"ignore_eos"`
	Multimodal  jsontext.Value `json:"multimodal_data"`
	LoRA        jsontext.Value `json:"lora"`
	CacheSalt   string         `json:"cache_salt"` // an extension of inferd
	InputPrefix string         `json:"input_prefix"`
	InputSuffix string         `json:"input_suffix"`
	InputExtra  []struct {
		Name string `json:"filename"`
		Text string `json:"text"`
	} `json:"input_extra"`

	ignored
}

// ignored has the members without effect: options of samplers that the engines lack, and settings
// that are up to the daemon.
type ignored struct {
	CachePrompt jsontext.Value `json:"cache_prompt"`
	IDSlot      jsontext.Value `json:"id_slot"`
	NKeep       jsontext.Value `json:"n_keep"`
	NDiscard    jsontext.Value `json:"n_discard"`
	NIndent     jsontext.Value `json:"n_indent"`
	NCacheReuse jsontext.Value `json:"n_cache_reuse"`
	Samplers    jsontext.Value `json:"samplers"`
	TypicalP    jsontext.Value `json:"typical_p"`
	RepeatLastN jsontext.Value `json:"repeat_last_n"`
	DynatempR   jsontext.Value `json:"dynatemp_range"`
	DynatempE   jsontext.Value `json:"dynatemp_exponent"`
	XTCP        jsontext.Value `json:"xtc_probability"`
	XTCT        jsontext.Value `json:"xtc_threshold"`
	DryMul      jsontext.Value `json:"dry_multiplier"`
	DryBase     jsontext.Value `json:"dry_base"`
	DryLength   jsontext.Value `json:"dry_allowed_length"`
	DryLastN    jsontext.Value `json:"dry_penalty_last_n"`
	DryBreakers jsontext.Value `json:"dry_sequence_breakers"`
	Mirostat    jsontext.Value `json:"mirostat"`
	MirostatTau jsontext.Value `json:"mirostat_tau"`
	MirostatEta jsontext.Value `json:"mirostat_eta"`
	TopNSigma   jsontext.Value `json:"top_n_sigma"`
	MinKeep     jsontext.Value `json:"min_keep"`
	PromptMS    jsontext.Value `json:"t_max_prompt_ms"`
	PredictMS   jsontext.Value `json:"t_max_predict_ms"`
	PostProbs   jsontext.Value `json:"post_sampling_probs"`
	Timings     jsontext.Value `json:"timings_per_token"`
	Progress    jsontext.Value `json:"return_progress"`
}

func (m *ignored) members() map[string]jsontext.Value {
	return map[string]jsontext.Value{
		"cache_prompt": m.CachePrompt, "id_slot": m.IDSlot, "n_keep": m.NKeep, "n_discard": m.NDiscard, "n_indent": m.NIndent,
		"n_cache_reuse": m.NCacheReuse, "samplers": m.Samplers, "typical_p": m.TypicalP, "repeat_last_n": m.RepeatLastN,
		"dynatemp_range": m.DynatempR, "dynatemp_exponent": m.DynatempE, "xtc_probability": m.XTCP, "xtc_threshold": m.XTCT,
		"dry_multiplier": m.DryMul, "dry_base": m.DryBase, "dry_allowed_length": m.DryLength, "dry_penalty_last_n": m.DryLastN,
		"dry_sequence_breakers": m.DryBreakers, "mirostat": m.Mirostat, "mirostat_tau": m.MirostatTau, "mirostat_eta": m.MirostatEta,
		"top_n_sigma": m.TopNSigma, "min_keep": m.MinKeep, "t_max_prompt_ms": m.PromptMS, "t_max_predict_ms": m.PredictMS,
		"post_sampling_probs": m.PostProbs, "timings_per_token": m.Timings, "return_progress": m.Progress,
	}
}

// ReadCompletion decodes the body of /completion. The caller must have checked it with
// [wire.Weigh].
func ReadCompletion(body []byte) (*Completion, error) {
	var m request
	if err := wire.Unmarshal(body, &m); err != nil {
		return nil, err
	}
	c, err := m.read()
	if err != nil {
		return nil, err
	}
	switch m.Prompt.Kind() {
	case jsontext.KindString:
		if err := web.Decode("prompt", m.Prompt, &c.text); err != nil {
			return nil, err
		}
		c.Generate.Prompt = &c.text
	case jsontext.KindBeginArray:
		if err := web.Decode("prompt", m.Prompt, &c.Generate.Tokens); err != nil {
			return nil, web.Invalid("prompt", "prompt must be one text, or one list of token ids")
		}
	default:
		if !web.Present(m.Prompt) {
			return nil, web.Invalid("prompt", "prompt is missing")
		}
		return nil, web.Invalid("prompt", "prompt must be one text, or one list of token ids")
	}
	return c, nil
}

// ReadInfill decodes the body of /infill. The caller must have checked it with [wire.Weigh]. The
// text before the gap is input_prefix followed by prompt.
func ReadInfill(body []byte) (*Completion, error) {
	var m request
	if err := wire.Unmarshal(body, &m); err != nil {
		return nil, err
	}
	c, err := m.read()
	if err != nil {
		return nil, err
	}
	if web.Present(m.Prompt) {
		if err := web.Decode("prompt", m.Prompt, &c.text); err != nil {
			return nil, web.Invalid("prompt", "prompt must be a text")
		}
	}
	if len(m.InputExtra) > maxFiles {
		return nil, web.Invalid("input_extra", "input_extra has %d files, at most %d are allowed", len(m.InputExtra), maxFiles)
	}
	before := m.InputPrefix + c.text
	c.Generate.Prompt, c.Generate.Suffix = &before, &m.InputSuffix
	for _, f := range m.InputExtra {
		c.Generate.Files = append(c.Generate.Files, infer.File{Name: f.Name, Text: f.Text})
	}
	return c, nil
}

// read checks all members except the prompt, and returns the request without it.
func (m *request) read() (*Completion, error) {
	gen := &infer.Generate{Model: m.Model, Defaults: Defaults()}
	c := &Completion{
		Ask: web.Ask{Generate: gen, Model: m.Model, Stream: m.Stream, CacheSalt: m.CacheSalt, History: "prompt"},
		ids: m.ReturnIDs, fields: m.Fields,
	}
	switch {
	case m.IgnoreEOS:
		return nil, web.Invalid("ignore_eos", "ignore_eos is not supported")
	case web.Present(m.Multimodal):
		return nil, web.Invalid("multimodal_data", "multimodal_data is not supported")
	case web.Present(m.LoRA) && string(m.LoRA) != "[]":
		return nil, web.Invalid("lora", "lora is not supported")
	case len(m.Fields) > maxFields:
		return nil, web.Invalid("response_fields", "response_fields has %d members, at most %d are allowed", len(m.Fields), maxFields)
	}
	if err := wire.CheckSalt(m.CacheSalt); err != nil {
		return nil, web.Invalid("cache_salt", "%v", err)
	}
	if web.Negative(m.Seed) { // means a random seed
		m.Seed = nil
	}
	if web.Negative(m.TopK) { // means no limit
		*m.TopK = wire.IntegerOf(0)
	}
	if err := m.Apply(&gen.Sampling); err != nil {
		return nil, err
	}
	if err := m.numbers(c); err != nil {
		return nil, err
	}
	if err := m.biases(&gen.Sampling); err != nil {
		return nil, err
	}
	var err error
	if gen.Stop, err = web.ReadStops("stop", m.Stop); err != nil {
		return nil, err
	}
	c.IgnorePresent(m.members())
	if m.Stream && len(m.Fields) > 0 { // the events of a stream always have all members
		c.Ignore("response_fields")
	}
	if err := m.format(gen); err != nil {
		return nil, err
	}
	c.IgnoreStops("stop")
	return c, nil
}

// numbers checks and copies n_predict, n_probs and return_tokens. A negative n_predict means no limit;
// 0 means that the prompt is only prefilled, for which one token is generated.
func (m *request) numbers(c *Completion) error {
	if m.NPredict != nil && !web.Negative(m.NPredict) {
		n, err := web.Integer("n_predict", m.NPredict, 0)
		if err != nil {
			return err
		}
		c.Generate.MaxTokens, c.silent = max(n, 1), n == 0
	}
	if m.NProbs != nil {
		n, err := web.Integer("n_probs", m.NProbs, 0)
		if err != nil {
			return err
		}
		if n > maxProbs {
			return web.Invalid("n_probs", "n_probs must be between 0 and %d", maxProbs)
		}
		c.probs = n
	}
	c.Generate.Logprobs = c.probs
	if c.ids { // the IDs come with the logprobs
		c.Generate.Logprobs = max(c.probs, 1)
	}
	return nil
}

// biases checks and copies logit_bias: an object or a list of pairs, which maps token IDs to biases.
// The value false forbids a token.
func (m *request) biases(s *infer.Sampling) error {
	if !web.Present(m.LogitBias) {
		return nil
	}
	values := make(map[string]jsontext.Value)
	if m.LogitBias.Kind() == jsontext.KindBeginObject {
		if err := web.Decode("logit_bias", m.LogitBias, &values); err != nil {
			return err
		}
	} else {
		var pairs [][]jsontext.Value
		if err := web.Decode("logit_bias", m.LogitBias, &pairs); err != nil {
			return err
		}
		for i, pair := range pairs {
			if len(pair) != 2 || pair[0].Kind() != jsontext.KindNumber {
				return web.Invalid("logit_bias", "logit_bias[%d] must be a token id and a number", i)
			}
			values[string(pair[0])] = pair[1]
		}
	}
	s.LogitBias = make(map[int]float64, len(values))
	for name, value := range values {
		token, err := strconv.ParseUint(name, 10, 31)
		if err != nil {
			return web.Invalid("logit_bias", "logit_bias: %.20q is no token id", name)
		}
		bias := wire.Number(-maxBias)
		if value.Kind() != jsontext.KindFalse {
			if err := web.Decode("logit_bias", value, &bias); err != nil {
				return err
			}
		}
		if !(bias >= -maxBias && bias <= maxBias) {
			return web.Invalid("logit_bias", "logit_bias of token %d must be between -%d and %d", token, maxBias, maxBias)
		}
		s.LogitBias[int(token)] = float64(bias)
	}
	return nil
}

// format checks and copies the constraint of the answer: a JSON Schema or a grammar.
func (m *request) format(gen *infer.Generate) error {
	if web.Present(m.JSONSchema) {
		if m.JSONSchema.Kind() != jsontext.KindBeginObject {
			return web.Invalid("json_schema", "json_schema must be an object")
		}
		gen.Format.Schema = m.JSONSchema
	}
	if m.Grammar == "" {
		return nil
	}
	if gen.Format.Schema != nil {
		return web.Invalid("grammar", "grammar and json_schema are mutually exclusive")
	}
	if err := wire.CheckGrammar(m.Grammar); err != nil {
		return web.Invalid("grammar", "%v", err)
	}
	gen.Format.Grammar = m.Grammar
	return nil
}
