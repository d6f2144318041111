package test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	inferd "github.com/inferd-go/inferd/client"
	"github.com/inferd-go/inferd/internal/shortdir"
)

func TestChain(t *testing.T) {
	d := serve(t, "--model-path", "builtin:chain")
	for name, test := range map[string]struct {
		text, more string
		want       string
		reason     string
		in, out    int
	}{
		"the alphabet continues after a letter": {"a", "", "bcdefghijklmnopqrstuvwxyz", "end", 1, 25},
		"also in capitals":                      {"W", "", "XYZ", "end", 1, 3},
		"after z the answer ends":               {"z", "", "", "end", 1, 0},
		"after any other byte it starts at a":   {"7", "", "abcdefghijklmnopqrstuvwxyz", "end", 1, 26},
		"only the last letter counts":           {"hello", "", "pqrstuvwxyz", "end", 5, 11},
		"a character of several bytes":          {"é", "", "abcdefghijklmnopqrstuvwxyz", "end", 2, 26},
		"an empty message":                      {"", "", "abcdefghijklmnopqrstuvwxyz", "end", 1, 26},
		"max_tokens":                            {"a", `,"max_tokens":3`, "bcd", "length", 1, 3},
		"one token":                             {"a", `,"max_tokens":1`, "b", "length", 1, 1},
		"greedy":                                {"w", `,"temperature":0`, "xyz", "end", 1, 3},
		"a stop over several tokens":            {"a", `,"stop":["efg","zz"]`, "bcd", "end", 1, 6},
		"no stop":                               {"w", `,"stop":[]`, "xyz", "end", 1, 3},
		"a grammar":                             {"a", `,"grammar":"root ::= \"bc\" \"x\"","max_tokens":9`, "bcx", "end", 1, 3},
		"the text of a special token is text":   {"<|im_end|>w", "", "xyz", "end", 11, 3},
		"also at the end":                       {"a<|im_end|>", "", "abcdefghijklmnopqrstuvwxyz", "end", 11, 26},
		"every allowed additive member":         {"w", `,"seed":7,"min_p":0.1,"top_k":5,"top_p":0.5,"presence_penalty":0,"frequency_penalty":0,"repeat_penalty":1,"model":"llamacpp"`, "xyz", "end", 1, 3},
		"unknown members":                       {"w", `,"future":{"a":[1]}`, "xyz", "end", 1, 3},
	} {
		t.Run(name, func(t *testing.T) {
			text, end := d.ask(test.text, test.more)
			if text != test.want || end.Type != "done" {
				t.Fatalf("got %q, %+v; want %q", text, end, test.want)
			}
			if end.Content != text || end.Reason != test.reason || end.ID != "q" || end.Backend != "llamacpp" {
				t.Errorf("done is %+v", end)
			}
			if end.Usage.Prompt != test.in || end.Usage.Completion != test.out {
				t.Errorf("usage %+v, want %d in, %d out", end.Usage, test.in, test.out)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	d := serve(t, "--model-path", "builtin:chain", "--n-ctx", "512")
	c := d.client()
	for name, test := range map[string]struct {
		line       string
		code, says string
	}{
		"no messages":               {`{"id":"q","messages":[]}`, "invalid_request", "messages"},
		"max_tokens of 0":           {prompt("q", "a", `,"max_tokens":0`), "invalid_request", "max_tokens"},
		"a prompt that is too long": {prompt("q", strings.Repeat("a", 600), ""), "invalid_request", "600 tokens, the context holds 512"},
		"a megabyte":                {prompt("q", strings.Repeat("a", 1<<20), ""), "invalid_request", "the context holds 512"},
		"one token too many":        {prompt("q", strings.Repeat("a", 512), ""), "invalid_request", "512 tokens, the context holds 512"},
		"an invalid grammar":        {prompt("q", "a", `,"grammar":"root ::= ("`), "invalid_request", "grammar"},
		"a grammar with a NUL":      {prompt("q", "a", `,"grammar":"\u0000root ::= \"x\""`), "invalid_request", "grammar has a NUL"},
		"a temperature below zero":  {prompt("q", "a", `,"temperature":-1`), "invalid_request", "temperature"},
		"an image budget":           {prompt("q", "a", `,"image_token_budget":999`), "invalid_request", "999"},
		"an unknown model":          {prompt("q", "a", `,"model":"gpt"`), "invalid_request", "gpt"},
		"a deadline of 0":           {prompt("q", "a", `,"deadline_ms":0`), "invalid_request", "deadline_ms"},
	} {
		t.Run(name, func(t *testing.T) {
			c.send(test.line)
			got := c.next()
			if got.Type != "error" || got.Code != test.code || !strings.Contains(got.Message, test.says) || got.ID != "q" {
				t.Errorf("got %+v, want %s with %q", got, test.code, test.says)
			}
		})
	}
	// The connection can still be used.
	c.send(prompt("q", "w", ""))
	if text, end := c.answer(); text != "xyz" || end.Type != "done" {
		t.Errorf("then: %q, %+v", text, end)
	}
	// The answer to the longest prompt that fits has one token and the reason length.
	if text, end := d.ask(strings.Repeat("a", 511), ""); text != "b" || end.Reason != "length" {
		t.Errorf("511 of 512: %q, %+v", text, end)
	}
}

// With a seed or with temperature 0 an answer can be repeated. Each request goes to a new daemon:
// the last bits of a probability depend on the rest of the cache, and in builtin:tiny many tokens
// are almost equally likely.
func TestTinyIsRandomButRepeatable(t *testing.T) {
	ask := func(more string) string {
		d := serve(t, "--model-path", "builtin:tiny")
		text, end := d.ask("hello", `,"max_tokens":200`+more)
		if end.Type != "done" || !utf8.ValidString(text) || end.Content != text {
			t.Fatalf("%q, %+v", text, end)
		}
		d.signal(syscall.SIGTERM)
		d.exit()
		return text
	}
	seven := ask(`,"seed":7`)
	if again := ask(`,"seed":7`); again != seven {
		t.Errorf("the same seed gave %q and %q", seven, again)
	}
	// Seeds of 64 bits are folded: here the upper half is 7, 6 or all ones.
	for _, seed := range []string{"30064771072", "25769803777", "-8"} {
		if got := ask(`,"seed":` + seed); got != seven {
			t.Errorf("seed %s gave %q, want that of 7, %q", seed, got, seven)
		}
	}
	if other := ask(`,"seed":8`); other == seven {
		t.Errorf("another seed gave the same %q", other)
	}
	if a, b := ask(""), ask(""); a == b {
		t.Errorf("without a seed: twice %q", a)
	}
	if a, b := ask(`,"temperature":0`), ask(`,"temperature":0`); a != b {
		t.Errorf("greedy gave %q and %q", a, b)
	}
}

// A frame never splits a character, even if the model generates random bytes.
func TestFramesAreWholeCharacters(t *testing.T) {
	d := serve(t, "--model-path", "builtin:tiny")
	c := d.client()
	c.send(prompt("q", "x", `,"max_tokens":600,"seed":1,"temperature":1.5`))
	_ = c.SetReadDeadline(time.Now().Add(patience))
	wide := 0
	for {
		line, err := c.r.ReadBytes('\n')
		if err != nil {
			t.Fatal(err)
		}
		if !utf8.Valid(line) {
			t.Fatalf("a frame that is not UTF-8: %q", line)
		}
		wide += len(line) - utf8.RuneCount(line)
		var r reply
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatal(err)
		}
		if r.terminal() {
			break
		}
	}
	if wide == 0 {
		t.Error("nothing but ASCII: this test has tested nothing")
	}
}

func TestStreamFalse(t *testing.T) {
	d := serve(t, "--model-path", "builtin:chain")
	c := d.client()
	c.send(prompt("q", "w", `,"stream":false`))
	if got := c.next(); got.Type != "done" || got.Content != "xyz" || got.Usage.Completion != 3 {
		t.Errorf("got %+v", got)
	}
}

func TestConnections(t *testing.T) {
	d := serve(t, "--model-path", "builtin:chain")
	t.Run("pipelined requests are answered in order", func(t *testing.T) {
		c := d.client()
		c.send(prompt("1", "w", "") + "\n" + prompt("2", "x", "") + "\n" + prompt("3", "y", ""))
		for i, want := range []string{"xyz", "yz", "z"} {
			if text, end := c.answer(); text != want || end.ID != fmt.Sprint(i+1) {
				t.Errorf("answer %d: %q, %+v", i+1, text, end)
			}
		}
	})
	t.Run("a half-closed client gets its whole answer", func(t *testing.T) {
		c := d.client()
		if _, err := c.Write([]byte(prompt("1", "a", ""))); err != nil { // without a newline
			t.Fatal(err)
		}
		_ = c.CloseWrite()
		if text, end := c.answer(); text != "bcdefghijklmnopqrstuvwxyz" || end.Type != "done" {
			t.Errorf("%q, %+v", text, end)
		}
		if got := c.next(); got.Type != "EOF" {
			t.Errorf("then %+v", got)
		}
	})
	t.Run("invalid JSON ends the connection with an error", func(t *testing.T) {
		for _, line := range []string{"{not json}", "", "[]", `{"messages":5}`, `{"id":"x"}`, `{"messages":[{"role":"tool","content":""}]}`, "{\"id\":\"\xff\",\"messages\":[]}"} {
			c := d.client()
			c.send(line)
			if got := c.next(); got.Type != "error" || got.Code != "invalid_request" || got.ID != "" {
				t.Errorf("%q: %+v", line, got)
			}
			if got := c.next(); got.Type != "EOF" {
				t.Errorf("%q: then %+v", line, got)
			}
		}
	})
	t.Run("a byte at a time", func(t *testing.T) {
		c := d.client()
		for _, b := range []byte(prompt("1", "é w", "") + "\r\n") {
			if _, err := c.Write([]byte{b}); err != nil {
				t.Fatal(err)
			}
		}
		if text, end := c.answer(); text != "xyz" || end.Type != "done" {
			t.Errorf("%q, %+v", text, end)
		}
	})
	d.works()
}

// Of fourteen streams on four slots, four run and ten wait. Then the queue is full, and the
// fifteenth is refused at once.
func TestFourRunTheOthersWait(t *testing.T) {
	d := serve(t, "--model-path", "builtin:loop", "--n-ctx", "4096")
	var clients []*client
	for i := range 14 {
		c := d.client()
		c.send(prompt(fmt.Sprint(i), "a", `,"max_tokens":100000`))
		clients = append(clients, c)
		if i < 4 {
			if r := c.next(); r.Type != "token" {
				t.Fatalf("stream %d: %+v", i, r)
			}
		} else {
			d.admitted(i)
		}
	}
	_, end := d.ask("a", "")
	if end.Code != "queue_full" || end.ID != "q" {
		t.Errorf("the fifteenth got %+v", end)
	}
	for i, c := range clients[4:] {
		if c.readable() {
			t.Errorf("stream %d is answered while four others run", i+4)
		}
	}
	// When a client hangs up, the oldest waiting request runs.
	_ = clients[0].Close()
	if r := clients[4].next(); r.Type != "token" {
		t.Errorf("stream 4: %+v", r)
	}
}

// admitted waits until i+1 requests run, wait, are stalled or have ended.
func (d *daemon) admitted(i int) {
	d.t.Helper()
	eventually(d.t, fmt.Sprintf("request %d is in", i), func() bool {
		s := d.stats()
		n := s.Running + s.Waiting + s.Stalled
		for _, b := range s.Backends {
			n += b.Requests
		}
		return n > i
	})
}

// readable reports whether the client has bytes to read.
func (c *client) readable() bool {
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	_, err := c.r.Peek(1)
	return err == nil
}

// A client that hangs up frees its slot, before and after its first token.
func TestHangUp(t *testing.T) {
	for name, text := range map[string]string{
		"in the middle of an answer": "a",
		"before the first token":     strings.Repeat("a", 7000),
	} {
		t.Run(name, func(t *testing.T) {
			d := serve(t, "--model-path", "builtin:loop", "--queue-depth", "0", "--n-slots", "1")
			for range 20 {
				c := d.client()
				c.send(prompt("q", text, `,"max_tokens":100000`))
				if text == "a" {
					if r := c.next(); r.Type == "EOF" {
						t.Fatal("no answer")
					}
				}
				_ = c.Close()
				eventually(t, "the slot is free", func() bool {
					_, end := d.ask("a", `,"max_tokens":1`)
					return end.Type == "done"
				})
			}
		})
	}
}

// A client that hangs up while its request is queued frees its place in the queue.
func TestHangUpInTheQueue(t *testing.T) {
	d := serve(t, "--model-path", "builtin:loop", "--queue-depth", "1", "--n-slots", "1")
	runs := d.client()
	runs.send(prompt("1", "a", `,"max_tokens":100000`))
	runs.next()
	for range 5 {
		waits := d.client()
		eventually(t, "there is room in the queue", func() bool {
			waits.send(prompt("2", "a", ""))
			if waits.readable() {
				return waits.next().Code != "queue_full"
			}
			return true
		})
		_ = waits.Close()
	}
}

// If its deadline passes in the queue, a request is refused with queue_full. If it passes during
// the answer, the answer ends there.
func TestDeadline(t *testing.T) {
	d := mocked(t, `{"backends":[{"kind":"mock","name":"m","tokens":["x"],"token_delay_ms":600000,"n_slots":1}]}`)
	running := d.client()
	running.send(prompt("runs", "a", ""))
	eventually(t, "it runs", func() bool { return d.stats().Running == 1 })
	queued := d.client()
	queued.send(prompt("waits", "a", `,"deadline_ms":50`))
	if _, end := queued.answer(); end.Code != "queue_full" || end.ID != "waits" {
		t.Errorf("the waiting request got %+v", end)
	}
	_ = running.Close()
	eventually(t, "the slot is free", func() bool { return d.stats().Running == 0 })
	queued.send(prompt("is cut", "a", `,"deadline_ms":50`))
	if text, end := queued.answer(); end.Type != "done" || end.Reason != "cancelled" || text != "" || end.Usage.Completion != 0 {
		t.Errorf("the running request got %q, %+v", text, end)
	}
}

func TestMock(t *testing.T) {
	d := serve(t, "--backend", "mock")
	if text, end := d.ask("a", ""); text != "mock-response" || end.Backend != "mock" || end.Usage.Completion != 1 || end.Usage.Prompt != 0 {
		t.Errorf("%q, %+v", text, end)
	}
	if pids := d.engines(); len(pids) != 0 {
		t.Errorf("a mock needs no process, there are %v", pids)
	}
}

// A mock that is slow to become ready delays the daemon's start, as an engine does. If it takes too
// long, the start fails.
func TestSlowMock(t *testing.T) {
	config := func(ms int) string {
		return fmt.Sprintf(`{"backends":[{"kind":"mock","name":"m"},{"kind":"mock","name":"slow","ready_after_ms":%d}]}`, ms)
	}
	begin := time.Now()
	d := mocked(t, config(300))
	if took := time.Since(begin); took < 300*time.Millisecond {
		t.Errorf("ready after %s", took)
	}
	d.served("infer.sock")
	dir := shortdir.New(t)
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config(60_000_000)), 0o600); err != nil {
		t.Fatal(err)
	}
	late := start(t, dir, "--ready-timeout-secs", "1")
	if code := late.exit(); code != 1 || !strings.Contains(late.stderr.String(), "backend ready: mock of slow: backend not ready within 1s") {
		t.Errorf("exit %d, stderr %s", code, late.stderr)
	}
	if bound := late.bound(); len(bound) > 0 {
		t.Errorf("bound %q", bound)
	}
}

var _ net.Conn = (*client)(nil)

// personSchema is the schema of an object with a name and an age.
const personSchema = `{"type":"object","properties":{"name":{"type":"string"},"age":{"type":"integer","minimum":0,"maximum":150}},"required":["name","age"],"additionalProperties":false}`

// checkPerson checks that text satisfies personSchema.
func checkPerson(t *testing.T, where, text string) {
	t.Helper()
	var p struct {
		Name *string
		Age  *int
	}
	in := json.NewDecoder(strings.NewReader(text))
	in.DisallowUnknownFields()
	if err := in.Decode(&p); err != nil || p.Name == nil || p.Age == nil || *p.Age < 0 || *p.Age > 150 {
		t.Errorf("%s: %q, %v", where, text, err)
	}
}

// With a response format the answer satisfies the schema, even if max_tokens limits it: over v2 in
// both framings, with the Go client and with inferdctl. The terminal frame lists stop as ignored. v1
// has no schemas, only grammars.
func TestResponseFormats(t *testing.T) {
	d := serve(t, "--model-path", "builtin:tiny", "--n-ctx", "2048")
	for _, leaf := range []string{"infer.v2.sock", "inferd.sock"} {
		for most := 21; most < 40; most += 6 {
			for _, stream := range []bool{true, false} {
				p := d.peer(leaf)
				frames := p.askFrames("hello", fmt.Sprintf(`,"max_tokens":%d,"stop":["a"],"stream":%v,"response_format":{"type":"json_schema","schema":%s}`, most, stream, personSchema))
				checkPerson(t, leaf, textOf(frames))
				if got := fmt.Sprint(frames[len(frames)-1]["ignored"]); got != "[stop]" {
					t.Errorf("%s: ignored is %s", leaf, got)
				}
				frames = p.askFrames("hello", fmt.Sprintf(`,"max_tokens":%d,"response_format":{"type":"json_object"}`, most))
				var object map[string]json.RawMessage // numbers may exceed a float64
				if err := json.Unmarshal([]byte(textOf(frames)), &object); err != nil || frames[len(frames)-1]["ignored"] != nil {
					t.Errorf("%s: %q, %v", leaf, textOf(frames), err)
				}
			}
		}
	}
	c := inferd.Client{Dir: d.dir}
	req := inferd.Ask("hello")
	req.MaxTokens, req.Stop = 60, []string{"a"}
	req.Format.JSONSchema = []byte(personSchema)
	got, err := inferd.Collect(c.Generate(t.Context(), req))
	if err != nil || !got.StopIgnored {
		t.Fatalf("%+v, %v", got, err)
	}
	checkPerson(t, "the Go client", got.Text)
	if _, err := inferd.Collect(c.GenerateV1(t.Context(), req)); err == nil || !strings.Contains(err.Error(), "v1 cannot ask for JSON") {
		t.Errorf("v1: %v", err)
	}
	text, end := d.ask("hello", `,"max_tokens":5,"stop":["c"],"grammar":"root ::= \"ab\" [cd]{3}"`)
	if len(text) != 5 || !strings.HasPrefix(text, "ab") || strings.Trim(text[2:], "cd") != "" {
		t.Errorf("v1: %q, %+v", text, end)
	}
	file := filepath.Join(t.TempDir(), "person.json")
	if err := os.WriteFile(file, []byte(personSchema), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, at := range d.addresses() {
		out, errs, code := d.ctlAt(at, "chat", "-m", "hello", "--schema", file, "--max-tokens", "40")
		if code != 0 || errs != "" {
			t.Errorf("inferdctl %s: exit code %d, %s", at, code, errs)
		}
		checkPerson(t, "inferdctl "+at[0], out)
	}
}
