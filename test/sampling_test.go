package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	inferd "github.com/inferd-go/inferd/client"
	"github.com/inferd-go/inferd/internal/builtin"
)

// askFrames sends a v2 request, and returns the frames of the answer with the terminal one.
func (p *peer) askFrames(text, more string) []map[string]any {
	p.t.Helper()
	content, err := json.Marshal(text)
	if err != nil {
		p.t.Fatal(err)
	}
	msg := fmt.Sprintf(`{"id":"q","wire_version":1,"messages":[{"role":"user","content":[{"type":"text","text":%s}]}]%s}`, content, more)
	if _, err := p.Write(p.framed(msg)); err != nil {
		p.t.Fatal(err)
	}
	var all []map[string]any
	for {
		f, err := p.next()
		if err != nil {
			p.t.Fatalf("after %v: %v", all, err)
		}
		all = append(all, f)
		if f["type"] != "frame" {
			return all
		}
	}
}

// textOf returns the text of an answer.
func textOf(frames []map[string]any) string {
	var text strings.Builder
	for _, f := range frames {
		if block, ok := f["block"].(map[string]any); ok {
			delta, _ := block["delta"].(string)
			text.WriteString(delta)
		}
	}
	return text.String()
}

// Logprobs reach the client in both framings, streamed and whole. There is one for each token, and
// the bytes of all tokens together are the text.
func TestLogprobs(t *testing.T) {
	d := serve(t, "--model-path", "builtin:tiny")
	for _, leaf := range []string{"infer.v2.sock", "inferd.sock"} {
		for _, stream := range []bool{true, false} {
			p := d.peer(leaf)
			frames := p.askFrames("hello", fmt.Sprintf(`,"max_tokens":40,"seed":5,"logprobs":3,"stream":%v,"response_format":{"type":"grammar","grammar":"root ::= [a-é]*"}`, stream))
			if !stream && len(frames) != 2 {
				t.Errorf("%s: %d frames", leaf, len(frames))
			}
			var spelt []byte
			tokens := 0
			for _, f := range frames {
				list, _ := f["logprobs"].([]any)
				for _, l := range list {
					token := l.(map[string]any)
					tokens++
					spelt = append(spelt, bytesOf(token)...)
					top := token["top"].([]any)
					last := 0.0
					for i, c := range top {
						p := c.(map[string]any)["logprob"].(float64)
						if p > 0 || i > 0 && p > last || p < -8 { // all bytes have similar probabilities
							t.Errorf("%s: %v", leaf, token)
						}
						last = p
					}
					if p := token["logprob"].(float64); len(top) != 3 || p > 0 || p < -8 {
						t.Errorf("%s: %v", leaf, token)
					}
				}
			}
			usage := frames[len(frames)-1]["usage"].(map[string]any)
			if got := textOf(frames); got == "" || string(spelt) != got || float64(tokens) != usage["output_tokens"] {
				t.Errorf("%s, stream %v: %d tokens that spell %q; it said %q, %v", leaf, stream, tokens, spelt, got, usage)
			}
			for _, f := range p.askFrames("hello", `,"max_tokens":3`) {
				if f["logprobs"] != nil {
					t.Errorf("%s: logprobs without a request for them: %v", leaf, f)
				}
			}
		}
	}
}

// The Go client returns logprobs, too.
func TestLogprobsInGo(t *testing.T) {
	d := serve(t, "--model-path", "builtin:tiny")
	c := inferd.Client{Dir: d.dir}
	for _, whole := range []bool{false, true} {
		req := inferd.Ask("hello")
		req.MaxTokens, req.Logprobs, req.Whole = 30, 2, whole
		req.Format.Grammar = `root ::= [à-ÿ]*`
		got, err := inferd.Collect(c.Generate(t.Context(), req))
		if err != nil {
			t.Fatal(err)
		}
		var spelt []byte
		for _, l := range got.Logprobs {
			spelt = append(spelt, l.Bytes...)
			if len(l.Top) != 2 || len(l.Bytes) != 1 || l.ID != int(l.Bytes[0]) || l.Logprob > l.Top[0].Logprob {
				t.Errorf("%+v", l)
			}
		}
		if string(spelt) != got.Text || len(got.Logprobs) != got.OutputTokens || got.Text == "" {
			t.Errorf("%d tokens spell %q: %+v", len(got.Logprobs), spelt, got)
		}
	}
}

// bytesOf returns the bytes of a token.
func bytesOf(token map[string]any) []byte {
	list, ok := token["bytes"].([]any)
	if !ok {
		return []byte(token["token"].(string))
	}
	var all []byte
	for _, b := range list {
		all = append(all, byte(b.(float64)))
	}
	return all
}

// Requests with extreme sampling settings are answered, or refused with the name of the setting.
// The engine is not replaced.
func TestBadSampling(t *testing.T) {
	d := serve(t, "--model-path", "builtin:chain", "--n-ctx", "512")
	engine := d.engine()
	every := make(map[string]int)
	for tok := range 260 {
		every[fmt.Sprint(tok)] = -100
	}
	all, err := json.Marshal(every)
	if err != nil {
		t.Fatal(err)
	}
	grammar := func(source string) string {
		quoted, _ := json.Marshal(source) // cannot fail
		return `,"response_format":{"type":"grammar","grammar":` + string(quoted) + `}`
	}
	for name, test := range map[string]struct{ more, says string }{
		"an empty stop list":            {`,"stop":[]`, "xyz"},
		"many stops":                    {`,"stop":[` + strings.Repeat(`"a",`, 99999) + `"b"]`, "stop has 100000 strings"},
		"an empty stop":                 {`,"stop":[""]`, "stop[0] has 0 bytes"},
		"a huge stop":                   {`,"stop":["` + strings.Repeat("a", 1<<20) + `"]`, "stop[0] has 1048576 bytes"},
		"no tokens":                     {`,"max_tokens":0`, "max_tokens"},
		"2^31 tokens":                   {`,"max_tokens":2147483648`, "xyz"},
		"2^32-1 tokens":                 {fmt.Sprintf(`,"max_tokens":%d`, math.MaxUint32), "xyz"},
		"a negative temperature":        {`,"temperature":-0.1`, "temperature must be between"},
		"a huge temperature":            {`,"temperature":1e308`, "temperature must be between"},
		"a tiny temperature":            {`,"temperature":5e-324`, "xyz"},
		"a minute top_p":                {`,"top_p":0,"top_k":0,"temperature":1e6`, "xyz"},
		"extreme penalties":             {`,"presence_penalty":-1e6,"frequency_penalty":1e6,"repeat_penalty":1e6,"max_tokens":2`, ""},
		"a negative bias on all":        {`,"logit_bias":` + string(all), "xyz"},
		"a positive bias":               {`,"logit_bias":{"113":100},"max_tokens":3`, "qqq"},
		"an unknown token":              {`,"logit_bias":{"113":1,"260":1}`, "token 260 is not in the model's vocabulary of 260"},
		"an invalid token id":           {`,"logit_bias":{"q":1}`, `"q" is no token id`},
		"a bias above the limit":        {`,"logit_bias":{"113":101}`, "logit_bias[113]"},
		"too many logprobs":             {`,"logprobs":21`, "logprobs must be between 0 and 20"},
		"an invalid grammar":            {grammar("root ::= a\nb ::= ("), "line 2, column 8"},
		"an impossible repetition":      {grammar(`root ::= "x"{5,2}`), "at least 5 and at most 2"},
		"a grammar that is too deep":    {grammar("root ::= " + strings.Repeat("(", 60000)), "parentheses nested more than 100 deep"},
		"a grammar with a NUL":          {grammar("root ::= \"a\"\x00"), "NUL"},
		"a grammar without a character": {grammar(`root ::= "xy" [\uD800-\uDBFF]`), "no text matches the grammar"},
		"a grammar without a letter":    {grammar(`root ::= "xy" | [\uD800-\uDBFF]`), "xy"},
	} {
		t.Run(name, func(t *testing.T) {
			p := d.peer("infer.v2.sock")
			frames := p.askFrames("w", test.more)
			end := frames[len(frames)-1]
			if end["type"] == "done" {
				if got := textOf(frames); got != test.says && test.says != "" {
					t.Errorf("got %q, want %q", got, test.says)
				}
				return
			}
			if message, _ := end["message"].(string); end["code"] != "invalid_request" || end["id"] != "q" || test.says == "" || !strings.Contains(message, test.says) {
				t.Errorf("got %v, want %q", end, test.says)
			}
			if got := textOf(p.askFrames("w", "")); got != "xyz" { // the connection can still be used
				t.Errorf("then: %q", got)
			}
		})
	}
	for _, more := range []string{`,"temperature":NaN`, `,"temperature":"NaN"`, `,"max_tokens":1.5`, `,"seed":0.5`, `,"stop":[null]`} {
		c := d.client()
		c.send(prompt("q", "w", more))
		if got := c.next(); got.Code != "invalid_request" || got.ID != "" { // malformed
			t.Errorf("%s: %+v", more, got)
		}
		_ = c.Close()
	}
	for _, more := range []string{`,"temperature":1e999`, `,"max_tokens":4294967296`, `,"max_tokens":-1`, `,"top_k":-1`, `,"seed":18446744073709551616`} {
		c := d.client()
		c.send(prompt("q", "w", more))
		if got := c.next(); got.Code != "invalid_request" || got.ID != "q" { // well-formed, but not valid
			t.Errorf("%s: %+v", more, got)
		}
		c.send(prompt("r", "w", "")) // the connection can still be used
		if text, end := c.answer(); text != "xyz" || end.ID != "r" {
			t.Errorf("behind %s: %q, %+v", more, text, end)
		}
		_ = c.Close()
	}
	d.works()
	if now := d.engine(); now != engine {
		t.Errorf("engine %d was replaced by %d\n%s", engine, now, d.stderr)
	}
}

// If the chat template recurses without end, the request fails, and the engine keeps running.
func TestEndlessTemplate(t *testing.T) {
	var model bytes.Buffer
	if err := builtin.Write("tiny", &model); err != nil {
		t.Fatal(err)
	}
	begin := bytes.Index(model.Bytes(), []byte("{%- if tools %}"))
	end := bytes.LastIndex(model.Bytes(), []byte("{%- endif -%}")) + len("{%- endif -%}")
	if begin < 0 || end < begin {
		t.Fatal("the model has another template")
	}
	const endless = `{% macro f() %}{{ f() }}{% endmacro %}{{ messages[0]['content'] }}{% if messages[0]['content'] != 'w' %}{{ f() }}{% endif %}`
	copy(model.Bytes()[begin:end], endless+strings.Repeat(" ", end-begin-len(endless)))
	path := filepath.Join(t.TempDir(), "model.gguf")
	if err := os.WriteFile(path, model.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	d := serve(t, "--model-path", path)
	engine := d.engine()
	for range 3 {
		if _, end := d.ask("x", ""); end.Code != "invalid_request" || !strings.Contains(end.Message, "chat template: it nests deeper than 200 levels") {
			t.Errorf("%+v", end)
		}
		if _, end := d.ask("w", `,"max_tokens":3`); end.Type != "done" || end.Usage.Completion != 3 {
			t.Errorf("%+v", end)
		}
	}
	if now := d.engine(); now != engine {
		t.Errorf("engine %d was replaced by %d\n%s", engine, now, d.stderr)
	}
}

// Each of ten thousand requests for one token is answered once.
func TestTinyRequests(t *testing.T) {
	d := serve(t, "--model-path", "builtin:chain")
	engine := d.engine()
	const clients, each = 8, 1250
	var all sync.WaitGroup
	for i := range clients {
		c := d.client()
		all.Go(func() {
			for j := range each {
				id := fmt.Sprint(i, "-", j)
				letter := string(rune('a' + (i+j)%25))
				c.send(prompt(id, letter, `,"max_tokens":1`))
				text, end := c.answer()
				if want := string(rune(letter[0] + 1)); text != want || end.Type != "done" || end.ID != id || end.Usage.Completion != 1 {
					t.Errorf("%s: %q, %+v", id, text, end)
					return
				}
			}
		})
	}
	all.Wait()
	d.works()
	if now := d.engine(); now != engine {
		t.Errorf("engine %d was replaced by %d\n%s", engine, now, d.stderr)
	}
}
