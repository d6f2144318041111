package main

import (
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/inferd-go/inferd/client"
	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/quota"
	"github.com/inferd-go/inferd/internal/shortdir"
)

// refusing serves a socket that refuses every request. It sends the requests to the returned
// channel.
func refusing(t *testing.T, path string) <-chan map[string]any {
	t.Helper()
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	asked := make(chan map[string]any, 10)
	go func() { // ends when ln is closed
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			_, text, err := frame.Prefixed.NewReader(nc, frame.Limit).ReadFrame()
			var req map[string]any
			if err == nil && json.Unmarshal(text, &req) == nil {
				asked <- req
				_ = frame.Prefixed.NewWriter(nc).WriteFrame([]byte(`{"type":"error","id":"","code":"queue_full","message":"queue full"}`))
			}
			_ = nc.Close()
		}
	}()
	return asked
}

// For chats, the headers Inferd-Local-Only and Traceparent are passed on to the daemon. An invalid
// Inferd-Local-Only is refused. So is the value true for embeddings: their socket cannot pass it
// on.
func TestLocalOnlyAndTraces(t *testing.T) {
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	dir := shortdir.New(t)
	gen, embed := filepath.Join(dir, "inferd.sock"), filepath.Join(dir, "embed.sock")
	asked := refusing(t, gen)
	server := httptest.NewServer(&bridge{
		client: &client.Client{Sockets: map[client.Surface]string{client.LP: gen, client.Embed: embed}, Wait: time.Millisecond},
		model:  "m", log: slog.New(slog.DiscardHandler), bodies: quota.Quota{PerCaller: maxMemory, Total: maxMemory},
	})
	defer server.Close()
	ask := func(path, body string, values ...string) (status int, answer string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Traceparent", trace)
		for _, v := range values {
			req.Header.Add("Inferd-Local-Only", v)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		all, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(all)
	}
	const chat, vectors = `{"model":"m","messages":[{"role":"user","content":"hi"}]}`, `{"model":"m","input":"hi"}`
	for name, test := range map[string]struct {
		values []string
		want   bool
	}{
		"no header": {nil, false}, "true": {[]string{"true"}, true}, "false": {[]string{"false"}, false}, "both": {[]string{"false", "true"}, true},
	} {
		status, answer := ask("/v1/chat/completions", chat, test.values...)
		if status != http.StatusTooManyRequests {
			t.Errorf("%s: %d %s", name, status, answer)
			continue
		}
		if got := <-asked; (got["local_only"] == true) != test.want || got["traceparent"] != trace {
			t.Errorf("%s: asked %v", name, got)
		}
	}
	for name, test := range map[string]struct{ path, body, value, want string }{
		"a chat with another value": {"/v1/chat/completions", chat, "yes", "must be true or false"},
		"vectors with another one":  {"/v1/embeddings", vectors, "yes", "must be true or false"},
		"vectors on this machine":   {"/v1/embeddings", vectors, "true", "embeddings do not support the header Inferd-Local-Only"},
	} {
		status, answer := ask(test.path, test.body, test.value)
		if status != http.StatusBadRequest || !strings.Contains(answer, test.want) || !strings.Contains(answer, "invalid_request_error") {
			t.Errorf("%s: %d %s", name, status, answer)
		}
	}
	if status, answer := ask("/v1/embeddings", vectors, "false"); status != http.StatusBadGateway {
		t.Errorf("vectors without a daemon: %d %s", status, answer)
	}
	if len(asked) > 0 {
		t.Errorf("a refused request was passed on: %v", <-asked)
	}
}
