package wire_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
)

// A message has a member of each JSON type that dialects use.
type message struct {
	ID   string    `json:"id"`
	N    *uint32   `json:"n"`
	F    *float64  `json:"f"`
	B    *bool     `json:"b"`
	List []*string `json:"list"`
}

func read(in string) (message, error) {
	var m message
	err := wire.ReadJSON(frame.Lines.NewReader(strings.NewReader(in), frame.Limit), &m)
	return m, err
}

func TestAccepted(t *testing.T) {
	nested := func(n int) string {
		return `{"x":` + strings.Repeat("[", n-1) + strings.Repeat("]", n-1) + `,"id":"ok"}`
	}
	for name, in := range map[string]string{
		"members in any order":            `{"n":1,"id":"ok"}`,
		"white space around":              " \t{ \"id\" : \"ok\" } \r",
		"unknown members":                 `{"x":{"y":[1,{"z":null}]},"id":"ok","ID":5}`,
		"null for optional members":       `{"id":"ok","n":null,"f":null,"b":null,"list":null}`,
		"escapes":                         `{"id":"\u006fk"}`,
		"a surrogate pair":                `{"id":"ok","list":["\ud83d\ude00"]}`,
		"the maximum depth":               nested(128),
		"brackets in strings do not nest": `{"id":"ok","list":["` + strings.Repeat(`[{\"`, 1000) + `"]}`,
		"adjacent brackets":               `{"id":"ok","x":[` + strings.Repeat("[],{},", 1000) + `0]}`,
		"the maximum number of values":    `{"id":"ok","x":[` + strings.Repeat("[],", 1<<17-2) + `0]}`,
		"commas in strings do not count":  `{"id":"ok","x":"` + strings.Repeat(",", 1<<18) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			if m, err := read(in); err != nil || m.ID != "ok" {
				t.Errorf("%+v, %v", m, err)
			}
		})
	}
}

// A malformed message causes a FatalError with a short text that does not reveal the prompt.
func TestRefused(t *testing.T) {
	const secret = "a-secret-prompt"
	many := 8 << 20
	if testing.Short() {
		many = 1 << 20
	}
	for name, test := range map[string]struct{ in, want string }{
		"a blank line":                  {"\n", "decode: unexpected EOF at byte 0"},
		"not JSON":                      {"{not json}", "decode: invalid character 'o' in literal null (expecting 'u') at byte 2"},
		"cut short":                     {`{"id":"` + secret, "decode: unexpected EOF at byte 22"},
		"two on a line":                 {`{} {}`, "decode: invalid character '{' after top-level value at byte 3"},
		"a byte order mark":             {"\ufeff{}", `decode: invalid character '\ufeff' at start of value at byte 0`},
		"an array":                      {`["` + secret + `"]`, "decode: not a JSON object"},
		"a string":                      {`"` + secret + `"`, "decode: not a JSON object"},
		"a duplicate member":            {`{"id":"a","id":"b"}`, "decode: duplicate object member name at byte 10"},
		"a duplicate unknown member":    {`{"` + secret + `":1,"` + secret + `":1}`, "decode: duplicate object member name at byte 21"},
		"a nested duplicate member":     {`{"x":[{"y":{"z":1,"z":1}}]}`, "decode: duplicate object member name at byte 18"},
		"two spellings of one name":     {`{"id":"a","\u0069d":"b"}`, "decode: duplicate object member name at byte 10"},
		"invalid UTF-8":                 {"{\"id\":\"\xff\"}", "decode: invalid UTF-8 at byte 7"},
		"invalid UTF-8, unknown member": {"{\"x\":\"\xc3\"}", "decode: invalid UTF-8 at byte 6"},
		"a lone high surrogate":         {`{"id":"\ud800` + secret + `"}`, "decode: invalid surrogate pair `\\ud800a-secr` in string at byte 7"},
		"a lone low surrogate":          {`{"id":"\udc00"}`, "decode: invalid surrogate pair"},
		"a control character":           {"{\"id\":\"\x01\"}", "decode: invalid character '\\x01' in string (expecting non-control character) at byte 7"},
		"a string for a number":         {`{"n":"` + secret + `"}`, `decode: "/n" at byte 5 has the wrong type or is out of range`},
		"a number for a string":         {`{"id":7}`, `decode: "/id" at byte 6 has the wrong type or is out of range: it must be a string`},
		"a number for a bool":           {`{"b":1}`, `decode: "/b" at byte 5 has the wrong type or is out of range: it must be true or false`},
		"an object for a list":          {`{"list":{}}`, `decode: "/list" at byte 8 has the wrong type or is out of range: it must be an array`},
		"a negative number":             {`{"n":-1}`, `decode: "/n" at byte 5 has the wrong type or is out of range`},
		"a fraction":                    {`{"n":1.5}`, `decode: "/n" at byte 5 has the wrong type or is out of range`},
		"a number that is too large":    {`{"n":4294967296}`, `decode: "/n" at byte 5 has the wrong type or is out of range`},
		"infinity":                      {`{"f":1e999}`, `decode: "/f" at byte 5 has the wrong type or is out of range`},
		"NaN":                           {`{"f":NaN}`, "decode: invalid character 'N' at start of value at byte 5"},
		"a wrong element":               {`{"list":["a",{"` + secret + `":1}]}`, `decode: "/list/1" at byte 13 has the wrong type or is out of range`},
		"one level too deep":            {`{"x":` + strings.Repeat("[", 128) + strings.Repeat("]", 128) + "}", "decode: nested deeper than 128"},
		"ten thousand levels":           {strings.Repeat(`{"x":`, 10_000), "decode: nested deeper than 128"},
		"ten million levels":            {strings.Repeat("[", 10_000_000), "decode: nested deeper than 128"},
		"too many values":               {`{"x":[` + strings.Repeat("{},", 1<<17) + `0]}`, "decode: more than 262144 values"},
		"far too many":                  {`{"x":[` + strings.Repeat("[[]],", many) + `0]}`, "decode: more than 262144 values"},
		"a line that is too long":       {strings.Repeat(" ", frame.Limit+1), "frame exceeds 67108864 byte cap"},
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			_, err := read(test.in)
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("it took %v", took)
			}
			if _, ok := errors.AsType[*wire.FatalError](err); !ok {
				t.Fatalf("%v, want a fatal error", err)
			}
			if !strings.HasPrefix(err.Error(), test.want) || len(err.Error()) > 150 || strings.Contains(err.Error(), secret) {
				t.Errorf("\n got %v\nwant %s", err, test.want)
			}
			code, text := wire.Common.Encode(err)
			want := "invalid_request"
			if strings.HasPrefix(test.want, "frame exceeds") {
				want = "frame_too_large"
			}
			if code != want || text != err.Error() {
				t.Errorf("Encode = %s: %s", code, text)
			}
		})
	}
}

// A holder is a stream that counts the reserved bytes.
type holder struct {
	io.Reader
	held int
	full error // result of Reserve
}

func (*holder) FrameActive(bool) {}

func (h *holder) Reserve(n int) error {
	h.held += n
	return h.full
}

// Memory for the values is reserved before a message is decoded. For any type of value, decoding
// allocates at most twice the reserved memory.
func TestMemoryIsReserved(t *testing.T) {
	type wide struct { // the largest element in any dialect
		Text    *string        `json:"text"`
		List    []*string      `json:"list"`
		Raw     jsontext.Value `json:"raw"`
		Strings [3]string      `json:"-"`
	}
	for name, test := range map[string]struct {
		in   string
		most int // values, as countValues estimates them
	}{
		"small":   {`{"list":[{},{}]}`, 0},
		"objects": {`{"list":[` + strings.Repeat("{},", 50_000) + `{}]}`, 100_010},
		"strings": {`{"list":[{"list":[` + strings.Repeat(`"",`, 100_000) + `""]}]}`, 100_010},
		"members": {`{"list":[` + strings.Repeat(`{"text":""},`, 50_000) + `{}]}`, 100_010},
	} {
		t.Run(name, func(t *testing.T) {
			stream := &holder{Reader: strings.NewReader(test.in)}
			r := frame.Lines.NewReader(stream, len(test.in))
			var m struct {
				List []wide `json:"list"`
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err := wire.ReadJSON(r, &m)
			runtime.ReadMemStats(&after)
			if err != nil || len(m.List) == 0 {
				t.Fatalf("%d elements, %v", len(m.List), err)
			}
			room, took := stream.held+frame.FreeBytes, int(after.TotalAlloc-before.TotalAlloc)
			if stream.held > test.most*256+2*len(test.in) || took > 2*room {
				t.Errorf("reserved %d bytes, used %d", stream.held, took)
			}
			full := errors.New("full")
			stream = &holder{Reader: strings.NewReader(test.in), full: full}
			err = wire.ReadJSON(frame.Lines.NewReader(stream, len(test.in)), &m)
			if test.most > 0 && !errors.Is(err, full) || test.most == 0 && err != nil {
				t.Errorf("without memory: %v", err)
			}
		})
	}
}

// Errors of the stream are returned unchanged; they are not for the client.
func TestStreamErrorsAreNotFatalErrors(t *testing.T) {
	if _, err := read(""); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v, want EOF", err)
	}
	broken := errors.New("broken")
	err := wire.ReadJSON(frame.Lines.NewReader(iotest.ErrReader(broken), frame.Limit), new(message))
	if _, ok := errors.AsType[*wire.FatalError](err); ok || !errors.Is(err, broken) {
		t.Errorf("broken: %v", err)
	}
}

func TestPrefixed(t *testing.T) {
	for name, test := range map[string]struct{ in, want string }{
		"a blob where JSON is due": {"\x02\x02{}", "malformed frame: expected a JSON control frame, got a BLOB frame"},
		"a torn one":               {"\x02\x01{", "malformed frame: stream ended mid-frame reading the payload"},
		"an empty one":             {"\x00\x01", "decode: unexpected EOF at byte 0"},
	} {
		t.Run(name, func(t *testing.T) {
			err := wire.ReadJSON(frame.Prefixed.NewReader(strings.NewReader(test.in), frame.Limit), new(message))
			if _, ok := errors.AsType[*wire.FatalError](err); !ok || err.Error() != test.want {
				t.Errorf("%v, want %s", err, test.want)
			}
		})
	}
}

func TestCheckID(t *testing.T) {
	if err := wire.CheckID(strings.Repeat("i", wire.MaxID)); err != nil {
		t.Error(err)
	}
	err := wire.CheckID(strings.Repeat("i", wire.MaxID+1))
	if _, ok := errors.AsType[*wire.FatalError](err); ok || infer.CodeOf(err) != infer.Invalid {
		t.Errorf("one byte more: %v", err)
	}
}

func TestEncodeAndDecode(t *testing.T) {
	for name, test := range map[string]struct {
		err        error
		code, text string
	}{
		"invalid":       {infer.Errorf(infer.Invalid, "x"), "invalid_request", "x"},
		"too large":     {infer.Errorf(infer.TooLarge, "x"), "frame_too_large", "x"},
		"busy":          {infer.Errorf(infer.Busy, "x"), "queue_full", "x"},
		"unavailable":   {infer.Errorf(infer.Unavailable, "x"), "backend_unavailable", "x"},
		"internal":      {infer.Errorf(infer.Internal, "x"), "internal", "x"},
		"wrapped":       {fmt.Errorf("/home/me: %w", infer.Errorf(infer.Busy, "x")), "queue_full", "x"},
		"another error": {errors.New("/home/me"), "internal", "internal error"},
	} {
		t.Run(name, func(t *testing.T) {
			code, text := wire.Common.Encode(test.err)
			if code != test.code || text != test.text {
				t.Errorf("%s: %s, want %s: %s", code, text, test.code, test.text)
			}
			// Decode gives a client the same error.
			back := wire.Common.Decode(code, text)
			if infer.CodeOf(back) != infer.CodeOf(test.err) || back.Error() != test.text {
				t.Errorf("decoded: %s: %v", infer.CodeOf(back), back)
			}
		})
	}
	if err := wire.Common.Decode("new_code", "x"); infer.CodeOf(err) != infer.Internal || err.Error() != "new_code: x" {
		t.Errorf("a new code: %v", err)
	}
}

func TestAppendString(t *testing.T) {
	for in, want := range map[string]string{
		"":                        `""`,
		`a"\b/`:                   `"a\"\\b/"`,
		"<&>\u2028é😀\x7f":         "\"<&>\u2028é😀\x7f\"",
		"\b\f\n\r\t\x00\x1f":      `"\b\f\n\r\t\u0000\u001f"`,
		"not \xff\xfe valid \xc3": "\"not \ufffd\ufffd valid \ufffd\"",
	} {
		if got := string(wire.AppendString([]byte("x"), in)); got != "x"+want {
			t.Errorf("%q: %s, want x%s", in, got, want)
		}
	}
	buf, text := make([]byte, 0, 1<<10), bytes.Repeat([]byte("a\n"), 100)
	if n := testing.AllocsPerRun(100, func() { buf = wire.AppendString(buf[:0], text) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzReadJSON reads any input. Only objects and null are accepted, and errors are short. An accepted
// input is refused inside 129 arrays, which are nested too deeply.
func FuzzReadJSON(f *testing.F) {
	f.Add(`{"id":"a\ud83d\ude00","n":1,"list":["x"]}`)
	f.Add("{\"id\":\"\\\"[\"}")
	f.Fuzz(func(t *testing.T, in string) {
		in = strings.ReplaceAll(in, "\n", " ")
		m, err := read(in)
		if err == nil && !strings.Contains(in, "{") && strings.TrimSpace(in) != "null" {
			t.Errorf("%q is %+v", in, m)
		}
		if err != nil && len(err.Error()) > 200 {
			t.Errorf("a long error: %v", err)
		}
		if err == nil {
			deep := strings.Repeat("[", 129) + in + strings.Repeat("]", 129)
			if _, err := read(`{"x":` + deep + "}"); err == nil || !strings.Contains(err.Error(), "nested deeper") {
				t.Errorf("%q deep inside: %v", in, err)
			}
		}
	})
}
