package control_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"

	"github.com/inferd-go/inferd/client/stats"
	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/control"
)

func codec(in string, out io.Writer) *control.Codec {
	return &control.Codec{R: frame.Lines.NewReader(strings.NewReader(in), frame.Limit), W: frame.Lines.NewWriter(out)}
}

func TestCallIsExactOnTheWire(t *testing.T) {
	var asked bytes.Buffer
	answer := frame.Lines.NewReader(strings.NewReader(`{"type":"done","id":"1","took":5}`), frame.Limit)
	if _, err := control.Call(answer, frame.Lines.NewWriter(&asked), control.Retry{Backend: "gen"}); err != nil {
		t.Fatal(err)
	}
	if got, want := asked.String(), `{"id":"1","type":"retry","backend":"gen"}`+"\n"; got != want {
		t.Errorf("asked %q, want %q", got, want)
	}
	// The server half can read the request of the client half.
	verb, err := codec(asked.String(), io.Discard).Read()
	if want := (control.Retry{Backend: "gen"}); err != nil || verb != want {
		t.Errorf("Read = %v, %v, want %v", verb, err, want)
	}
}

func TestEveryVerb(t *testing.T) {
	for _, verb := range []control.Verb{control.Retry{Backend: "gen"}, control.GetStats{}, control.SetLogLevel{Level: "debug"}} {
		var asked, answered bytes.Buffer
		_, err := control.Call(frame.Lines.NewReader(&answered, frame.Limit), frame.Lines.NewWriter(&asked), verb)
		if !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		if got, err := codec(asked.String(), io.Discard).Read(); err != nil || got != verb {
			t.Errorf("%#v reads as %#v, %v", verb, got, err)
		}
	}
	_, err := codec(`{"type":"log_level","level":"loud"}`, io.Discard).Read()
	if infer.CodeOf(err) != infer.Invalid || !strings.Contains(err.Error(), "debug, info, warn, error, off") {
		t.Errorf("an unknown level: %v", err)
	}
}

func TestStats(t *testing.T) {
	var out bytes.Buffer
	c := codec(`{"id":"s","type":"stats"}`, &out)
	if _, err := c.Read(); err != nil {
		t.Fatal(err)
	}
	want := &stats.Daemon{Running: 1, Callers: []stats.Caller{{User: "7", Counts: stats.Counts{InputTokens: 5}}}, Backends: []stats.Backend{
		{Name: "gen", Engine: &stats.Engine{StepMS: 1.5, Users: []stats.User{{User: "7", KVTokens: 3}}}},
	}}
	if err := c.Stats(want); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(out.String(), `{"type":"stats","id":"s","stats":{`) {
		t.Errorf("wrote %s", &out)
	}
	raw, err := control.Call(frame.Lines.NewReader(&out, frame.Limit), frame.Lines.NewWriter(io.Discard), control.GetStats{})
	if err != nil {
		t.Fatal(err)
	}
	got := new(stats.Daemon)
	if err := json.Unmarshal(raw, got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// The specification lists every member of the stats.
func TestEveryMemberIsDocumented(t *testing.T) {
	spec, err := os.ReadFile("../../../spec/control.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	var look func(reflect.Type)
	look = func(typ reflect.Type) {
		for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct {
			return
		}
		for field := range typ.Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if name != "" {
				seen++
				if !strings.Contains(string(spec), "`"+name+"`") {
					t.Errorf("spec/control.md lacks %q of %s", name, typ)
				}
			}
			look(field.Type)
		}
	}
	look(reflect.TypeFor[stats.Daemon]())
	if seen < 50 {
		t.Errorf("checked only %d members", seen)
	}
}

func TestRefusalKeepsItsCode(t *testing.T) {
	r := frame.Lines.NewReader(strings.NewReader(`{"type":"error","id":"1","code":"backend_unavailable","message":"no"}`), frame.Limit)
	_, err := control.Call(r, frame.Lines.NewWriter(io.Discard), control.Retry{Backend: "gen"})
	if got, want := infer.CodeOf(err), infer.Unavailable; got != want {
		t.Errorf("code %q, want %q", got, want)
	}
}

func TestCallFails(t *testing.T) {
	for name, test := range map[string]struct{ answer, want string }{
		"refused":                  {`{"type":"error","id":"1","code":"invalid_request","message":"no"}`, "no"},
		"end of the connection":    {"", "read answer: EOF"},
		"not an answer":            {`{"type":"status","id":"1"}`, "decode answer: neither done nor an error"},
		"a member of a wrong type": {`{"type":7}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := frame.Lines.NewReader(strings.NewReader(test.answer), frame.Limit)
			_, err := control.Call(r, frame.Lines.NewWriter(io.Discard), control.Retry{Backend: "gen"})
			if err == nil || test.want != "" && err.Error() != test.want {
				t.Errorf("Call = %v, want %q", err, test.want)
			}
		})
	}
}

// The failure of a malformed request does not have the ID of an earlier request.
func TestFailureHasNoEarlierID(t *testing.T) {
	var out bytes.Buffer
	c := codec(`{"id":"first","type":"retry","backend":"gen"}`+"\n{\n", &out)
	if _, err := c.Read(); err != nil {
		t.Fatal(err)
	}
	if err := c.Done(); err != nil {
		t.Fatal(err)
	}
	_, err := c.Read()
	if _, ok := errors.AsType[*wire.FatalError](err); !ok {
		t.Fatalf("Read = %v, want a fatal error", err)
	}
	if err := c.Fail(infer.Errorf(infer.Busy, "later")); err != nil {
		t.Fatal(err)
	}
	want := `{"type":"done","id":"first"}` + "\n" + `{"type":"error","id":"","code":"queue_full","message":"later"}` + "\n"
	if got := out.String(); got != want {
		t.Errorf("wrote %q, want %q", got, want)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(`{"id":"1","type":"retry","backend":"gen"}`)
	f.Add(`{"type":"stats"}`)
	f.Fuzz(func(t *testing.T, in string) {
		verb, err := codec(in, io.Discard).Read()
		if retry, ok := verb.(control.Retry); err == nil && (verb == nil || ok && retry.Backend == "") {
			t.Errorf("Read(%q) = %#v", in, verb)
		}
	})
}
