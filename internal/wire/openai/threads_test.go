package openai_test

import (
	"encoding/base64"
	"encoding/binary"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire/openai"
)

// A chunk is a chunk of a stream, with the members that these tests read.
type chunk struct {
	ID      string         `json:"id"`
	Usage   jsontext.Value `json:"usage"`
	Choices []struct {
		Delta struct {
			Role             *string     `json:"role"`
			Reasoning        *string     `json:"reasoning"`
			ReasoningContent *string     `json:"reasoning_content"`
			Calls            []deltaCall `json:"tool_calls"`
		} `json:"delta"`
		Reason *string `json:"finish_reason"`
	} `json:"choices"`
}

// A deltaCall is a piece of a call. Missing members are nil.
type deltaCall struct {
	Index    *int    `json:"index"`
	ID       *string `json:"id"`
	Function struct {
		Name      *string `json:"name"`
		Arguments *string `json:"arguments"`
	} `json:"function"`
}

// stream encodes events as a streamed answer to chat, and returns its chunks.
func stream(t *testing.T, chat *openai.Chat, events ...infer.Event) (all []chunk) {
	t.Helper()
	a := openai.Answer{ID: "chatcmpl-1", Model: "gen", Chat: chat}
	var text []byte
	for _, ev := range events {
		var err error
		if text, err = a.Stream(text, ev); err != nil {
			t.Fatal(err)
		}
	}
	for event := range strings.SplitSeq(strings.TrimSuffix(string(text), "data: [DONE]\n\n"), "\n\n") {
		if event == "" {
			continue
		}
		var c chunk
		if err := json.Unmarshal([]byte(strings.TrimPrefix(event, "data: ")), &c); err != nil {
			t.Fatalf("%v: %q", err, event)
		}
		all = append(all, c)
	}
	return all
}

// calls returns the pieces of a stream with two calls. The model gave only the first call an ID.
func calls(t *testing.T) (all []deltaCall) {
	t.Helper()
	for _, c := range stream(t, &openai.Chat{}, answers()["calls"]...) {
		for _, choice := range c.Choices {
			all = append(all, choice.Delta.Calls...)
		}
	}
	if len(all) != 4 {
		t.Fatalf("%d pieces of two calls", len(all))
	}
	return all
}

// Faults with tool calls that were reported for other servers do not occur. Each case is named
// after its report.
func TestThreadsOfCalls(t *testing.T) {
	t.Run("ollama/ollama#7881: every piece of a call has its index", func(t *testing.T) {
		for i, call := range calls(t) {
			if call.Index == nil || *call.Index != i/2 {
				t.Errorf("piece %d: index %v", i, call.Index)
			}
		}
	})
	t.Run("openai/codex#7517: a call's id is in its first piece only", func(t *testing.T) {
		for i, call := range calls(t) {
			if (call.ID != nil) != (i%2 == 0) {
				t.Errorf("piece %d: id %v", i, call.ID)
			}
		}
	})
	t.Run("lmstudio-ai/lmstudio-bug-tracker#830: no id of a call is empty", func(t *testing.T) {
		all := calls(t)
		if a, b := *all[0].ID, *all[2].ID; a == "" || b == "" || a == b {
			t.Errorf("streamed: ids %q and %q", a, b)
		}
		a := openai.Answer{Chat: &openai.Chat{}}
		var body []byte
		for _, ev := range answers()["calls"] {
			var err error
			if body, err = a.Collect(ev); err != nil {
				t.Fatal(err)
			}
		}
		var m struct {
			Choices []struct {
				Message struct {
					Calls []deltaCall `json:"tool_calls"`
				} `json:"message"`
			} `json:"choices"`
		}
		if err := json.Unmarshal(body, &m); err != nil || len(m.Choices) != 1 || len(m.Choices[0].Message.Calls) != 2 {
			t.Fatalf("%v: %s", err, body)
		}
		for i, call := range m.Choices[0].Message.Calls {
			if call.ID == nil || *call.ID != *all[2*i].ID {
				t.Errorf("whole: id %v, streamed %q", call.ID, *all[2*i].ID)
			}
		}
	})
	t.Run("ggml-org/llama.cpp#22722: the first piece of a call has empty arguments", func(t *testing.T) {
		for i, call := range calls(t) {
			first := i%2 == 0
			if args := call.Function.Arguments; args == nil || (*args == "") != first || (call.Function.Name != nil) != first {
				t.Errorf("piece %d: %+v", i, call.Function)
			}
		}
	})
}

// Faults that were reported for other servers do not occur. Each case is named after its report.
func TestThreads(t *testing.T) {
	t.Run("Blaizzy/mlx-vlm#1408, BerriAI/litellm#22573: thinking has both names, both ways", func(t *testing.T) {
		thoughts := 0
		for _, c := range stream(t, &openai.Chat{}, answers()["thinking"]...) {
			delta := c.Choices[0].Delta
			if delta.ReasoningContent == nil && delta.Reasoning == nil {
				continue
			}
			thoughts++
			if delta.ReasoningContent == nil || delta.Reasoning == nil || *delta.ReasoningContent != "hm" || *delta.Reasoning != "hm" {
				t.Errorf("streamed: %+v", delta)
			}
		}
		if thoughts != 1 {
			t.Errorf("%d pieces of thinking", thoughts)
		}
		a := openai.Answer{Chat: &openai.Chat{}}
		var body []byte
		for _, ev := range answers()["thinking"] {
			var err error
			if body, err = a.Collect(ev); err != nil {
				t.Fatal(err)
			}
		}
		if want := `"reasoning_content":"hm","reasoning":"hm"`; !strings.Contains(string(body), want) {
			t.Errorf("no %s in %s", want, body)
		}
		for _, member := range []string{"reasoning_content", "reasoning"} {
			c, err := openai.ReadChat([]byte(`{"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"a","` + member + `":"hm"},{"role":"user","content":"go"}]}`))
			if err != nil {
				t.Fatal(err)
			}
			if part, ok := c.Generate.Messages[1].Content[0].(*infer.ThinkingPart); !ok || part.Text != "hm" {
				t.Errorf("%s sent back: %+v", member, c.Generate.Messages[1])
			}
		}
	})
	t.Run("ggml-org/llama.cpp#5876: all chunks of a stream have one id", func(t *testing.T) {
		for name, events := range answers() {
			for _, c := range stream(t, &openai.Chat{Usage: true}, events...) {
				if c.ID != "chatcmpl-1" {
					t.Errorf("%s: the id %q", name, c.ID)
				}
			}
		}
	})
	t.Run("Arthur-Ficial/apfel#100: without being asked for, no chunk has usage, and all have a choice", func(t *testing.T) {
		for name, events := range answers() {
			for i, c := range stream(t, &openai.Chat{}, events...) {
				if c.Usage != nil || len(c.Choices) != 1 {
					t.Errorf("%s: chunk %d: %+v", name, i, c)
				}
			}
		}
	})
	t.Run("BerriAI/litellm#28735: the usage comes once, last, and without choices", func(t *testing.T) {
		for name, events := range answers() {
			all := stream(t, &openai.Chat{Usage: true}, events...)
			for i, c := range all {
				last := i == len(all)-1
				if (len(c.Choices) == 0) != last || (c.Usage.Kind() == jsontext.KindBeginObject) != last {
					t.Errorf("%s: chunk %d of %d: %+v", name, i, len(all), c)
				}
			}
			if end := all[len(all)-2].Choices[0]; end.Reason == nil {
				t.Errorf("%s: the chunk before the usage has no finish_reason", name)
			}
		}
	})
	t.Run("BerriAI/litellm#42426: base64 of a vector has all of its numbers", func(t *testing.T) {
		vector := []float32{0.5, -1, 1e-9, 3, math.MaxFloat32}
		e, err := openai.ReadEmbeddings([]byte(`{"model":"gen","input":"a","encoding_format":"base64"}`))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.Collect(&infer.Vectors{Values: [][]float32{vector}}); err != nil {
			t.Fatal(err)
		}
		body, err := e.Collect(&infer.Done{In: 1})
		var m struct {
			Data []struct {
				Embedding string `json:"embedding"`
			} `json:"data"`
		}
		if err != nil || json.Unmarshal(body, &m) != nil || len(m.Data) != 1 {
			t.Fatalf("%v: %s", err, body)
		}
		raw, err := base64.StdEncoding.DecodeString(m.Data[0].Embedding)
		if err != nil || len(raw) != 4*len(vector) {
			t.Fatalf("%v: %d bytes of %d numbers", err, len(raw), len(vector))
		}
		var got []float32
		for part := range slices.Chunk(raw, 4) {
			got = append(got, math.Float32frombits(binary.LittleEndian.Uint32(part)))
		}
		if !slices.Equal(got, vector) {
			t.Errorf("got %v, want %v", got, vector)
		}
	})
}
