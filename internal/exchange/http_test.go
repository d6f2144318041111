package exchange_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/admit"
	"github.com/inferd-go/inferd/internal/backend"
	"github.com/inferd-go/inferd/internal/backend/mock"
	"github.com/inferd-go/inferd/internal/exchange"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
)

// A reply sends an answer over HTTP. The status is 200 if the request is admitted, or 503 if it
// fails before its admission.
type reply struct {
	http.ResponseWriter

	begun bool
}

func (r *reply) Write(ev infer.Event) error {
	line := ""
	switch ev := ev.(type) {
	case *infer.Admitted:
		r.begun = true
		r.WriteHeader(http.StatusOK)
	case *infer.Text:
		line = string(ev.Delta) + "\n"
	case *infer.Done:
		line = "done\n"
	default:
		return infer.Errorf(infer.Internal, "cannot encode a %T", ev)
	}
	if _, err := io.WriteString(r.ResponseWriter, line); err != nil {
		return err
	}
	return http.NewResponseController(r.ResponseWriter).Flush()
}

func (r *reply) Fail(cause error) error {
	if !r.begun {
		http.Error(r.ResponseWriter, cause.Error(), http.StatusServiceUnavailable)
		return nil
	}
	_, err := fmt.Fprintln(r.ResponseWriter, "error:", cause)
	return err
}

// The client of an exchange may be an HTTP handler: it sends the status at the admission, and a
// hang-up ends the context of the request.
func TestOverHTTP(t *testing.T) {
	const patience = 30 * time.Second // a healthy machine needs a fraction of it
	answers := &mock.Backend{Tokens: []string{"a", "b"}, TokenDelay: 10 * time.Millisecond}
	var handler infer.Handler = answers
	gate := &admit.Gate{Depth: 0, Total: 1, Choose: func(*infer.Request) (admit.Destination, error) {
		return admit.Destination{Backend: &backend.Backend{Name: "m", Slots: 1, Handler: handler}}, nil
	}}
	kept := &journal{}
	runner := &exchange.Runner{Handler: gate, Log: slog.New(slog.DiscardHandler), Journal: kept, Grace: time.Minute}
	ended := make(chan error, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		_, _ = io.Copy(io.Discard, req.Body) // net/http notices a hang-up only after the whole body is read
		ended <- runner.Run(req.Context(), wire.V2, &infer.Request{ID: req.URL.Path, Task: question}, &reply{ResponseWriter: w})
	}))
	defer server.Close()
	// post sends a request. It returns a reader of the body, and a function that returns the status
	// and the unread part of the body.
	post := func(ctx context.Context, path string) (lines *bufio.Reader, rest func() string) {
		t.Helper()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		res, err := server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = res.Body.Close() })
		lines = bufio.NewReader(res.Body)
		return lines, func() string {
			text, err := io.ReadAll(lines)
			if err != nil {
				t.Error(err)
			}
			return fmt.Sprint(res.StatusCode, " ", string(text))
		}
	}
	want := func(got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()

	_, rest := post(ctx, "/answered")
	want(rest(), "200 a\nb\ndone\n")

	handler = infer.HandlerFunc(func(ctx context.Context, _ *infer.Request, emit infer.Sink) error {
		if err := emit(&infer.Text{Delta: []byte("a")}); err != nil {
			return err
		}
		<-ctx.Done()
		return context.Cause(ctx)
	})
	left, leave := context.WithCancel(ctx)
	lines, _ := post(left, "/left")
	if line, err := lines.ReadString('\n'); err != nil || line != "a\n" {
		t.Fatalf("got %q, %v", line, err)
	}
	_, rest = post(ctx, "/refused")
	want(rest(), "503 queue full\n")
	leave()
	var errs []error
	for range 3 {
		select {
		case err := <-ended:
			errs = append(errs, err)
		case <-ctx.Done():
			t.Fatal("the request of a client that left has not ended")
		}
	}
	if errs[0] != nil || errs[1] != nil || errs[2] == nil {
		t.Errorf("Run: %v", errs)
	}

	_, rest = post(ctx, "/stopped")
	runner.Grace = 0
	runner.Drain()
	want(rest(), "200 a\nerror: daemon is shutting down\n")
	for path, outcome := range map[string]exchange.Outcome{
		"/answered": exchange.Done, "/refused": exchange.Refused, "/left": exchange.Gone, "/stopped": exchange.Failed,
	} {
		if all := kept.of(path); len(all) != 1 || all[0].Outcome != outcome {
			t.Errorf("%s: %+v, want %s", path, all, outcome)
		}
	}
}
