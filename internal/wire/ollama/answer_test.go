package ollama_test

import (
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire/ollama"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// at is the time in all lines of these tests. head is the beginning of each line.
var at = time.Date(2026, 11, 29, 8, 7, 6, 5, time.UTC)

const (
	head  = `{"model":"gen:latest","created_at":"2026-11-29T08:07:06.000000005Z"`
	costs = `"total_duration":6000000,"load_duration":1000000,"prompt_eval_count":7,"prompt_eval_duration":2000000,"eval_count":5,"eval_duration":3000000}`
)

func done(r infer.Reason) *infer.Done {
	return &infer.Done{Reason: r, In: 7, Cached: 3, Out: 5, Timings: infer.Timings{Queue: time.Millisecond, Prefill: 2 * time.Millisecond, Decode: 3 * time.Millisecond}}
}

func answer(t *testing.T, body string, prompt bool) *ollama.Answer {
	t.Helper()
	read := ollama.ReadChat
	if prompt {
		read = ollama.ReadGenerate
	}
	r, err := read([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return &ollama.Answer{Request: r, Model: "gen:latest", Now: func() time.Time { return at }}
}

// Each row's events are encoded as a stream of lines, and as an answer in one piece. No line is empty,
// because Ollama's own client takes an empty line for the end of the stream.
func TestAnswers(t *testing.T) {
	logprobs := []infer.Logprob{{Candidate: infer.Candidate{ID: 7, Piece: []byte{0xc3}, Logprob: -0.5}, Top: []infer.Candidate{{ID: 8, Piece: []byte("b"), Logprob: -1}}}}
	for name, test := range map[string]struct {
		body   string
		prompt bool
		events []infer.Event
		lines  []string
		whole  string
	}{
		"text": {
			chat(""), false,
			[]infer.Event{&infer.Admitted{}, &infer.Prompt{Tokens: 7}, &infer.Text{Delta: []byte("a\n")}, &infer.Text{Delta: []byte("é")}, done(infer.EndOfTurn)},
			[]string{
				head + `,"message":{"role":"assistant","content":"a\n"},"done":false}`,
				head + `,"message":{"role":"assistant","content":"é"},"done":false}`,
				head + `,"message":{"role":"assistant","content":""},"done":true,"done_reason":"stop",` + costs,
			},
			head + `,"message":{"role":"assistant","content":"a\né"},"done":true,"done_reason":"stop",` + costs,
		},
		"a prompt": {
			`{"model":"gen","prompt":"hi"}`, true,
			[]infer.Event{&infer.Thinking{Delta: []byte("hm")}, &infer.Text{Delta: []byte("a")}, done(infer.Length)},
			[]string{
				head + `,"response":"","thinking":"hm","done":false}`,
				head + `,"response":"a","done":false}`,
				head + `,"response":"","done":true,"done_reason":"length",` + costs,
			},
			head + `,"response":"a","thinking":"hm","done":true,"done_reason":"length",` + costs,
		},
		"thinking": {
			chat(`,"think":true`), false,
			[]infer.Event{&infer.Thinking{Delta: []byte("h")}, &infer.Thinking{Delta: []byte("m")}, &infer.Text{Delta: []byte("a")}, done(infer.StopSequence)},
			[]string{
				head + `,"message":{"role":"assistant","content":"","thinking":"h"},"done":false}`,
				head + `,"message":{"role":"assistant","content":"","thinking":"m"},"done":false}`,
				head + `,"message":{"role":"assistant","content":"a"},"done":false}`,
				head + `,"message":{"role":"assistant","content":""},"done":true,"done_reason":"stop",` + costs,
			},
			head + `,"message":{"role":"assistant","content":"a","thinking":"hm"},"done":true,"done_reason":"stop",` + costs,
		},
		"calls have their index (ollama/ollama#7881)": {
			chat(""), false,
			[]infer.Event{&infer.ToolCall{ID: "c", Name: "f", Input: []byte("{\n\n\"x\": 1\n}")}, &infer.ToolCall{Name: "g", Input: []byte(`[1]`)}, done(infer.CalledTool)},
			[]string{
				head + `,"message":{"role":"assistant","content":"","tool_calls":[{"id":"c","function":{"index":0,"name":"f","arguments":{"x":1}}}]},"done":false}`,
				head + `,"message":{"role":"assistant","content":"","tool_calls":[{"id":"call_2","function":{"index":1,"name":"g","arguments":{"value":[1]}}}]},"done":false}`,
				head + `,"message":{"role":"assistant","content":""},"done":true,"done_reason":"stop",` + costs,
			},
			head + `,"message":{"role":"assistant","content":"","tool_calls":[{"id":"c","function":{"index":0,"name":"f","arguments":{"x":1}}},{"id":"call_2","function":{"index":1,"name":"g","arguments":{"value":[1]}}}]},"done":true,"done_reason":"stop",` + costs,
		},
		"logprobs": {
			chat(`,"logprobs":true,"top_logprobs":1`), false,
			[]infer.Event{&infer.Text{Delta: []byte("a"), Logprobs: logprobs}, done(infer.EndOfTurn)},
			[]string{
				head + `,"message":{"role":"assistant","content":"a"},"logprobs":[{"token":"�","logprob":-0.5,"bytes":[195],"top_logprobs":[{"token":"b","logprob":-1,"bytes":[98]}]}],"done":false}`,
				head + `,"message":{"role":"assistant","content":""},"done":true,"done_reason":"stop",` + costs,
			},
			head + `,"message":{"role":"assistant","content":"a"},"logprobs":[{"token":"�","logprob":-0.5,"bytes":[195],"top_logprobs":[{"token":"b","logprob":-1,"bytes":[98]}]}],"done":true,"done_reason":"stop",` + costs,
		},
	} {
		t.Run(name, func(t *testing.T) {
			var stream []byte
			a := answer(t, test.body, test.prompt)
			for _, ev := range test.events {
				var err error
				if stream, err = a.Stream(stream, ev); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(strings.Join(test.lines, "\n")+"\n", string(stream)); diff != "" {
				t.Errorf("stream (-want +got):\n%s", diff)
			}
			a = answer(t, test.body, test.prompt)
			for i, ev := range test.events {
				body, err := a.Collect(ev)
				if err != nil || (body != nil) != (i == len(test.events)-1) {
					t.Fatalf("event %d: %q, %v", i, body, err)
				}
				if diff := cmp.Diff(test.whole, string(body)); body != nil && diff != "" {
					t.Errorf("whole (-want +got):\n%s", diff)
				}
			}
			for _, line := range append(test.lines, test.whole) {
				var members map[string]any
				if err := json.Unmarshal([]byte(line), &members); err != nil {
					t.Errorf("%v: %s", err, line)
				}
			}
		})
	}
}

// Keep-alives, failures in a stream, and the answers to loads are lines of JSON. Canceled answers,
// events of other tasks, and answers that are too large are errors.
func TestOtherLines(t *testing.T) {
	a := answer(t, chat(""), false)
	if got, want := string(a.KeepAlive(nil)), head+`,"message":{"role":"assistant","content":""},"done":false}`+"\n"; got != want {
		t.Errorf("got %s", got)
	}
	if got := string(a.Fail([]byte("x\n"), infer.Errorf(infer.Unavailable, "gone \"now\""))); got != "x\n"+`{"error":"gone \"now\""}`+"\n" {
		t.Errorf("got %s", got)
	}
	if got, want := string(a.Loaded()), head+`,"message":{"role":"assistant","content":""},"done":true,"done_reason":"load"}`+"\n"; got != want {
		t.Errorf("got %s", got)
	}
	for _, ev := range []infer.Event{done(infer.Canceled), &infer.Vectors{}} {
		if out, err := a.Stream(nil, ev); err == nil || len(out) > 0 {
			t.Errorf("%T: %s, %v", ev, out, err)
		}
		if _, err := a.Collect(ev); err == nil {
			t.Errorf("%T in one piece", ev)
		}
	}
	p := answer(t, `{"prompt":"a"}`, true)
	if _, err := p.Stream(nil, &infer.ToolCall{}); infer.CodeOf(err) != infer.Internal {
		t.Errorf("a call in the answer to a prompt: %v", err)
	}
	_, first := a.Collect(&infer.Text{Delta: []byte("a")})
	if _, err := a.Collect(&infer.Text{Delta: make([]byte, web.MaxAnswer)}); first != nil || infer.CodeOf(err) != infer.TooLarge {
		t.Errorf("a byte more than 64 MiB: %v, %v", first, err)
	}
}

func TestEmbeddings(t *testing.T) {
	for name, test := range map[string]struct {
		body string
		old  bool
		want *infer.Embed
		out  string
	}{
		"one text":    {`{"model":"v","input":"a"}`, false, &infer.Embed{Model: "v", Inputs: []string{"a"}, Truncate: true}, `{"model":"v","embeddings":[[0.5,-1]],"total_duration":6000000,"load_duration":1000000,"prompt_eval_count":7}`},
		"several":     {`{"model":"v","input":["a","b"],"truncate":false,"dimensions":2,"options":{},"keep_alive":null}`, false, &infer.Embed{Model: "v", Inputs: []string{"a", "b"}, Dimensions: 2}, ""},
		"the old way": {`{"model":"v","prompt":"a"}`, true, &infer.Embed{Model: "v", Inputs: []string{"a"}, Truncate: true}, `{"embedding":[0.5,-1]}`},
		"no text":     {`{"model":"v"}`, false, &infer.Embed{Model: "v", Truncate: true}, ""},
		"an empty":    {`{"model":"v","input":""}`, false, &infer.Embed{Model: "v", Truncate: true}, ""},
		"no prompt":   {`{"model":"v"}`, true, &infer.Embed{Model: "v", Truncate: true}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			read := ollama.ReadEmbed
			if test.old {
				read = ollama.ReadEmbeddings
			}
			e, err := read([]byte(test.body))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, e.Task); diff != "" || e.Ignored != nil {
				t.Errorf("%v, -want +got:\n%s", e.Ignored, diff)
			}
			loaded := string(e.Loaded())
			for _, ev := range []infer.Event{&infer.Admitted{}, &infer.Vectors{Values: [][]float32{{0.5, -1}}}} {
				if body, err := e.Collect(ev); body != nil || err != nil {
					t.Errorf("%s, %v", body, err)
				}
			}
			if body, err := e.Collect(done(infer.EndOfTurn)); err != nil || test.out != "" && string(body) != test.out {
				t.Errorf("got %s, %v", body, err)
			}
			if !strings.Contains(loaded, "[]") {
				t.Errorf("without inputs: %s", loaded)
			}
			if _, err := e.Collect(&infer.Text{}); err == nil {
				t.Error("it has text")
			}
		})
	}
	e, err := ollama.ReadEmbed([]byte(`{"input":"a","options":{"num_ctx":1},"keep_alive":"1h"}`))
	if err != nil || cmp.Diff([]string{"keep_alive", "options"}, e.Ignored) != "" {
		t.Errorf("ignored %v, %v", e.Ignored, err)
	}
}

// The lists have full digests and tags, and no null where clients read an array.
func TestModels(t *testing.T) {
	can := infer.AllAbilities()
	can.ToolsDialect = "hermes"
	full := ollama.Model{
		Name: "org/code", Modified: at, Size: 5, Params: 7_600_000_000, OnGPU: true, Digest: strings.Repeat("ab", 32), Family: "qwen2",
		Quantization: "Q4_K_M", NCtx: 4096, Can: can, Template: "{{ messages }}\xff",
	}
	bare := ollama.Model{Name: "m:7b", Modified: at}
	details := `"details":{"parent_model":"","format":"gguf","family":"qwen2","families":["qwen2"],"parameter_size":"7.6B","quantization_level":"Q4_K_M"}`
	none := `"details":{"parent_model":"","format":"gguf","family":"","families":[],"parameter_size":"","quantization_level":""}`
	for name, test := range map[string]struct{ got, want string }{
		"tags": {
			string(ollama.Tags([]ollama.Model{full})),
			`{"models":[{"name":"org/code:latest","model":"org/code:latest","modified_at":"2026-11-29T08:07:06.000000005Z","size":5,"digest":"` + strings.Repeat("ab", 32) + `",` + details + `}]}`,
		},
		"no tags": {string(ollama.Tags(nil)), `{"models":[]}`},
		"processes": {
			string(ollama.Processes([]ollama.Model{full})),
			`{"models":[{"name":"org/code:latest","model":"org/code:latest","size":5,"digest":"` + strings.Repeat("ab", 32) + `",` + details + `,"expires_at":"2318-01-01T00:00:00Z","size_vram":5,"context_length":4096}]}`,
		},
		"show": {
			string(full.Show()),
			`{"license":"","modelfile":"FROM org/code:latest\n","parameters":"","template":"{{ messages }}�",` + details +
				`,"model_info":{"general.architecture":"qwen2","general.parameter_count":7600000000,"inferd.tools_dialect":"hermes","qwen2.context_length":4096},"capabilities":["completion","tools","thinking","vision","embedding","insert"],"modified_at":"2026-11-29T08:07:06.000000005Z"}`,
		},
		"show, nothing is known": {
			string(bare.Show()),
			`{"license":"","modelfile":"FROM m:7b\n","parameters":"","template":"",` + none + `,"model_info":{},"capabilities":[],"modified_at":"2026-11-29T08:07:06.000000005Z"}`,
		},
	} {
		if diff := cmp.Diff(test.want, test.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	var m struct {
		Models []struct {
			Digest string `json:"digest"`
			VRAM   *int   `json:"size_vram"`
		} `json:"models"`
	}
	if err := json.Unmarshal(ollama.Processes([]ollama.Model{bare, {Name: "x", Digest: "mock"}}), &m); err != nil {
		t.Fatal(err)
	}
	if len(m.Models) != 2 {
		t.Errorf("%d models", len(m.Models))
	}
	for _, one := range m.Models {
		if len(one.Digest) != 64 || one.VRAM == nil || *one.VRAM != 0 {
			t.Errorf("%+v", one)
		}
	}
	for name, want := range map[string]string{"gen": "gen:latest", "gen:latest": "gen"} {
		if got := ollama.OtherSpelling(name); got != want {
			t.Errorf("%s is also %s", name, got)
		}
	}
}
