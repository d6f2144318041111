package llama_test

import (
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire/llama"
	"github.com/inferd-go/inferd/internal/wire/web"
)

func done(r infer.Reason) *infer.Done {
	return &infer.Done{Reason: r, In: 7, Cached: 3, Out: 2, Timings: infer.Timings{Queue: time.Millisecond, Prefill: 2 * time.Millisecond, Decode: 4 * time.Millisecond}}
}

const timings = `"timings":{"cache_n":3,"prompt_n":4,"prompt_ms":2,"prompt_per_token_ms":0.5,"prompt_per_second":2000,"predicted_n":2,"predicted_ms":4,"predicted_per_token_ms":2,"predicted_per_second":500}}`

// tail returns the members that follow the token counts in the last object.
func tail(nPredict, prompt, newLine, stop, word string) string {
	return `,"generation_settings":{"n_ctx":512,"n_predict":` + nPredict + `},"prompt":"` + prompt + `","has_new_line":` + newLine +
		`,"truncated":false,"stop_type":"` + stop + `","stopping_word":"` + word + `","tokens_cached":9,` + timings
}

func TestAnswers(t *testing.T) {
	logprobs := func(text string, id int) []infer.Logprob {
		return []infer.Logprob{{Candidate: infer.Candidate{ID: id, Piece: []byte(text), Logprob: -0.5}, Top: []infer.Candidate{{ID: 9, Piece: []byte{0xc3}, Logprob: -1}}}}
	}
	const head = `{"index":0,"content":`
	for name, test := range map[string]struct {
		body   string
		events []infer.Event
		stream []string
		whole  string
	}{
		"text": {
			`{"prompt":"hi"}`,
			[]infer.Event{&infer.Admitted{}, &infer.Prompt{Tokens: 7}, &infer.Text{Delta: []byte("a\n"), Tokens: 1}, &infer.Text{Delta: []byte("é"), Tokens: 1}, done(infer.EndOfTurn)},
			[]string{
				head + `"a\n","tokens":[],"id_slot":-1,"stop":false,"tokens_predicted":1,"tokens_evaluated":7}`,
				head + `"é","tokens":[],"id_slot":-1,"stop":false,"tokens_predicted":2,"tokens_evaluated":7}`,
				head + `"","tokens":[],"id_slot":-1,"stop":true,"model":"gen","tokens_predicted":2,"tokens_evaluated":7` + tail("-1", "hi", "true", "eos", ""),
			},
			head + `"a\né","tokens":[],"id_slot":-1,"stop":true,"model":"gen","tokens_predicted":2,"tokens_evaluated":7` + tail("-1", "hi", "true", "eos", ""),
		},
		"tokens, and a stop": {
			`{"prompt":[1,2],"return_tokens":true,"n_probs":1,"stop":["x"],"n_predict":5}`,
			[]infer.Event{&infer.Text{Delta: []byte("a"), Tokens: 1, Logprobs: logprobs("a", 97)}, &infer.Text{Delta: []byte("b"), Tokens: 1, Logprobs: logprobs("b", 98)}, done(infer.StopSequence)},
			[]string{
				head + `"a","tokens":[97],"id_slot":-1,"stop":false,"tokens_predicted":1,"tokens_evaluated":0,"completion_probabilities":[{"id":97,"token":"a","bytes":[97],"logprob":-0.5,"top_logprobs":[{"id":9,"token":"�","bytes":[195],"logprob":-1}]}]}`,
				head + `"b","tokens":[98],"id_slot":-1,"stop":false,"tokens_predicted":2,"tokens_evaluated":0,"completion_probabilities":[{"id":98,"token":"b","bytes":[98],"logprob":-0.5,"top_logprobs":[{"id":9,"token":"�","bytes":[195],"logprob":-1}]}]}`,
				head + `"","tokens":[],"id_slot":-1,"stop":true,"model":"gen","tokens_predicted":2,"tokens_evaluated":7` + tail("5", "", "false", "word", "x"),
			},
			head + `"ab","tokens":[97,98],"id_slot":-1,"stop":true,"completion_probabilities":[{"id":97,"token":"a","bytes":[97],"logprob":-0.5,"top_logprobs":[{"id":9,"token":"�","bytes":[195],"logprob":-1}]},{"id":98,"token":"b","bytes":[98],"logprob":-0.5,"top_logprobs":[{"id":9,"token":"�","bytes":[195],"logprob":-1}]}],"model":"gen","tokens_predicted":2,"tokens_evaluated":7` + tail("5", "", "false", "word", "x"),
		},
	} {
		t.Run(name, func(t *testing.T) {
			read := func() *llama.Answer {
				c, err := llama.ReadCompletion([]byte(test.body))
				if err != nil {
					t.Fatal(err)
				}
				return &llama.Answer{Request: c, Model: "gen", NCtx: 512}
			}
			var stream []byte
			a := read()
			for _, ev := range test.events {
				var err error
				if stream, err = a.Stream(stream, ev); err != nil {
					t.Fatal(err)
				}
			}
			var want strings.Builder
			for _, ev := range test.stream {
				want.WriteString("data: " + ev + "\n\n")
			}
			if diff := cmp.Diff(want.String(), string(stream)); diff != "" {
				t.Errorf("stream (-want +got):\n%s", diff)
			}
			a = read()
			for i, ev := range test.events {
				body, err := a.Collect(ev)
				if err != nil || (body != nil) != (i == len(test.events)-1) {
					t.Fatalf("event %d: %q, %v", i, body, err)
				}
				if diff := cmp.Diff(test.whole, string(body)); body != nil && diff != "" {
					t.Errorf("whole (-want +got):\n%s", diff)
				}
			}
		})
	}
}

// With n_predict 0 the prompt is only prefilled: the one token that is generated is not in the answer.
// response_fields chooses members by their paths.
func TestSilentAndFields(t *testing.T) {
	collect := func(body string) string {
		t.Helper()
		c, err := llama.ReadCompletion([]byte(body))
		if err != nil {
			t.Fatal(err)
		}
		a := &llama.Answer{Request: c, Model: "gen", NCtx: 512}
		var stream []byte
		for _, ev := range []infer.Event{&infer.Prompt{Tokens: 7}, &infer.Text{Delta: []byte("a"), Tokens: 1}, done(infer.Length)} {
			out, err := a.Collect(ev)
			if err != nil {
				t.Fatal(err)
			}
			if stream, err = a.Stream(stream, ev); err != nil {
				t.Fatal(err)
			}
			if out != nil {
				if strings.Contains(body, "n_predict") && (strings.Count(string(stream), "data: ") != 1 || strings.Contains(string(stream), `"content":"a"`)) {
					t.Errorf("stream %s", stream)
				}
				return string(out)
			}
		}
		t.Fatal("no answer")
		return ""
	}
	for body, want := range map[string]string{
		`{"prompt":"hi","n_predict":0,"response_fields":["content","tokens_predicted","generation_settings/n_predict","tokens_cached"]}`: `{"content":"","generation_settings/n_predict":0,"tokens_cached":7,"tokens_predicted":0}`,
		`{"prompt":"hi","response_fields":["content","timings/prompt_n","timings/x","x/y","timings"]}`:                                   `{"content":"a","timings":` + strings.TrimSuffix(strings.TrimPrefix(timings, `"timings":`), "}") + `,"timings/prompt_n":4}`,
		`{"prompt":"hi","response_fields":[""]}`: `{}`,
	} {
		if diff := cmp.Diff(want, collect(body)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", body, diff)
		}
	}
}

func TestEndings(t *testing.T) {
	c, err := llama.ReadCompletion([]byte(`{"prompt":"hi"}`))
	if err != nil {
		t.Fatal(err)
	}
	a := &llama.Answer{Request: c}
	if got := string(a.KeepAlive(nil)); got != ": ping\n" {
		t.Errorf("got %q", got)
	}
	if got, want := string(a.Fail(nil, infer.Errorf(infer.Unavailable, "gone"))), `data: {"error":{"code":503,"message":"gone","type":"unavailable_error"}}`+"\n\n"; got != want {
		t.Errorf("got %q", got)
	}
	for _, ev := range []infer.Event{done(infer.Canceled), &infer.Thinking{}} {
		if out, err := a.Stream(nil, ev); err == nil || len(out) > 0 {
			t.Errorf("%T: %s, %v", ev, out, err)
		}
		if _, err := a.Collect(ev); err == nil {
			t.Errorf("%T in one piece", ev)
		}
	}
	_, first := a.Collect(&infer.Text{Delta: []byte("a")})
	if _, err := a.Collect(&infer.Text{Delta: make([]byte, web.MaxAnswer)}); first != nil || infer.CodeOf(err) != infer.TooLarge {
		t.Errorf("a byte more than 64 MiB: %v, %v", first, err)
	}
}

func TestFailures(t *testing.T) {
	for name, test := range map[string]struct {
		err    error
		status int
		want   string
	}{
		"invalid":     {web.Invalid("x", "why"), 400, `{"error":{"code":400,"message":"why","type":"invalid_request_error"}}`},
		"busy":        {infer.Errorf(infer.Busy, "why"), 429, `{"error":{"code":429,"message":"why","type":"rate_limit_error"}}`},
		"unavailable": {infer.Errorf(infer.Unavailable, "why"), 503, `{"error":{"code":503,"message":"why","type":"unavailable_error"}}`},
		"too large":   {infer.Errorf(infer.TooLarge, "why"), 413, `{"error":{"code":413,"message":"why","type":"invalid_request_error"}}`},
		"a wrong key": {web.Refused(401, web.WrongKey, "why"), 401, `{"error":{"code":401,"message":"why","type":"authentication_error"}}`},
		"slots":       {llama.Slots(), 501, `{"error":{"code":501,"message":"/slots is not supported: it would show the prompts of other users","type":"not_supported_error"}}`},
		"a fault":     {infer.Errorf(infer.Internal, "why"), 500, `{"error":{"code":500,"message":"why","type":"server_error"}}`},
		"a long prompt": {
			infer.Errorf(infer.Invalid, "%w", &infer.PromptError{Tokens: 9, Most: 8}), 400,
			`{"error":{"code":400,"message":"the prompt has 9 tokens, the context holds 8","n_prompt_tokens":9,"n_ctx":8,"type":"exceed_context_size_error"}}`,
		},
	} {
		if status, body := llama.Failure(test.err, "id"); status != test.status || string(body) != test.want {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
}

func TestTokens(t *testing.T) {
	prompt := &infer.Prompt{Tokens: 2, IDs: []int32{104, 195}, Pieces: [][]byte{[]byte("h\""), {0xc3}}, Text: []byte("h\"\xc3")}
	for name, test := range map[string]struct {
		read func([]byte) (*llama.Tokens, error)
		in   string
		want string
	}{
		"ids":            {llama.ReadTokenize, `{"content":"a"}`, `{"tokens":[104,195]}`},
		"pairs":          {llama.ReadTokenize, `{"content":"a","with_pieces":true}`, `{"tokens":[{"id":104,"piece":"h\""},{"id":195,"piece":[195]}]}`},
		"vLLM's":         {llama.ReadTokenize, `{"prompt":"a"}`, `{"count":2,"max_model_len":512,"tokens":[104,195],"token_strs":null}`},
		"vLLM's texts":   {llama.ReadTokenize, `{"prompt":"a","return_token_strs":true}`, `{"count":2,"max_model_len":512,"tokens":[104,195],"token_strs":["h\"","�"]}`},
		"text":           {llama.ReadDetokenize, `{"tokens":[1]}`, `{"content":"h\"�","prompt":"h\"�"}`},
		"a conversation": {llama.ReadTemplate, `{"messages":[1]}`, `{"prompt":"h\"�"}`},
	} {
		t.Run(name, func(t *testing.T) {
			tokens, err := test.read([]byte(test.in))
			if err != nil {
				t.Fatal(err)
			}
			tokens.NCtx = 512
			for _, ev := range []infer.Event{&infer.Admitted{}, prompt} {
				if body, err := tokens.Collect(ev); body != nil || err != nil {
					t.Errorf("%s, %v", body, err)
				}
			}
			body, err := tokens.Collect(done(infer.EndOfTurn))
			if err != nil || string(body) != test.want {
				t.Errorf("got %s, %v", body, err)
			}
			if _, err := tokens.Collect(&infer.Text{}); err == nil {
				t.Error("it has text")
			}
		})
	}
}

// The properties have the members that clients read, but not model_path, which would reveal a path of
// the machine.
func TestProps(t *testing.T) {
	m := llama.Model{Name: "gen", NCtx: 512, Slots: 4, Can: infer.Abilities{Vision: true, ToolsDialect: "hermes"}, Template: "{{ messages }}\xff"}
	want := `{"default_generation_settings":{"n_ctx":512},"total_slots":4,"model_alias":"gen","modalities":{"audio":false,"vision":true},"chat_template":"{{ messages }}�","tools_dialect":"hermes","build_info":"inferd","is_sleeping":false}`
	if diff := cmp.Diff(want, string(m.Props())); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	var members map[string]any
	if err := json.Unmarshal(m.Props(), &members); err != nil || members["model_path"] != nil {
		t.Errorf("%v, %v", members, err)
	}
}
