package rerank_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/rerank"
)

// The exact bytes of messages are tested by the corpus, in spec/corpus/rerank.

func codec(in io.Reader, out io.Writer) *rerank.Codec {
	return &rerank.Codec{R: frame.Lines.NewReader(in, frame.Limit), W: frame.Lines.NewWriter(out)}
}

func exchange(t *testing.T, req *infer.Request, topN int, scores []float64, done *infer.Done) (*infer.Request, []rerank.Ranked, *infer.Done) {
	t.Helper()
	var question, answer bytes.Buffer
	if _, _, err := rerank.Ask(frame.Lines.NewReader(&answer, frame.Limit), frame.Lines.NewWriter(&question), req, topN); !errors.Is(err, io.EOF) {
		t.Fatalf("Ask: %v", err)
	}
	c := codec(&question, &answer)
	read, err := c.Read()
	if err != nil {
		t.Fatalf("Read: %v", err)
	}
	if err := errors.Join(c.Write(&infer.Scores{Values: scores}), c.Write(done)); err != nil {
		t.Fatalf("Write: %v", err)
	}
	ranked, gotDone, err := rerank.Ask(frame.Lines.NewReader(&answer, frame.Limit), frame.Lines.NewWriter(io.Discard), req, topN)
	if err != nil {
		t.Fatalf("Ask: %v", err)
	}
	return read, ranked, gotDone
}

func TestSorted(t *testing.T) {
	req := &infer.Request{ID: "1", Task: &infer.Rerank{Query: "q", Documents: []string{"a", "b", "c", "d"}}}
	scores := []float64{-1.5, 1e-300, 0.1, 1e-300}
	done := &infer.Done{Reason: infer.EndOfTurn, In: 9, Model: "m", Backend: "mock"}
	all := []rerank.Ranked{{Index: 2, Score: 0.1}, {Index: 1, Score: 1e-300}, {Index: 3, Score: 1e-300}, {Index: 0, Score: -1.5}}
	for topN, want := range map[int][]rerank.Ranked{0: all, 1: all[:1], 4: all, 1000: all} {
		req.Task.(*infer.Rerank).TopN = topN
		read, got, gotDone := exchange(t, req, topN, scores, done)
		if diff := cmp.Diff(req, read, cmpopts.IgnoreTypes(infer.Pause{})); diff != "" {
			t.Errorf("asked: -want +got\n%s", diff)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("the best %d: -want +got\n%s", topN, diff)
		}
		if diff := cmp.Diff(done, gotDone); diff != "" {
			t.Errorf("usage: -want +got\n%s", diff)
		}
	}
}

func TestTooManyBytes(t *testing.T) {
	ask := func(size int) string {
		return fmt.Sprintf(`{"id":"q","query":"q","documents":["%s"]}`, strings.Repeat("a", size-1))
	}
	if _, err := codec(strings.NewReader(ask(8<<20)), io.Discard).Read(); err != nil {
		t.Errorf("8 MiB: %v", err)
	}
	_, err := codec(strings.NewReader(ask(8<<20+1)), io.Discard).Read()
	if want := "invalid request: request carries 8388609 bytes of query + documents; at most 8388608 allowed"; err == nil || err.Error() != want {
		t.Errorf("one byte more: %v", err)
	}
	if _, fatal := errors.AsType[*wire.FatalError](err); fatal {
		t.Error("the error is fatal")
	}
}

func TestNonFiniteScores(t *testing.T) {
	for _, x := range []float64{math.NaN(), math.Inf(1)} {
		var out bytes.Buffer
		c := codec(strings.NewReader(`{"id":"q","query":"q","documents":["a"]}`), &out)
		if _, err := c.Read(); err != nil {
			t.Fatal(err)
		}
		_ = c.Write(&infer.Scores{Values: []float64{x}})
		if err := c.Write(&infer.Done{}); infer.CodeOf(err) != infer.Internal || out.Len() > 0 {
			t.Errorf("%v: %v, %d bytes sent", x, err, out.Len())
		}
	}
	if err := codec(strings.NewReader(""), io.Discard).Write(&infer.Text{}); infer.CodeOf(err) != infer.Internal {
		t.Errorf("text: %v", err)
	}
}

// FuzzRead passes any bytes to the server half. Accepted requests have a query and 1 to 256
// documents, and each refusal is one message.
func FuzzRead(f *testing.F) {
	f.Add(`{"id":"1","query":"q","documents":["a","b"],"top_n":1}`)
	f.Add(`{"query":"q","documents":[null]}`)
	f.Fuzz(func(t *testing.T, in string) {
		var out bytes.Buffer
		c := codec(strings.NewReader(in), &out)
		for {
			req, err := c.Read()
			if errors.Is(err, io.EOF) {
				return
			}
			if err == nil {
				if task := req.Task.(*infer.Rerank); task.Query == "" || len(task.Documents) == 0 || len(task.Documents) > 256 {
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
	f.Add("1", "q", "d", 0.5, -2.0)
	f.Fuzz(func(t *testing.T, id, query, document string, x, y float64) {
		for _, s := range []string{id, query, document} {
			if !utf8.ValidString(s) {
				return
			}
		}
		if query == "" || document == "" || len(id) > wire.MaxID || math.IsNaN(x+y) || math.IsInf(x, 0) || math.IsInf(y, 0) {
			return
		}
		req := &infer.Request{ID: id, Task: &infer.Rerank{Query: query, Documents: []string{document, "b"}}}
		read, ranked, _ := exchange(t, req, 0, []float64{x, y}, &infer.Done{})
		if diff := cmp.Diff(req, read, cmpopts.IgnoreTypes(infer.Pause{})); diff != "" {
			t.Errorf("asked: -want +got\n%s", diff)
		}
		if len(ranked) != 2 || ranked[0].Score < ranked[1].Score || ranked[0].Score != max(x, y) {
			t.Errorf("%v, %v ranked as %v", x, y, ranked)
		}
	})
}
