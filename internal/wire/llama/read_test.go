package llama_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/llama"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// asked returns the task for a completion of "hi", modified by change.
func asked(change func(*infer.Generate)) *infer.Generate {
	gen := &infer.Generate{Prompt: new("hi"), Defaults: llama.Defaults()}
	change(gen)
	return gen
}

func TestReadCompletion(t *testing.T) {
	same := func(*infer.Generate) {}
	for name, test := range map[string]struct {
		in      string
		want    func(*infer.Generate)
		ignored []string
	}{
		"a prompt":        {`{"prompt":"hi"}`, same, nil},
		"null is missing": {`{"prompt":"hi","n_predict":null,"stop":null,"logit_bias":null,"grammar":null,"json_schema":null,"n_probs":null,"response_fields":null,"lora":null,"cache_prompt":null}`, same, nil},
		"tokens":          {`{"prompt":[1,2]}`, func(g *infer.Generate) { g.Prompt, g.Tokens = nil, []int32{1, 2} }, nil},
		"sampling": {
			`{"prompt":"hi","temperature":0.5,"top_k":7,"top_p":0.25,"min_p":0.125,"repeat_penalty":1.5,"presence_penalty":-1,"frequency_penalty":2,"seed":5,"n_predict":9,"stop":["x"]}`,
			func(g *infer.Generate) {
				g.MaxTokens, g.Stop = 9, []string{"x"}
				g.Sampling = infer.Sampling{
					Temperature: new(0.5), TopP: new(0.25), TopK: new(7), MinP: new(0.125), RepeatPenalty: new(1.5),
					PresencePenalty: new(-1.0), FrequencyPenalty: new(2.0), Seed: new(uint32(5)),
				}
			},
			nil,
		},
		"no limits":               {`{"prompt":"hi","n_predict":-1,"seed":-1,"top_k":-1}`, func(g *infer.Generate) { g.Sampling.TopK = new(0) }, nil},
		"only prefill":            {`{"prompt":"hi","n_predict":0}`, func(g *infer.Generate) { g.MaxTokens = 1 }, nil},
		"biases as pairs":         {`{"prompt":"hi","logit_bias":[[5,-1.5],[6,false]]}`, func(g *infer.Generate) { g.Sampling.LogitBias = map[int]float64{5: -1.5, 6: -100} }, nil},
		"biases as an object":     {`{"prompt":"hi","logit_bias":{"5":1}}`, func(g *infer.Generate) { g.Sampling.LogitBias = map[int]float64{5: 1} }, nil},
		"a grammar":               {`{"prompt":"hi","grammar":"root ::= \"a\""}`, func(g *infer.Generate) { g.Format.Grammar = `root ::= "a"` }, nil},
		"a schema":                {`{"prompt":"hi","json_schema":{"type":"object"}}`, func(g *infer.Generate) { g.Format.Schema = []byte(`{"type":"object"}`) }, nil},
		"a stop beside a grammar": {`{"prompt":"hi","stop":["x"],"grammar":"root ::= \"a\""}`, func(g *infer.Generate) { g.Stop, g.Format.Grammar = []string{"x"}, `root ::= "a"` }, []string{"stop"}},
		"probabilities":           {`{"prompt":"hi","n_probs":3}`, func(g *infer.Generate) { g.Logprobs = 3 }, nil},
		"the ids of tokens":       {`{"prompt":"hi","return_tokens":true}`, func(g *infer.Generate) { g.Logprobs = 1 }, nil},
		"what has no effect":      {`{"prompt":"hi","cache_prompt":true,"samplers":["top_k"],"id_slot":-1,"t_max_predict_ms":500,"lora":[],"mirostat":0}`, same, []string{"cache_prompt", "id_slot", "mirostat", "samplers", "t_max_predict_ms"}},
		"unknown members":         {`{"prompt":"hi","x":{"y":1}}`, same, nil},
		"a model, and a salt":     {`{"prompt":"hi","model":"m","cache_salt":"s"}`, func(g *infer.Generate) { g.Model = "m" }, nil},
		"an empty prompt":         {`{"prompt":""}`, func(g *infer.Generate) { g.Prompt = new("") }, nil},
		"an empty list":           {`{"prompt":[]}`, func(g *infer.Generate) { g.Prompt, g.Tokens = nil, []int32{} }, nil},
		"members of an infill":    {`{"prompt":"hi","input_prefix":"a","input_suffix":"b"}`, same, nil},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := llama.ReadCompletion([]byte(test.in))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(asked(test.want), c.Generate); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if diff := cmp.Diff(test.ignored, c.Ignored); diff != "" || c.Stream {
				t.Errorf("ignored (-want +got):\n%s", diff)
			}
		})
	}
}

// The editor plugin ggml-org/llama.vim sends requests with these members.
func TestReadInfill(t *testing.T) {
	c, err := llama.ReadInfill([]byte(`{"id_slot":0,"input_prefix":"func a() {\n","input_suffix":"\n}\n","prompt":"  re","n_predict":128,"stop":[],"n_indent":2,"top_k":40,
		"top_p":0.9,"stream":false,"samplers":["top_k","top_p","infill"],"cache_prompt":true,"t_max_prompt_ms":500,"t_max_predict_ms":1000,
		"response_fields":["content","timings/prompt_n"],"input_extra":[{"filename":"b.go","text":"bb","time":1},{"text":"cc"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	want := &infer.Generate{
		Prompt: new("func a() {\n  re"), Suffix: new("\n}\n"), Files: []infer.File{{Name: "b.go", Text: "bb"}, {Text: "cc"}},
		MaxTokens: 128, Sampling: infer.Sampling{TopK: new(40), TopP: new(0.9)}, Stop: []string{}, Defaults: llama.Defaults(),
	}
	if diff := cmp.Diff(want, c.Generate); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	c, err = llama.ReadInfill([]byte(`{}`))
	if err != nil || *c.Generate.Prompt != "" || *c.Generate.Suffix != "" {
		t.Errorf("%+v, %v", c, err)
	}
	c, err = llama.ReadInfill([]byte(`{"stream":true,"response_fields":["content"]}`))
	if err != nil || !c.Stream || cmp.Diff([]string{"response_fields"}, c.Ignored) != "" {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestReadTokens(t *testing.T) {
	ids := infer.Reveal{IDs: true}
	text := infer.Reveal{Text: true}
	for name, test := range map[string]struct {
		in       string
		read     func([]byte) (*llama.Tokens, error)
		want     infer.Count
		messages string // followed by the tools
	}{
		"a text":              {`{"content":"a"}`, llama.ReadTokenize, infer.Count{Of: &infer.Generate{Prompt: new("a"), Reveal: ids}, Bare: true}, ""},
		"as if to generate":   {`{"content":"a","add_special":true}`, llama.ReadTokenize, infer.Count{Of: &infer.Generate{Prompt: new("a"), Reveal: ids}}, ""},
		"without specials":    {`{"content":"","parse_special":false,"with_pieces":true}`, llama.ReadTokenize, infer.Count{Of: &infer.Generate{Prompt: new(""), Reveal: infer.Reveal{IDs: true, Pieces: true}}, Bare: true, Literal: true}, ""},
		"vLLM's text":         {`{"model":"m","prompt":"a"}`, llama.ReadTokenize, infer.Count{Of: &infer.Generate{Prompt: new("a"), Reveal: ids}}, ""},
		"vLLM's bare text":    {`{"model":"m","prompt":"a","add_special_tokens":false,"return_token_strs":true}`, llama.ReadTokenize, infer.Count{Of: &infer.Generate{Prompt: new("a"), Reveal: infer.Reveal{IDs: true, Pieces: true}}, Bare: true}, ""},
		"vLLM's chat":         {`{"model":"m","messages":[1]}`, llama.ReadTokenize, infer.Count{Of: &infer.Generate{Reveal: ids}, Bare: true}, "[1]"},
		"vLLM's closed chat":  {`{"messages":[1],"add_generation_prompt":false,"add_special_tokens":true}`, llama.ReadTokenize, infer.Count{Of: &infer.Generate{Reveal: ids}, History: true}, "[1]"},
		"tokens":              {`{"tokens":[1,2]}`, llama.ReadDetokenize, infer.Count{Of: &infer.Generate{Tokens: []int32{1, 2}, Reveal: text}, Bare: true}, ""},
		"no tokens":           {`{"tokens":[]}`, llama.ReadDetokenize, infer.Count{Of: &infer.Generate{Tokens: []int32{}, Reveal: text}, Bare: true}, ""},
		"a conversation":      {`{"messages":[1]}`, llama.ReadTemplate, infer.Count{Of: &infer.Generate{Reveal: text}, Bare: true}, "[1]"},
		"a history":           {`{"messages":[1],"add_generation_prompt":false}`, llama.ReadTemplate, infer.Count{Of: &infer.Generate{Reveal: text}, Bare: true, History: true}, "[1]"},
		"vLLM's tools":        {`{"messages":[1],"tools":[2]}`, llama.ReadTokenize, infer.Count{Of: &infer.Generate{Reveal: ids}, Bare: true}, "[1][2]"},
		"tools of a template": {`{"messages":[1],"tools":[2]}`, llama.ReadTemplate, infer.Count{Of: &infer.Generate{Reveal: text}, Bare: true}, "[1][2]"},
		"content goes before": {`{"content":"a","prompt":"b","messages":[]}`, llama.ReadTokenize, infer.Count{Of: &infer.Generate{Prompt: new("a"), Reveal: ids}, Bare: true}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := test.read([]byte(test.in))
			if err != nil {
				t.Fatal(err)
			}
			test.want.Of.Blocks = true
			if diff := cmp.Diff(&test.want, got.Task); diff != "" || string(got.Messages)+string(got.Tools) != test.messages {
				t.Errorf("messages %s%s, -want +got:\n%s", got.Messages, got.Tools, diff)
			}
		})
	}
}

// A member that is invalid or not supported is refused by name.
func TestRefusals(t *testing.T) {
	reads := map[string]func([]byte) error{
		"completion": func(b []byte) error { _, err := llama.ReadCompletion(b); return err },
		"infill":     func(b []byte) error { _, err := llama.ReadInfill(b); return err },
		"tokenize":   func(b []byte) error { _, err := llama.ReadTokenize(b); return err },
		"detokenize": func(b []byte) error { _, err := llama.ReadDetokenize(b); return err },
		"template":   func(b []byte) error { _, err := llama.ReadTemplate(b); return err },
	}
	for name, test := range map[string]struct{ of, in, member, text string }{
		"not JSON":             {"completion", `{"prompt"`, "", "EOF"},
		"no prompt":            {"completion", `{}`, "prompt", "missing"},
		"several prompts":      {"completion", `{"prompt":["a","b"]}`, "prompt", "one text"},
		"a mixed prompt":       {"completion", `{"prompt":[1,"b"]}`, "prompt", "one text"},
		"lists of tokens":      {"completion", `{"prompt":[[1],[2]]}`, "prompt", "one text"},
		"half a token":         {"completion", `{"prompt":[1.5]}`, "prompt", "one text"},
		"a large token":        {"completion", `{"prompt":[4294967296]}`, "prompt", "one text"},
		"a prompt, a number":   {"completion", `{"prompt":7}`, "prompt", "one text"},
		"stream":               {"completion", `{"prompt":"a","stream":1}`, "stream", "wrong type"},
		"n_predict":            {"completion", `{"prompt":"a","n_predict":4294967296}`, "n_predict", "at most"},
		"n_probs":              {"completion", `{"prompt":"a","n_probs":21}`, "n_probs", "between 0 and 20"},
		"negative n_probs":     {"completion", `{"prompt":"a","n_probs":-1}`, "n_probs", "at least 0"},
		"temperature":          {"completion", `{"prompt":"a","temperature":-1}`, "temperature", "between"},
		"ignore_eos":           {"completion", `{"prompt":"a","ignore_eos":true}`, "ignore_eos", "not supported"},
		"media":                {"completion", `{"prompt":"a","multimodal_data":["x"]}`, "multimodal_data", "not supported"},
		"adapters":             {"completion", `{"prompt":"a","lora":[{"id":0}]}`, "lora", "not supported"},
		"a bias of a word":     {"completion", `{"prompt":"a","logit_bias":[["word",1]]}`, "logit_bias", "token id"},
		"a bias of half":       {"completion", `{"prompt":"a","logit_bias":[[1.5,1]]}`, "logit_bias", "no token id"},
		"a large bias":         {"completion", `{"prompt":"a","logit_bias":{"1":101}}`, "logit_bias", "between -100 and 100"},
		"a bias of a text":     {"completion", `{"prompt":"a","logit_bias":{"1":"x"}}`, "logit_bias", "wrong form"},
		"biases":               {"completion", `{"prompt":"a","logit_bias":7}`, "logit_bias", "wrong form"},
		"stop":                 {"completion", `{"prompt":"a","stop":[1]}`, "stop", "wrong form"},
		"a schema":             {"completion", `{"prompt":"a","json_schema":[]}`, "json_schema", "an object"},
		"a grammar and schema": {"completion", `{"prompt":"a","json_schema":{},"grammar":"x"}`, "grammar", "mutually exclusive"},
		"a long grammar":       {"completion", `{"prompt":"a","grammar":"` + strings.Repeat("x", 65<<10) + `"}`, "grammar", "bytes"},
		"a long salt":          {"completion", `{"prompt":"a","cache_salt":"` + strings.Repeat("x", 65) + `"}`, "cache_salt", "64"},
		"many fields":          {"completion", `{"prompt":"a","response_fields":["a"` + strings.Repeat(`,"a"`, 64) + `]}`, "response_fields", "at most 64"},
		"a prompt of tokens":   {"infill", `{"prompt":[1]}`, "prompt", "must be a text"},
		"files":                {"infill", `{"input_extra":"a"}`, "input_extra", "wrong type"},
		"many files":           {"infill", `{"input_extra":[{}` + strings.Repeat(",{}", 256) + `]}`, "input_extra", "at most 256"},
		"nothing to tokenize":  {"tokenize", `{}`, "content", "missing"},
		"a mixed content":      {"tokenize", `{"content":[1,"a"]}`, "content", "wrong type"},
		"a last message":       {"tokenize", `{"messages":[1],"continue_final_message":true}`, "continue_final_message", "not supported"},
		"a template":           {"tokenize", `{"messages":[1],"chat_template":"x"}`, "chat_template", "not supported"},
		"no tokens":            {"detokenize", `{}`, "tokens", "missing"},
		"tokens of text":       {"detokenize", `{"tokens":["a"]}`, "tokens", "token ids"},
		"no messages":          {"template", `{}`, "messages", "missing"},
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

// Any bytes are either decoded, or refused with an error that has a code and the status 400.
func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"prompt":[1,2],"logit_bias":[[1,false]],"stop":"x","response_fields":["a/b"]}`))
	f.Add([]byte(`{"content":"a","tokens":[1],"messages":[1]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if _, err := wire.Weigh(body); err != nil {
			return
		}
		for _, read := range []func() error{
			func() error { _, err := llama.ReadCompletion(body); return err },
			func() error { _, err := llama.ReadInfill(body); return err },
			func() error { _, err := llama.ReadTokenize(body); return err },
			func() error { _, err := llama.ReadDetokenize(body); return err },
		} {
			err := read()
			if err == nil {
				continue
			}
			if _, ok := errors.AsType[*infer.Error](err); !ok {
				t.Errorf("%T has no class", err)
			}
			if status, text := llama.Failure(err, ""); status != 400 || !bytes.HasPrefix(text, []byte(`{"error":{"code":400,"message":"`)) {
				t.Errorf("%d %s", status, text)
			}
		}
	})
}
