package mock_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inferd-go/inferd/internal/backend/mock"
	"github.com/inferd-go/inferd/internal/infer"
)

// answer returns what a backend says, as one line.
func answer(ctx context.Context, b *mock.Backend) string {
	var line string
	err := b.Handle(ctx, &infer.Request{Task: &infer.Generate{}}, func(ev infer.Event) error {
		switch ev := ev.(type) {
		case *infer.Text:
			line += string(ev.Delta) + " "
		case *infer.Done:
			line += fmt.Sprintf("[%s %d]", ev.By, ev.Out)
		}
		return nil
	})
	if err != nil {
		line += fmt.Sprintf("(%s: %v)", infer.CodeOf(err), err)
	}
	return line
}

func TestBackend(t *testing.T) {
	for name, test := range map[string]struct {
		b    *mock.Backend
		want []string // of one request after the other
	}{
		"out of the box":          {&mock.Backend{}, []string{"mock-response [mock 1]"}},
		"its tokens":              {&mock.Backend{Tokens: []string{"a", "b", "c"}}, []string{"a b c [mock 3]", "a b c [mock 3]"}},
		"no token at all":         {&mock.Backend{Tokens: []string{}}, []string{"[mock 0]"}},
		"not ready":               {&mock.Backend{PreStream: "not_ready"}, []string{"(unavailable: backend not ready)"}},
		"a request it refuses":    {&mock.Backend{PreStream: "invalid_request"}, []string{"(invalid: mock)"}},
		"a fault":                 {&mock.Backend{PreStream: "internal"}, []string{"(internal: mock)"}},
		"an answer without end":   {&mock.Backend{Tokens: []string{"a", "b", "c"}, DropAfter: 2}, []string{"a b "}},
		"dropped after the last":  {&mock.Backend{Tokens: []string{"a"}, DropAfter: 1}, []string{"a "}},
		"the first request fails": {&mock.Backend{FailFirst: 1}, []string{"(unavailable: mock)", "mock-response [mock 1]"}},
	} {
		t.Run(name, func(t *testing.T) {
			for i, want := range test.want {
				if got := answer(t.Context(), test.b); got != want {
					t.Errorf("request %d: got %q, want %q", i, got, want)
				}
			}
		})
	}
}

func TestDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &mock.Backend{Tokens: []string{"a", "b"}, TokenDelay: time.Second}
		begin := time.Now()
		_ = answer(t.Context(), b)
		if got := time.Since(begin); got != 2*time.Second {
			t.Errorf("took %s", got)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		if got, want := answer(ctx, b), "a (internal: context deadline exceeded)"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}
