package embed_test

import (
	"bytes"
	"errors"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/embed"
)

// The exact bytes of messages are tested by the corpus, in spec/corpus/embed.

func codec(in io.Reader, out io.Writer) *embed.Codec {
	return &embed.Codec{R: frame.Lines.NewReader(in, frame.Limit), W: frame.Lines.NewWriter(out)}
}

// exchange sends req to a codec, which answers with events. It returns the request that the codec
// read, and the events that Ask emitted.
func exchange(t *testing.T, req *infer.Request, events []infer.Event) (*infer.Request, []infer.Event) {
	t.Helper()
	var question, answer bytes.Buffer
	if err := embed.Ask(frame.Lines.NewReader(&answer, frame.Limit), frame.Lines.NewWriter(&question), req, nil); !errors.Is(err, io.EOF) {
		t.Fatalf("Ask: %v", err)
	}
	c := codec(&question, &answer)
	read, err := c.Read()
	if err != nil {
		t.Fatalf("Read: %v", err)
	}
	for _, ev := range events {
		if err := c.Write(ev); err != nil {
			t.Fatalf("Write: %v", err)
		}
	}
	var got []infer.Event
	if err := embed.Ask(frame.Lines.NewReader(&answer, frame.Limit), frame.Lines.NewWriter(io.Discard), req, func(ev infer.Event) error {
		got = append(got, ev)
		return nil
	}); err != nil {
		t.Fatalf("Ask: %v", err)
	}
	return read, got
}

func TestNumbers(t *testing.T) {
	req := &infer.Request{ID: "1", Task: &infer.Embed{Inputs: []string{"a", "é"}, Dimensions: 3, Task: infer.Clustering}}
	events := []infer.Event{
		&infer.Vectors{Values: [][]float32{{0.1, -1e-30, 3e30}, {math.SmallestNonzeroFloat32, math.MaxFloat32, 0}}},
		&infer.Done{Reason: infer.EndOfTurn, In: 9, Model: "m\"", Backend: "mock"},
	}
	read, got := exchange(t, req, events)
	if diff := cmp.Diff(req, read, cmpopts.IgnoreTypes(infer.Pause{})); diff != "" {
		t.Errorf("asked: -want +got\n%s", diff)
	}
	if diff := cmp.Diff(events, got); diff != "" { // exactly equal
		t.Errorf("answered: -want +got\n%s", diff)
	}
}

func TestUnencodableAnswers(t *testing.T) {
	nan := float32(math.NaN())
	// A number with the longest spelling, so that few numbers exceed the limit.
	huge := slices.Repeat([][]float32{slices.Repeat([]float32{-1.1754944e-38}, 1<<16)}, 72)
	for name, test := range map[string]struct {
		vectors [][]float32
		want    infer.Code
	}{
		"NaN":       {[][]float32{{1, nan}}, infer.Internal},
		"infinity":  {[][]float32{{float32(math.Inf(1))}}, infer.Internal},
		"too large": {huge, infer.TooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && test.want == infer.TooLarge {
				t.Skip("writes 64 MiB")
			}
			var out bytes.Buffer
			c := codec(strings.NewReader(`{"id":"q","input":["a"]}`), &out)
			if _, err := c.Read(); err != nil {
				t.Fatal(err)
			}
			err := errors.Join(c.Write(&infer.Vectors{Values: test.vectors}))
			if err != nil {
				t.Fatal(err)
			}
			if err = c.Write(&infer.Done{}); infer.CodeOf(err) != test.want || out.Len() > 0 {
				t.Errorf("Write: %v, %d bytes sent", err, out.Len())
			}
			if err := c.Fail(err); err != nil || !strings.Contains(out.String(), `"id":"q","code":"`) {
				t.Errorf("Fail: %v, %s", err, &out)
			}
		})
	}
	if err := codec(strings.NewReader(""), io.Discard).Write(&infer.Text{}); infer.CodeOf(err) != infer.Internal {
		t.Errorf("text: %v", err)
	}
}

// FuzzRead passes any bytes to the server half. Accepted requests have inputs and no negative
// dimensions, and each refusal is one message.
func FuzzRead(f *testing.F) {
	f.Add(`{"id":"1","input":["a"],"dimensions":2,"task":"similarity"}`)
	f.Add(`{"input":"a"}`)
	f.Fuzz(func(t *testing.T, in string) {
		var out bytes.Buffer
		c := codec(strings.NewReader(in), &out)
		for {
			req, err := c.Read()
			if errors.Is(err, io.EOF) {
				return
			}
			if err == nil {
				if task := req.Task.(*infer.Embed); len(task.Inputs) == 0 || task.Dimensions < 0 {
					t.Fatalf("accepted %+v", task)
				}
				continue
			}
			out.Reset()
			if err := c.Fail(err); err != nil || bytes.Count(out.Bytes(), []byte("\n")) != 1 {
				t.Fatalf("Fail: %v, %q", err, &out)
			}
			if _, fatal := errors.AsType[*wire.FatalError](err); fatal {
				return
			}
		}
	})
}

// FuzzBothHalves checks that each half reads the messages of the other unchanged.
func FuzzBothHalves(f *testing.F) {
	f.Add("1", "a", uint16(2), float32(0.5), "m")
	f.Fuzz(func(t *testing.T, id, input string, dimensions uint16, x float32, model string) {
		for _, s := range []string{id, input, model} {
			if !utf8.ValidString(s) {
				return
			}
		}
		if f64 := float64(x); input == "" || len(id) > wire.MaxID || math.IsNaN(f64) || math.IsInf(f64, 0) {
			return
		}
		req := &infer.Request{ID: id, Task: &infer.Embed{Inputs: []string{input, "b"}, Dimensions: int(dimensions)}}
		events := []infer.Event{&infer.Vectors{Values: [][]float32{{x, 1}, {-x, 0}}}, &infer.Done{Reason: infer.EndOfTurn, In: int(dimensions), Model: model, Backend: id}}
		read, got := exchange(t, req, events)
		if diff := cmp.Diff(req, read, cmpopts.IgnoreTypes(infer.Pause{})); diff != "" {
			t.Errorf("asked: -want +got\n%s", diff)
		}
		if diff := cmp.Diff(events, got); diff != "" {
			t.Errorf("answered: -want +got\n%s", diff)
		}
	})
}
