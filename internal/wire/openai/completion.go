package openai

import (
	"fmt"
	"strconv"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// A Completion is a request to continue a text as it is, without the model's template.
type Completion struct {
	web.Ask

	Usage bool // a stream ends with the usage

	echo     bool // the answer begins with the prompt
	logprobs bool
	top      int // number of alternatives to report for each token
}

// defaultCompletion is the default for max_tokens.
const defaultCompletion = 16

// maxCompletionLogprobs bounds the alternatives to report for a token.
const maxCompletionLogprobs = 5

// ReadCompletion decodes the body of a request. The caller must have checked it with [wire.Weigh].
func ReadCompletion(body []byte) (*Completion, error) {
	var m struct {
		Model         string         `json:"model"`
		Prompt        jsontext.Value `json:"prompt"`
		Suffix        string         `json:"suffix"`
		MaxTokens     *wire.Integer  `json:"max_tokens"`
		N             *wire.Integer  `json:"n"`
		BestOf        *wire.Integer  `json:"best_of"`
		Echo          bool           `json:"echo"`
		Logprobs      *wire.Integer  `json:"logprobs"`
		Stream        bool           `json:"stream"`
		StreamOptions struct {
			IncludeUsage bool `json:"include_usage"`
		} `json:"stream_options"`
		CacheSalt string `json:"cache_salt"` // an extension of inferd

		sampling
		constraint
		ignoredMembers
	}
	if err := wire.Unmarshal(body, &m); err != nil {
		return nil, err
	}
	gen := &infer.Generate{Model: m.Model, Defaults: Defaults()}
	gen.Defaults.MaxTokens = defaultCompletion
	c := &Completion{
		Ask:   web.Ask{Generate: gen, CacheSalt: m.CacheSalt, Model: m.Model, Stream: m.Stream, History: "prompt"},
		Usage: m.StreamOptions.IncludeUsage, echo: m.Echo,
	}
	c.IgnorePresent(m.members())
	for member, value := range map[string]*wire.Integer{"n": m.N, "best_of": m.BestOf} {
		if value != nil && !value.Is(1) {
			return nil, web.Invalid(member, "%s must be 1: one answer at a time is supported", member)
		}
	}
	if err := wire.CheckSalt(m.CacheSalt); err != nil {
		return nil, web.Invalid("cache_salt", "%v", err)
	}
	if err := c.prompt(m.Prompt, m.Suffix); err != nil {
		return nil, err
	}
	if err := m.sampling.apply(gen); err != nil {
		return nil, err
	}
	if err := m.constraint.apply(gen); err != nil {
		return nil, err
	}
	c.IgnoreStops("stop")
	return c, c.numbers(m.MaxTokens, m.Logprobs)
}

// prompt reads the prompt: a text or token IDs, alone or as the only element of a list. suffix is the
// text after a gap; it is empty if the prompt is to be continued.
func (c *Completion) prompt(value jsontext.Value, suffix string) error {
	const param = "prompt"
	if !web.Present(value) {
		return web.Invalid(param, "prompt is missing")
	}
	if value.Kind() == jsontext.KindBeginArray {
		var list []jsontext.Value
		if err := web.Decode(param, value, &list); err != nil {
			return err
		}
		switch {
		case len(list) == 0:
			return web.Invalid(param, "prompt must not be empty")
		case list[0].Kind() == jsontext.KindNumber:
			return c.tokens(value, suffix)
		case len(list) > 1:
			return web.Invalid(param, "prompt has %d texts: one at a time is supported", len(list))
		case list[0].Kind() == jsontext.KindBeginArray:
			return c.tokens(list[0], suffix)
		}
		value = list[0]
	}
	var text string
	if value.Kind() != jsontext.KindString || web.Decode(param, value, &text) != nil {
		return web.Invalid(param, "prompt must be a text, a list of one, or token ids")
	}
	c.Generate.Prompt = &text
	if suffix != "" {
		c.Generate.Suffix = &suffix
	}
	return nil
}

func (c *Completion) tokens(ids jsontext.Value, suffix string) error {
	if err := web.Decode("prompt", ids, &c.Generate.Tokens); err != nil {
		return web.Invalid("prompt", "prompt must be a text, a list of one, or token ids")
	}
	switch {
	case len(c.Generate.Tokens) == 0:
		return web.Invalid("prompt", "prompt must not be empty")
	case suffix != "":
		return web.Invalid("suffix", "suffix needs a prompt of text")
	}
	c.Generate.Reveal.Text = c.echo
	return nil
}

// numbers checks and copies max_tokens and logprobs.
func (c *Completion) numbers(maxTokens, logprobs *wire.Integer) (err error) {
	if maxTokens != nil {
		if c.Generate.MaxTokens, err = web.Integer("max_tokens", maxTokens, 1); err != nil {
			return err
		}
	}
	if logprobs == nil {
		return nil
	}
	c.logprobs = true
	if c.top, err = web.Integer("logprobs", logprobs, 0); err != nil {
		return err
	}
	switch {
	case c.top > maxCompletionLogprobs:
		return web.Invalid("logprobs", "logprobs must be between 0 and %d", maxCompletionLogprobs)
	case c.echo:
		return web.Invalid("logprobs", "logprobs with echo is not supported: logprobs of the prompt are not computed")
	}
	c.Generate.Logprobs = max(c.top, 1)
	return nil
}

// A TextAnswer encodes the events of one completion.
type TextAnswer struct {
	ID      string
	Model   string // as the client spelled it
	Created int64  // seconds since 1970
	Request *Completion

	begun  bool   // the chunk with the echo of the prompt was sent
	prompt []byte // the text of a prompt that consists of token IDs, for the echo
	offset int    // number of characters of the answer before the next token
	text   []byte // the text of an answer in one piece
	list   []infer.Logprob
}

// Stream appends the chunks for ev; there may be none. An [infer.Error] means that the answer has
// failed.
func (a *TextAnswer) Stream(dst []byte, ev infer.Event) ([]byte, error) {
	switch ev := ev.(type) {
	case *infer.Admitted:
	case *infer.Prompt:
		a.prompt = append(a.prompt[:0], ev.Text...)
	case *infer.Text:
		dst = a.begin(dst)
		dst = a.chunk(dst, ev.Delta, ev.Logprobs, "")
	case *infer.Done:
		if ev.Reason == infer.Canceled {
			return dst, web.ErrCanceled
		}
		dst = a.begin(dst)
		dst = a.chunk(dst, nil, nil, reasons[ev.Reason])
		if a.Request.Usage {
			dst = append(dst, "data: "...)
			dst = append(a.head(dst), `,"choices":[]`...)
			dst = a.usage(dst, ev)
			dst = append(dst, "}\n\n"...)
		}
		dst = append(dst, "data: [DONE]\n\n"...)
	default:
		return dst, infer.Errorf(infer.Internal, "completions cannot encode a %T", ev)
	}
	return dst, nil
}

// KeepAlive appends a comment; see [Answer.KeepAlive].
func (*TextAnswer) KeepAlive(dst []byte) []byte { return (*Answer)(nil).KeepAlive(dst) }

// Fail appends the end of a stream that has failed with cause.
func (*TextAnswer) Fail(dst []byte, cause error) []byte { return (*Answer)(nil).Fail(dst, cause) }

// begin appends a chunk with the prompt, if the request has echo and the chunk was not sent.
func (a *TextAnswer) begin(dst []byte) []byte {
	if a.begun || !a.Request.echo {
		return dst
	}
	a.begun = true
	return a.chunk(dst, a.echo(), nil, "")
}

// echo returns the text of the prompt.
func (a *TextAnswer) echo() []byte {
	if prompt := a.Request.Generate.Prompt; prompt != nil {
		return []byte(*prompt)
	}
	return a.prompt
}

// head appends the members that both chunks and whole answers have.
func (a *TextAnswer) head(dst []byte) []byte {
	dst = append(dst, `{"id":`...)
	dst = wire.AppendString(dst, a.ID)
	dst = append(dst, `,"object":"text_completion","created":`...)
	dst = strconv.AppendInt(dst, a.Created, 10)
	dst = append(dst, `,"model":`...)
	dst = wire.AppendString(dst, a.Model)
	return append(dst, `,"system_fingerprint":"`+fingerprint+`"`...)
}

func (a *TextAnswer) chunk(dst, text []byte, logprobs []infer.Logprob, reason string) []byte {
	dst = append(dst, "data: "...)
	dst = a.choice(a.head(dst), text, logprobs, reason)
	if a.Request.Usage {
		dst = append(dst, `,"usage":null`...)
	}
	return append(dst, "}\n\n"...)
}

func (a *TextAnswer) choice(dst, text []byte, logprobs []infer.Logprob, reason string) []byte {
	dst = append(dst, `,"choices":[{"index":0,"text":`...)
	dst = wire.AppendString(dst, text)
	dst = append(dst, `,"logprobs":`...)
	if a.Request.logprobs && len(logprobs) > 0 {
		dst = a.logprobs(dst, logprobs)
	} else {
		dst = append(dst, "null"...)
	}
	dst = append(dst, `,"finish_reason":`...)
	return append(web.AppendNullable(dst, reason), "}]"...)
}

// logprobs appends an object. Each of its members is a list with an element for each token. An
// element of top_logprobs is an object: the names of its members are the texts of the alternatives,
// among them the token of the answer.
func (a *TextAnswer) logprobs(dst []byte, list []infer.Logprob) []byte {
	each := func(name string, one func(infer.Logprob)) {
		dst = append(dst, name...)
		for i, l := range list {
			if i > 0 {
				dst = append(dst, ',')
			}
			one(l)
		}
		dst = append(dst, ']')
	}
	number := func(x float64) { dst = strconv.AppendFloat(dst, x, 'g', -1, 32) }
	each(`{"tokens":[`, func(l infer.Logprob) { dst = appendToken(dst, l.Piece) })
	each(`,"token_logprobs":[`, func(l infer.Logprob) { number(l.Logprob) })
	each(`,"top_logprobs":[`, func(l infer.Logprob) {
		dst = append(dst, '{')
		dst = append(appendToken(dst, l.Piece), ':')
		number(l.Logprob)
		named := map[string]bool{string(l.Piece): true}
		for _, c := range l.Top[:min(a.Request.top, len(l.Top))] {
			if named[string(c.Piece)] {
				continue
			}
			named[string(c.Piece)] = true
			dst = append(dst, ',')
			dst = append(appendToken(dst, c.Piece), ':')
			number(c.Logprob)
		}
		dst = append(dst, '}')
	})
	each(`,"text_offset":[`, func(l infer.Logprob) {
		dst = strconv.AppendInt(dst, int64(a.offset), 10)
		a.offset += utf8.RuneCount(l.Piece)
	})
	return append(dst, '}')
}

// appendToken appends the text of a token as a JSON string, or its bytes in hex if they are not
// UTF-8.
func appendToken(dst, piece []byte) []byte {
	if utf8.Valid(piece) {
		return wire.AppendString(dst, piece)
	}
	text := []byte("bytes:")
	for _, b := range piece {
		text = fmt.Appendf(text, `\x%02x`, b)
	}
	return wire.AppendString(dst, text)
}

func (a *TextAnswer) usage(dst []byte, ev *infer.Done) []byte {
	dst = append(dst, `,"usage":`...)
	dst = (&Answer{}).usage(dst, ev)
	return web.AppendTimings(dst, ev.Timings)
}

// Collect takes an event of an answer in one piece. For the Done it returns the body of the answer,
// otherwise nil. An [infer.Error] means that the answer has failed.
func (a *TextAnswer) Collect(ev infer.Event) ([]byte, error) {
	switch ev := ev.(type) {
	case *infer.Admitted:
	case *infer.Prompt:
		a.prompt = append(a.prompt[:0], ev.Text...)
	case *infer.Text:
		a.text = append(a.text, ev.Delta...)
		if a.Request.logprobs {
			a.list = append(a.list, cloneLogprobs(ev.Logprobs)...)
		}
	case *infer.Done:
		if ev.Reason == infer.Canceled {
			return nil, web.ErrCanceled
		}
		text := a.text
		if a.Request.echo {
			text = append(a.echo(), text...)
		}
		dst := a.choice(a.head(nil), text, a.list, reasons[ev.Reason])
		return append(a.usage(dst, ev), '}'), nil
	default:
		return nil, infer.Errorf(infer.Internal, "completions cannot encode a %T", ev)
	}
	if len(a.text) > web.MaxAnswer || len(a.list) > maxKeptLogprobs {
		return nil, web.TooLong()
	}
	return nil, nil
}

// maxKeptLogprobs bounds the tokens for which logprobs are kept in an answer in one piece.
const maxKeptLogprobs = 1 << 18

// cloneLogprobs returns a deep copy of logprobs, because the sender of an event reuses its memory.
func cloneLogprobs(list []infer.Logprob) []infer.Logprob {
	all := make([]infer.Logprob, len(list))
	clone := func(c infer.Candidate) infer.Candidate {
		c.Piece = append([]byte(nil), c.Piece...)
		return c
	}
	for i, l := range list {
		all[i].Candidate = clone(l.Candidate)
		for _, c := range l.Top {
			all[i].Top = append(all[i].Top, clone(c))
		}
	}
	return all
}
