package refhttp_test

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/client"
	"github.com/inferd-go/inferd/internal/wire/refhttp"
)

func read(t *testing.T, messages, more string) *refhttp.Chat {
	t.Helper()
	c, err := refhttp.ReadChat([]byte(`{"model":"m","messages":[` + messages + `]` + more + `}`))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Messages are converted to messages of package client: results of tools become user messages, and
// empty messages are left out. Members that the reference ignores have no effect.
func TestMessages(t *testing.T) {
	c := read(t, `{"role":"system","content":"be brief"},{"role":"user","content":""},{"role":"user","content":null},
		{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":""},{"type":"new","x":1}]},
		{"role":"assistant","content":"","tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"x\":1}"}}]},
		{"role":"tool","tool_call_id":"c1","content":[{"type":"text","text":"b"},{"type":"text","text":"c"}]},
		{"role":"tool","content":"d"}`,
		`,"stream":true,"max_tokens":7,"max_completion_tokens":9,"temperature":0,"top_p":0.5,"stop":["x"],"seed":1,
		"response_format":{"type":"json_schema","json_schema":{"schema":{"type":"object"}}}`)
	r := c.Request
	var got []string
	for _, m := range r.Messages {
		line := []any{m.Role}
		for _, b := range m.Blocks {
			switch {
			case b.Call != nil:
				line = append(line, "call", b.Call.ID, b.Call.Name, string(b.Call.Input))
			case b.Result != nil:
				line = append(line, "result", b.Result.ID, b.Result.Blocks[0].Text)
			default:
				line = append(line, b.Text)
			}
		}
		got = append(got, strings.TrimSuffix(fmt.Sprintln(line...), "\n"))
	}
	want := []string{"system be brief", "user a", `assistant call c1 f {"x":1}`, "user result c1 bc", "user d"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if !c.Stream || r.Whole || r.MaxTokens != 7 || *r.Temperature != 0 || *r.TopP != 0.5 || r.Stop != nil || r.Seed != nil || string(r.Format.JSONSchema) != `{"type":"object"}` {
		t.Errorf("got %+v", r)
	}
	if c := read(t, "", `,"response_format":{"type":"json_object"}`); c.Request.Format.JSONObject || !c.Request.Whole {
		t.Errorf("json_object is ignored by the reference: %+v", c.Request)
	}
}

// The code of an error determines the status and the type of the answer. In a stream, the error is an
// event of the type api_error instead.
func TestErrors(t *testing.T) {
	for code, want := range map[client.Code]string{
		client.QueueFull: "429 rate_limit_error QueueFull", client.BackendUnavailable: "503 api_error BackendUnavailable",
		client.InvalidRequest: "400 invalid_request_error InvalidRequest", client.AttachmentUnsupported: "400 invalid_request_error AttachmentUnsupported",
		client.FrameTooLarge: "413 invalid_request_error FrameTooLarge", client.ToolCallMalformed: "502 api_error ToolCallMalformed",
		client.Internal: "500 api_error Internal", "wire_version_unsupported": "502 api_error WireVersionUnsupported",
	} {
		cause := &client.Error{Code: code, Message: "why"}
		if f := refhttp.ErrorOf(cause); fmt.Sprint(f.Status, " ", f.Type, " ", f.Code) != want {
			t.Errorf("%s: %+v", code, f)
		}
		if f := refhttp.EmbedErrorOf(cause); f.Status != 502 || f.Code != "" || f.Message != "why" {
			t.Errorf("%s of embeddings: %+v", code, f)
		}
		a := &refhttp.Answer{}
		if got := string(a.Fail(nil, cause)); !strings.Contains(got, `"type":"api_error"`) || !strings.HasSuffix(got, "data: [DONE]\n\n") {
			t.Errorf("%s in a stream: %s", code, got)
		}
	}
	lost := errors.New("the daemon went away")
	if f := refhttp.ErrorOf(lost); f.Status != 502 || f.Code != "" || !strings.Contains(f.Message, "daemon unreachable") {
		t.Errorf("%+v", f)
	}
	if got := string((&refhttp.Answer{}).Fail(nil, lost)); strings.Contains(got, "[DONE]") || !strings.HasPrefix(got, `data: {"error":{"message":"daemon unreachable`) {
		t.Errorf("a lost daemon in a stream: %s", got)
	}
}

// Check 146 of the reference's black-box checks: 1.0 is AACAPw== in base64.
func TestVectors(t *testing.T) {
	for format, want := range map[string]string{"float": `[1,-0.5]`, "base64": `"AACAPwAAAL8="`} {
		e, err := refhttp.ReadEmbeddings([]byte(`{"model":"m","input":"a","encoding_format":"` + format + `"}`))
		if err != nil {
			t.Fatal(err)
		}
		got := string(e.Append(nil, &client.Embeddings{Vectors: [][]float32{{1, -0.5}}, InputTokens: 2}, "n"))
		if got != `{"object":"list","data":[{"object":"embedding","index":0,"embedding":`+want+`}],"model":"n","usage":{"prompt_tokens":2,"total_tokens":2}}` {
			t.Errorf("%s: %s", format, got)
		}
	}
}

// wav returns a WAV file with a tone of 440 Hz on the first channel, and silence on the others.
func wav(rate, bits, channels, frames int) []byte {
	var data []byte
	for i := range frames {
		x := math.Sin(2 * math.Pi * 440 * float64(i) / float64(rate))
		for c := range channels {
			v := uint64(0)
			switch {
			case bits == 8:
				v = 128
				if c == 0 {
					v = uint64(math.Round(127*x) + 128)
				}
			case c == 0:
				v = uint64(int64(x * (float64(int64(1)<<(bits-1)) - 1)))
			}
			data = append(data, binary.LittleEndian.AppendUint64(nil, v)[:bits/8]...)
		}
	}
	head := append([]byte("RIFF\xff\xff\xff\xffWAVEfmt \x10\x00\x00\x00\x01\x00"), byte(channels), 0)
	head = binary.LittleEndian.AppendUint32(head, uint32(rate))
	head = binary.LittleEndian.AppendUint32(head, uint32(rate*channels*bits/8))
	head = append(head, byte(channels*bits/8), 0, byte(bits), 0)
	head = append(head, "LIST\x03\x00\x00\x00abc\x00data"...)                  // a chunk of odd length, padded
	return append(binary.LittleEndian.AppendUint32(head, 0xffffffff), data...) // the length that a streaming recorder writes
}

// Check 149 of the reference's black-box checks: samples of every width are mixed to mono at the
// daemon's rate.
func TestAudio(t *testing.T) {
	for _, bits := range []int{8, 16, 24, 32} {
		for _, channels := range []int{1, 2} {
			for _, rate := range []int{8000, 16000, 44100, 48000} {
				raw := wav(rate, bits, channels, rate/2)
				c := read(t, `{"role":"user","content":[{"type":"input_audio","input_audio":{"format":"mp3","data":"`+base64.StdEncoding.EncodeToString(raw)+`"}}]}`, "")
				if !c.HasAudio() || !c.HasMedia() {
					t.Fatal("no audio")
				}
				if err := c.Decode(16000); err != nil {
					t.Fatal(err)
				}
				a := c.Request.Attachments[0]
				if a.ID != "aud-0" || a.Kind != client.Audio || a.SampleRate != 16000 || len(a.Data) != 4*8000 {
					t.Fatalf("%d bits, %d channels, %d Hz: %s, %d Hz, %d bytes", bits, channels, rate, a.ID, a.SampleRate, len(a.Data))
				}
				worst := 0.0
				for i := 200; i < 7800; i++ { // at the ends the filter has fewer samples
					got := float64(math.Float32frombits(binary.LittleEndian.Uint32(a.Data[4*i:])))
					want := math.Sin(2*math.Pi*440*float64(i)/16000) / float64(channels)
					worst = max(worst, math.Abs(got-want))
				}
				if worst > 0.02 {
					t.Errorf("%d bits, %d channels, %d Hz: the tone is off by %.4f", bits, channels, rate, worst)
				}
			}
		}
	}
}

// A WAV file that is cut off anywhere before its samples is refused.
func TestDamagedAudio(t *testing.T) {
	whole := wav(8000, 16, 1, 100)
	for n := range len(whole) - 200 {
		c, err := refhttp.ReadChat([]byte(`{"model":"m","messages":[{"role":"user","content":[{"type":"input_audio","input_audio":{"data":"` + base64.StdEncoding.EncodeToString(whole[:n]) + `"}}]}]}`))
		if err == nil {
			t.Fatalf("%d bytes are taken: %+v", n, c)
		}
	}
}

func FuzzReadChat(f *testing.F) {
	f.Add(`{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"a"}]}],"tools":[{"type":"function","function":{"name":"f","parameters":null}}]}`)
	f.Add(`{"model":"m","messages":[{"role":"tool","content":null,"tool_calls":[{}]}],"tool_choice":7}`)
	f.Add(`{"model":"m","messages":[{"role":"user","content":[{"type":"input_audio","input_audio":{"data":"` + base64.StdEncoding.EncodeToString(wav(8000, 8, 1, 9)) + `"}}]}]}`)
	f.Fuzz(func(t *testing.T, body string) {
		c, err := refhttp.ReadChat([]byte(body))
		if err == nil && c.HasMedia() {
			err = c.Decode(8000)
		}
		if own, ok := errors.AsType[*refhttp.Error](err); err != nil && (!ok || own.Status < 400 || own.Status > 422) {
			t.Errorf("%v", err)
		}
		if _, err := refhttp.ReadEmbeddings([]byte(body)); err != nil && refhttp.EmbedErrorOf(err).Status > 422 {
			t.Errorf("%v", err)
		}
	})
}
