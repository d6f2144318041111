package v2_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
	v2 "github.com/inferd-go/inferd/internal/wire/v2"
)

// The exact bytes of messages are tested by the corpus, in spec/corpus/v2 and spec/corpus/lp.

func framing(blobs bool) frame.Framing {
	if blobs {
		return frame.Prefixed
	}
	return frame.Lines
}

func codec(blobs bool, in io.Reader, out io.Writer) *v2.Codec {
	f := framing(blobs)
	return &v2.Codec{R: f.NewReader(in, frame.Limit), W: f.NewWriter(out), Blobs: blobs}
}

// asked returns a request with nearly all members that a conversation may have.
func asked() *infer.Request {
	seed := uint32(7)
	return &infer.Request{ID: "é", Client: "me", CacheSalt: "pepper", LocalOnly: true, Traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", Background: true, Task: &infer.Generate{
		Blocks: true, OneCall: true, Defaults: wire.Defaults(1024), Model: "gen", MaxTokens: 9, Stop: []string{"x"}, Thinking: infer.ThinkOn, ThinkingBudget: 5, Logprobs: 3,
		Messages: []infer.Message{
			infer.TextMessage(infer.System, ""),
			{Role: infer.User, Content: []infer.Part{&infer.TextPart{Text: "see"}, &infer.MediaPart{Attachment: "a"}, &infer.MediaPart{Attachment: "b"}}},
			{Role: infer.Assistant, Content: []infer.Part{&infer.ThinkingPart{Text: "hm"}, &infer.CallPart{ID: "c", Name: "f", Input: []byte(`{"x":[1,null]}`)}}},
			{Role: infer.User, Content: []infer.Part{&infer.ResultPart{ID: "c", Content: []infer.Part{&infer.TextPart{Text: "r"}, &infer.MediaPart{Attachment: "a"}}, Failed: true}}},
		},
		Attachments: []infer.Attachment{
			{ID: "a", Kind: infer.Image, Width: 2, Height: 1, Data: []byte{1, 2, 3, 4, 5, 6}},
			{ID: "b", Kind: infer.Audio, SampleRate: 16000, Data: bytes.Repeat([]byte{0xff, 0}, 5000)},
			{ID: "c", Kind: infer.Video, Data: []byte{}},
		},
		Tools:  []infer.Tool{{Name: "f", Description: "d", Schema: []byte(`{"type":"object"}`)}, {Name: "g"}},
		Choice: infer.ToolChoice{Mode: infer.ToolNamed, Tool: "f"},
		Format: infer.Format{Grammar: "root ::= \"a\""},
		Sampling: infer.Sampling{
			Temperature: new(0.5), TopK: new(3), TopP: new(0.9), MinP: new(0.1), RepeatPenalty: new(1.1), PresencePenalty: new(-1.0), FrequencyPenalty: new(1.0), Seed: &seed,
			LogitBias: map[int]float64{5: -100, 6: 0.5},
		},
	}}
}

// exchange sends req to a codec, which answers with events, and then with failure if it is not nil.
// It returns the request that the codec read, the events that Ask emitted, and the error of Read or
// Ask.
func exchange(t *testing.T, blobs, stream bool, req *infer.Request, events []infer.Event, failure error) (*infer.Request, []infer.Event, error) {
	t.Helper()
	var question, answer bytes.Buffer
	f := framing(blobs)
	err := v2.Ask(f.NewReader(&answer, frame.Limit), f.NewWriter(&question), blobs, req, stream, nil)
	if !errors.Is(err, io.EOF) {
		t.Fatalf("Ask: %v", err)
	}
	c := codec(blobs, bytes.NewReader(question.Bytes()), &answer)
	read, err := c.Read()
	if err != nil {
		return nil, nil, err
	}
	for _, ev := range events {
		if err := c.Write(ev); err != nil {
			t.Fatalf("Write: %v", err)
		}
	}
	if failure != nil {
		if err := c.Fail(failure); err != nil {
			t.Fatalf("Fail: %v", err)
		}
	}
	var got []infer.Event
	err = v2.Ask(f.NewReader(&answer, frame.Limit), f.NewWriter(io.Discard), blobs, req, stream, func(ev infer.Event) error {
		got = append(got, ev)
		return nil
	})
	return read, got, err
}

// likely returns logprobs of three tokens: a whole character and two parts of another one. An
// alternative is an empty text.
func likely() []infer.Logprob {
	half, rest := infer.Candidate{ID: 195, Piece: []byte{0xc3}, Logprob: -0.125}, infer.Candidate{ID: 169, Piece: []byte{0xa9}}
	return []infer.Logprob{
		{Candidate: infer.Candidate{ID: 7, Piece: []byte("<"), Logprob: -1.5}, Top: []infer.Candidate{half, {ID: 7, Piece: []byte("<"), Logprob: -1.5}}},
		{Candidate: half},
		{Candidate: rest, Top: []infer.Candidate{rest, {ID: 300, Piece: []byte{}, Logprob: infer.LeastLogprob}}},
	}
}

func answers() []infer.Event {
	return []infer.Event{
		&infer.Prompt{Tokens: 5, Cached: 4},
		&infer.Thinking{Delta: []byte("hm")},
		&infer.Text{Delta: []byte("<é"), Logprobs: likely()[:2]},
		&infer.Text{Delta: []byte("\n\""), Logprobs: likely()[2:]},
		&infer.ToolCall{ID: "tc-1", Name: "f", Input: []byte(`{"x":1}`)},
		&infer.Done{
			Reason: infer.CalledTool, In: 5, Cached: 4, Out: 7, Backend: "mock",
			Timings: infer.Timings{Queue: 0, Prefill: 1500 * time.Microsecond, Decode: 2 * time.Second},
		},
	}
}

func TestBothHalves(t *testing.T) {
	for _, blobs := range []bool{false, true} {
		for _, stream := range []bool{false, true} {
			t.Run(fmt.Sprintf("blobs %v, stream %v", blobs, stream), func(t *testing.T) {
				want := answers()
				if !stream {
					want = []infer.Event{want[0], want[1], &infer.Text{Delta: []byte("<é\n\""), Logprobs: likely()}, want[4], want[5]}
				}
				read, got, err := exchange(t, blobs, stream, asked(), answers(), nil)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(asked(), read, cmpopts.IgnoreTypes(infer.Pause{})); diff != "" {
					t.Errorf("asked: -want +got\n%s", diff)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("answered: -want +got\n%s", diff)
				}
			})
		}
	}
}

// The error for a member of the wrong type names the right type.
func TestExpected(t *testing.T) {
	const choice = `it must be auto, required, none or {"type":"tool","name":NAME}`
	for more, want := range map[string]string{
		`"tool_choice":{"type":"tool"}`:                             choice,
		`"tool_choice":{"type":"function","function":{"name":"f"}}`: choice,
		`"tool_choice":7`:                             choice,
		`"tool_choice":{"type":"tool","name":7}`:      `"/tool_choice/name" at byte 37 has the wrong type or is out of range: it must be a string`,
		`"thinking":"on"`:                             "it must be true or false",
		`"thinking_budget":"9"`:                       "it must be a whole number",
		`"tools":{}`:                                  "it must be an array",
		`"response_format":"json_schema"`:             "it must be an object",
		`"messages":[{"role":"user","content":"hi"}]`: "it must be an array",
	} {
		_, err := codec(false, strings.NewReader("{"+more+"}\n"), io.Discard).Read()
		if err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s: %v, want %s", more, err, want)
		}
	}
}

// Members that a request lacks are not sent, so that the daemon applies its own defaults.
func TestAbsentMembers(t *testing.T) {
	for name, task := range map[string]*infer.Generate{
		"messages": {Messages: []infer.Message{infer.TextMessage(infer.User, "hi")}},
		"a prompt": {Prompt: new("once"), Format: infer.Format{JSONObject: true}},
		"a gap":    {Prompt: new(""), Suffix: new("end")},
	} {
		task.Blocks, task.Defaults = true, wire.Defaults(1024)
		for _, of := range []infer.Task{task, &infer.Count{Of: task}} {
			req := &infer.Request{Task: of}
			done := []infer.Event{&infer.Done{Reason: infer.EndOfTurn, In: 3, Backend: "mock"}}
			read, got, err := exchange(t, true, true, req, done, nil)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(req, read, cmpopts.IgnoreTypes(infer.Pause{})); diff != "" {
				t.Errorf("%s, %T: -want +got\n%s", name, of, diff)
			}
			if diff := cmp.Diff(done, got); diff != "" {
				t.Errorf("%s, %T: -want +got\n%s", name, of, diff)
			}
		}
	}
}

func TestFailuresKeepTheirCode(t *testing.T) {
	for _, code := range []infer.Code{infer.Invalid, infer.TooLarge, infer.Busy, infer.Unavailable, infer.Internal, infer.Unsupported, infer.Malformed} {
		_, _, err := exchange(t, true, true, asked(), answers()[:2], infer.Errorf(code, "why"))
		if infer.CodeOf(err) != code || err.Error() != "why" {
			t.Errorf("%s was decoded as %v (%s)", code, err, infer.CodeOf(err))
		}
	}
}

func TestUnknownEvents(t *testing.T) {
	for _, ev := range []infer.Event{&infer.Vectors{}, &infer.Scores{}} {
		if err := codec(false, strings.NewReader(""), io.Discard).Write(ev); infer.CodeOf(err) != infer.Internal {
			t.Errorf("%T: %v", ev, err)
		}
	}
}

// Reading an attachment allocates at most 1.1 times its size if it is a blob, and 2.5 times its size if
// it is base64 in a line: blobs are held once, and base64 is decoded in place.
func TestMemoryOfAttachments(t *testing.T) {
	if testing.Short() {
		t.Skip("copies 300 MB")
	}
	const mib = 1 << 20
	allocated := func(read func()) uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		read()
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	const ask = `{"wire_version":1,"messages":[{"role":"user","content":[{"type":"image","attachment_id":"i"}]}],"attachments":[{"kind":"image","id":"i"%s}]}`
	for name, test := range map[string]struct {
		blobs bool
		size  int
		most  float64 // the most memory allocated, in sizes of the attachment
	}{"a blob": {true, 48 * mib, 1.1}, "a line": {false, 40 * mib, 2.5}} {
		t.Run(name, func(t *testing.T) {
			var in bytes.Buffer
			data := bytes.Repeat([]byte("0123456789abcdef"), test.size/16)
			if test.blobs {
				for _, msg := range []string{fmt.Sprintf(ask, ""), fmt.Sprintf(`{"type":"attachment_blob","attachment_id":"i","len":%d}`, test.size)} {
					in.Write(frame.AppendHead(nil, frame.JSON, len(msg)))
					in.WriteString(msg)
				}
				in.Write(frame.AppendHead(nil, frame.Blob, test.size))
				in.Write(data)
			} else {
				fmt.Fprintf(&in, ask, `,"bytes":"`+base64.StdEncoding.EncodeToString(data)+`"`)
			}
			c := codec(test.blobs, &in, io.Discard)
			var req *infer.Request
			var err error
			n := allocated(func() { req, err = c.Read() })
			if err != nil || !bytes.Equal(req.Task.(*infer.Generate).Attachments[0].Data, data) {
				t.Fatalf("Read: %v", err)
			}
			if ratio := float64(n) / float64(test.size); ratio > test.most {
				t.Errorf("allocated %.2f times the size", ratio)
			}
		})
	}
}

// Blobs of 128 MiB in total are accepted. One more byte is refused when its descriptor is read.
func TestTotalOfBlobs(t *testing.T) {
	if testing.Short() {
		t.Skip("reads 400 MB")
	}
	declare := func(n int) string {
		var ids []string
		for i := range n {
			ids = append(ids, fmt.Sprintf(`{"kind":"image","id":"%d"}`, i))
		}
		return `{"id":"q","wire_version":1,"messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}],"attachments":[` + strings.Join(ids, ",") + `]}`
	}
	head := func(msg string) io.Reader {
		return io.MultiReader(bytes.NewReader(frame.AppendHead(nil, frame.JSON, len(msg))), strings.NewReader(msg))
	}
	blob := func(id, size int) io.Reader {
		return io.MultiReader(head(fmt.Sprintf(`{"type":"attachment_blob","attachment_id":"%d","len":%d}`, id, size)),
			bytes.NewReader(frame.AppendHead(nil, frame.Blob, size)), io.LimitReader(zeros{}, int64(size)))
	}
	const half = 64 << 20
	var out bytes.Buffer
	c := codec(true, io.MultiReader(head(declare(3)), blob(0, half), blob(1, half), blob(2, 1)), &out)
	_, err := c.Read()
	if _, fatal := errors.AsType[*wire.FatalError](err); !fatal || infer.CodeOf(err) != infer.TooLarge {
		t.Fatalf("one byte more: %v", err)
	}
	if err := c.Fail(err); err != nil || !strings.Contains(out.String(), `"id":"q","code":"frame_too_large"`) {
		t.Errorf("sent %q, %v", &out, err)
	}
	c = codec(true, io.MultiReader(head(declare(3)), blob(0, half), blob(1, half), blob(2, 0)), &out)
	if req, err := c.Read(); err != nil || len(req.Task.(*infer.Generate).Attachments[1].Data) != half {
		t.Errorf("128 MiB: %v", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// Without stream, an answer that is too large is refused before any part of it is sent.
func TestAnswerTooLarge(t *testing.T) {
	var out bytes.Buffer
	c := codec(false, strings.NewReader(`{"messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}],"stream":false}`), &out)
	if _, err := c.Read(); err != nil {
		t.Fatal(err)
	}
	piece := &infer.Text{Delta: bytes.Repeat([]byte("a"), 32<<20)}
	err := errors.Join(c.Write(piece), c.Write(&infer.ToolCall{ID: "1", Name: "f", Input: []byte("{}")}))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Write(piece); infer.CodeOf(err) != infer.TooLarge || out.Len() > 0 {
		t.Errorf("Write: %v, %d bytes sent", err, out.Len())
	}
}

// In logprobs, a token that is only part of a character also has its bytes.
func TestLogprobs(t *testing.T) {
	var out bytes.Buffer
	c := codec(false, strings.NewReader(`{"id":"1","messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}],"logprobs":2}`), &out)
	req, err := c.Read()
	if err != nil || req.Task.(*infer.Generate).Logprobs != 2 {
		t.Fatal(req, err)
	}
	if err := c.Write(&infer.Text{Delta: []byte("<"), Logprobs: likely()[:2]}); err != nil {
		t.Fatal(err)
	}
	want := `{"type":"frame","id":"1","block":{"type":"text","delta":"<"},"logprobs":[` +
		`{"token":"<","id":7,"logprob":-1.5,"top":[{"token":"` + "\ufffd" + `","bytes":[195],"id":195,"logprob":-0.125},{"token":"<","id":7,"logprob":-1.5}]},` +
		`{"token":"` + "\ufffd" + `","bytes":[195],"id":195,"logprob":-0.125,"top":[]}]}` + "\n"
	if got := out.String(); got != want {
		t.Errorf("got  %swant %s", got, want)
	}
}

// A counter counts writes.
type counter struct{ writes int }

func (c *counter) Write(p []byte) (int, error) { c.writes++; return len(p), nil }

// A text with More is sent in one write with the next event. A withheld answer is sent in one write.
func TestWrites(t *testing.T) {
	for name, test := range map[string]struct {
		more, stream bool
		want         []int // number of writes after each event
	}{
		"a stream":               {false, true, []int{1, 2, 3}},
		"a stream with More set": {true, true, []int{0, 0, 1}},
		"withheld":               {false, false, []int{0, 0, 1}},
	} {
		for _, blobs := range []bool{false, true} {
			var in bytes.Buffer
			msg := fmt.Sprintf(`{"wire_version":1,"stream":%v,"messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}]}`, test.stream)
			if err := framing(blobs).NewWriter(&in).WriteFrame([]byte(msg)); err != nil {
				t.Fatal(err)
			}
			out := new(counter)
			c := codec(blobs, &in, out)
			if _, err := c.Read(); err != nil {
				t.Fatal(err)
			}
			text := &infer.Text{Delta: []byte("a"), Tokens: 1, More: test.more}
			for i, ev := range []infer.Event{text, text, &infer.Done{Reason: infer.EndOfTurn}} {
				if err := c.Write(ev); err != nil || out.writes != test.want[i] {
					t.Errorf("%s: after event %d: %d writes, want %d; %v", name, i, out.writes, test.want[i], err)
				}
			}
		}
	}
}

func TestTokensDoNotAllocate(t *testing.T) {
	for _, blobs := range []bool{false, true} {
		const ask = `{"id":"a long enough id","wire_version":1,"messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}]}`
		in := []byte(ask + "\n")
		if blobs {
			in = append(frame.AppendHead(nil, frame.JSON, len(ask)), ask...)
		}
		c := codec(blobs, bytes.NewReader(in), io.Discard)
		if _, err := c.Read(); err != nil {
			t.Fatal(err)
		}
		ev := &infer.Text{Delta: []byte("a \"token\"\n")}
		if n := testing.AllocsPerRun(1000, func() {
			if err := c.Write(ev); err != nil {
				t.Error(err)
			}
		}); n != 0 {
			t.Errorf("%v allocations a token", n)
		}
	}
}

// FuzzRead passes any bytes to the server half, in both framings. Every failure is one message, and
// the size of the input bounds the allocations.
func FuzzRead(f *testing.F) {
	const ask = `{"id":"1","wire_version":1,"messages":[{"role":"user","content":[{"type":"image","attachment_id":"a"},{"type":"tool_result","tool_call_id":"c","content":[]}]}],` +
		`"attachments":[{"kind":"image","id":"a","bytes":"AA\/="}],"tools":[{"name":"f","input_schema":{}}],"tool_choice":{"type":"tool","name":"f"},"logit_bias":{"1":1}}`
	f.Add([]byte(ask+"\n"), false)
	prefixed := append(frame.AppendHead(nil, frame.JSON, len(ask)), ask...)
	const blob = `{"type":"attachment_blob","attachment_id":"a","len":3}`
	prefixed = append(append(frame.AppendHead(prefixed, frame.JSON, len(blob)), blob...), "\x03\x02abc"...)
	f.Add(prefixed, true)
	f.Add([]byte{0x80, 0x80, 0x80, 0x20, 1}, true)
	f.Add([]byte(`{"prompt":"a","suffix":"b","count_only":true,"cache_salt":"s","local_only":true,"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","parallel_tool_calls":false}`+"\n"), false)
	f.Fuzz(func(t *testing.T, in []byte, blobs bool) {
		var out bytes.Buffer
		c := codec(blobs, bytes.NewReader(in), &out)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for {
			req, err := c.Read()
			if errors.Is(err, io.EOF) {
				break
			}
			if err == nil {
				gen, ok := req.Task.(*infer.Generate)
				if !ok {
					gen = req.Task.(*infer.Count).Of
				}
				if (len(gen.Messages) == 0) == (gen.Prompt == nil) || gen.Settled().MaxTokens < 1 || len(gen.Attachments) > 32 || len(req.ID) > wire.MaxID {
					t.Fatalf("accepted %+v", gen)
				}
				continue
			}
			out.Reset()
			if err := c.Fail(err); err != nil {
				t.Fatalf("Fail: %v", err)
			}
			r := framing(blobs).NewReader(&out, frame.Limit)
			if _, _, err := r.ReadFrame(); err != nil || out.Len() > 0 {
				t.Fatalf("Fail: %v, %d bytes sent", err, out.Len())
			}
			if _, fatal := errors.AsType[*wire.FatalError](err); fatal {
				break
			}
		}
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20+200*uint64(len(in)) {
			t.Fatalf("%d bytes took %d of memory", len(in), n)
		}
	})
}

// FuzzBothHalves checks that the server half reads the request of the client half, and that the
// client half emits the events that the server half writes.
func FuzzBothHalves(f *testing.F) {
	f.Add("1", "hi", "a", []byte{1, 2, 3}, "f", `{"x":1}`, uint32(9), 0.5, true, true)
	f.Add("", "\x00", "", []byte{}, "", "null", uint32(1), 0.0, false, false)
	f.Fuzz(func(t *testing.T, id, text, attachment string, data []byte, tool, input string, maxTokens uint32, temperature float64, blobs, stream bool) {
		for _, s := range []string{id, text, attachment, tool} {
			if !utf8.ValidString(s) {
				return // JSON cannot express it
			}
		}
		if len(id) > wire.MaxID || attachment == "" || maxTokens == 0 || !(temperature >= 0 && temperature <= 1e6) || math.IsNaN(temperature) {
			return // refused
		}
		number := strconv.Quote(input) // any JSON value
		if !utf8.ValidString(input) || strings.ContainsFunc(input, func(r rune) bool { return r < 0x20 || r > 0x7e }) {
			number = "1"
		}
		req := &infer.Request{ID: id, Task: &infer.Generate{
			Blocks: true, MaxTokens: int(maxTokens), Sampling: infer.Sampling{Temperature: &temperature, TopP: new(0.5)}, Defaults: wire.Defaults(1024),
			Messages: []infer.Message{{Role: infer.User, Content: []infer.Part{
				&infer.TextPart{Text: text}, &infer.MediaPart{Attachment: attachment},
			}}, {Role: infer.Assistant, Content: []infer.Part{
				&infer.CallPart{ID: text, Name: tool, Input: []byte(number)},
			}}},
			Attachments: []infer.Attachment{{ID: attachment, Kind: infer.Image, Data: append([]byte{}, data...)}},
			Tools:       []infer.Tool{{Name: tool}},
		}}
		events := []infer.Event{&infer.ToolCall{ID: id, Name: tool, Input: []byte(number)}, &infer.Done{Reason: infer.Length, In: 1, Out: int(maxTokens), Backend: text}}
		if text != "" {
			events = append([]infer.Event{&infer.Text{Delta: []byte(text)}}, events...)
		}
		read, got, err := exchange(t, blobs, stream, req, events, nil)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(req, read, cmpopts.IgnoreTypes(infer.Pause{})); diff != "" {
			t.Errorf("asked: -want +got\n%s", diff)
		}
		if diff := cmp.Diff(events, got); diff != "" {
			t.Errorf("answered: -want +got\n%s", diff)
		}
	})
}
