package v1_test

import (
	"bytes"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
	v1 "github.com/inferd-go/inferd/internal/wire/v1"
)

// collect returns a sink that appends copies of events.
func collect(to *[]infer.Event) infer.Sink {
	return func(ev infer.Event) error {
		if text, ok := ev.(*infer.Text); ok {
			ev = &infer.Text{Delta: bytes.Clone(text.Delta)}
		}
		*to = append(*to, ev)
		return nil
	}
}

func TestAskReads(t *testing.T) {
	end := &infer.Done{Reason: infer.EndOfTurn, In: 1, Out: 2, Backend: "mock"}
	const done = `{"type":"done","id":"1","content":"ab","usage":{"prompt_tokens":1,"completion_tokens":2},"stop_reason":"end","backend":"mock"}`
	for name, test := range map[string]struct {
		answer string
		want   []infer.Event
		err    string
	}{
		"a stream":              {`{"type":"token","content":"a"}` + "\n" + `{"type":"token","content":"b"}` + "\n" + done, []infer.Event{text("a"), text("b"), end}, ""},
		"no stream":             {done, []infer.Event{text("ab"), end}, ""},
		"unknown types":         {`{"type":"status","status":7}` + "\n" + `{"content":"x"}` + "\n" + done, []infer.Event{text("ab"), end}, ""},
		"unknown members":       {`{"x":1,"x":2,"type":"done","stop_reason":"new","usage":{"y":[]}}`, []infer.Event{&infer.Done{Reason: infer.EndOfTurn}}, ""},
		"the token limit":       {`{"type":"done","stop_reason":"length"}`, []infer.Event{&infer.Done{Reason: infer.Length}}, ""},
		"cancelled":             {`{"type":"done","stop_reason":"cancelled"}`, []infer.Event{&infer.Done{Reason: infer.Canceled}}, ""},
		"refused":               {`{"type":"error","code":"queue_full","message":"queue full"}`, nil, "queue full"},
		"failure after tokens":  {`{"type":"token","content":"a"}` + "\n" + `{"type":"error","code":"internal","message":"x"}`, []infer.Event{text("a")}, "x"},
		"end of the connection": {`{"type":"token","content":"a"}`, []infer.Event{text("a")}, "read answer: EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			var got []infer.Event
			r := frame.Lines.NewReader(strings.NewReader(test.answer), frame.Limit)
			err := v1.Ask(r, frame.Lines.NewWriter(io.Discard), asked(func(*infer.Generate) {}), true, collect(&got))
			if (err == nil) != (test.err == "") || err != nil && err.Error() != test.err {
				t.Errorf("Ask: %v, want %s", err, test.err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// v1 has no member for LocalOnly, so Ask refuses such a request without sending anything.
func TestAskRefusesLocalOnly(t *testing.T) {
	var sent strings.Builder
	req := asked(func(*infer.Generate) {})
	req.LocalOnly = true
	err := v1.Ask(frame.Lines.NewReader(strings.NewReader(""), frame.Limit), frame.Lines.NewWriter(&sent), req, true, func(infer.Event) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "v1 has no local_only") || sent.Len() > 0 {
		t.Errorf("%v, sent %q", err, &sent)
	}
}

func TestAskStopsWithItsSink(t *testing.T) {
	full := errors.New("full")
	r := frame.Lines.NewReader(strings.NewReader(`{"type":"token","content":"a"}`), frame.Limit)
	err := v1.Ask(r, frame.Lines.NewWriter(io.Discard), asked(func(*infer.Generate) {}), true, func(infer.Event) error { return full })
	if !errors.Is(err, full) {
		t.Errorf("Ask: %v, want %v", err, full)
	}
}

// FuzzBothHalves checks that the server half reads the request of the client half, and that the
// client half emits the events that the server half writes.
func FuzzBothHalves(f *testing.F) {
	f.Add("1", "system", "user", "x", "root ::= \"a\"", "gen", uint32(9), uint16(64), 0.95, 1.0, 0.5, -1.0, uint32(7), true)
	f.Fuzz(func(t *testing.T, id, system, user, stop, grammar, model string, maxTokens uint32, topK uint16,
		topP, temperature, minP, penalty float64, seed uint32, stream bool,
	) {
		for _, s := range []string{id, system, user, stop, grammar, model} {
			if !utf8.ValidString(s) {
				return // JSON cannot express it
			}
		}
		between := func(x, least, utmost float64) bool { return x >= least && x <= utmost && !math.IsNaN(x) }
		if len(id) > wire.MaxID || stop == "" || len(stop) > 256 || strings.Count(grammar, "|") > 4096 || len(grammar) > 64<<10 || maxTokens == 0 ||
			!between(topP, 1e-6, 1e6) || !between(temperature, 0, 1e6) || !between(minP, 0, 1) || !between(penalty, -1e6, 1e6) {
			return // refused
		}
		want := &infer.Request{ID: id, Task: &infer.Generate{
			Thinking: infer.ThinkOff,
			Model:    model, Messages: []infer.Message{infer.TextMessage(infer.System, system), infer.TextMessage(infer.User, user)},
			MaxTokens: int(maxTokens), Stop: []string{stop}, Format: infer.Format{Grammar: grammar},
			Sampling: infer.Sampling{
				Temperature: &temperature, TopK: new(int(topK)), TopP: &topP, MinP: &minP, Seed: &seed,
				RepeatPenalty: new(math.Abs(penalty)), PresencePenalty: &penalty, FrequencyPenalty: new(-penalty),
			},
			Defaults: wire.Defaults(1000),
		}}
		events := []infer.Event{text("<" + user), text(grammar + "é"), &infer.Done{Reason: infer.Length, In: int(topK), Out: int(seed), Backend: stop}}
		streamed := events
		if !stream {
			streamed = []infer.Event{text("<" + user + grammar + "é"), events[2]}
		}

		// The server half reads the request and writes the whole answer when Ask reads for the
		// first time.
		var question, answer bytes.Buffer
		server := &v1.Codec{R: frame.Lines.NewReader(&question, frame.Limit), W: frame.Lines.NewWriter(&answer)}
		var got []infer.Event
		err := v1.Ask(readerFunc(func() (frame.Kind, []byte, error) {
			if answer.Len() == 0 {
				req, err := server.Read()
				if diff := cmp.Diff(want, req, cmpopts.IgnoreTypes(infer.Pause{})); err != nil || diff != "" {
					t.Fatalf("Read: %v, -want +got\n%s", err, diff)
				}
				for _, ev := range events {
					if err := server.Write(ev); err != nil {
						t.Fatal(err)
					}
				}
			}
			line, err := answer.ReadBytes('\n')
			return frame.JSON, line, err
		}), frame.Lines.NewWriter(&question), want, stream, collect(&got))
		if diff := cmp.Diff(streamed, got); err != nil || diff != "" {
			t.Fatalf("Ask: %v, -want +got\n%s", err, diff)
		}
	})
}

type readerFunc func() (frame.Kind, []byte, error)

func (f readerFunc) ReadFrame() (frame.Kind, []byte, error) { return f() }

func (f readerFunc) Detach() {}

func (f readerFunc) Reserve(int) error { return nil }
