// Package ollama is the dialect of Ollama's HTTP interface. It decodes requests for chats, prompts,
// embeddings and models, and encodes the answers. Chats, prompts and pulls are answered with a stream
// of lines of JSON, unless the client asks for one piece; any other answer is one object. The package
// determines the HTTP status of errors; package bridge handles HTTP, and provides the facts about the
// daemon's models.
//
// Members that would decide for all clients, such as the size of the context and the time for which
// a model stays loaded, and parameters of samplers that the engines lack, have no effect; the header
// Inferd-Ignored names them.
package ollama

import (
	"cmp"
	"net/http"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// ContentType is the content type of a stream.
const ContentType = "application/x-ndjson"

// Version is the release of Ollama that defines the interface of this package. Clients compare its
// numbers.
const Version = "0.12.0"

// Running is the answer to a request for /.
const Running = "Ollama is running"

// statuses maps the code of an error to an HTTP status.
var statuses = map[infer.Code]int{
	infer.Invalid:     http.StatusBadRequest,
	infer.Unsupported: http.StatusBadRequest,
	infer.TooLarge:    http.StatusRequestEntityTooLarge,
	infer.Busy:        http.StatusServiceUnavailable,
	infer.Unavailable: http.StatusServiceUnavailable,
	infer.Internal:    http.StatusInternalServerError,
	infer.Malformed:   http.StatusInternalServerError,
}

// Failure returns the status and the body of the answer to a request that has failed with cause. The
// ID of the request is not used.
func Failure(cause error, _ string) (status int, body []byte) {
	f := web.ErrorOf(cause)
	return cmp.Or(f.Status, statuses[f.Code]), appendFailure(nil, f)
}

func appendFailure(dst []byte, f *web.Error) []byte {
	dst = append(dst, `{"error":`...)
	return append(wire.AppendString(dst, f.Message), '}')
}

// Unsupported returns the error for a request that would change the daemon's models.
func Unsupported(path string) error {
	return web.Refused(http.StatusNotImplemented, "", "%.64s is not supported: the models are those of the daemon's config", path)
}

// UnknownModel returns the error for a request with an unknown model.
func UnknownModel(name string) error {
	return web.Refused(http.StatusNotFound, web.NoModel, "model %.64q not found: GET /api/tags lists the models", name)
}

// latest is the tag of a name that has none.
const latest = ":latest"

// Tagged returns a name with a tag: it adds the tag latest to a name without one.
func Tagged(name string) string {
	if strings.Contains(name, ":") {
		return name
	}
	return name + latest
}

// OtherSpelling returns the other spelling of a name: it removes the tag latest, or else adds it.
func OtherSpelling(name string) string {
	if bare, ok := strings.CutSuffix(name, latest); ok {
		return bare
	}
	return name + latest
}

// names has the two members for the name of a model: current clients send model, older clients send
// name.
type names struct {
	Model string `json:"model"`
	Name  string `json:"name"`
}

func (n *names) name() string { return cmp.Or(n.Model, n.Name) }

// A Named is a request that only names a model, such as a request for its properties.
type Named struct {
	Name   string
	Stream bool // the answer is to be a stream
}

// ReadName decodes the body of a request that only names a model.
func ReadName(body []byte) (Named, error) {
	var m struct {
		names

		Stream *bool `json:"stream"`
	}
	if err := wire.Unmarshal(body, &m); err != nil {
		return Named{}, err
	}
	if m.name() == "" {
		return Named{}, web.Invalid("model", "model is missing")
	}
	return Named{Name: m.name(), Stream: wire.ValueOr(m.Stream, true)}, nil
}

// options has the parameters of an answer. A null member counts as missing.
type options struct {
	web.Sampling

	NumPredict *wire.Integer  `json:"num_predict"`
	Stop       jsontext.Value `json:"stop"` // a text or a list

	// Without effect: decisions of the operator, and samplers that the engines lack.
	NumCtx       jsontext.Value `json:"num_ctx"`
	NumBatch     jsontext.Value `json:"num_batch"`
	NumGPU       jsontext.Value `json:"num_gpu"`
	MainGPU      jsontext.Value `json:"main_gpu"`
	NumThread    jsontext.Value `json:"num_thread"`
	NumKeep      jsontext.Value `json:"num_keep"`
	UseMMap      jsontext.Value `json:"use_mmap"`
	UseMLock     jsontext.Value `json:"use_mlock"`
	LowVRAM      jsontext.Value `json:"low_vram"`
	Numa         jsontext.Value `json:"numa"`
	F16KV        jsontext.Value `json:"f16_kv"`
	VocabOnly    jsontext.Value `json:"vocab_only"`
	RepeatLastN  jsontext.Value `json:"repeat_last_n"`
	TypicalP     jsontext.Value `json:"typical_p"`
	TFSZ         jsontext.Value `json:"tfs_z"`
	Mirostat     jsontext.Value `json:"mirostat"`
	MirostatTau  jsontext.Value `json:"mirostat_tau"`
	MirostatEta  jsontext.Value `json:"mirostat_eta"`
	PenalizeLine jsontext.Value `json:"penalize_newline"`
}

// ignored returns the members without effect, by name.
func (o *options) ignored() map[string]jsontext.Value {
	return map[string]jsontext.Value{
		"num_ctx": o.NumCtx, "num_batch": o.NumBatch, "num_gpu": o.NumGPU, "main_gpu": o.MainGPU, "num_thread": o.NumThread,
		"num_keep": o.NumKeep, "use_mmap": o.UseMMap, "use_mlock": o.UseMLock, "low_vram": o.LowVRAM, "numa": o.Numa,
		"f16_kv": o.F16KV, "vocab_only": o.VocabOnly, "repeat_last_n": o.RepeatLastN, "typical_p": o.TypicalP, "tfs_z": o.TFSZ,
		"mirostat": o.Mirostat, "mirostat_tau": o.MirostatTau, "mirostat_eta": o.MirostatEta, "penalize_newline": o.PenalizeLine,
	}
}

// Defaults returns Ollama's defaults. Only the context limits the tokens of an answer.
func Defaults() infer.Defaults {
	return infer.Defaults{Sampling: infer.Sampling{Temperature: new(0.8), TopP: new(0.9), TopK: new(40), RepeatPenalty: new(1.1)}}
}

// apply checks the options and copies them to the request. A negative seed means a random seed, and
// a num_predict below 1 means no limit.
func (o *options) apply(ask *web.Ask) error {
	gen := ask.Generate
	if web.Negative(o.Seed) {
		o.Seed = nil
	}
	if err := o.Apply(&gen.Sampling); err != nil {
		return err
	}
	if o.NumPredict != nil && !web.Negative(o.NumPredict) {
		n, err := web.Integer("num_predict", o.NumPredict, 0)
		if err != nil {
			return err
		}
		gen.MaxTokens = n
	}
	var err error
	if gen.Stop, err = web.ReadStops("stop", o.Stop); err != nil {
		return err
	}
	ask.IgnorePresent(o.ignored())
	return nil
}

// common has the members that chats and prompts share.
type common struct {
	names

	Stream      *bool          `json:"stream"`
	Format      jsontext.Value `json:"format"` // "json", or a JSON schema
	Options     options        `json:"options"`
	Think       jsontext.Value `json:"think"` // true, false or an effort
	KeepAlive   jsontext.Value `json:"keep_alive"`
	Logprobs    bool           `json:"logprobs"`
	TopLogprobs *wire.Integer  `json:"top_logprobs"`
}

// maxLogprobs bounds the alternatives to report for a token.
const maxLogprobs = 20

// apply checks the members and copies them to the request.
func (m *common) apply(r *Request) error {
	r.Model, r.Stream, r.History = m.name(), wire.ValueOr(m.Stream, true), "messages"
	r.Generate = &infer.Generate{Blocks: true, Model: m.name(), Defaults: Defaults()}
	r.IgnorePresent(map[string]jsontext.Value{"keep_alive": m.KeepAlive})
	if err := m.Options.apply(&r.Ask); err != nil {
		return err
	}
	if err := m.format(r.Generate); err != nil {
		return err
	}
	r.IgnoreStops("stop")
	if m.TopLogprobs != nil {
		n, err := web.Integer("top_logprobs", m.TopLogprobs, 0)
		if err != nil {
			return err
		}
		if n > maxLogprobs {
			return web.Invalid("top_logprobs", "top_logprobs must be between 0 and %d", maxLogprobs)
		}
		r.top = n
	}
	if m.Logprobs {
		r.Generate.Logprobs = max(r.top, 1)
	}
	return m.thinking(&r.Ask)
}

func (m *common) format(gen *infer.Generate) error {
	switch m.Format.Kind() {
	case jsontext.KindBeginObject:
		gen.Format.Schema = m.Format
		return nil
	case jsontext.KindString:
		var word string
		if err := web.Decode("format", m.Format, &word); err != nil {
			return err
		}
		if gen.Format.JSONObject = word == "json"; gen.Format.JSONObject || word == "" {
			return nil
		}
	default:
		if !web.Present(m.Format) {
			return nil
		}
	}
	return web.Invalid("format", `format must be "json" or a JSON schema`)
}

func (m *common) thinking(ask *web.Ask) error {
	ask.Thinks = append(ask.Thinks, "think")
	switch m.Think.Kind() {
	case jsontext.KindTrue:
		ask.Generate.Thinking = infer.ThinkOn
		return nil
	case jsontext.KindFalse:
		ask.Generate.Thinking = infer.ThinkOff
		return nil
	case jsontext.KindString:
		var word string
		if err := web.Decode("think", m.Think, &word); err != nil {
			return err
		}
		if word == "low" || word == "medium" || word == "high" {
			return ask.Effort("think", word)
		}
	default:
		if !web.Present(m.Think) {
			return nil
		}
	}
	return web.Invalid("think", "think must be true, false, low, medium or high")
}

// appendTime appends a time in the form that clients read.
func appendTime(dst []byte, t time.Time) []byte {
	dst = append(dst, '"')
	dst = t.UTC().AppendFormat(dst, time.RFC3339Nano)
	return append(dst, '"')
}
