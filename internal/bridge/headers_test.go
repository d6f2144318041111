package bridge_test

import (
	"context"
	"testing"

	"github.com/inferd-go/inferd/internal/exchange"
	"github.com/inferd-go/inferd/internal/infer"
)

// In every dialect, the headers Inferd-Local-Only and Traceparent reach the handler, also for requests
// that count tokens. An invalid Traceparent is ignored; an invalid Inferd-Local-Only is refused.
func TestLocalOnlyAndTraces(t *testing.T) {
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	type wish struct {
		LocalOnly   bool
		Traceparent string
	}
	asked := make(chan wish, 1)
	h := open(t, infer.HandlerFunc(func(_ context.Context, req *infer.Request, emit infer.Sink) error {
		asked <- wish{req.LocalOnly, req.Traceparent}
		return emit(&infer.Done{})
	}), nil)
	for _, path := range []string{"/v1/chat/completions", "/v1/responses", "/v1/messages", "/api/chat", "/completion", "/v1/messages/count_tokens"} {
		body := map[string]string{"/v1/responses": `{"input":"hi"}`, "/completion": `{"prompt":"hi"}`}[path]
		if body == "" {
			body = `{"model":"gen","messages":[{"role":"user","content":"hi"}]}`
		}
		got := h.once(request("POST", path, body, "Inferd-Local-Only: true", "Traceparent: "+trace))
		if req := <-asked; got.status != 200 || !req.LocalOnly || req.Traceparent != trace {
			t.Errorf("%s: %+v, asked %+v", path, got, req)
		}
	}
	if records := h.kept.records(); records[0].TraceID != "0af7651916cd43dd8448eb211c80319c" {
		t.Errorf("record %+v", records[0])
	}
	for _, headers := range [][]string{
		{"X-Nothing: 1"}, {"Inferd-Local-Only: false"}, {"Traceparent: 00-x"}, {"Traceparent: " + trace, "Traceparent: " + trace},
	} {
		h.once(request("POST", chatPath, hi(""), headers...))
		if req := <-asked; req.LocalOnly || req.Traceparent != "" {
			t.Errorf("%q: asked %+v", headers, req)
		}
	}
	h.once(request("POST", chatPath, hi(""), "Inferd-Local-Only: false", "Inferd-Local-Only: true"))
	if req := <-asked; !req.LocalOnly {
		t.Error("the second of two headers is dropped")
	}
	for _, value := range []string{"yes", "", "TRUE"} {
		got := h.once(request("POST", chatPath, hi(""), "Inferd-Local-Only: "+value))
		if kind, _, _, message := got.failure(); got.status != 400 || kind != "invalid_request_error" || message != "the header Inferd-Local-Only must be true or false" {
			t.Errorf("%q: %+v", value, got)
		}
	}
	for _, r := range h.kept.records()[len(h.kept.records())-3:] {
		if r.Outcome != exchange.Unreadable {
			t.Errorf("record %+v", r)
		}
	}
}
