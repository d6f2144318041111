package openai_test

import (
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire/openai"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// completionSchema compiles the published schema of completions. It has the same origin as the
// schemas in openapi.json.
func completionSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	return schemaIn(t, "completions.json", "CreateCompletionResponse")
}

func readCompletion(t *testing.T, body string) *openai.Completion {
	t.Helper()
	c, err := openai.ReadCompletion([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestReadCompletion(t *testing.T) {
	for name, test := range map[string]struct {
		in      string
		want    func(*infer.Generate)
		ignored []string
	}{
		"a text":            {`{"model":"gen","prompt":"hi"}`, func(*infer.Generate) {}, nil},
		"a list of one":     {`{"model":"gen","prompt":["hi"],"suffix":null,"n":1,"best_of":1,"echo":false,"logprobs":null}`, func(*infer.Generate) {}, nil},
		"an empty text":     {`{"model":"gen","prompt":""}`, func(g *infer.Generate) { g.Prompt = new("") }, nil},
		"tokens":            {`{"model":"gen","prompt":[1,2]}`, func(g *infer.Generate) { g.Prompt, g.Tokens = nil, []int32{1, 2} }, nil},
		"a list of tokens":  {`{"model":"gen","prompt":[[1,2]]}`, func(g *infer.Generate) { g.Prompt, g.Tokens = nil, []int32{1, 2} }, nil},
		"a gap":             {`{"model":"gen","prompt":"hi","suffix":"x"}`, func(g *infer.Generate) { g.Suffix = new("x") }, nil},
		"no gap":            {`{"model":"gen","prompt":"hi","suffix":""}`, func(*infer.Generate) {}, nil},
		"a limit":           {`{"model":"gen","prompt":"hi","max_tokens":9}`, func(g *infer.Generate) { g.MaxTokens = 9 }, nil},
		"an echo":           {`{"model":"gen","prompt":"hi","echo":true}`, func(*infer.Generate) {}, nil},
		"an echo of tokens": {`{"model":"gen","prompt":[1],"echo":true}`, func(g *infer.Generate) { g.Prompt, g.Tokens, g.Reveal.Text = nil, []int32{1}, true }, nil},
		"logprobs of 0":     {`{"model":"gen","prompt":"hi","logprobs":0}`, func(g *infer.Generate) { g.Logprobs = 1 }, nil},
		"logprobs of 5":     {`{"model":"gen","prompt":"hi","logprobs":5}`, func(g *infer.Generate) { g.Logprobs = 5 }, nil},
		"sampling, and a stop": {`{"model":"gen","prompt":"hi","temperature":0,"stop":"x","logit_bias":{"5":1}}`, func(g *infer.Generate) {
			g.Stop, g.Sampling.Temperature, g.Sampling.LogitBias = []string{"x"}, new(0.0), map[int]float64{5: 1}
		}, nil},
		"a grammar":              {`{"model":"gen","prompt":"hi","grammar":"root ::= \"a\""}`, func(g *infer.Generate) { g.Format.Grammar = `root ::= "a"` }, nil},
		"a stop beside a schema": {`{"model":"gen","prompt":"hi","stop":"x","json_schema":{}}`, func(g *infer.Generate) { g.Stop, g.Format.Schema = []string{"x"}, []byte("{}") }, []string{"stop"}},
		"what has no effect":     {`{"model":"gen","prompt":"hi","user":"u","cache_prompt":true,"x":1}`, func(*infer.Generate) {}, []string{"cache_prompt", "user"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := readCompletion(t, test.in)
			want := &infer.Generate{Model: "gen", Prompt: new("hi"), Defaults: openai.Defaults()}
			want.Defaults.MaxTokens = 16
			test.want(want)
			if diff := cmp.Diff(want, c.Generate); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if diff := cmp.Diff(test.ignored, c.Ignored); diff != "" {
				t.Errorf("ignored (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCompletionRefusals(t *testing.T) {
	for name, test := range map[string]struct{ in, param, text string }{
		"not JSON":               {`{"prompt"`, "", "EOF"},
		"no prompt":              {`{}`, "prompt", "missing"},
		"an empty list":          {`{"prompt":[]}`, "prompt", "empty"},
		"an empty list in one":   {`{"prompt":[[]]}`, "prompt", "empty"},
		"two texts":              {`{"prompt":["a","b"]}`, "prompt", "one at a time"},
		"two lists of tokens":    {`{"prompt":[[1],[2]]}`, "prompt", "one at a time"},
		"an object":              {`{"prompt":{}}`, "prompt", "must be a text"},
		"a list of objects":      {`{"prompt":[{}]}`, "prompt", "must be a text"},
		"tokens and a text":      {`{"prompt":[1,"a"]}`, "prompt", "must be a text"},
		"half a token":           {`{"prompt":[1.5]}`, "prompt", "must be a text"},
		"two answers":            {`{"prompt":"a","n":2}`, "n", "must be 1"},
		"the best of two":        {`{"prompt":"a","best_of":2}`, "best_of", "must be 1"},
		"a suffix behind tokens": {`{"prompt":[1],"suffix":"x"}`, "suffix", "prompt of text"},
		"a suffix, a number":     {`{"prompt":"a","suffix":1}`, "suffix", "wrong type"},
		"no tokens":              {`{"prompt":"a","max_tokens":0}`, "max_tokens", "at least 1"},
		"many logprobs":          {`{"prompt":"a","logprobs":6}`, "logprobs", "between 0 and 5"},
		"logprobs, yes":          {`{"prompt":"a","logprobs":true}`, "logprobs", "wrong type"},
		"logprobs of the prompt": {`{"prompt":"a","logprobs":1,"echo":true}`, "logprobs", "echo"},
		"a schema":               {`{"prompt":"a","json_schema":1}`, "json_schema", "object"},
		"a long salt":            {`{"prompt":"a","cache_salt":"` + strings.Repeat("x", 65) + `"}`, "cache_salt", "64"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := openai.ReadCompletion([]byte(test.in))
			if err == nil {
				t.Fatal("it is accepted")
			}
			f := web.ErrorOf(err)
			if f.Code != infer.Invalid || f.Member != test.param || !strings.Contains(f.Message, test.text) {
				t.Errorf("%s: %q", f.Member, f.Message)
			}
		})
	}
}

// Answers and chunks match the published description, with one exception: finish_reason and usage
// are null in all chunks but the last. The service sends null there too, although the description
// does not allow it.
func TestCompletionsMatchTheDescription(t *testing.T) {
	s := completionSchema(t)
	logprobs := func(text string) []infer.Logprob {
		return []infer.Logprob{{Candidate: infer.Candidate{ID: 7, Piece: []byte(text), Logprob: -0.5}, Top: []infer.Candidate{
			{ID: 7, Piece: []byte(text), Logprob: -0.5}, {ID: 8, Piece: []byte{0xc3}, Logprob: infer.LeastLogprob}, {ID: 9, Piece: []byte("z"), Logprob: -3},
		}}}
	}
	events := []infer.Event{
		&infer.Admitted{}, &infer.Prompt{Tokens: 2, Text: []byte("hi")}, &infer.Text{Delta: []byte("aé"), Logprobs: logprobs("aé")},
		&infer.Text{Delta: []byte("b"), Logprobs: logprobs("b")}, &infer.Done{Reason: infer.Length, In: 7, Cached: 3, Out: 5},
	}
	for body, want := range map[string]struct{ text, more string }{
		`{"prompt":"hi"}`:                                         {"aéb", `"logprobs":null,"finish_reason":"length"`},
		`{"prompt":"hi","echo":true}`:                             {"hiaéb", `"logprobs":null`},
		`{"prompt":[1,2],"echo":true}`:                            {"hiaéb", `"usage":{"prompt_tokens":7,"completion_tokens":5,"total_tokens":12,`},
		`{"prompt":"hi","logprobs":0}`:                            {"aéb", `"logprobs":{"tokens":["aé","b"],"token_logprobs":[-0.5,-0.5],"top_logprobs":[{"aé":-0.5},{"b":-0.5}],"text_offset":[0,2]}`},
		`{"prompt":"hi","logprobs":2}`:                            {"aéb", `"top_logprobs":[{"aé":-0.5,"bytes:\\xc3":-9999},{"b":-0.5,"bytes:\\xc3":-9999}]`},
		`{"prompt":"hi","stream_options":{}}`:                     {"aéb", ""},
		`{"prompt":"hi","stream_options":{"include_usage":true}}`: {"aéb", ""},
	} {
		t.Run(body, func(t *testing.T) {
			request := readCompletion(t, body)
			a := &openai.TextAnswer{ID: "cmpl-1", Model: "gen", Created: 1700000000, Request: request}
			for i, ev := range events {
				doc, err := a.Collect(ev)
				if err != nil || (doc != nil) != (i == len(events)-1) {
					t.Fatalf("%T: %q, %v", ev, doc, err)
				}
				if doc != nil {
					validate(t, s, doc)
					if !strings.Contains(string(doc), `"text":"`+want.text+`"`) || !strings.Contains(string(doc), want.more) {
						t.Errorf("got %s", doc)
					}
				}
			}
			a = &openai.TextAnswer{ID: "cmpl-1", Model: "gen", Created: 1700000000, Request: request}
			var stream []byte
			for _, ev := range events {
				var err error
				if stream, err = a.Stream(stream, ev); err != nil {
					t.Fatal(err)
				}
			}
			all := strings.Split(strings.TrimSuffix(string(stream), "\n\n"), "\n\n")
			if all[len(all)-1] != "data: [DONE]" {
				t.Errorf("it ends with %q", all[len(all)-1])
			}
			text, usages := "", 0
			for _, event := range all[:len(all)-1] {
				data := strings.TrimPrefix(event, "data: ")
				validate(t, s, []byte(strings.NewReplacer(`"finish_reason":null`, `"finish_reason":"stop"`, `,"usage":null`, "").Replace(data)))
				var chunk struct {
					Choices []struct {
						Text string `json:"text"`
					} `json:"choices"`
					Usage *struct{} `json:"usage"`
				}
				if err := json.Unmarshal([]byte(data), &chunk); err != nil {
					t.Fatal(err)
				}
				if len(chunk.Choices) > 0 {
					text += chunk.Choices[0].Text
				}
				if chunk.Usage != nil {
					usages++
				}
			}
			if wantUsage := strings.Contains(body, "include_usage"); text != want.text || (usages == 1) != wantUsage || usages > 1 {
				t.Errorf("text %q, %d times usage", text, usages)
			}
		})
	}
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(`{"id":"1","object":"text_completion","created":1,"model":"m","choices":[{"index":0,"text":"a"}]}`))
	if err != nil || s.Validate(v) == nil {
		t.Errorf("the description accepts everything: %v", err)
	}
}

func TestCompletionEndings(t *testing.T) {
	a := &openai.TextAnswer{Request: readCompletion(t, `{"prompt":"hi","logprobs":1}`)}
	if got := string(a.KeepAlive(nil)); got != ": ping\n" {
		t.Errorf("got %q", got)
	}
	if got := string(a.Fail(nil, infer.Errorf(infer.Unavailable, "gone"))); !strings.HasPrefix(got, `data: {"error":{"message":"gone"`) || !strings.HasSuffix(got, "data: [DONE]\n\n") {
		t.Errorf("got %q", got)
	}
	for _, ev := range []infer.Event{&infer.Done{Reason: infer.Canceled}, &infer.ToolCall{}} {
		if out, err := a.Stream(nil, ev); err == nil || len(out) > 0 {
			t.Errorf("%T: %s, %v", ev, out, err)
		}
		if _, err := a.Collect(ev); err == nil {
			t.Errorf("%T in one piece", ev)
		}
	}
	// Collect copies logprobs, because the sender of an event reuses its memory.
	piece := []byte("a")
	ev := &infer.Text{Delta: piece, Logprobs: []infer.Logprob{{Candidate: infer.Candidate{Piece: piece}}}}
	if _, err := a.Collect(ev); err != nil {
		t.Fatal(err)
	}
	piece[0] = 'b'
	if doc, err := a.Collect(&infer.Done{}); err != nil || !strings.Contains(string(doc), `"text":"a","logprobs":{"tokens":["a"]`) {
		t.Errorf("got %s, %v", doc, err)
	}
	_, first := a.Collect(&infer.Text{Delta: []byte("a")})
	if _, err := a.Collect(&infer.Text{Delta: make([]byte, web.MaxAnswer)}); first != nil || infer.CodeOf(err) != infer.TooLarge {
		t.Errorf("a byte more than 64 MiB: %v, %v", first, err)
	}
}

func TestRerank(t *testing.T) {
	const docs = `"documents":["a",{"text":"b","x":1},"c"]`
	for name, test := range map[string]struct{ in, want string }{
		"sorted, as probabilities": {`{"query":"q",` + docs + `}`, `"results":[{"index":1,"relevance_score":0.8807970779778823},{"index":0,"relevance_score":0.5},{"index":2,"relevance_score":0.5}]`},
		"the best one":             {`{"query":"q",` + docs + `,"top_n":1,"return_documents":true}`, `"results":[{"index":1,"relevance_score":0.8807970779778823,"document":{"text":"b"}}]`},
		"more than there are":      {`{"query":"q",` + docs + `,"top_n":9,"raw_scores":true}`, `"results":[{"index":1,"relevance_score":2},{"index":0,"relevance_score":0},{"index":2,"relevance_score":0}]`},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := openai.ReadRerank([]byte(test.in))
			if err != nil {
				t.Fatal(err)
			}
			r.ID, r.Model = "rerank-1", "m"
			if diff := cmp.Diff([]string{"a", "b", "c"}, r.Task.Documents); diff != "" {
				t.Errorf("documents (-want +got):\n%s", diff)
			}
			for _, ev := range []infer.Event{&infer.Admitted{}, &infer.Scores{Values: []float64{0, 2, 0}}} {
				if body, err := r.Collect(ev); body != nil || err != nil {
					t.Errorf("%s, %v", body, err)
				}
			}
			body, err := r.Collect(&infer.Done{In: 7})
			want := `{"id":"rerank-1","object":"list","model":"m",` + test.want + `,"usage":{"prompt_tokens":7,"total_tokens":7},"meta":null}`
			if diff := cmp.Diff(want, string(body)); diff != "" || err != nil {
				t.Errorf("%v, -want +got:\n%s", err, diff)
			}
			if _, err := r.Collect(&infer.Text{}); err == nil {
				t.Error("it has text")
			}
		})
	}
	r, err := openai.ReadRerank([]byte(`{"query":"q","documents":["a"],"user":"u","max_chunks_per_doc":1}`))
	if err != nil || cmp.Diff([]string{"max_chunks_per_doc", "user"}, r.Ignored) != "" {
		t.Errorf("ignored %v, %v", r.Ignored, err)
	}
	for name, test := range map[string]struct{ in, param, text string }{
		"no query":           {`{"documents":["a"]}`, "query", "empty"},
		"a query of objects": {`{"query":{},"documents":["a"]}`, "query", "wrong type"},
		"no documents":       {`{"query":"q"}`, "documents", "empty"},
		"one text":           {`{"query":"q","documents":"a"}`, "documents", "wrong type"},
		"a number":           {`{"query":"q","documents":["a",1]}`, "documents", "documents[1]"},
		"an empty document":  {`{"query":"q","documents":[{}]}`, "documents", "documents[0] must not be empty"},
		"many documents":     {`{"query":"q","documents":["a"` + strings.Repeat(`,"a"`, 256) + `]}`, "documents", "at most 256"},
		"large documents":    {`{"query":"q","documents":["` + strings.Repeat("x", 8<<20) + `"]}`, "documents", "8388609 bytes"},
		"top_n":              {`{"query":"q","documents":["a"],"top_n":0}`, "top_n", "at least 1"},
		"fields":             {`{"query":"q","documents":["a"],"rank_fields":["x"]}`, "rank_fields", "not supported"},
	} {
		_, err := openai.ReadRerank([]byte(test.in))
		if err == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		if f := web.ErrorOf(err); f.Code != infer.Invalid || f.Member != test.param || !strings.Contains(f.Message, test.text) {
			t.Errorf("%s: %s: %.200q", name, f.Member, f.Message)
		}
	}
}

// ggml-org/llama.cpp#8555: scores are between 0 and 1, however large the model's scores are, unless
// the request asks for the model's own scores.
func TestRerankScoresAreBounded8555(t *testing.T) {
	r, err := openai.ReadRerank([]byte(`{"query":"q","documents":["a","b","c"]}`))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Collect(&infer.Scores{Values: []float64{-1e308, 1e308, 3}}); err != nil {
		t.Fatal(err)
	}
	body, err := r.Collect(&infer.Done{})
	var m struct {
		Results []struct {
			Index int     `json:"index"`
			Score float64 `json:"relevance_score"`
		} `json:"results"`
	}
	if err != nil || json.Unmarshal(body, &m) != nil || len(m.Results) != 3 {
		t.Fatalf("%s, %v", body, err)
	}
	for i, want := range []int{1, 2, 0} {
		if got := m.Results[i]; got.Index != want || !(got.Score >= 0 && got.Score <= 1) {
			t.Errorf("%d: %+v", i, got)
		}
	}
}
