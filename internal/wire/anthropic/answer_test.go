package anthropic_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire/anthropic"
)

// An event is an event of a stream, with the members of all types of events.
type event struct {
	Type    string  `json:"type"`
	Index   *int    `json:"index"`
	Message message `json:"message"`
	Block   *block  `json:"content_block"`
	Delta   struct {
		Type         string  `json:"type"`
		Text         string  `json:"text"`
		Thinking     string  `json:"thinking"`
		Signature    string  `json:"signature"`
		PartialJSON  string  `json:"partial_json"`
		StopReason   string  `json:"stop_reason"`
		StopSequence *string `json:"stop_sequence"`
	} `json:"delta"`
	Usage usage `json:"usage"`
}

type message struct {
	ID           string  `json:"id"`
	Type         string  `json:"type"`
	Role         string  `json:"role"`
	Model        string  `json:"model"`
	Content      []block `json:"content"`
	StopReason   *string `json:"stop_reason"`
	StopSequence *string `json:"stop_sequence"`
	Usage        usage   `json:"usage"`
}

type block struct {
	Type      string         `json:"type"`
	Text      string         `json:"text"`
	Thinking  string         `json:"thinking"`
	Signature string         `json:"signature"`
	ID        string         `json:"id"`
	Name      string         `json:"name"`
	Input     map[string]any `json:"input"`
}

type usage struct {
	Input         *int `json:"input_tokens"`
	Output        *int `json:"output_tokens"`
	CacheCreation *int `json:"cache_creation_input_tokens"`
	CacheRead     *int `json:"cache_read_input_tokens"`
}

func (u usage) String() string {
	n := func(p *int) string {
		if p == nil {
			return "-"
		}
		return fmt.Sprint(*p)
	}
	return n(u.Input) + " " + n(u.CacheCreation) + " " + n(u.CacheRead) + " " + n(u.Output)
}

// decode decodes a document into v. The test fails if the document has a member that v does not
// have.
func decode(t *testing.T, doc string, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(doc), v, json.RejectUnknownMembers(true)); err != nil {
		t.Fatalf("%v: %s", err, doc)
	}
}

// split returns the events of a stream.
func split(t *testing.T, stream []byte) (all []event) {
	t.Helper()
	for text := range strings.SplitSeq(strings.TrimSuffix(string(stream), "\n\n"), "\n\n") {
		first, second, ok := strings.Cut(text, "\n")
		kind, named := strings.CutPrefix(first, "event: ")
		data, is := strings.CutPrefix(second, "data: ")
		if !ok || !named || !is || strings.Contains(data, "\n") {
			t.Fatalf("event %q", text)
		}
		var ev event
		if decode(t, data, &ev); ev.Type != kind {
			t.Errorf("%s has the type %q", kind, ev.Type)
		}
		all = append(all, ev)
	}
	return all
}

func ask(more string) string {
	return `{"model":"gen","max_tokens":9,"messages":[{"role":"user","content":"hi"}]` + more + `}`
}

func read(t *testing.T, body string) *anthropic.Request {
	t.Helper()
	r, err := anthropic.Read([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func answer(r *anthropic.Request) *anthropic.Answer {
	return &anthropic.Answer{ID: "0123", RequestID: "req_0123", Model: "gen", Request: r}
}

func stream(t *testing.T, a *anthropic.Answer, events ...infer.Event) []byte {
	t.Helper()
	var out []byte
	for _, ev := range events {
		var err error
		if out, err = a.Stream(out, ev); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func done(r infer.Reason) *infer.Done {
	return &infer.Done{Reason: r, In: 7, Cached: 3, Out: 5, Backend: "mock"}
}

func text(s string) *infer.Text { return &infer.Text{Delta: []byte(s)} }

func thinking(s string) *infer.Thinking { return &infer.Thinking{Delta: []byte(s), Tokens: 1} }

func toolCall(id, input string) *infer.ToolCall {
	return &infer.ToolCall{ID: id, Name: "f", Input: []byte(input)}
}

// An outcome is an answer as a client assembles it.
type outcome struct{ Blocks, Stop, Usage string }

// assemble assembles an answer from its events in the way clients do. It checks that blocks do not
// overlap, and that each block has a start and only deltas of its kind.
func assemble(t *testing.T, all []event) outcome {
	t.Helper()
	if len(all) < 3 || all[0].Type != "message_start" || all[len(all)-2].Type != "message_delta" || all[len(all)-1].Type != "message_stop" {
		t.Fatalf("events %+v", all)
	}
	m := all[0].Message
	if m.Type != "message" || m.Role != "assistant" || m.ID != "msg_0123" || m.Model != "gen" || m.Content == nil || len(m.Content) > 0 || m.StopReason != nil {
		t.Errorf("message_start has %+v", m)
	}
	var blocks strings.Builder
	index, open := 0, ""
	for _, ev := range all[1 : len(all)-2] {
		if ev.Index == nil || *ev.Index != index {
			t.Errorf("the index of %+v is not %d", ev, index)
		}
		switch ev.Type {
		case "content_block_start":
			if open != "" {
				t.Errorf("%s and %s overlap", open, ev.Block.Type)
			}
			if open = ev.Block.Type; ev.Block.Text+ev.Block.Thinking+ev.Block.Signature != "" || len(ev.Block.Input) > 0 || open == "tool_use" && (ev.Block.Input == nil || ev.Block.ID == "") {
				t.Errorf("the block begins with %+v", ev.Block)
			}
			fmt.Fprintf(&blocks, "%s(%s", open, ev.Block.Name)
		case "content_block_delta":
			kinds := map[string]string{"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "thinking", "input_json_delta": "tool_use"}
			if kinds[ev.Delta.Type] != open {
				t.Errorf("a %s in a block of %s", ev.Delta.Type, open)
			}
			blocks.WriteString(ev.Delta.Text + ev.Delta.Thinking + ev.Delta.PartialJSON)
			if ev.Delta.Type == "signature_delta" {
				if ev.Delta.Signature == "" {
					t.Error("an empty signature")
				}
				blocks.WriteString(" signed")
			}
		case "content_block_stop":
			open = ""
			index++
			blocks.WriteString(") ")
		default:
			t.Errorf("event %+v", ev)
		}
	}
	if open != "" {
		t.Errorf("%s has no end", open)
	}
	last := all[len(all)-2]
	stop := last.Delta.StopReason
	if last.Delta.StopSequence != nil {
		stop += " " + *last.Delta.StopSequence
	}
	return outcome{strings.TrimSpace(blocks.String()), stop, all[0].Message.Usage.String() + ", " + last.Usage.String()}
}

func TestAnswers(t *testing.T) {
	const known, unknown = "7 0 0 0, 4 0 3 5", "0 0 0 0, 4 0 3 5"
	for name, test := range map[string]struct {
		more   string
		events []infer.Event
		want   outcome
	}{
		"text": {"", []infer.Event{&infer.Admitted{}, &infer.Prompt{Tokens: 7}, text("a\n\""), text("é"), done(infer.EndOfTurn)}, outcome{"text(a\n\"é)", "end_turn", known}},
		"nothing, and the size of the prompt at the end":    {"", []infer.Event{done(infer.EndOfTurn)}, outcome{"", "end_turn", "4 0 3 0, 4 0 3 5"}},
		"a prompt with a cached beginning":                  {"", []infer.Event{&infer.Prompt{Tokens: 7, Cached: 3}, text("a"), done(infer.EndOfTurn)}, outcome{"text(a)", "end_turn", "4 0 3 0, 4 0 3 5"}},
		"a size that is not said before":                    {"", []infer.Event{text("a"), done(infer.EndOfTurn)}, outcome{"text(a)", "end_turn", unknown}},
		"thinking":                                          {"", []infer.Event{&infer.Prompt{Tokens: 7}, thinking("h"), thinking("m"), text("a"), done(infer.EndOfTurn)}, outcome{"thinking(hm signed) text(a)", "end_turn", known}},
		"thinking without an end":                           {"", []infer.Event{&infer.Prompt{Tokens: 7}, thinking("h"), &infer.Done{Reason: infer.Length, In: 7, Cached: 3, Out: 9}}, outcome{"thinking(h signed)", "max_tokens", "7 0 0 0, 4 0 3 9"}},
		"the context is full":                               {"", []infer.Event{&infer.Prompt{Tokens: 7}, text("a"), done(infer.Length)}, outcome{"text(a)", "model_context_window_exceeded", known}},
		"one stop":                                          {`,"stop_sequences":["X"]`, []infer.Event{&infer.Prompt{Tokens: 7}, text("a"), done(infer.StopSequence)}, outcome{"text(a)", "stop_sequence X", known}},
		"one of several stops":                              {`,"stop_sequences":["X","Y"]`, []infer.Event{&infer.Prompt{Tokens: 7}, text("a"), &infer.Done{Reason: infer.StopSequence, Stop: "Y", In: 7, Cached: 3, Out: 5}}, outcome{"text(a)", "stop_sequence Y", known}},
		"several stops, and the backend does not say which": {`,"stop_sequences":["X","Y"]`, []infer.Event{&infer.Prompt{Tokens: 7}, text("a"), done(infer.StopSequence)}, outcome{"text(a)", "stop_sequence", known}},
		"calls":                               {"", []infer.Event{&infer.Prompt{Tokens: 7}, text("a"), toolCall("1", `{"x":"é"}`), toolCall("", `{}`), done(infer.CalledTool)}, outcome{`text(a) tool_use(f{"x":"é"}) tool_use(f{})`, "tool_use", known}},
		"a call, and the model ends its turn": {"", []infer.Event{&infer.Prompt{Tokens: 7}, toolCall("1", `{}`), done(infer.EndOfTurn)}, outcome{`tool_use(f{})`, "tool_use", known}},
		"all, in turns":                       {"", []infer.Event{&infer.Prompt{Tokens: 7}, thinking("h"), text("a"), thinking("m"), toolCall("1", "{}"), text("b"), done(infer.EndOfTurn)}, outcome{`thinking(h signed) text(a) thinking(m signed) tool_use(f{}) text(b)`, "tool_use", known}},
	} {
		t.Run(name, func(t *testing.T) {
			r := read(t, ask(test.more))
			if diff := cmp.Diff(test.want, assemble(t, split(t, stream(t, answer(r), test.events...)))); diff != "" {
				t.Errorf("as a stream: -want +got\n%s", diff)
			}
			a := answer(r)
			var doc []byte
			for _, ev := range test.events {
				var err error
				if doc, err = a.Collect(ev); err != nil {
					t.Fatal(err)
				}
			}
			var whole struct {
				message

				Timings any `json:"timings"`
			}
			decode(t, string(doc), &whole)
			m := whole.message
			var blocks []string
			for _, b := range m.Content {
				one := b.Type + "(" + b.Name + b.Text + b.Thinking
				switch b.Type {
				case "thinking":
					if b.Signature != "" {
						one += " signed"
					}
				case "tool_use":
					input, err := json.Marshal(b.Input)
					if err != nil || b.ID == "" {
						t.Errorf("%+v: %v", b, err)
					}
					one += string(input)
				}
				blocks = append(blocks, one+")")
			}
			stop := *m.StopReason
			if m.StopSequence != nil {
				stop += " " + *m.StopSequence
			}
			_, end, _ := strings.Cut(test.want.Usage, ", ")
			if got, want := (outcome{strings.Join(blocks, " "), stop, m.Usage.String()}), (outcome{test.want.Blocks, test.want.Stop, end}); got != want || m.ID != "msg_0123" {
				t.Errorf("in one piece: got %q, want %q", got, want)
			}
		})
	}
}

// The events of a stream have exactly these bytes.
func TestStream(t *testing.T) {
	got := stream(t, answer(read(t, ask(""))), &infer.Prompt{Tokens: 7}, thinking("h"), toolCall("t", `{"x":1}`), done(infer.CalledTool))
	want := `event: message_start
data: {"type":"message_start","message":{"id":"msg_0123","type":"message","role":"assistant","model":"gen","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":7,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":0}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"h"}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"aW5mZXJk"}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: content_block_start
data: {"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"t","name":"f","input":{}}}

event: content_block_delta
data: {"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\"x\":1}"}}

event: content_block_stop
data: {"type":"content_block_stop","index":1}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"input_tokens":4,"cache_creation_input_tokens":0,"cache_read_input_tokens":3,"output_tokens":5}}

event: message_stop
data: {"type":"message_stop"}

`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	a := answer(read(t, ask("")))
	if got, want := string(a.KeepAlive(nil)), "event: ping\ndata: {\"type\":\"ping\"}\n\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := string(a.Fail(nil, infer.Errorf(infer.Unavailable, "why"))),
		"event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"why\"},\"request_id\":\"req_0123\"}\n\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// An answer that the daemon ended early or that is too large fails, so that it does not look
// complete. Events of other tasks are errors.
func TestCanceled(t *testing.T) {
	r := read(t, ask(""))
	if _, err := answer(r).Collect(&infer.Done{Reason: infer.Canceled}); infer.CodeOf(err) != infer.Unavailable {
		t.Errorf("Collect: %v", err)
	}
	if _, err := answer(r).Stream(nil, &infer.Done{Reason: infer.Canceled}); infer.CodeOf(err) != infer.Unavailable {
		t.Errorf("Stream: %v", err)
	}
	if _, err := answer(r).Collect(&infer.Text{Delta: make([]byte, 65<<20)}); infer.CodeOf(err) != infer.TooLarge {
		t.Errorf("65 MiB: %v", err)
	}
	for _, err := range []error{
		second(answer(r).Stream(nil, &infer.Vectors{})), second(answer(r).Collect(&infer.Vectors{})), second(anthropic.Count{}.Collect(text("a"))),
	} {
		if infer.CodeOf(err) != infer.Internal {
			t.Errorf("another event: %v", err)
		}
	}
}

func second(_ []byte, err error) error { return err }

func TestCount(t *testing.T) {
	var c anthropic.Count
	if body, err := c.Collect(&infer.Prompt{Tokens: 5}); body != nil || err != nil {
		t.Errorf("%s, %v", body, err)
	}
	if body, err := c.Collect(&infer.Done{In: 7, Cached: 3}); string(body) != `{"input_tokens":7}` || err != nil {
		t.Errorf("%s, %v", body, err)
	}
}

func TestTokensDoNotAllocate(t *testing.T) {
	a := answer(read(t, ask("")))
	ev := text("a \"token\"\n")
	buf := stream(t, a, ev)[:0]
	buf = append(buf, make([]byte, 1024)...)[:0]
	if n := testing.AllocsPerRun(1000, func() {
		if _, err := a.Stream(buf, ev); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations a token", n)
	}
}
