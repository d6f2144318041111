package link_test

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/link"
)

// A generator draws random values of any type by reflection, so it also covers members that are
// added to requests and events later.
type generator struct {
	t     *rapid.T
	depth int
}

func (g *generator) fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(rapid.Bool().Draw(g.t, "bool"))
	case reflect.Int:
		v.SetInt(int64(rapid.IntRange(0, math.MaxInt32).Draw(g.t, "int")))
	case reflect.Int32:
		v.SetInt(int64(rapid.Int32().Draw(g.t, "int32")))
	case reflect.Uint8:
		v.SetUint(uint64(rapid.Byte().Draw(g.t, "byte")))
	case reflect.Uint32:
		v.SetUint(uint64(rapid.Uint32().Draw(g.t, "uint32")))
	case reflect.Float32:
		v.SetFloat(float64(rapid.Float32().Draw(g.t, "float32")))
	case reflect.Float64:
		v.SetFloat(rapid.Float64().Draw(g.t, "float64"))
	case reflect.String:
		v.SetString(rapid.String().Draw(g.t, "string"))
	case reflect.Pointer:
		if rapid.Bool().Draw(g.t, "pointer") {
			v.Set(reflect.New(v.Type().Elem()))
			g.fill(v.Elem())
		}
	case reflect.Slice:
		if n := rapid.IntRange(-1, 3).Draw(g.t, "elements"); n >= 0 {
			v.Set(reflect.MakeSlice(v.Type(), n, n))
		}
		for i := range v.Len() {
			g.fill(v.Index(i))
		}
	case reflect.Map:
		if n := rapid.IntRange(-1, 3).Draw(g.t, "entries"); n >= 0 {
			v.Set(reflect.MakeMap(v.Type()))
			for range n {
				key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
				g.fill(key)
				g.fill(value)
				v.SetMapIndex(key, value)
			}
		}
	case reflect.Struct:
		for _, field := range v.Fields() {
			g.fill(field)
		}
	case reflect.Interface:
		v.Set(reflect.ValueOf(g.part()))
	default:
		g.t.Fatalf("no random %s", v.Type())
	}
}

func (g *generator) part() infer.Part {
	parts := []infer.Part{&infer.TextPart{}, &infer.ThinkingPart{}, &infer.MediaPart{}, &infer.CallPart{}, &infer.ResultPart{}}
	if g.depth == 3 {
		parts = parts[:1]
	}
	g.depth++
	defer func() { g.depth-- }()
	part := rapid.SampledFrom(parts).Draw(g.t, "part")
	g.fill(reflect.ValueOf(part).Elem())
	return part
}

func (g *generator) task() infer.Task {
	task := rapid.SampledFrom([]infer.Task{&infer.Generate{}, &infer.Count{}, &infer.Embed{}, &infer.Rerank{}}).Draw(g.t, "task")
	if count, ok := task.(*infer.Count); ok {
		count.Of = new(infer.Generate)
		g.fill(reflect.ValueOf(count.Of).Elem())
		for _, flag := range []*bool{&count.Bare, &count.Literal, &count.History} {
			g.fill(reflect.ValueOf(flag).Elem())
		}
		return task
	}
	g.fill(reflect.ValueOf(task).Elem())
	if gen, ok := task.(*infer.Generate); ok {
		for i := range gen.Attachments { // an empty blob arrives as an empty slice, not as nil
			gen.Attachments[i].Data = append([]byte{}, gen.Attachments[i].Data...)
		}
	}
	return task
}

// carriedTask returns a task as an engine receives it: with its defaults and, for a count, without
// the data of attachments.
func carriedTask(task infer.Task) infer.Task {
	switch t := task.(type) {
	case *infer.Generate:
		return t.Settled()
	case *infer.Count:
		bare := *t.Of
		bare.Attachments = []infer.Attachment{}
		for _, a := range t.Of.Attachments {
			a.Data = nil
			bare.Attachments = append(bare.Attachments, a)
		}
		whole := *t
		whole.Of = &bare
		return &whole
	case *infer.Embed, *infer.Rerank:
	}
	return task
}

// events draws an answer to a task.
func (g *generator) events(task infer.Task) (all []infer.Event) {
	switch task.(type) {
	case *infer.Embed:
		all = append(all, &infer.Vectors{})
	case *infer.Rerank:
		all = append(all, &infer.Scores{})
	case *infer.Count:
		if rapid.Bool().Draw(g.t, "revealed") {
			all = append(all, &infer.Prompt{})
		}
	case *infer.Generate:
		for range rapid.IntRange(0, 8).Draw(g.t, "events") {
			all = append(all, rapid.SampledFrom([]infer.Event{&infer.Prompt{}, &infer.Text{}, &infer.Thinking{}, &infer.ToolCall{}}).Draw(g.t, "event"))
			all[len(all)-1] = reflect.New(reflect.TypeOf(all[len(all)-1]).Elem()).Interface().(infer.Event)
		}
	}
	all = append(all, &infer.Done{})
	for _, ev := range all {
		switch ev := ev.(type) {
		case *infer.Done: // without timings, which the daemon measures
			timings := ev.Timings
			g.fill(reflect.ValueOf(&ev.Reason).Elem())
			g.fill(reflect.ValueOf(&ev.In).Elem())
			g.fill(reflect.ValueOf(&ev.Cached).Elem())
			g.fill(reflect.ValueOf(&ev.Out).Elem())
			g.fill(reflect.ValueOf(&ev.Backend).Elem())
			g.fill(reflect.ValueOf(&ev.Unsatisfied).Elem())
			g.fill(reflect.ValueOf(&ev.Stop).Elem())
			ev.Model, ev.Timings = "a model", timings
		case *infer.Text:
			g.fill(reflect.ValueOf(ev).Elem())
			ev.Tokens, ev.Cost = ev.Tokens%1000, ev.Cost%1000
			if len(ev.Delta) == 0 {
				ev.Delta, ev.Logprobs = []byte{}, nil
			}
		case *infer.Thinking:
			g.fill(reflect.ValueOf(ev).Elem())
			ev.Tokens, ev.Cost = ev.Tokens%1000, ev.Cost%1000
		case *infer.ToolCall:
			g.fill(reflect.ValueOf(ev).Elem())
			ev.Input = fmt.Appendf(nil, `{"a":%d}`, rapid.Int().Draw(g.t, "argument"))
		default:
			g.fill(reflect.ValueOf(ev).Elem())
		}
	}
	return all
}

// carried copies events without the empty ones, and adds the tokens and cost of these to the next
// text or thinking.
func carried(events []infer.Event) (all []infer.Event) {
	tokens, cost := 0, 0
	for _, ev := range events {
		switch ev := ev.(type) {
		case *infer.Text:
			tokens, cost = tokens+ev.Tokens, cost+ev.Cost
			if len(ev.Delta) > 0 {
				all = append(all, &infer.Text{Delta: ev.Delta, Logprobs: ev.Logprobs, Tokens: tokens, Cost: cost})
				tokens, cost = 0, 0
			}
		case *infer.Thinking:
			tokens, cost = tokens+ev.Tokens, cost+ev.Cost
			if len(ev.Delta) > 0 {
				all = append(all, &infer.Thinking{Delta: ev.Delta, Tokens: tokens, Cost: cost})
				tokens, cost = 0, 0
			}
		default:
			all = append(all, ev)
		}
	}
	return all
}

// joined copies events and joins adjacent text and adjacent thinking.
func joined(events []infer.Event) (all []infer.Event) {
	for _, ev := range events {
		var last infer.Event
		if len(all) > 0 {
			last = all[len(all)-1]
		}
		switch ev := ev.(type) {
		case *infer.Text:
			if last, ok := last.(*infer.Text); ok {
				last.Delta = append(last.Delta, ev.Delta...)
				last.Logprobs = append(last.Logprobs, ev.Logprobs...)
				last.Tokens, last.Cost = last.Tokens+ev.Tokens, last.Cost+ev.Cost
				continue
			}
			text := *ev
			text.Delta = bytes.Clone(ev.Delta)
			text.Logprobs = append([]infer.Logprob(nil), ev.Logprobs...)
			all = append(all, &text)
		case *infer.Thinking:
			if last, ok := last.(*infer.Thinking); ok {
				last.Delta = append(last.Delta, ev.Delta...)
				last.Tokens, last.Cost = last.Tokens+ev.Tokens, last.Cost+ev.Cost
				continue
			}
			thinking := *ev
			thinking.Delta = bytes.Clone(ev.Delta)
			all = append(all, &thinking)
		case *infer.Prompt:
			all = append(all, new(*ev))
		default:
			all = append(all, ev)
		}
	}
	return all
}

// Every member of a task and of an event crosses the link unchanged, and events keep their order.
// Adjacent text may be joined, and tokens without text arrive with the next text.
func TestLinkIsLossless(t *testing.T) {
	var (
		tasks   = make(chan infer.Task, 1)
		answers = make(chan []infer.Event, 1)
		srv     = &link.Server{}
	)
	srv.Handler = infer.HandlerFunc(func(_ context.Context, req *infer.Request, emit infer.Sink) error {
		tasks <- req.Task
		for _, ev := range <-answers {
			if err := emit(ev); err != nil {
				return err
			}
		}
		return srv.Flush()
	})
	for _, deferred := range []bool{false, true} {
		srv.Deferred = deferred
		client := join(t, srv)
		rapid.Check(t, func(t *rapid.T) {
			g := generator{t: t}
			task := g.task()
			events := g.events(task)
			answers <- events
			var got []infer.Event
			tokens, written := 0, 0
			req := &infer.Request{Task: task, Written: func(tokens, cost int) { written += tokens + cost }}
			err := client.Handle(context.Background(), req, func(ev infer.Event) error {
				got = joined(append(got, ev))
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(carriedTask(task), <-tasks); diff != "" {
				t.Errorf("task: -want +got\n%s", diff)
			}
			if diff := cmp.Diff(joined(carried(events)), got, cmpopts.EquateEmpty(), cmpopts.IgnoreFields(infer.Text{}, "More")); diff != "" {
				t.Errorf("answer: -want +got\n%s", diff)
			}
			for _, ev := range events {
				switch ev := ev.(type) {
				case *infer.Text:
					tokens += ev.Tokens + ev.Cost
				case *infer.Thinking:
					tokens += ev.Tokens + ev.Cost
				case *infer.ToolCall:
					tokens += ev.Tokens + ev.Cost
				}
			}
			if written != tokens {
				t.Errorf("%d tokens and cost were reported as written, want %d", written, tokens)
			}
		})
	}
}

// Attachments of any size cross the link, and a request with more than the limit in all is refused.
func TestAttachments(t *testing.T) {
	const limit = 128 << 20
	sizes := make(chan []int, 1)
	client := join(t, &link.Server{Handler: infer.HandlerFunc(func(_ context.Context, req *infer.Request, emit infer.Sink) error {
		var all []int
		for _, a := range req.Task.(*infer.Generate).Attachments {
			all = append(all, len(a.Data))
		}
		sizes <- all
		return emit(&infer.Done{})
	})})
	media := func(sizes ...int) *infer.Request {
		req := ask("x")
		for i, n := range sizes {
			a := infer.Attachment{ID: fmt.Sprint(i), Kind: infer.Image, Data: make([]byte, n)}
			req.Task.(*infer.Generate).Attachments = append(req.Task.(*infer.Generate).Attachments, a)
		}
		return req
	}
	want := []int{0, 1, 20_000, 9 << 20}
	if _, err := collect(t.Context(), client, media(want...)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, <-sizes); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if _, err := collect(t.Context(), client, media(limit/2, limit/2+1)); infer.CodeOf(err) != infer.TooLarge {
		t.Errorf("too much: %v", err)
	}
}

// A tool call with an input that is not JSON fails its call, and no other.
func TestMalformedToolCall(t *testing.T) {
	client := join(t, &link.Server{Handler: infer.HandlerFunc(func(_ context.Context, _ *infer.Request, emit infer.Sink) error {
		if err := emit(&infer.ToolCall{Name: "f", Input: []byte(`{"a":`)}); err != nil {
			return err
		}
		return emit(&infer.Done{})
	})})
	for range 2 {
		if _, err := collect(t.Context(), client, ask("x")); infer.CodeOf(err) != infer.Malformed {
			t.Errorf("Handle = %v, want %s", err, infer.Malformed)
		}
	}
}
