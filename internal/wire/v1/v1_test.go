package v1_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
	v1 "github.com/inferd-go/inferd/internal/wire/v1"
)

func codec(in string, out io.Writer) *v1.Codec {
	return &v1.Codec{R: frame.Lines.NewReader(strings.NewReader(in), frame.Limit), W: frame.Lines.NewWriter(out)}
}

// ask returns a request with one message. more is appended to its members.
func ask(more string) string { return `{"messages":[{"role":"user","content":"hi"}]` + more + "}" }

// asked returns the request that ask("") encodes, modified by change.
func asked(change func(*infer.Generate)) *infer.Request {
	gen := &infer.Generate{
		Thinking: infer.ThinkOff,
		Messages: []infer.Message{infer.TextMessage(infer.User, "hi")},
		Defaults: infer.Defaults{
			MaxTokens: 1000,
			Sampling:  infer.Sampling{Temperature: new(1.0), TopK: new(64), TopP: new(0.95)},
		},
	}
	change(gen)
	return &infer.Request{Task: gen}
}

func TestRead(t *testing.T) {
	seed := uint32(1<<32 - 1)
	same := func(*infer.Generate) {}
	for name, test := range map[string]struct {
		in   string
		want func(*infer.Generate)
	}{
		"defaults": {ask(""), same},
		"null means missing": {ask(`,"id":null,"temperature":null,"top_p":null,"top_k":null,"max_tokens":null,"stream":null,
			"image_token_budget":null,"grammar":null,"stop":null,"seed":null,"min_p":null,"repeat_penalty":null,"presence_penalty":null,
			"frequency_penalty":null,"model":null,"priority":null,"client":null,"deadline_ms":null`), same},
		"unknown members": {`{"x":[],"messages":[{"y":{},"role":"user","content":"hi"}],"Temperature":"hot"}`, same},
		"every member": {ask(`,"temperature":0.5,"top_p":0.25,"top_k":7,"max_tokens":9,"stream":false,"image_token_budget":70,
			"grammar":"root ::= \"a\"","stop":["x","y"],"seed":4294967295,"min_p":0.125,"repeat_penalty":1.5,"presence_penalty":-1,
			"frequency_penalty":2,"model":"gen"`), func(g *infer.Generate) {
			g.MaxTokens, g.Format.Grammar, g.Stop, g.Model = 9, `root ::= "a"`, []string{"x", "y"}, "gen"
			g.Sampling = infer.Sampling{
				Temperature: new(0.5), TopP: new(0.25), TopK: new(7), MinP: new(0.125), RepeatPenalty: new(1.5),
				PresencePenalty: new(-1.0), FrequencyPenalty: new(2.0), Seed: &seed,
			}
		}},
		"a conversation": {
			`{"messages":[{"role":"system","content":""},{"role":"user","content":"é"},{"role":"assistant","content":"\n"}]}`,
			func(g *infer.Generate) {
				g.Messages = []infer.Message{infer.TextMessage(infer.System, ""), infer.TextMessage(infer.User, "é"), infer.TextMessage(infer.Assistant, "\n")}
			},
		},
		"greedy":                               {ask(`,"temperature":0,"top_k":0`), func(g *infer.Generate) { g.Sampling.Temperature, g.Sampling.TopK = new(0.0), new(0) }},
		"top_p 0 is the strictest limit":       {ask(`,"top_p":0`), func(g *infer.Generate) { g.Sampling.TopP = new(1e-6) }},
		"top_p above 1 is no limit":            {ask(`,"top_p":1.5`), func(g *infer.Generate) { g.Sampling.TopP = new(1.5) }},
		"no stop":                              {ask(`,"stop":[]`), same},
		"the most and the longest stops":       {ask(`,"stop":[` + list(16, strings.Repeat("é", 128)) + `]`), func(g *infer.Generate) { g.Stop = many(16, strings.Repeat("é", 128)) }},
		"the most tokens":                      {ask(`,"max_tokens":4294967295`), func(g *infer.Generate) { g.MaxTokens = 1<<32 - 1 }},
		"the largest grammar":                  {ask(`,"grammar":"` + strings.Repeat("a", 64<<10) + `"`), func(g *infer.Generate) { g.Format.Grammar = strings.Repeat("a", 64<<10) }},
		"the most alternatives":                {ask(`,"grammar":"` + strings.Repeat("|", 4096) + `"`), func(g *infer.Generate) { g.Format.Grammar = strings.Repeat("|", 4096) }},
		"a carriage return before the newline": {ask("") + "\r", same},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := codec(strings.ReplaceAll(test.in, "\n", " "), io.Discard).Read()
			if diff := cmp.Diff(asked(test.want), got, cmpopts.IgnoreTypes(infer.Pause{})); err != nil || diff != "" {
				t.Errorf("%v, -want +got\n%s", err, diff)
			}
		})
	}
}

// A counter counts writes.
type counter struct{ writes int }

func (c *counter) Write(p []byte) (int, error) { c.writes++; return len(p), nil }

// A text with More is sent in one write with the next message, even if that is a failure.
func TestWrites(t *testing.T) {
	for _, fails := range []bool{false, true} {
		out := new(counter)
		c := codec(ask(""), out)
		if _, err := c.Read(); err != nil {
			t.Fatal(err)
		}
		for i, test := range []struct {
			more bool
			want int
		}{{false, 1}, {true, 1}, {true, 1}} {
			if err := c.Write(&infer.Text{Delta: []byte("a"), More: test.more}); err != nil || out.writes != test.want {
				t.Errorf("after text %d: %d writes, want %d; %v", i, out.writes, test.want, err)
			}
		}
		end := func() error { return c.Write(&infer.Done{Reason: infer.EndOfTurn}) }
		if fails {
			end = func() error { return c.Fail(errors.New("x")) }
		}
		if err := end(); err != nil || out.writes != 2 {
			t.Errorf("at the end: %d writes, %v", out.writes, err)
		}
	}
}

func list(n int, s string) string {
	return strings.TrimSuffix(strings.Repeat(`"`+s+`",`, n), ",")
}

func many(n int, s string) []string {
	var all []string
	for range n {
		all = append(all, s)
	}
	return all
}

// Invalid values are refused with the ID of the request, and the connection stays open.
func TestInvalid(t *testing.T) {
	for name, test := range map[string]struct{ in, want string }{
		"no messages":                 {`{"id":"q","messages":[]}`, "messages must not be empty"},
		"an image budget":             {ask(`,"id":"q","image_token_budget":999`), "image_token_budget 999 not in [70, 140, 280, 560, 1120]"},
		"an image budget of 0":        {ask(`,"id":"q","image_token_budget":0`), "image_token_budget 0 not in [70, 140, 280, 560, 1120]"},
		"no tokens":                   {ask(`,"id":"q","max_tokens":0`), "max_tokens must be at least 1"},
		"a negative temperature":      {ask(`,"id":"q","temperature":-0.1`), "temperature must be between 0 and 1000000"},
		"a huge temperature":          {ask(`,"id":"q","temperature":1e300`), "temperature must be between 0 and 1000000"},
		"a negative top_p":            {ask(`,"id":"q","top_p":-1`), "top_p must be between 0 and 1000000"},
		"a negative min_p":            {ask(`,"id":"q","min_p":-1`), "min_p must be between 0 and 1"},
		"a min_p above 1":             {ask(`,"id":"q","min_p":1.1`), "min_p must be between 0 and 1"},
		"a negative repeat_penalty":   {ask(`,"id":"q","repeat_penalty":-1`), "repeat_penalty must be between 0 and 1000000"},
		"a huge presence_penalty":     {ask(`,"id":"q","presence_penalty":-1e7`), "presence_penalty must be between -1000000 and 1000000"},
		"a huge frequency_penalty":    {ask(`,"id":"q","frequency_penalty":1e7`), "frequency_penalty must be between -1000000 and 1000000"},
		"too many stops":              {ask(`,"id":"q","stop":[` + list(17, "a") + `]`), "stop has 17 strings, at most 16 are allowed"},
		"an empty stop":               {ask(`,"id":"q","stop":["a",""]`), "stop[1] has 0 bytes, it must have 1 to 256"},
		"a stop that is too long":     {ask(`,"id":"q","stop":["` + strings.Repeat("a", 257) + `"]`), "stop[0] has 257 bytes, it must have 1 to 256"},
		"a grammar that is too large": {ask(`,"id":"q","grammar":"` + strings.Repeat("a", 64<<10+1) + `"`), "grammar has 65537 bytes, at most 65536 are allowed"},
		"a grammar with a NUL":        {ask(`,"id":"q","grammar":"root ::= \"x\"\u0000"`), "grammar has a NUL at byte 12"},
		"too many alternatives":       {ask(`,"id":"q","grammar":"` + strings.Repeat("|", 4097) + `"`), "grammar has 4097 alternatives, at most 4096 are allowed"},
		"an unknown priority":         {ask(`,"id":"q","priority":"high"`), "priority must be one of: normal, background"},
		"a client that is too long":   {ask(`,"id":"q","client":"` + strings.Repeat("c", 65) + `"`), "client has 65 bytes, at most 64 are allowed"},
		"a deadline of 0":             {ask(`,"id":"q","deadline_ms":0`), "deadline_ms must be at least 1"},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			c := codec(test.in+"\n"+ask("")+"\n", &out)
			_, err := c.Read()
			if _, ok := errors.AsType[*infer.Error](err); !ok {
				t.Fatalf("Read: %v", err)
			}
			if err := c.Fail(err); err != nil {
				t.Fatal(err)
			}
			want := `{"type":"error","id":"q","code":"invalid_request","message":"invalid request: ` + test.want + `"}` + "\n"
			if diff := cmp.Diff(want, out.String()); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if _, err := c.Read(); err != nil {
				t.Errorf("the next request: %v", err)
			}
		})
	}
}

// Malformed requests are refused without an ID, even if they have one.
func TestMalformed(t *testing.T) {
	for name, test := range map[string]struct{ in, want string }{
		"null":                 {"null", `"messages" is missing or null`},
		"no messages":          {`{"id":"q"}`, `"messages" is missing or null`},
		"null messages":        {`{"id":"q","messages":null}`, `"messages" is missing or null`},
		"another case":         {`{"id":"q","Messages":[]}`, `"messages" is missing or null`},
		"messages of a number": {`{"id":"q","messages":5}`, `"/messages" at byte 21 has the wrong type or is out of range: it must be an array`},
		"a message of null":    {`{"id":"q","messages":[null]}`, "messages[0].role is not one of system, user, assistant"},
		"no role":              {`{"id":"q","messages":[{"content":""}]}`, "messages[0].role is not one of system, user, assistant"},
		"an unknown role":      {`{"id":"q","messages":[{"role":"user","content":""},{"role":"tool","content":""}]}`, "messages[1].role is not one of system, user, assistant"},
		"a role in capitals":   {`{"id":"q","messages":[{"role":"User","content":""}]}`, "messages[0].role is not one of system, user, assistant"},
		"no content":           {`{"id":"q","messages":[{"role":"user"}]}`, `"messages[0].content" is missing or null`},
		"null content":         {`{"id":"q","messages":[{"role":"user","content":null}]}`, `"messages[0].content" is missing or null`},
		"content in blocks":    {`{"id":"q","messages":[{"role":"user","content":[]}]}`, `"/messages/0/content" at byte 47 has the wrong type or is out of range: it must be a string`},
		"a stop of null":       {ask(`,"id":"q","stop":["a",null]`), "stop[1] is null"},
		"a stop of a string":   {ask(`,"id":"q","stop":"a"`), `"/stop" at byte 61 has the wrong type or is out of range: it must be an array`},
		"a top_k of a string":  {ask(`,"id":"q","top_k":"1"`), `"/top_k" at byte 62 has the wrong type or is out of range: it must be a whole number`},
		"an exponent":          {ask(`,"id":"q","top_k":1e1`), `"/top_k" at byte 62 has the wrong type or is out of range: it must be a whole number`},
		"a fractional seed":    {ask(`,"id":"q","seed":7.5`), `"/seed" at byte 61 has the wrong type or is out of range: it must be a whole number`},
		"a fraction of tokens": {ask(`,"id":"q","max_tokens":1.5`), `"/max_tokens" at byte 67 has the wrong type or is out of range: it must be a whole number`},
		"an id of a number":    {ask(`,"id":5`), `"/id" at byte 50 has the wrong type or is out of range: it must be a string`},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			c := codec(test.in, &out)
			_, err := c.Read()
			if _, ok := errors.AsType[*wire.FatalError](err); !ok {
				t.Fatalf("Read: %v", err)
			}
			if err := c.Fail(err); err != nil {
				t.Fatal(err)
			}
			want := string(wire.AppendString(nil, "decode: "+test.want))
			want = `{"type":"error","id":"","code":"invalid_request","message":` + want + "}\n"
			if diff := cmp.Diff(want, out.String()); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// A failure has the ID of its request, or an empty one, but never the ID of an earlier request.
func TestIDs(t *testing.T) {
	long := strings.Repeat("i", wire.MaxID)
	for name, test := range map[string]struct{ in, want string }{
		"any character": {ask(`,"id":"é\u0000\"<\u2028"`), `"é\u0000\"<` + "\u2028" + `"`},
		"the longest":   {ask(`,"id":"` + long + `"`), `"` + long + `"`},
		"too long":      {ask(`,"id":"` + long + `i"`), `""`},
		"none":          {ask(""), `""`},
		"broken input":  {"{", `""`},
		"a number":      {ask(`,"id":5`), `""`},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			c := codec(ask(`,"id":"first"`)+"\n"+test.in, &out)
			if _, err := c.Read(); err != nil {
				t.Fatal(err)
			}
			_, _ = c.Read()
			if err := c.Fail(infer.Errorf(infer.Busy, "queue full")); err != nil {
				t.Fatal(err)
			}
			want := `{"type":"error","id":` + test.want + `,"code":"queue_full","message":"queue full"}` + "\n"
			if diff := cmp.Diff(want, out.String()); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func text(s string) infer.Event { return &infer.Text{Delta: []byte(s)} }

func TestWrite(t *testing.T) {
	for name, test := range map[string]struct {
		more   string
		events []infer.Event
		want   string
	}{
		"tokens and the whole answer": {
			`,"id":"r1"`,
			[]infer.Event{text("Hel"), text("lo"), &infer.Done{Reason: infer.EndOfTurn, In: 5, Out: 2, Backend: "mock"}},
			`{"type":"token","id":"r1","content":"Hel"}
{"type":"token","id":"r1","content":"lo"}
{"type":"done","id":"r1","content":"Hello","usage":{"prompt_tokens":5,"completion_tokens":2},"stop_reason":"end","backend":"mock"}
`,
		},
		"an empty answer": {
			"",
			[]infer.Event{&infer.Done{Reason: infer.Length}},
			`{"type":"done","id":"","content":"","usage":{"prompt_tokens":0,"completion_tokens":0},"stop_reason":"length","backend":""}
`,
		},
		"characters of all kinds": {
			`,"id":"<\u2028>"`,
			[]infer.Event{text("<a href=\"x\">&\u2028é😀\n\t\x00\\"), &infer.Done{Reason: infer.StopSequence, Backend: "a\"b"}},
			`{"type":"token","id":"<` + "\u2028" + `>","content":"<a href=\"x\">&` + "\u2028" + `é😀\n\t\u0000\\"}
{"type":"done","id":"<` + "\u2028" + `>","content":"<a href=\"x\">&` + "\u2028" + `é😀\n\t\u0000\\","usage":{"prompt_tokens":0,"completion_tokens":0},"stop_reason":"end","backend":"a\"b"}
`,
		},
		"without stream": {
			`,"id":"1","stream":false`,
			[]infer.Event{text("Hel"), text("lo"), &infer.Done{Reason: infer.Canceled, In: 1, Out: 2, Backend: "mock"}},
			`{"type":"done","id":"1","content":"Hello","usage":{"prompt_tokens":1,"completion_tokens":2},"stop_reason":"cancelled","backend":"mock"}
`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			// The second answer does not repeat the text of the first.
			c := codec(ask(`,"id":"zero","stream":false`)+"\n"+ask(test.more), &out)
			_, err1 := c.Read()
			err2 := c.Write(text("before"))
			_, err3 := c.Read()
			if err := errors.Join(err1, err2, err3); err != nil {
				t.Fatal(err)
			}
			for _, ev := range test.events {
				if err := c.Write(ev); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(test.want, out.String()); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestFail(t *testing.T) {
	for name, test := range map[string]struct {
		err  error
		want string
	}{
		"an error":      {infer.Errorf(infer.Unavailable, "backend not ready"), `"backend_unavailable","message":"backend not ready"`},
		"a quotation":   {infer.Errorf(infer.Invalid, "no %q", "<x>"), `"invalid_request","message":"no \"<x>\""`},
		"another error": {errors.New("/home/me/model.gguf"), `"internal","message":"internal error"`},
		"a fault":       {infer.Errorf(infer.Internal, "out of cheese"), `"internal","message":"out of cheese"`},
		"a broken line": {wire.Missing("messages"), `"invalid_request","message":"decode: \"messages\" is missing or null"`},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			c := codec(ask(`,"id":"1"`), &out)
			if _, err := c.Read(); err != nil {
				t.Fatal(err)
			}
			if err := c.Fail(test.err); err != nil {
				t.Fatal(err)
			}
			if got, want := out.String(), `{"type":"error","id":"1","code":`+test.want+"}\n"; got != want {
				t.Errorf("\n got %s\nwant %s", got, want)
			}
		})
	}
}

// An answer that is too large for the Done, which repeats it, fails as a whole.
func TestAnswerTooLarge(t *testing.T) {
	if testing.Short() {
		t.Skip("copies hundreds of megabytes")
	}
	for name, piece := range map[string]string{"plain": strings.Repeat("a", 32<<20), "escaped": strings.Repeat("\x00", 6<<20)} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			c := codec(ask(`,"id":"1","stream":false`), &out)
			if _, err := c.Read(); err != nil {
				t.Fatal(err)
			}
			var err error
			for range 2 {
				err = errors.Join(err, c.Write(text(piece)))
			}
			if err != nil {
				t.Fatal(err)
			}
			err = c.Write(&infer.Done{Reason: infer.EndOfTurn})
			if infer.CodeOf(err) != infer.TooLarge || out.Len() != 0 {
				t.Errorf("Write: %v, and %d bytes were sent", err, out.Len())
			}
			if name == "plain" {
				if err := c.Write(text(strings.Repeat(piece, 5))); infer.CodeOf(err) != infer.TooLarge {
					t.Errorf("still more: %v", err)
				}
			}
			if err := c.Fail(err); err != nil || !strings.Contains(out.String(), `"id":"1","code":"frame_too_large"`) {
				t.Errorf("Fail: %v, %s", err, &out)
			}
		})
	}
}

func TestTokensDoNotAllocate(t *testing.T) {
	c := codec(ask(`,"id":"a long enough id with \"quotes\" in it"`), io.Discard)
	if _, err := c.Read(); err != nil {
		t.Fatal(err)
	}
	ev := &infer.Text{Delta: []byte("a \"token\"\n")}
	write := func() {
		if err := c.Write(ev); err != nil {
			t.Error(err)
		}
	}
	// The answer is kept for the Done. Its buffer must grow before the measurement.
	for range 20_000 {
		write()
	}
	if n := testing.AllocsPerRun(1000, write); n != 0 {
		t.Errorf("%v allocations a token", n)
	}
}

func BenchmarkToken(b *testing.B) {
	c := codec(ask(`,"id":"1"`), io.Discard)
	ev := &infer.Text{Delta: []byte(" token")}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%10_000 == 0 {
			c.R = frame.Lines.NewReader(strings.NewReader(ask("")), frame.Limit)
			if _, err := c.Read(); err != nil {
				b.Fatal(err)
			}
		}
		if err := c.Write(ev); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzRead passes any bytes to the server half. Each failure is one message, and accepted requests
// are within the limits.
func FuzzRead(f *testing.F) {
	f.Add(ask(`,"id":"1","stop":["a"],"seed":1,"max_tokens":5,"temperature":0.5,"deadline_ms":null`))
	f.Add(`{"messages":[{"role":"tool"}]}`)
	f.Fuzz(func(t *testing.T, in string) {
		var out bytes.Buffer
		c := codec(in, &out)
		for {
			req, err := c.Read()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				if err := c.Fail(err); err != nil || bytes.Count(out.Bytes(), []byte("\n")) != 1 {
					t.Fatalf("Fail: %v, %q", err, &out)
				}
				out.Reset()
				if _, ok := errors.AsType[*wire.FatalError](err); ok {
					return
				}
				continue
			}
			gen, ok := req.Task.(*infer.Generate)
			whole := gen.Settled()
			if !ok || len(gen.Messages) == 0 || whole.MaxTokens < 1 || len(gen.Stop) > 16 || *whole.Sampling.Temperature < 0 ||
				len(req.ID) > wire.MaxID || *whole.Sampling.TopP <= 0 {
				t.Fatalf("accepted %+v", gen)
			}
		}
	})
}

func ExampleAsk() {
	out := frame.Lines.NewWriter(io.Discard)
	in := frame.Lines.NewReader(strings.NewReader(`{"type":"token","content":"Hello"}
{"type":"done","content":"Hello","usage":{"prompt_tokens":1,"completion_tokens":1},"stop_reason":"end","backend":"mock"}`), frame.Limit)
	err := v1.Ask(in, out, asked(func(*infer.Generate) {}), true, func(ev infer.Event) error {
		switch ev := ev.(type) {
		case *infer.Text:
			fmt.Printf("%s", ev.Delta)
		case *infer.Done:
			fmt.Printf(" (%s after %d token)\n", ev.Reason, ev.Out)
		}
		return nil
	})
	fmt.Println(err)
	// Output:
	// Hello (end of turn after 1 token)
	// <nil>
}
