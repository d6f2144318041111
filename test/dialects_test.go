package test

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// answerFacts are the facts about an answer that every dialect reports.
type answerFacts struct {
	Text   string
	In     int
	Out    int
	Finish string
}

// overV2 sends a request to the v2 socket, and returns the answer.
func (d *daemon) overV2(body string) (got answerFacts) {
	d.t.Helper()
	nc, err := net.Dial("unix", d.socket("infer.v2.sock"))
	if err != nil {
		d.t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(nc, body+"\n"); err != nil {
		d.t.Fatal(err)
	}
	for lines := bufio.NewScanner(nc); lines.Scan(); {
		var m struct {
			Type  string
			Block struct{ Delta string }
			Usage struct {
				In  int `json:"input_tokens"`
				Out int `json:"output_tokens"`
			}
			Finish  string `json:"stop_reason"`
			Message string
		}
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			d.t.Fatalf("%v: %s", err, lines.Text())
		}
		switch m.Type {
		case "frame":
			got.Text += m.Block.Delta
		case "done":
			got.In, got.Out, got.Finish = m.Usage.In, m.Usage.Out, m.Finish
			return got
		default:
			d.t.Fatalf("frame %s", lines.Text())
		}
	}
	d.t.Fatal("no answer")
	return got
}

// overHTTP sends a request to a path, and returns the status and the body.
func (d *daemon) overHTTP(path, body string) (status int, answer string) {
	d.t.Helper()
	res, err := d.overSocket().Post("http://x"+path, "application/json", strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	defer res.Body.Close()
	all, err := io.ReadAll(res.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return res.StatusCode, string(all)
}

// An httpAnswer decodes an answer in any dialect of HTTP: it has the members of all of them.
type httpAnswer struct {
	Choices []struct {
		Message struct{ Content string }
		Finish  string `json:"finish_reason"`
	}
	Output []struct {
		Content []struct{ Text string }
	}
	Content    []struct{ Text string }
	Status     string
	Incomplete struct{ Reason string }  `json:"incomplete_details"`
	StopReason string                   `json:"stop_reason"`
	Message    struct{ Content string } // of Ollama, like the next three
	DoneReason string                   `json:"done_reason"`
	PromptEval int                      `json:"prompt_eval_count"`
	Eval       int                      `json:"eval_count"`
	Usage      struct {
		Prompt     int `json:"prompt_tokens"`
		Completion int `json:"completion_tokens"`
		In         int `json:"input_tokens"`
		Cached     int `json:"cache_read_input_tokens"`
		Out        int `json:"output_tokens"`
	}
}

func (a *httpAnswer) facts() (got answerFacts) {
	got.In, got.Out = a.Usage.Prompt+a.Usage.In+a.Usage.Cached+a.PromptEval, a.Usage.Completion+a.Usage.Out+a.Eval
	got.Text, got.Finish = a.Message.Content, a.StopReason+a.Incomplete.Reason+a.DoneReason
	for _, c := range a.Choices {
		got.Text, got.Finish = c.Message.Content, c.Finish
	}
	for _, o := range a.Output {
		for _, c := range o.Content {
			got.Text += c.Text
		}
	}
	for _, c := range a.Content {
		got.Text += c.Text
	}
	if got.Finish == "" {
		got.Finish = a.Status
	}
	return got
}

// A request to the real engine gives the same text, the same numbers of tokens and the same reason
// for the end over v2 and in every dialect of HTTP.
func TestOneCaseInEveryDialect(t *testing.T) {
	d := serve(t, "--model-path", "builtin:chain")
	ends := map[string]string{ // by the words of v2 and of the other dialects
		"end_turn": "end", "max_tokens": "length", "stop_sequence": "stop sequence", "stop": "end", "length": "length",
		"completed": "end", "max_output_tokens": "length",
	}
	for name, test := range map[string]struct {
		text, max int
		prompt    string
		stop      string
		want      answerFacts
	}{
		"the end of a turn": {prompt: "w", max: 50, want: answerFacts{"xyz", 1, 3, "end"}},
		"a bound":           {prompt: "abc", max: 4, want: answerFacts{"defg", 3, 4, "length"}},
		"a stop":            {prompt: "abc", max: 50, stop: "g", want: answerFacts{Text: "def", In: 3, Finish: "stop sequence"}},
	} {
		t.Run(name, func(t *testing.T) {
			v2 := fmt.Sprintf(`{"id":"1","temperature":0,"max_tokens":%d,"messages":[{"role":"user","content":[{"type":"text","text":%q}]}]`, test.max, test.prompt)
			chat := fmt.Sprintf(`{"temperature":0,"max_tokens":%d,"messages":[{"role":"user","content":%q}]`, test.max, test.prompt)
			messages := chat
			ollama := fmt.Sprintf(`{"model":"llamacpp","stream":false,"messages":[{"role":"user","content":%q}],"options":{"temperature":0,"num_predict":%d,"stop":[%q]}`, test.prompt, test.max, cmp.Or(test.stop, "no such text"))
			responses := fmt.Sprintf(`{"temperature":0,"max_output_tokens":%d,"input":%q`, test.max, test.prompt)
			if test.stop != "" {
				v2 += fmt.Sprintf(`,"stop":[%q]`, test.stop)
				chat += fmt.Sprintf(`,"stop":%q`, test.stop)
				messages += fmt.Sprintf(`,"stop_sequences":["no such text",%q]`, test.stop)
			}
			want := d.overV2(v2 + "}")
			want.Finish = ends[want.Finish]
			if test.want.Out == 0 {
				test.want.Out = want.Out // the tokens of the stop text count, too, so the number of v2 is the reference
			}
			if want != test.want {
				t.Errorf("v2: %+v, want %+v", want, test.want)
			}
			for path, body := range map[string]string{"/v1/chat/completions": chat, "/v1/responses": responses, "/v1/messages": messages, "/api/chat": ollama} {
				if path == "/v1/responses" && test.stop != "" {
					continue // this dialect has no stop texts
				}
				status, answer := d.overHTTP(path, body+"}")
				var a httpAnswer
				if err := json.Unmarshal([]byte(answer), &a); err != nil || status != http.StatusOK {
					t.Fatalf("%s: %d %s: %v", path, status, answer, err)
				}
				got := a.facts()
				if got.Finish = ends[got.Finish]; test.stop != "" && path != "/v1/messages" && got.Finish == "end" {
					got.Finish = "stop sequence" // the other dialects have one name for both
				}
				if named := `"stop_sequence":"` + test.stop + `"`; path == "/v1/messages" && strings.Contains(answer, named) != (test.stop != "") {
					t.Errorf("%s: is %s there? %s", path, named, answer)
				}
				if got != want {
					t.Errorf("%s: %+v, want %+v\n%s", path, got, want, answer)
				}
			}
		})
	}
}

// Requests over HTTP to count tokens are answered by the engine. The refusal of a prompt that is too
// long has the form of the dialect.
func TestEngineInEveryDialect(t *testing.T) {
	d := serve(t, "--model-path", "builtin:chain", "--n-ctx", "512")
	if status, answer := d.overHTTP("/v1/messages/count_tokens", `{"system":"ab","messages":[{"role":"user","content":"cde"}]}`); status != http.StatusOK || !strings.HasPrefix(answer, `{"input_tokens":`) || answer == `{"input_tokens":0}` {
		t.Errorf("a count: %d %s", status, answer)
	}
	long := strings.Repeat("x", 20_000)
	for path, test := range map[string]struct{ body, want string }{
		"/v1/messages":              {`{"messages":[{"role":"user","content":"` + long + `"}],"stream":true}`, `"message":"prompt is too long: `},
		"/v1/messages/count_tokens": {`{"messages":[{"role":"user","content":"` + long + `"}]}`, `{"type":"error","error":{"type":"`},
		"/v1/responses":             {`{"input":"` + long + `","stream":true}`, `"param":"input","code":"context_length_exceeded"`},
	} {
		if status, answer := d.overHTTP(path, test.body); status != http.StatusBadRequest && status != http.StatusRequestEntityTooLarge || !strings.Contains(answer, test.want) {
			t.Errorf("a long prompt to %s: %d %.300s", path, status, answer)
		}
	}
}

// Requests as coding agents send them are answered, with all their members, late system messages,
// and server-side tools.
func TestRequestsOfAgents(t *testing.T) {
	d := startWith(t, `{"http":{"any_model":true},"backends":[{"kind":"mock","name":"gen","tokens":["ok"],"prompt_tokens":7}]}`)
	d.waitReady()
	for name, test := range map[string]struct{ path, body, want string }{
		"codex": {"/v1/responses", `{"model":"gpt-5-codex","stream":true,"store":false,"parallel_tool_calls":false,"tool_choice":"auto",
			"input":[{"type":"message","role":"developer","content":[{"type":"input_text","text":"rules"}]},{"type":"message","role":"developer","content":[{"type":"input_text","text":"more"}]},
			{"type":"message","role":"user","content":[{"type":"input_text","text":"<environment_context/>"}]},{"type":"message","role":"user","content":[{"type":"input_text","text":"go"}]},
			{"type":"reasoning","summary":[],"content":null,"encrypted_content":null},
			{"type":"function_call","name":"exec_command","arguments":"{\"cmd\":\"ls\"}","call_id":"c1"},{"type":"function_call_output","call_id":"c1","output":"a\nb"}],
			"tools":[{"type":"function","name":"exec_command","description":"runs","strict":false,"parameters":{"type":"object","properties":{"cmd":{"type":"string"}}}},
			{"type":"custom","name":"apply_patch","description":"patches","format":{"type":"grammar","syntax":"lark","definition":"start: x"}},
			{"type":"namespace","name":"mcp__files","description":"files","tools":[{"type":"function","name":"open","description":"","strict":false,"parameters":{"type":"object","properties":{}}}]},
			{"type":"web_search","external_web_access":false},{"type":"image_generation","output_format":"png"},{"type":"tool_search","execution":"client"}],
			"reasoning":{"summary":"auto"},"include":["reasoning.encrypted_content"],"prompt_cache_key":"k","client_metadata":{"x":"y"}}`, "event: response.completed\n"},
		"Claude Code": {"/v1/messages?beta=true", `{"model":"claude-opus","max_tokens":32000,"stream":true,"metadata":{"user_id":"u"},"thinking":{"type":"adaptive"},"output_config":{"effort":"high"},
			"context_management":{"edits":[{"type":"clear_thinking_20251015","keep":"all"}]},
			"system":[{"type":"text","text":"x-anthropic-billing-header: cc_version=2.1.197; cch=1;"},{"type":"text","text":"You are.","cache_control":{"type":"ephemeral"}},{"type":"text","text":"Rules.","cache_control":{"type":"ephemeral"}}],
			"messages":[{"role":"user","content":[{"type":"text","text":"<system-reminder/>"},{"type":"text","text":"go","cache_control":{"type":"ephemeral"}}]},{"role":"system","content":"late"}],
			"tools":[{"name":"Bash","description":"runs","input_schema":{"type":"object","properties":{"command":{"type":"string"}},"required":["command"]}},{"type":"web_search_20250305","name":"web_search","max_uses":8}]}`, "event: message_stop\n"},
	} {
		if status, answer := d.overHTTP(test.path, test.body); status != http.StatusOK || !strings.Contains(answer, test.want) || !strings.Contains(answer, `"ok"`) {
			t.Errorf("%s: %d %s", name, status, answer)
		}
	}
	d.recorded("http_request_done", 2)
	records := d.records("http_request_done")
	if records[0]["wire_version"] == records[1]["wire_version"] || records[0]["wire_version"] == "openai" {
		t.Errorf("records %v", records)
	}
}
