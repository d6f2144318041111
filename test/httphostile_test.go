package test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// errorReaders has, for each dialect of HTTP, a function that returns the type and the message of an
// error.
var errorReaders = map[string]func(body []byte) (kind, message string){
	"openai": func(body []byte) (kind, message string) {
		var m struct {
			Error struct{ Message, Type string }
		}
		_ = json.Unmarshal(body, &m)
		return m.Error.Type, m.Error.Message
	},
	"anthropic": func(body []byte) (kind, message string) {
		var m struct {
			Type  string
			Error struct{ Message, Type string }
		}
		if json.Unmarshal(body, &m) != nil || m.Type != "error" {
			return "", ""
		}
		return m.Error.Type, m.Error.Message
	},
	"ollama": func(body []byte) (kind, message string) {
		var m struct{ Error string }
		_ = json.Unmarshal(body, &m)
		return "error", m.Error
	},
	"llama": func(body []byte) (kind, message string) {
		var m struct {
			Error struct {
				Code          int
				Message, Type string
			}
		}
		if json.Unmarshal(body, &m) != nil || m.Error.Code == 0 {
			return "", ""
		}
		return m.Error.Type, m.Error.Message
	},
}

// validHTTPRequests has valid requests in the dialects of HTTP.
var validHTTPRequests = []struct{ dialect, path, body string }{
	{"openai", "/v1/chat/completions", `{"model":"gen","messages":[{"role":"user","content":"hi"}]}`},
	{"openai", "/v1/completions", `{"model":"gen","prompt":"hi"}`},
	{"openai", "/v1/responses", `{"model":"gen","input":"hi"}`},
	{"openai", "/v1/embeddings", `{"model":"gen","input":"hi"}`},
	{"anthropic", "/v1/messages", `{"model":"gen","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}`},
	{"ollama", "/api/chat", `{"model":"gen","stream":false,"messages":[{"role":"user","content":"hi"}]}`},
	{"ollama", "/api/generate", `{"model":"gen","stream":false,"prompt":"hi"}`},
	{"llama", "/completion", `{"prompt":"hi"}`},
}

// rawHTTP returns the bytes of a request.
func rawHTTP(method, path, body string, headers ...string) string {
	host, length := "Host: localhost\r\n", fmt.Sprintf("Content-Length: %d\r\n", len(body))
	var more strings.Builder
	for _, h := range headers {
		switch name, _, _ := strings.Cut(h, ":"); name {
		case "Host":
			host = ""
		case "Content-Length", "Transfer-Encoding":
			length = ""
		}
		more.WriteString(h + "\r\n")
	}
	return method + " " + path + " HTTP/1.1\r\n" + host + length + more.String() + "\r\n" + body
}

// closingRequest is a request that closes the connection. If the server has consumed every earlier
// request, the next response is that to closingRequest, and it is the last one.
var closingRequest = rawHTTP("GET", "/health", "", "Connection: close")

// A rawResponse is the status and the body of a response.
type rawResponse struct {
	status int
	body   []byte
}

// onlyResponse sends text, followed by closingRequest, and returns the response to text. If that
// response does not close the connection, onlyResponse returns an error unless exactly one more
// follows, the response to closingRequest.
func onlyResponse(t *testing.T, addr, text string) (got rawResponse, err error) {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return got, err
	}
	defer nc.Close()
	if err := nc.SetDeadline(time.Now().Add(patience)); err != nil {
		return got, err
	}
	go func() { _, _ = io.WriteString(nc, text+closingRequest) }() // fails if the connection is closed before
	r := bufio.NewReader(nc)
	got, closes, err := response(r)
	if err != nil || closes {
		return got, err // the connection may be reset now
	}
	last, closes, err := response(r)
	if err != nil || !closes || string(last.body) != `{"status":"ok"}` {
		return got, fmt.Errorf("the next response: %d %s, %w", last.status, last.body, err)
	}
	if rest, err := io.ReadAll(r); len(rest) > 0 || err != nil {
		return got, fmt.Errorf("after the last response: %q, %w", rest, err)
	}
	return got, nil
}

func response(r *bufio.Reader) (got rawResponse, closes bool, err error) {
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		return got, false, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return rawResponse{res.StatusCode, body}, res.Close, err
}

// A bad request over TCP gets one error, in the form of its dialect. Other requests, on the same
// connection or later ones, are not affected.
func TestHostileHTTP(t *testing.T) {
	d := mocked(t, `{"backends":[{"kind":"mock","name":"gen"}]}`, "--http", "127.0.0.1:0")
	addr := d.httpAddr()
	served := func() {
		t.Helper()
		for _, a := range validHTTPRequests {
			if got, err := onlyResponse(t, addr, rawHTTP("POST", a.path, a.body)); got.status != http.StatusOK || err != nil {
				t.Errorf("%s: %d %s, %v", a.path, got.status, got.body, err)
			}
		}
	}
	served()
	before := d.resources()
	for _, a := range validHTTPRequests {
		inner := rawHTTP("POST", a.path, a.body)
		for name, test := range map[string]struct {
			request string
			status  int
			bare    bool // net/http answers, in no dialect
		}{
			"another host":            {rawHTTP("POST", a.path, a.body, "Host: evil.example"), 403, false},
			"no host":                 {rawHTTP("POST", a.path, a.body, "Host: "), 403, false},
			"another origin":          {rawHTTP("POST", a.path, a.body, "Origin: https://evil.example"), 403, false},
			"the origin null":         {rawHTTP("POST", a.path, a.body, "Origin: null"), 403, false},
			"another site":            {rawHTTP("POST", a.path, a.body, "Sec-Fetch-Site: cross-site"), 403, false},
			"text/plain from a page":  {rawHTTP("POST", a.path, a.body, "Origin: http://localhost", "Content-Type: text/plain"), 415, false},
			"gzip":                    {rawHTTP("POST", a.path, a.body, "Content-Encoding: gzip"), 415, false},
			"GET":                     {rawHTTP("GET", a.path, ""), 405, false},
			"PUT":                     {rawHTTP("PUT", a.path, a.body), 405, false},
			"a path below":            {rawHTTP("POST", a.path+"/x", a.body), 404, false},
			"no body":                 {rawHTTP("POST", a.path, ""), 400, false},
			"depth 1,000":             {rawHTTP("POST", a.path, `{"x":`+strings.Repeat("[", 1000)+strings.Repeat("]", 1000)+"}"), 400, false},
			"invalid UTF-8":           {rawHTTP("POST", a.path, strings.Replace(a.body, "hi", "\xff", 1)), 400, false},
			"malformed chunks":        {rawHTTP("POST", a.path, "zz\r\n", "Transfer-Encoding: chunked"), 400, false},
			"65 MiB":                  {rawHTTP("POST", a.path, "", fmt.Sprintf("Content-Length: %d", 65<<20), "Expect: 100-continue"), 413, false},
			"two lengths":             {rawHTTP("POST", a.path, inner, "Content-Length: 5", "Content-Length: 6"), 400, true},
			"an invalid length":       {rawHTTP("POST", a.path, inner, "Content-Length: 5x"), 400, true},
			"an unknown coding":       {rawHTTP("POST", a.path, inner, "Transfer-Encoding: x"), 501, true},
			"large headers":           {rawHTTP("POST", a.path, a.body, "X: "+strings.Repeat("x", 80<<10)), 431, true},
			"a length beside chunks":  {rawHTTP("POST", a.path, "0\r\n\r\n", "Content-Length: 4", "Transfer-Encoding: chunked"), 400, false},
			"a request inside chunks": {rawHTTP("POST", a.path, fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(inner), inner), "Content-Length: 5", "Transfer-Encoding: chunked"), 400, false},
		} {
			got, err := onlyResponse(t, addr, test.request)
			if got.status != test.status || err != nil {
				t.Errorf("%s, %s: %d %s, want %d; %v", a.path, name, got.status, got.body, test.status, err)
				continue
			}
			if test.bare {
				continue
			}
			if kind, message := errorReaders[dialectOf(a.dialect, name)](got.body); kind == "" || message == "" {
				t.Errorf("%s, %s: %s is no error of %s", a.path, name, got.body, a.dialect)
			}
		}
		for i := range 10 { // complete for HTTP, but not valid JSON
			got, err := onlyResponse(t, addr, rawHTTP("POST", a.path, a.body[:i*len(a.body)/10]))
			if kind, message := errorReaders[a.dialect](got.body); got.status != http.StatusBadRequest || kind == "" || message == "" || err != nil {
				t.Errorf("%s, %d tenths: %d %s, %v", a.path, i, got.status, got.body, err)
			}
		}
	}
	for name, test := range map[string]struct{ path, body, param string }{
		"n: 2":            {"/v1/chat/completions", `{"model":"gen","n":2,"messages":[{"role":"user","content":"hi"}]}`, "n"},
		"an http image":   {"/v1/chat/completions", `{"model":"gen","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"http://127.0.0.1:1/x.png"}}]}]}`, "messages"},
		"an array":        {"/v1/embeddings", `{"model":"gen","input":[1,2]}`, "input"},
		"arrays":          {"/v1/embeddings", `{"model":"gen","input":[[1],[2]]}`, "input"},
		"n of a text":     {"/v1/completions", `{"model":"gen","prompt":"hi","n":2}`, "n"},
		"an image by URL": {"/v1/messages", `{"model":"gen","max_tokens":9,"messages":[{"role":"user","content":[{"type":"image","source":{"type":"url","url":"http://127.0.0.1:1/x.png"}}]}]}`, ""},
	} {
		got, err := onlyResponse(t, addr, rawHTTP("POST", test.path, test.body))
		var m struct{ Error struct{ Param string } }
		_ = json.Unmarshal(got.body, &m)
		if got.status != http.StatusBadRequest || m.Error.Param != test.param || err != nil {
			t.Errorf("%s: %d %s, %v", name, got.status, got.body, err)
		}
	}
	served()
	d.recovers(before)
}

// dialectOf returns the dialect of the error in the case called name. It is dialect, except for
// unknown paths below the paths of llama.cpp's server.
func dialectOf(dialect, name string) string {
	if name == "a path below" && dialect == "llama" {
		return "openai" // the dialect of unknown paths
	}
	return dialect
}

// A request with a body that is cut off does not run. If the client still reads, it gets an error in
// the form of its dialect. If it closes the connection, its resources become free.
func TestHTTPBodiesBreakOff(t *testing.T) {
	d := mocked(t, `{"backends":[{"kind":"mock","name":"gen"}]}`, "--http", "127.0.0.1:0")
	addr := d.httpAddr()
	before := d.resources()
	for _, a := range validHTTPRequests {
		whole := rawHTTP("POST", a.path, a.body)
		head := len(whole) - len(a.body)
		for i := range 10 {
			for _, half := range []bool{true, false} {
				nc, err := net.Dial("tcp", addr)
				if err != nil {
					t.Fatal(err)
				}
				_ = nc.SetDeadline(time.Now().Add(patience))
				if _, err := io.WriteString(nc, whole[:head+i*len(a.body)/10]); err != nil {
					t.Fatal(err)
				}
				if half {
					_ = nc.(*net.TCPConn).CloseWrite()
					r := bufio.NewReader(nc)
					got, closes, err := response(r)
					if kind, message := errorReaders[a.dialect](got.body); got.status != http.StatusBadRequest || !closes || kind == "" || message == "" || err != nil {
						t.Errorf("%s, %d tenths: %d %s, %v", a.path, i, got.status, got.body, err)
					}
					if rest, err := io.ReadAll(r); len(rest) > 0 || err != nil {
						t.Errorf("%s, %d tenths: then %q, %v", a.path, i, rest, err)
					}
				}
				_ = nc.Close()
			}
		}
	}
	d.recovers(before)
	for _, r := range d.records("http_request_done") {
		t.Errorf("a broken-off request ran: %v", r)
	}
}
