package ollama_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"image"
	"image/png"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/ollama"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// chat returns a chat request with one message. more is appended to its members.
func chat(more string) string {
	return `{"model":"gen","messages":[{"role":"user","content":"hi"}]` + more + "}"
}

// asked returns the task that chat("") encodes, modified by change.
func asked(change func(*infer.Generate)) *infer.Generate {
	gen := &infer.Generate{
		Model: "gen", Blocks: true, Messages: []infer.Message{infer.TextMessage(infer.User, "hi")}, Defaults: ollama.Defaults(),
	}
	change(gen)
	return gen
}

func messages(all ...infer.Message) func(*infer.Generate) {
	return func(g *infer.Generate) { g.Messages = all }
}

// pixel returns a PNG image of one pixel, in base64.
func pixel(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewRGBA(image.Rect(0, 0, 1, 1))); err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(b.Bytes())
}

func TestReadChat(t *testing.T) {
	same := func(*infer.Generate) {}
	result := func(id, text string) infer.Part {
		return &infer.ResultPart{ID: id, Content: []infer.Part{&infer.TextPart{Text: text}}}
	}
	call := func(id, name, input string) infer.Part {
		return &infer.CallPart{ID: id, Name: name, Input: []byte(input)}
	}
	for name, test := range map[string]struct {
		in      string
		want    func(*infer.Generate)
		ignored []string
	}{
		"nothing but a message": {chat(""), same, nil},
		"null means missing":    {chat(`,"tools":null,"format":null,"options":null,"think":null,"keep_alive":null,"stream":null,"logprobs":null,"top_logprobs":null`), same, nil},
		"what clients always send": {
			chat(`,"tools":[],"images":[],"format":"","keep_alive":"5m","options":{"num_ctx":4096,"num_gpu":1,"use_mmap":true}`), same,
			[]string{"keep_alive", "num_ctx", "num_gpu", "use_mmap"},
		},
		"unknown members": {chat(`,"x":[1],"options":{"y":2}`), same, nil},
		"sampling": {
			chat(`,"options":{"temperature":0.5,"top_p":0.25,"top_k":7,"min_p":0.125,"repeat_penalty":1.5,"presence_penalty":-1,"frequency_penalty":2,"seed":5,"num_predict":9,"stop":["x"]}`),
			func(g *infer.Generate) {
				g.MaxTokens, g.Stop = 9, []string{"x"}
				g.Sampling = infer.Sampling{
					Temperature: new(0.5), TopP: new(0.25), TopK: new(7), MinP: new(0.125), RepeatPenalty: new(1.5),
					PresencePenalty: new(-1.0), FrequencyPenalty: new(2.0), Seed: new(uint32(5)),
				}
			},
			nil,
		},
		"no limit":          {chat(`,"options":{"num_predict":-1,"seed":-1}`), same, nil},
		"nor with zero":     {chat(`,"options":{"num_predict":0}`), same, nil},
		"one stop":          {chat(`,"options":{"stop":"x"}`), func(g *infer.Generate) { g.Stop = []string{"x"} }, nil},
		"an object":         {chat(`,"format":"json"`), func(g *infer.Generate) { g.Format.JSONObject = true }, nil},
		"a schema":          {chat(`,"format":{"type":"object"}`), func(g *infer.Generate) { g.Format.Schema = []byte(`{"type":"object"}`) }, nil},
		"thinking":          {chat(`,"think":true`), func(g *infer.Generate) { g.Thinking = infer.ThinkOn }, nil},
		"no thinking":       {chat(`,"think":false`), func(g *infer.Generate) { g.Thinking = infer.ThinkOff }, nil},
		"some thinking":     {chat(`,"think":"low"`), func(g *infer.Generate) { g.Thinking, g.ThinkingBudget = infer.ThinkOn, 1024 }, nil},
		"logprobs":          {chat(`,"logprobs":true`), func(g *infer.Generate) { g.Logprobs = 1 }, nil},
		"more logprobs":     {chat(`,"logprobs":true,"top_logprobs":3`), func(g *infer.Generate) { g.Logprobs = 3 }, nil},
		"the name, as name": {`{"name":"gen","messages":[{"role":"user","content":"hi"}]}`, same, nil},
		"tools": {
			chat(`,"tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object"}}}]`),
			func(g *infer.Generate) {
				g.Tools = []infer.Tool{{Name: "f", Description: "d", Schema: []byte(`{"type":"object"}`)}}
			},
			nil,
		},
		"system messages at the start become one": {
			`{"model":"gen","messages":[{"role":"system","content":"a"},{"role":"system","content":"b"},{"role":"user","content":"hi"},{"role":"system","content":"later"}]}`,
			messages(infer.TextMessage(infer.System, "a\n\nb"), infer.TextMessage(infer.User, "hi"), infer.TextMessage(infer.System, "later")),
			nil,
		},
		"a stop beside a format": {
			`{"model":"gen","messages":[{"role":"user","content":"hi"}],"format":"json","options":{"stop":["x"]}}`,
			func(g *infer.Generate) { g.Stop, g.Format.JSONObject = []string{"x"}, true },
			[]string{"stop"},
		},
		"a system message alone": {`{"model":"gen","messages":[{"role":"system","content":"a"}]}`, messages(infer.TextMessage(infer.System, "a")), nil},
		"a round of tools": {
			`{"model":"gen","messages":[{"role":"user","content":"hi"},
			{"role":"assistant","thinking":"hm","content":"","tool_calls":[{"function":{"name":"f","arguments":{"x":1}}},{"id":"c2","function":{"name":"g","arguments":"{}"}},{"function":{"name":"h"}}]},
			{"role":"tool","tool_name":"g","content":"second"},{"role":"tool","content":"first"},{"role":"tool","tool_call_id":"call_2","content":"third"},{"role":"tool","tool_call_id":"c2","content":"x"},
			{"role":"user","content":"go"}]}`,
			messages(infer.TextMessage(infer.User, "hi"),
				infer.Message{Role: infer.Assistant, Content: []infer.Part{&infer.ThinkingPart{Text: "hm"}, &infer.TextPart{}, call("call_1", "f", `{"x":1}`), call("c2", "g", "{}"), call("call_2", "h", "{}")}},
				infer.Message{Role: infer.User, Content: []infer.Part{result("c2", "second"), result("call_1", "first"), result("call_2", "third"), result("c2", "x")}},
				infer.TextMessage(infer.User, "go")),
			nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := ollama.ReadChat([]byte(test.in))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(asked(test.want), r.Generate); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if diff := cmp.Diff(test.ignored, r.Ignored); diff != "" || !r.Stream || r.Load || r.Model != "gen" {
				t.Errorf("%+v; ignored (-want +got):\n%s", r, diff)
			}
		})
	}
	if r, err := ollama.ReadChat([]byte(chat(`,"stream":false`))); err != nil || r.Stream {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err := ollama.ReadChat([]byte(`{"model":"gen","messages":[]}`)); err != nil || !r.Load {
		t.Errorf("%+v, %v", r, err)
	}
	for _, prefix := range []string{"", "data:image/png;base64,"} {
		r, err := ollama.ReadChat([]byte(`{"model":"gen","messages":[{"role":"user","content":"see","images":["` + prefix + pixel(t) + `"]}]}`))
		if err != nil {
			t.Fatal(err)
		}
		want := []infer.Part{&infer.TextPart{Text: "see"}, &infer.MediaPart{Attachment: "image-0"}}
		if diff := cmp.Diff(want, r.Generate.Messages[0].Content); diff != "" || r.Images() != 15 || r.Decode() != nil || len(r.Generate.Attachments[0].Data) != 3 {
			t.Errorf("an image (-want +got):\n%s", diff)
		}
	}
}

// If the model cannot think, a request for thinking is dropped and listed as ignored.
func TestThinkingIsNotOffered(t *testing.T) {
	r, err := ollama.ReadChat([]byte(chat(`,"think":"high","keep_alive":0`)))
	if err != nil {
		t.Fatal(err)
	}
	r.Offer(infer.Abilities{Generate: true})
	if r.Generate.Thinking == infer.ThinkOn || r.Generate.ThinkingBudget != 0 {
		t.Errorf("it thinks: %+v", r.Generate)
	}
	if diff := cmp.Diff([]string{"keep_alive", "think"}, r.Ignored); diff != "" {
		t.Errorf("ignored (-want +got):\n%s", diff)
	}
}

func TestReadGenerate(t *testing.T) {
	none := messages()
	for name, test := range map[string]struct {
		in      string
		want    func(*infer.Generate)
		load    bool
		ignored []string
	}{
		"a prompt":           {`{"model":"gen","prompt":"hi"}`, func(*infer.Generate) {}, false, nil},
		"with a system text": {`{"model":"gen","prompt":"hi","system":"s"}`, messages(infer.TextMessage(infer.System, "s"), infer.TextMessage(infer.User, "hi")), false, nil},
		"raw":                {`{"model":"gen","prompt":"hi","raw":true}`, func(g *infer.Generate) { none(g); g.Prompt = new("hi") }, false, nil},
		"a gap":              {`{"model":"gen","prompt":"hi","suffix":"x"}`, func(g *infer.Generate) { none(g); g.Prompt, g.Suffix = new("hi"), new("x") }, false, nil},
		"a gap at the start": {`{"model":"gen","suffix":"x","system":"s"}`, func(g *infer.Generate) { none(g); g.Prompt, g.Suffix = new(""), new("x") }, false, []string{"system"}},
		"no suffix":          {`{"model":"gen","prompt":"hi","suffix":"","template":"","context":[],"raw":false,"images":[]}`, func(*infer.Generate) {}, false, nil},
		"nothing":            {`{"model":"gen"}`, none, true, nil},
		"an empty prompt":    {`{"model":"gen","prompt":"","keep_alive":-1}`, none, true, []string{"keep_alive"}},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := ollama.ReadGenerate([]byte(test.in))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(asked(test.want), r.Generate); diff != "" || r.Load != test.load {
				t.Errorf("load %v, -want +got:\n%s", r.Load, diff)
			}
			if diff := cmp.Diff(test.ignored, r.Ignored); diff != "" {
				t.Errorf("ignored (-want +got):\n%s", diff)
			}
		})
	}
}

// A member that is invalid or not supported is refused by name.
func TestRefusals(t *testing.T) {
	reads := map[string]func([]byte) error{
		"chat":       func(b []byte) error { _, err := ollama.ReadChat(b); return err },
		"generate":   func(b []byte) error { _, err := ollama.ReadGenerate(b); return err },
		"embed":      func(b []byte) error { _, err := ollama.ReadEmbed(b); return err },
		"embeddings": func(b []byte) error { _, err := ollama.ReadEmbeddings(b); return err },
		"name":       func(b []byte) error { _, err := ollama.ReadName(b); return err },
	}
	one := func(message string) string { return `{"model":"gen","messages":[` + message + `]}` }
	for name, test := range map[string]struct{ of, in, member, text string }{
		"not JSON":                 {"chat", `{"model"`, "", "EOF"},
		"a list":                   {"chat", `[]`, "", "not a JSON object"},
		"a model of another type":  {"chat", `{"model":1}`, "model", "wrong type"},
		"messages of another type": {"chat", `{"messages":"hi"}`, "messages", "wrong type"},
		"stream of another type":   {"chat", chat(`,"stream":"yes"`), "stream", "wrong type"},
		"options of another type":  {"chat", chat(`,"options":[]`), "options", "wrong type"},
		"a role":                   {"chat", one(`{"role":"developer","content":"a"}`), "messages", "role must be one of"},
		"a content of parts":       {"chat", one(`{"role":"user","content":[{"type":"text","text":"a"}]}`), "messages", "wrong type"},
		"an image that is none":    {"chat", one(`{"role":"user","content":"a","images":["AAAA"]}`), "messages", "PNG or JPEG"},
		"an image without base64":  {"chat", one(`{"role":"user","content":"a","images":["%"]}`), "messages", "base64"},
		"an image to fetch":        {"chat", one(`{"role":"user","content":"a","images":["data:x"]}`), "messages", "base64"},
		"an image of the model":    {"chat", one(`{"role":"assistant","content":"a","images":["AAAA"]}`), "messages", "text only"},
		"an image, later":          {"chat", one(`{"role":"user","content":"a"},{"role":"system","content":"a","images":["AAAA"]}`), "messages", "text only"},
		"an image of the system":   {"chat", one(`{"role":"system","content":"a","images":["AAAA"]}`), "messages", "text only"},
		"a call without a name":    {"chat", one(`{"role":"assistant","tool_calls":[{"function":{}}]}`), "messages", "has no name"},
		"a result of no call":      {"chat", one(`{"role":"tool","content":"x"}`), "messages", "messages[0]: no message before it has a call in tool_calls that has no result yet"},
		"a result of another tool": {"chat", one(`{"role":"assistant","tool_calls":[{"function":{"name":"f"}}]},{"role":"tool","tool_name":"g","content":"x"}`), "messages", `messages[1]: no message before it has a call of "g" in tool_calls`},
		"a result of another call": {"chat", one(`{"role":"assistant","tool_calls":[{"function":{"name":"f"}}]},{"role":"tool","tool_call_id":"g","content":"x"}`), "messages", `with the id "g"`},
		"two results of one call":  {"chat", one(`{"role":"assistant","tool_calls":[{"function":{"name":"f"}}]},{"role":"tool","tool_name":"f","content":"x"},{"role":"tool","tool_name":"f","content":"y"}`), "messages", `messages[2]: no message before it has a call of "f"`},
		"a call without JSON":      {"chat", one(`{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":"{"}}]}`), "messages", "must be JSON"},
		"a tool of another kind":   {"chat", chat(`,"tools":[{"type":"web_search"}]`), "tools", "only function is"},
		"a call of the user":       {"chat", `{"model":"gen","messages":[{"role":"user","content":"hi","tool_calls":[{"function":{"name":"f","arguments":{}}}]}]}`, "messages", "messages[0] has tool_calls"},
		"a tool without a name":    {"chat", chat(`,"tools":[{"type":"function","function":{}}]`), "tools", "has no name"},
		"a format":                 {"chat", chat(`,"format":"xml"`), "format", "must be"},
		"a format, a number":       {"chat", chat(`,"format":7`), "format", "must be"},
		"thinking":                 {"chat", chat(`,"think":"much"`), "think", "must be"},
		"thinking, a number":       {"chat", chat(`,"think":1`), "think", "must be"},
		"temperature":              {"chat", chat(`,"options":{"temperature":-1}`), "temperature", "between"},
		"top_k":                    {"chat", chat(`,"options":{"top_k":-1}`), "top_k", "at least 0"},
		"num_predict":              {"chat", chat(`,"options":{"num_predict":1.5}`), "options", "wrong type"},
		"stop":                     {"chat", chat(`,"options":{"stop":[""]}`), "stop", "0 bytes"},
		"stop of another type":     {"chat", chat(`,"options":{"stop":[1]}`), "stop", "wrong form"},
		"top_logprobs":             {"chat", chat(`,"logprobs":true,"top_logprobs":21`), "top_logprobs", "between 0 and 20"},
		"a template":               {"generate", `{"prompt":"a","template":"{{ .Prompt }}"}`, "template", "not supported"},
		"a context":                {"generate", `{"prompt":"a","context":[1,2]}`, "context", "/api/chat"},
		"a raw system text":        {"generate", `{"prompt":"a","raw":true,"system":"s"}`, "system", "raw"},
		"a raw image":              {"generate", `{"prompt":"a","raw":true,"images":["AAAA"]}`, "images", "raw"},
		"a prompt of tokens":       {"generate", `{"prompt":[1,2]}`, "prompt", "wrong type"},
		"tokens to embed":          {"embed", `{"input":[1,2]}`, "input", "list of texts"},
		"token lists to embed":     {"embed", `{"input":[[1,2]]}`, "input", "list of texts"},
		"an object to embed":       {"embed", `{"input":{}}`, "input", "list of texts"},
		"an empty text to embed":   {"embed", `{"input":["a",""]}`, "input", "input[1]"},
		"many texts":               {"embed", `{"input":["a"` + strings.Repeat(`,"a"`, 2048) + `]}`, "input", "2049 texts"},
		"dimensions":               {"embed", `{"input":"a","dimensions":-1}`, "dimensions", "at least 1"},
		"a prompt to embed":        {"embeddings", `{"prompt":["a"]}`, "prompt", "wrong type"},
		"no name":                  {"name", `{}`, "model", "missing"},
	} {
		t.Run(name, func(t *testing.T) {
			err := reads[test.of]([]byte(test.in))
			if err == nil {
				t.Fatal("it is accepted")
			}
			f := web.ErrorOf(err)
			if f.Code != infer.Invalid || f.Member != test.member || !strings.Contains(f.Message, test.text) {
				t.Errorf("%s: %q", f.Member, f.Message)
			}
		})
	}
}

// Any bytes are either decoded, or refused in the form of the dialect.
func FuzzRead(f *testing.F) {
	f.Add([]byte(chat(`,"options":{"stop":["x"],"num_ctx":1},"tools":[{"function":{"name":"f"}}],"format":{"type":"object"},"think":"low"`)))
	f.Add([]byte(`{"model":"gen","prompt":"hi","suffix":"x","context":[]}`))
	f.Add([]byte(`{"input":["a"],"truncate":false}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if _, err := wire.Weigh(body); err != nil {
			return
		}
		for _, read := range []func() error{
			func() error { _, err := ollama.ReadChat(body); return err },
			func() error { _, err := ollama.ReadGenerate(body); return err },
			func() error { _, err := ollama.ReadEmbed(body); return err },
		} {
			err := read()
			if err == nil {
				continue
			}
			if _, ok := errors.AsType[*infer.Error](err); !ok {
				t.Errorf("%T has no class", err)
			}
			if status, text := ollama.Failure(err, ""); status < 400 || status > 413 || !bytes.HasPrefix(text, []byte(`{"error":"`)) {
				t.Errorf("%d %s", status, text)
			}
		}
	})
}
