package link

import (
	"errors"
	"net"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/client/stats"
	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/printable"
)

// limit bounds the bytes of a message, and the bytes of all attachments of a request. A request has at
// most frame.Limit bytes on its surface, and the encoding of the link at most doubles them.
const limit = 2 * frame.Limit

// A request is a message of the daemon: a task, a change of a call, or a query. Queries
// belong to no call and have the number 0; at most one of each kind is open.
type request struct {
	Call     uint64
	Generate *infer.Generate // settled; its attachments come without their data
	Count    *infer.Count    // its attachments come without their data, which is not sent
	Embed    *infer.Embed
	Rerank   *infer.Rerank
	User     string // of the caller, as the kernel reports it: retained KV belongs to a user
	Key      string // name of the caller's key, as in infer.Peer
	Salt     string // as in infer.Request
	Deadline time.Time
	Cancel   bool
	Pause    bool // until Resume
	Resume   bool
	Stats    bool // a query of the statistics
	Beat     bool // a query of a [Beat]
}

// task returns the task of r, or nil if it has none.
func (r *request) task() infer.Task {
	switch {
	case r.Generate != nil:
		return r.Generate
	case r.Count != nil:
		return r.Count
	case r.Embed != nil:
		return r.Embed
	case r.Rerank != nil:
		return r.Rerank
	}
	return nil
}

// A response is a message of the engine: an event of a call, its end, a report, or the
// answer to a query.
type response struct {
	Call     uint64
	Prompt   *infer.Prompt
	Text     *infer.Text // with logprobs
	ToolCall *infer.ToolCall
	Vectors  *infer.Vectors
	Scores   *infer.Scores
	Done     *wireDone
	Fail     *wireFailure
	Report   *Report
	Stats    *stats.Engine
	Beat     *Beat
}

// A wireDone is an [infer.Done] without timings, which the daemon measures.
type wireDone struct {
	Reason         infer.Reason
	In, Cached     int
	Out            int
	Backend, Model string
	Unsatisfied    bool
	Stop           string
	StopIgnored    bool
}

func doneOf(ev *infer.Done) *wireDone {
	return &wireDone{
		Reason: ev.Reason, In: ev.In, Cached: ev.Cached, Out: ev.Out,
		Backend: ev.Backend, Model: ev.Model, Unsatisfied: ev.Unsatisfied, Stop: ev.Stop, StopIgnored: ev.StopIgnored,
	}
}

func (d *wireDone) event() *infer.Done {
	return &infer.Done{
		Reason: d.Reason, In: d.In, Cached: d.Cached, Out: d.Out,
		Backend: d.Backend, Model: printable.Text(d.Model), Unsatisfied: d.Unsatisfied, Stop: d.Stop, StopIgnored: d.StopIgnored,
	}
}

type wireFailure struct {
	Code   infer.Code
	Text   string
	Member string             // of the cause, if it is an [infer.FeatureError]
	Prompt *infer.PromptError // the cause, if it is one
}

func failureOf(err error) *wireFailure {
	f := &wireFailure{Code: infer.CodeOf(err), Text: err.Error()}
	f.Prompt, _ = errors.AsType[*infer.PromptError](err)
	if feature, ok := errors.AsType[*infer.FeatureError](err); ok {
		f.Member = feature.Member
	}
	return f
}

// err returns the failure as an error. Its text is made printable and cut to printable.Max bytes,
// because an engine's messages may quote the model and the request.
func (f *wireFailure) err() error {
	if f.Prompt != nil {
		return infer.Errorf(f.Code, "%w", f.Prompt)
	}
	cause := errors.New(printable.Text(f.Text))
	if f.Member != "" {
		cause = &infer.FeatureError{Member: printable.Text(f.Member), Err: cause}
	}
	return infer.Errorf(f.Code, "%w", cause)
}

// Kinds of blobs of the engine.
const (
	textBlob     = 0
	thinkingBlob = 1
)

// A part is an [infer.Part] as JSON; one member is set. The types of the members have no methods,
// so they do not implement infer.Part, and [marshalPart] is not called for them.
type part struct {
	Text     *textPart
	Thinking *thinkingPart
	Media    *mediaPart
	Call     *callPart
	Result   *resultPart
}

type (
	textPart     infer.TextPart
	thinkingPart infer.ThinkingPart
	mediaPart    infer.MediaPart
	callPart     infer.CallPart
	resultPart   infer.ResultPart
)

func marshalPart(e *jsontext.Encoder, p infer.Part) error {
	var one part
	switch p := p.(type) {
	case *infer.TextPart:
		one.Text = (*textPart)(p)
	case *infer.ThinkingPart:
		one.Thinking = (*thinkingPart)(p)
	case *infer.MediaPart:
		one.Media = (*mediaPart)(p)
	case *infer.CallPart:
		one.Call = (*callPart)(p)
	case *infer.ResultPart:
		one.Result = (*resultPart)(p)
	}
	return json.MarshalEncode(e, &one)
}

func unmarshalPart(d *jsontext.Decoder, p *infer.Part) error {
	var one part
	if err := json.UnmarshalDecode(d, &one); err != nil {
		return err
	}
	switch {
	case one.Text != nil:
		*p = (*infer.TextPart)(one.Text)
	case one.Thinking != nil:
		*p = (*infer.ThinkingPart)(one.Thinking)
	case one.Media != nil:
		*p = (*infer.MediaPart)(one.Media)
	case one.Call != nil:
		*p = (*infer.CallPart)(one.Call)
	case one.Result != nil:
		*p = (*infer.ResultPart)(one.Result)
	default:
		return errors.New("a message part of unknown kind")
	}
	return nil
}

// encodeOptions and decodeOptions are the options to encode and decode. They keep the difference between nil
// and empty, and omit zeros.
var (
	encodeOptions = json.JoinOptions(
		json.OmitZeroStructFields(true), json.FormatNilSliceAsNull(true), json.FormatNilMapAsNull(true),
		json.WithMarshalers(json.MarshalToFunc(marshalPart)),
	)
	decodeOptions = json.WithUnmarshalers(json.UnmarshalFromFunc(unmarshalPart))
)

// A message is an encoded request, as frames.
type message struct {
	call   uint64 // 0 for a query
	task   bool   // it begins the call
	frames net.Buffers
	size   int // bytes of frames
}

// messageOf encodes r. Data of attachments of more than inline bytes is not copied. messageOf fails with
// [infer.TooLarge] if the JSON, or all attachments together, exceed the limit, and with
// [infer.Internal] if r cannot be encoded. It does not fail for a request without a task.
func messageOf(r *request) (message, error) {
	var blobs []infer.Attachment
	if g := r.Generate; g != nil && len(g.Attachments) > 0 {
		whole := *r
		blobs, whole.Generate = detach(g)
		r = &whole
	}
	text, err := json.Marshal(r, encodeOptions)
	if err != nil {
		return message{}, infer.Errorf(infer.Internal, "encode request: %w", err)
	}
	data := 0
	for i := range blobs {
		data += len(blobs[i].Data)
	}
	if len(text) > limit || data > limit {
		return message{}, infer.Errorf(infer.TooLarge, "the request has more than %d bytes", limit)
	}
	m := message{call: r.Call, task: r.task() != nil}
	m.add(frame.JSON, text)
	for i := range blobs {
		m.add(frame.Blob, blobs[i].Data)
	}
	return m, nil
}

// inline is the maximum size, in bytes, of data that is copied into one buffer with the head of its
// frame. Larger data is sent without a copy.
const inline = 16 << 10

func (m *message) add(kind frame.Kind, data []byte) {
	const head = 8 // bytes, at most
	if len(data) <= inline {
		m.frames = append(m.frames, append(frame.AppendHead(make([]byte, 0, len(data)+head), kind, len(data)), data...))
	} else {
		m.frames = append(m.frames, frame.AppendHead(make([]byte, 0, head), kind, len(data)), data)
	}
	m.size += len(data) + head
}

// detach returns the attachments of g, and a copy of g with attachments without data.
func detach(g *infer.Generate) ([]infer.Attachment, *infer.Generate) {
	bare := *g
	bare.Attachments = make([]infer.Attachment, len(g.Attachments))
	for i, a := range g.Attachments {
		a.Data = nil
		bare.Attachments[i] = a
	}
	return g.Attachments, &bare
}

// attach reads the data of g's attachments, which follows the request on the connection.
func attach(g *infer.Generate, r frame.Reader) error {
	left := limit
	for i := range g.Attachments {
		kind, data, err := r.ReadFrame()
		switch {
		case err != nil:
			return err
		case kind != frame.Blob:
			return protocolError("a message before the data of all attachments")
		case len(data) > left:
			return protocolError("attachments of more than %d bytes", limit)
		}
		left -= len(data)
		r.Detach()
		if data == nil {
			data = []byte{}
		}
		g.Attachments[i].Data = data
	}
	return nil
}
