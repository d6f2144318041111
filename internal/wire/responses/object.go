package responses

import (
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/openai"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// maxEcho bounds the size of the members of a request that are repeated in three events of the
// answer. If they are larger together, the answer has them with their default or empty values.
const maxEcho = 1 << 20 // bytes

// echoes returns the members of the answer that repeat the request, as JSON that begins with a comma.
// The JSON has no white space, because an event is one line.
func (m *request) echoes(r *Request) []byte {
	whole := jsontext.Value(append(append([]byte{'{'}, m.members(r)[1:]...), '}'))
	if whole.Compact() != nil {
		return nil // cannot happen: it was decoded before
	}
	whole[0] = ','
	return whole[:len(whole)-1]
}

func (m *request) members(r *Request) []byte {
	instructions, tools, format := m.Instructions, r.tools, m.Text.Format
	if len(instructions)+len(tools)+len(format)+len(m.ToolChoice)+len(m.Metadata) > maxEcho {
		instructions, tools, format, m.ToolChoice, m.Metadata = nil, nil, nil, nil, nil
	}
	if !web.Present(format) {
		format = jsontext.Value(`{"type":"text"}`)
	}
	choice := m.ToolChoice
	if !web.Present(choice) {
		choice = jsontext.Value(`"auto"`)
	}
	metadata := m.Metadata
	if metadata.Kind() != jsontext.KindBeginObject {
		metadata = jsontext.Value("{}")
	}
	dst := append([]byte(nil), `,"background":false,"instructions":`...)
	dst = appendValue(dst, instructions)
	dst = append(dst, `,"max_output_tokens":`...)
	if n := r.Generate.MaxTokens; n > 0 {
		dst = strconv.AppendInt(dst, int64(n), 10)
	} else {
		dst = append(dst, "null"...)
	}
	dst = append(dst, `,"max_tool_calls":null,"metadata":`...)
	dst = append(dst, metadata...)
	dst = append(dst, `,"parallel_tool_calls":`...)
	dst = strconv.AppendBool(dst, !r.Generate.OneCall)
	dst = append(dst, `,"previous_response_id":null,"reasoning":{"effort":`...)
	dst = web.AppendNullable(dst, m.Reasoning.Effort)
	dst = append(dst, `,"summary":`...)
	dst = web.AppendNullable(dst, m.Reasoning.Summary)
	dst = append(dst, `},"service_tier":"default","store":false,"temperature":`...)
	s := r.Generate.Settled().Sampling
	dst = strconv.AppendFloat(dst, *s.Temperature, 'g', -1, 64)
	dst = append(dst, `,"text":{"format":`...)
	dst = append(dst, format...)
	dst = append(dst, `},"tool_choice":`...)
	dst = append(dst, choice...)
	dst = append(dst, `,"tools":[`...)
	dst = append(dst, tools...)
	dst = append(dst, `],"top_logprobs":`...)
	dst = strconv.AppendInt(dst, int64(r.top), 10)
	dst = append(dst, `,"top_p":`...)
	dst = strconv.AppendFloat(dst, *s.TopP, 'g', -1, 64)
	return append(dst, `,"truncation":"disabled"`...)
}

// appendValue appends the value of a member of a request, or null if it is missing.
func appendValue(dst []byte, v jsontext.Value) []byte {
	if !web.Present(v) {
		return append(dst, "null"...)
	}
	return append(dst, v...)
}

// The states of a response and of its items.
const (
	inProgress = "in_progress"
	completed  = "completed"
	incomplete = "incomplete"
	failed     = "failed"
)

// object appends the response in the given state. done has the numbers of tokens; it is nil before the
// end and in the state failed. failure is the error in the state failed, and nil otherwise.
func (a *Answer) object(dst []byte, state string, done *infer.Done, failure *openai.Error) []byte {
	dst = append(dst, `{"id":"resp_`...)
	dst = append(dst, a.ID...)
	dst = append(dst, `","object":"response","created_at":`...)
	dst = strconv.AppendInt(dst, a.Created, 10)
	dst = append(dst, `,"status":"`...)
	dst = append(dst, state...)
	dst = append(dst, `","error":`...)
	if failure != nil {
		dst = append(dst, `{"code":"`...)
		dst = append(dst, codeOf(failure)...)
		dst = append(dst, `","message":`...)
		dst = wire.AppendString(dst, failure.Message)
		dst = append(dst, '}')
	} else {
		dst = append(dst, "null"...)
	}
	dst = append(dst, `,"incomplete_details":`...)
	if state == incomplete {
		dst = append(dst, `{"reason":"max_output_tokens"}`...)
	} else {
		dst = append(dst, "null"...)
	}
	dst = append(dst, `,"model":`...)
	dst = wire.AppendString(dst, a.Model)
	dst = append(dst, `,"output":[`...)
	if state != inProgress {
		dst = append(dst, a.output...)
	}
	dst = append(dst, ']')
	dst = append(dst, a.Request.echo...)
	if done != nil {
		dst = a.usage(dst, done)
		dst = web.AppendTimings(dst, done.Timings)
	}
	return append(dst, '}')
}

// usage appends the numbers of tokens of an answer.
func (a *Answer) usage(dst []byte, done *infer.Done) []byte {
	for _, n := range []struct {
		name  string
		value int
	}{
		{`,"usage":{"input_tokens":`, done.In},
		{`,"input_tokens_details":{"cached_tokens":`, done.Cached},
		{`,"cache_write_tokens":0},"output_tokens":`, done.Out},
		{`,"output_tokens_details":{"reasoning_tokens":`, a.thought},
		{`},"total_tokens":`, done.In + done.Out},
	} {
		dst = append(dst, n.name...)
		dst = strconv.AppendInt(dst, int64(n.value), 10)
	}
	return append(dst, '}')
}
