package test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

// builtinModels is a config with entries that have real engines.
const builtinModels = `{"http":{"listen":["127.0.0.1:0"]},"backends":[
	{"kind":"llamacpp","name":"gen","n_ctx":512,"model":{"builtin":"chain"}},
	{"kind":"llamacpp","name":"code","n_ctx":512,"model":{"builtin":"fim"}},
	{"kind":"llamacpp","name":"tiny","n_ctx":512,"model":{"builtin":"tiny"}},
	{"kind":"llamacpp","name":"rank","rerank_n_ctx":64,"model":{"builtin":"rerank"}},
	{"kind":"llamacpp","name":"vec","embed_n_ctx":64,"model":{"builtin":"embed"}}]}`

// post sends a body, decodes the answer into out, and returns the status.
func post(t *testing.T, url, body string, out any) int {
	t.Helper()
	status, answer := exchangeHTTP(t, &http.Client{Timeout: patience}, http.MethodPost, url, body)
	if err := json.Unmarshal([]byte(answer), out); err != nil {
		t.Fatalf("%v: %s", err, answer)
	}
	return status
}

// encode returns a value as JSON.
func encode(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// With the real engine, the tokens of a text are detokenised to that text, the rendered prompt of
// a conversation has the tokens of the conversation, and a prompt of tokens is completed like its
// text.
func TestTokensOverHTTP(t *testing.T) {
	d := startWith(t, builtinModels)
	d.waitReady()
	base := "http://" + d.httpAddr()
	for _, text := range []string{"abc", "", "é\n\x00 <|im_end|> 🎉", strings.Repeat("x", 2000)} {
		for _, special := range []bool{true, false} {
			var tokens struct{ Tokens []int }
			if status := post(t, base+"/tokenize", encode(t, map[string]any{"content": text, "parse_special": special}), &tokens); status != 200 {
				t.Fatalf("%q: %d", text, status)
			}
			if want := len(text); !special && len(tokens.Tokens) != want {
				t.Errorf("%q has %d tokens, want %d", text, len(tokens.Tokens), want)
			}
			var back struct{ Content string }
			if status := post(t, base+"/detokenize", encode(t, map[string]any{"tokens": tokens.Tokens}), &back); status != 200 || back.Content != text {
				t.Errorf("%q comes back as %q, %d", text, back.Content, status)
			}
		}
	}
	const conversation = `"messages":[{"role":"system","content":"be brief"},{"role":"user","content":"<|im_end|>"}]`
	var prompt struct{ Prompt string }
	if status := post(t, base+"/apply-template", `{"model":"tiny",`+conversation+`}`, &prompt); status != 200 ||
		prompt.Prompt != "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\n<|im_end|><|im_end|>\n<|im_start|>assistant\n" {
		t.Errorf("%d %q", status, prompt.Prompt)
	}
	var vllm struct {
		Count  int
		Most   int `json:"max_model_len"`
		Tokens []int
	}
	if status := post(t, base+"/tokenize", `{"model":"tiny",`+conversation+`}`, &vllm); status != 200 || vllm.Count != len(vllm.Tokens) || vllm.Most != 512 {
		t.Errorf("%d %+v", status, vllm)
	}
	var back struct{ Prompt string }
	if status := post(t, base+"/detokenize", encode(t, map[string]any{"model": "tiny", "tokens": vllm.Tokens}), &back); status != 200 || back.Prompt != prompt.Prompt {
		t.Errorf("%d %q", status, back.Prompt)
	}
	const tools = `,"tools":[{"type":"function","function":{"name":"look","description":"at a place","parameters":{"type":"object"}}}]`
	if status := post(t, base+"/apply-template", `{"model":"tiny",`+conversation+tools+`}`, &prompt); status != 200 || !strings.Contains(prompt.Prompt, "at a place") {
		t.Errorf("with tools: %d %q", status, prompt.Prompt)
	}
	var ids struct{ Tokens []int }
	if status := post(t, base+"/tokenize", `{"model":"tiny",`+conversation+tools+`}`, &ids); status != 200 {
		t.Errorf("with tools: %d %+v", status, ids)
	}
	if status := post(t, base+"/detokenize", encode(t, map[string]any{"model": "tiny", "tokens": ids.Tokens}), &back); status != 200 || back.Prompt != prompt.Prompt {
		t.Errorf("with tools: %d %q", status, back.Prompt)
	}
	var counted struct {
		Usage struct {
			In int `json:"prompt_tokens"`
		}
	}
	if status := post(t, base+"/v1/chat/completions", `{"model":"tiny","max_tokens":1,`+conversation+`}`, &counted); status != 200 || counted.Usage.In != vllm.Count {
		t.Errorf("%d: a chat has %d tokens, the count is %d", status, counted.Usage.In, vllm.Count)
	}
	for _, ask := range []string{`{"prompt":"abc","n_predict":3}`, `{"prompt":[97,98,99],"n_predict":3}`} {
		var answer struct{ Content string }
		if status := post(t, base+"/completion", ask, &answer); status != 200 || answer.Content != "def" {
			t.Errorf("%s: %d %+v", ask, status, answer)
		}
	}
	var refused struct {
		Error struct {
			Code    int
			Message string
		}
	}
	if status := post(t, base+"/tokenize", encode(t, map[string]any{"content": strings.Repeat("x", 16*512+1)}), &refused); status != 413 || refused.Error.Code != 413 {
		t.Errorf("a long text: %d %+v", status, refused)
	}
	if status := post(t, base+"/detokenize", `{"tokens":[260]}`, &refused); status != 400 || !strings.Contains(refused.Error.Message, "not in the vocabulary") {
		t.Errorf("an unknown token: %d %+v", status, refused)
	}
	if status := post(t, base+"/completion", encode(t, map[string]any{"prompt": strings.Repeat("x", 600)}), &refused); status != 400 || refused.Error.Code != 400 {
		t.Errorf("a long prompt: %d %+v", status, refused)
	}
}

// The real engines fill gaps, and compute scores and vectors.
func TestGapsAndScoresOverHTTP(t *testing.T) {
	d := startWith(t, builtinModels)
	d.waitReady()
	base := "http://" + d.httpAddr()
	var gap struct {
		Content   string
		Evaluated int `json:"tokens_evaluated"`
	}
	if status := post(t, base+"/infill", `{"input_prefix":"ab","input_suffix":"z","n_predict":4,"input_extra":[{"filename":"a.go","text":"x"}]}`, &gap); status != 200 || gap.Content != "mnop" || gap.Evaluated != 32 {
		t.Errorf("%d %+v", status, gap)
	}
	var ollama struct{ Response, Error string }
	if status := post(t, base+"/api/generate", `{"model":"code","prompt":"ab","suffix":"z","stream":false,"options":{"num_predict":2}}`, &ollama); status != 200 || ollama.Response != "mn" {
		t.Errorf("%d %+v", status, ollama)
	}
	if status := post(t, base+"/api/generate", `{"model":"gen","prompt":"ab","suffix":"z","stream":false}`, &ollama); status != 400 || !strings.Contains(ollama.Error, "suffix") {
		t.Errorf("%d %+v", status, ollama)
	}
	var ranked struct {
		Results []struct {
			Index int
			Score float64 `json:"relevance_score"`
		}
	}
	if status := post(t, base+"/v1/rerank", `{"query":"red apple","documents":["green car","red apple"]}`, &ranked); status != 200 || len(ranked.Results) != 2 ||
		ranked.Results[0].Index != 1 || ranked.Results[0].Score <= 0.5 || ranked.Results[1].Score >= 0.5 {
		t.Errorf("%d %+v", status, ranked)
	}
	var vectors struct {
		Embeddings [][]float64
		Error      string
	}
	long := strings.Repeat("red apple ", 100)
	if status := post(t, base+"/api/embed", encode(t, map[string]any{"model": "vec", "input": long}), &vectors); status != 200 || len(vectors.Embeddings) != 1 || len(vectors.Embeddings[0]) != 64 {
		t.Errorf("%d %.200s", status, vectors.Error)
	}
	if status := post(t, base+"/api/embed", encode(t, map[string]any{"model": "vec", "input": long, "truncate": false}), &vectors); status != 400 || !strings.Contains(vectors.Error, "tokens") {
		t.Errorf("%d %.200s", status, vectors.Error)
	}
	var shown struct{ Capabilities []string }
	if status := post(t, base+"/api/show", `{"model":"code"}`, &shown); status != 200 || encode(t, shown.Capabilities) != `["completion","tools","insert"]` {
		t.Errorf("%d %v", status, shown)
	}
}

// A request to the real engine gives the same text, the same numbers of tokens and the same reason
// for the end over chats of OpenAI and Ollama and over completions. The template of the model
// writes only the last message, so both have the same prompt.
func TestOneCaseOverOtherPaths(t *testing.T) {
	d := startWith(t, builtinModels)
	d.waitReady()
	base := "http://" + d.httpAddr()
	type told struct {
		text    string
		in, out int
		finish  string
	}
	for name, test := range map[string]struct {
		prompt string
		most   int
		stop   string
		want   told
	}{
		"the end of a turn": {"w", 50, "", told{"xyz", 1, 3, "stop"}},
		"a bound":           {"abc", 4, "", told{"defg", 3, 4, "length"}},
		"a stop":            {"abc", 50, "g", told{"def", 3, 4, "stop"}},
	} {
		t.Run(name, func(t *testing.T) {
			stops := []string{}
			if test.stop != "" {
				stops = append(stops, test.stop)
			}
			messages := []map[string]string{{"role": "user", "content": test.prompt}}
			options := map[string]any{"temperature": 0, "num_predict": test.most, "stop": stops}
			for path, ask := range map[string]map[string]any{
				"/v1/chat/completions": {"messages": messages, "max_tokens": test.most, "temperature": 0, "stop": stops},
				"/v1/completions":      {"prompt": test.prompt, "max_tokens": test.most, "temperature": 0, "stop": stops},
				"/api/chat":            {"model": "gen", "messages": messages, "options": options, "stream": false},
				"/api/generate":        {"model": "gen", "prompt": test.prompt, "options": options, "stream": false},
				"/completion":          {"prompt": test.prompt, "n_predict": test.most, "temperature": 0, "stop": stops},
			} {
				var a struct {
					Choices []struct {
						Text    string
						Message struct{ Content string }
						Finish  string `json:"finish_reason"`
					}
					Usage struct {
						In  int `json:"prompt_tokens"`
						Out int `json:"completion_tokens"`
					}
					Message    struct{ Content string }
					Response   string
					Content    string
					DoneReason string `json:"done_reason"`
					PromptEval int    `json:"prompt_eval_count"`
					Eval       int    `json:"eval_count"`
					StopType   string `json:"stop_type"`
					Evaluated  int    `json:"tokens_evaluated"`
					Predicted  int    `json:"tokens_predicted"`
				}
				status := post(t, base+path, encode(t, ask), &a)
				got := told{
					a.Message.Content + a.Response + a.Content, a.Usage.In + a.PromptEval + a.Evaluated, a.Usage.Out + a.Eval + a.Predicted,
					a.DoneReason + map[string]string{"eos": "stop", "word": "stop", "limit": "length"}[a.StopType],
				}
				for _, c := range a.Choices {
					got.text, got.finish = c.Text+c.Message.Content, c.Finish
				}
				if status != http.StatusOK || got != test.want {
					t.Errorf("%s: %d %+v, want %+v", path, status, got, test.want)
				}
			}
		})
	}
}
