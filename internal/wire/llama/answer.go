package llama

import (
	"bytes"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// kindsOfEnd maps reasons to values of stop_type.
var kindsOfEnd = map[infer.Reason]string{
	infer.EndOfTurn: "eos", infer.StopSequence: "word", infer.Length: "limit", infer.CalledTool: "eos",
}

// An Answer encodes the events of a completion.
type Answer struct {
	Request *Completion
	Model   string // as the client spelled it
	NCtx    int    // size of the context in tokens; 0 if unknown

	in, out int    // numbers of tokens of the prompt and of the answer so far
	text    []byte // the text of an answer in one piece
	ids     []int  // the token IDs of text
	probs   []byte // the probabilities of its tokens, as JSON without the brackets
	line    bool   // the answer has a line break
}

// Stream appends the server-sent event for ev, or nothing if ev has none. An [infer.Error] means
// that the answer has failed.
func (a *Answer) Stream(dst []byte, ev infer.Event) ([]byte, error) {
	switch ev := ev.(type) {
	case *infer.Admitted:
	case *infer.Prompt:
		a.in = ev.Tokens
	case *infer.Text:
		if a.Request.silent {
			return dst, nil
		}
		a.note(ev)
		dst = append(dst, "data: "...)
		dst = a.head(dst, ev.Delta, idsOf(ev.Logprobs), false)
		dst = a.counts(dst, a.in, a.out)
		if a.Request.probs > 0 && len(ev.Logprobs) > 0 {
			dst = append(dst, `,"completion_probabilities":[`...)
			dst = append(a.appendProbs(dst, ev.Logprobs), ']')
		}
		dst = append(dst, "}\n\n"...)
	case *infer.Done:
		if ev.Reason == infer.Canceled {
			return dst, web.ErrCanceled
		}
		dst = append(dst, "data: "...)
		dst = a.end(a.head(dst, nil, nil, true), ev)
		dst = append(dst, "\n\n"...)
	default:
		return dst, infer.Errorf(infer.Internal, "completions cannot encode a %T", ev)
	}
	return dst, nil
}

// KeepAlive appends a comment without a blank line. With a blank line some clients would take it
// for an event without data.
func (*Answer) KeepAlive(dst []byte) []byte { return append(dst, ": ping\n"...) }

// Fail appends the end of a stream that has failed.
func (*Answer) Fail(dst []byte, cause error) []byte {
	f := web.ErrorOf(cause)
	dst = append(dst, "data: "...)
	return append(appendFailure(dst, statusOf(f), f), "\n\n"...)
}

// note counts the tokens of a piece of text, and looks for line breaks in it.
func (a *Answer) note(ev *infer.Text) {
	a.out += ev.Tokens
	a.line = a.line || bytes.IndexByte(ev.Delta, '\n') >= 0
}

func idsOf(list []infer.Logprob) []int {
	ids := make([]int, len(list))
	for i := range list {
		ids[i] = list[i].ID
	}
	return ids
}

// head appends the beginning of an event or of an answer in one piece: a text, its token IDs, and the
// member stop.
func (a *Answer) head(dst, text []byte, ids []int, stop bool) []byte {
	dst = append(dst, `{"index":0,"content":`...)
	dst = wire.AppendString(dst, text)
	dst = append(dst, `,"tokens":[`...)
	if a.Request.ids {
		for i, id := range ids {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = strconv.AppendInt(dst, int64(id), 10)
		}
	}
	dst = append(dst, `],"id_slot":-1,"stop":`...)
	return strconv.AppendBool(dst, stop)
}

func (*Answer) counts(dst []byte, in, out int) []byte {
	dst = append(dst, `,"tokens_predicted":`...)
	dst = strconv.AppendInt(dst, int64(out), 10)
	dst = append(dst, `,"tokens_evaluated":`...)
	return strconv.AppendInt(dst, int64(in), 10)
}

// appendProbs appends list as the elements of a JSON array, without the brackets.
func (a *Answer) appendProbs(dst []byte, list []infer.Logprob) []byte {
	return wire.AppendLogprobs(dst, list, a.Request.probs, "top_logprobs", appendCandidate)
}

// appendCandidate appends the object for a token, without its closing brace.
func appendCandidate(dst []byte, c infer.Candidate) []byte {
	dst = append(dst, `{"id":`...)
	dst = strconv.AppendInt(dst, int64(c.ID), 10)
	dst = append(dst, `,"token":`...)
	dst = wire.AppendString(dst, c.Piece)
	dst = append(dst, `,"bytes":`...)
	dst = wire.AppendBytes(dst, c.Piece)
	dst = append(dst, `,"logprob":`...)
	return strconv.AppendFloat(dst, c.Logprob, 'g', -1, 32)
}

// end appends the members that only the last event, or an answer in one piece, has, and its closing
// brace.
func (a *Answer) end(dst []byte, ev *infer.Done) []byte {
	out := ev.Out
	if a.Request.silent {
		out = 0
	}
	dst = append(dst, `,"model":`...)
	dst = wire.AppendString(dst, a.Model)
	dst = a.counts(dst, ev.In, out)
	dst = append(dst, `,"generation_settings":{"n_ctx":`...)
	dst = strconv.AppendInt(dst, int64(a.NCtx), 10)
	dst = append(dst, `,"n_predict":`...)
	n := a.Request.Generate.MaxTokens
	switch {
	case a.Request.silent:
		n = 0
	case n == 0:
		n = -1
	}
	dst = strconv.AppendInt(dst, int64(n), 10)
	dst = append(dst, `},"prompt":`...)
	dst = wire.AppendString(dst, a.Request.text)
	dst = append(dst, `,"has_new_line":`...)
	dst = strconv.AppendBool(dst, a.line)
	dst = append(dst, `,"truncated":false,"stop_type":"`...)
	dst = append(dst, kindsOfEnd[ev.Reason]...)
	dst = append(dst, `","stopping_word":`...)
	word := ""
	if stops := a.Request.Generate.Stop; ev.Reason == infer.StopSequence && len(stops) == 1 {
		word = stops[0]
	}
	dst = wire.AppendString(dst, word)
	dst = append(dst, `,"tokens_cached":`...)
	dst = strconv.AppendInt(dst, int64(ev.In+out), 10)
	return append(appendTimings(dst, ev, out), '}')
}

// appendTimings appends the numbers of tokens, and times in milliseconds.
func appendTimings(dst []byte, ev *infer.Done, out int) []byte {
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	number := func(name string, x float64) {
		dst = append(dst, name...)
		dst = strconv.AppendFloat(dst, x, 'g', -1, 64)
	}
	per := func(x, y float64) float64 {
		if y == 0 {
			return 0
		}
		return x / y
	}
	number(`,"timings":{"cache_n":`, float64(ev.Cached))
	for _, of := range []struct {
		name   string
		tokens float64
		ms     float64
	}{{"prompt", float64(ev.In - ev.Cached), ms(ev.Timings.Prefill)}, {"predicted", float64(out), ms(ev.Timings.Decode)}} {
		number(`,"`+of.name+`_n":`, of.tokens)
		number(`,"`+of.name+`_ms":`, of.ms)
		number(`,"`+of.name+`_per_token_ms":`, per(of.ms, of.tokens))
		number(`,"`+of.name+`_per_second":`, per(1000*of.tokens, of.ms))
	}
	return append(dst, '}')
}

// Collect takes an event of an answer in one piece. For the Done it returns the body of the answer,
// otherwise nil. An [infer.Error] means that the answer has failed.
func (a *Answer) Collect(ev infer.Event) ([]byte, error) {
	switch ev := ev.(type) {
	case *infer.Admitted, *infer.Prompt:
	case *infer.Text:
		if a.Request.silent {
			return nil, nil
		}
		a.note(ev)
		a.text = append(a.text, ev.Delta...)
		a.ids = append(a.ids, idsOf(ev.Logprobs)...)
		if a.Request.probs > 0 && len(ev.Logprobs) > 0 {
			if len(a.probs) > 0 {
				a.probs = append(a.probs, ',')
			}
			a.probs = a.appendProbs(a.probs, ev.Logprobs)
		}
	case *infer.Done:
		if ev.Reason == infer.Canceled {
			return nil, web.ErrCanceled
		}
		dst := a.head(nil, a.text, a.ids, true)
		if len(a.probs) > 0 {
			dst = append(dst, `,"completion_probabilities":[`...)
			dst = append(append(dst, a.probs...), ']')
		}
		return a.chosen(a.end(dst, ev))
	default:
		return nil, infer.Errorf(infer.Internal, "completions cannot encode a %T", ev)
	}
	if len(a.text)+len(a.probs) > web.MaxAnswer {
		return nil, web.TooLong()
	}
	return nil, nil
}

// chosen returns the whole body or, if the request has response_fields, an object with the values
// at these paths of the body. The name of each member is its path, such as "timings/prompt_n";
// paths that the body lacks are left out.
func (a *Answer) chosen(body []byte) ([]byte, error) {
	if len(a.Request.fields) == 0 {
		return body, nil
	}
	all := make(map[string]jsontext.Value)
	for _, path := range a.Request.fields {
		value, found := jsontext.Value(body), true
		for name := range strings.SplitSeq(path, "/") {
			var members map[string]jsontext.Value
			if value.Kind() != jsontext.KindBeginObject || json.Unmarshal(value, &members) != nil {
				found = false
				break
			}
			if value, found = members[name]; !found {
				break
			}
		}
		if found && utf8.ValidString(path) {
			all[path] = value
		}
	}
	out, err := json.Marshal(all, json.Deterministic(true))
	if err != nil {
		return nil, infer.Errorf(infer.Internal, "response_fields: %w", err)
	}
	return out, nil
}
