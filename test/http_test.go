package test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/shortdir"
)

// startWith starts a daemon with the given config, and does not wait until it is ready.
func startWith(t *testing.T, cfg string, args ...string) *daemon {
	t.Helper()
	dir := shortdir.New(t)
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(cfg), 0o600); err != nil {
		t.Fatal(err)
	}
	return start(t, dir, args...)
}

var boundAt = regexp.MustCompile(`surface=http path=(127\.0\.0\.1:\d+)`)

// httpAddr waits for the TCP address of HTTP, and returns it.
func (d *daemon) httpAddr() (addr string) {
	d.t.Helper()
	eventually(d.t, "HTTP is bound", func() bool {
		select {
		case <-d.exited:
			d.t.Fatalf("inferd exited:\n%s", d.stderr)
		default:
		}
		if m := boundAt.FindStringSubmatch(d.stderr.String()); m != nil {
			addr = m[1]
		}
		return addr != ""
	})
	return addr
}

// overSocket returns a client of http.sock.
func (d *daemon) overSocket() *http.Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", d.socket("http.sock"))
	}
	return &http.Client{Timeout: patience, Transport: &http.Transport{DialContext: dial}}
}

// exchangeHTTP sends a request, and returns the status and the body of the answer.
func exchangeHTTP(t *testing.T, c *http.Client, method, url, body string, headers ...string) (status int, answer string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	res, err := c.Do(req)
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

// askHTTP sends a chat request, and returns the status and the body of the answer.
func askHTTP(t *testing.T, c *http.Client, base, body string, headers ...string) (status int, answer string) {
	t.Helper()
	return exchangeHTTP(t, c, http.MethodPost, base+"/v1/chat/completions", body, headers...)
}

const hiGen = `{"model":"gen","messages":[{"role":"user","content":"abc"}],"max_tokens":4}`

// HTTP is bound before the models are loaded. Meanwhile /health says that they are loading,
// requests wait, and no other program can bind the address.
func TestHTTPIsBoundEarly(t *testing.T) {
	d := startWith(t, `{"http":{"listen":["127.0.0.1:0"]},"backends":[{"kind":"mock","name":"gen","ready_after_ms":2000}]}`)
	base := "http://" + d.httpAddr()
	c := &http.Client{Timeout: patience}
	res, err := c.Get(base + "/health")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if res.StatusCode != http.StatusServiceUnavailable || string(body) != `{"status":"loading"}` {
		t.Errorf("health: %d %s", res.StatusCode, body)
	}
	if status, answer := askHTTP(t, c, base, hiGen); status != http.StatusOK || !strings.Contains(answer, "mock-response") {
		t.Errorf("got %d %s", status, answer)
	}
	other := startWith(t, `{"backends":[{"kind":"mock","name":"gen"}]}`, "--http", strings.TrimPrefix(base, "http://"))
	if code := other.exit(); code != 1 || !strings.Contains(other.stderr.String(), "--http "+strings.TrimPrefix(base, "http://")) {
		t.Errorf("a second daemon exits with %d:\n%s", code, other.stderr)
	}
}

// The real engine answers over http.sock. The socket exists by default, allows access to the group,
// and is removed when the daemon ends.
func TestHTTPSocket(t *testing.T) {
	d := serve(t, "--model-path", "builtin:chain")
	info, err := os.Stat(d.socket("http.sock"))
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("http.sock: %v, %v", info, err)
	}
	c := d.overSocket()
	if status, answer := askHTTP(t, c, "http://x", `{"messages":[{"role":"user","content":"abc"}],"max_tokens":4}`); status != http.StatusOK ||
		!strings.Contains(answer, `"content":"defg"`) || !strings.Contains(answer, `"model":"llamacpp"`) || !strings.Contains(answer, `"prompt_tokens":3,"completion_tokens":4`) {
		t.Errorf("got %d %s", status, answer)
	}
	if status, answer := askHTTP(t, c, "http://x", `{"model":"llamacpp","messages":[{"role":"user","content":"`+strings.Repeat("x", 20_000)+`"}],"stream":true}`); status != http.StatusBadRequest ||
		!strings.Contains(answer, `"code":"context_length_exceeded"`) {
		t.Errorf("a long prompt: %d %s", status, answer)
	}
	if status, answer := askHTTP(t, c, "http://x", `{"model":"llamacpp","messages":[{"role":"user","content":"a"}],"tools":[{"type":"function","function":{"name":"f","parameters":{"$dynamicRef":"#x"}}}]}`); status != http.StatusBadRequest ||
		!strings.Contains(answer, `/$dynamicRef`) {
		t.Errorf("tools: %d %s", status, answer)
	}
	if status, answer := askHTTP(t, c, "http://x", `{"model":"gpt-9","messages":[{"role":"user","content":"a"}]}`); status != http.StatusNotFound {
		t.Errorf("an unknown model: %d %s", status, answer)
	}
	d.signal(syscall.SIGTERM)
	if code := d.exit(); code != 0 {
		t.Errorf("the daemon exits with %d", code)
	}
	if _, err := os.Stat(d.socket("http.sock")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("http.sock is left: %v", err)
	}
	d = startWith(t, `{"backends":[{"kind":"mock","name":"gen"}]}`, "--http-sock=false")
	d.waitReady()
	if _, err := os.Stat(d.socket("http.sock")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("switched off, and there: %v", err)
	}
}

// Connections of unknown users are counted. The user of a client that closes its connection at once is
// unknown, if the client is faster than the daemon.
func TestUnknownPeers(t *testing.T) {
	d := startWith(t, `{"http":{"listen":["127.0.0.1:0"]},"backends":[{"kind":"mock","name":"gen"}]}`)
	d.waitReady()
	unknown := func() int64 {
		out, _, _ := d.ctl("stats")
		var s struct {
			Unknown *int64 `json:"unknown_peers"`
		}
		if err := json.Unmarshal([]byte(out), &s); err != nil || s.Unknown == nil {
			t.Fatalf("%v: %s", err, out)
		}
		return *s.Unknown
	}
	if status, body := getHTTP(t, "http://"+d.httpAddr()+"/v1/models"); status != 200 || unknown() != 0 {
		t.Errorf("a client that stays: %d %s, %d unknown", status, body, unknown())
	}
	eventually(t, "a user is unknown", func() bool {
		for range 100 {
			nc, err := net.Dial("tcp", d.httpAddr())
			if err != nil {
				t.Fatal(err)
			}
			_ = nc.Close()
		}
		return unknown() > 0
	})
}

// When the daemon stops, a stream without a first token is refused with the status 503. The activity
// log records the connection with its user, and the refusal.
func TestHTTPDrain(t *testing.T) {
	d := startWith(t, `{"http":{"listen":["127.0.0.1:0"]},"backends":[{"kind":"mock","name":"gen","tokens":["a","b","c"],"token_delay_ms":100000}]}`, "--drain-timeout-secs", "0")
	d.waitReady()
	answered := make(chan string, 1)
	go func() {
		req, _ := http.NewRequest(http.MethodPost, "http://"+d.httpAddr()+"/v1/chat/completions", strings.NewReader(`{"model":"gen","stream":true,"messages":[{"role":"user","content":"hi"}]}`))
		res, err := (&http.Client{Timeout: patience}).Do(req)
		if err != nil {
			answered <- err.Error()
			return
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		answered <- fmt.Sprint(res.StatusCode, " ", string(body), " ", err)
	}()
	eventually(t, "the request runs", func() bool {
		out, _, _ := d.ctl("stats")
		var s struct{ Running int }
		return json.Unmarshal([]byte(out), &s) == nil && s.Running == 1
	})
	d.signal(syscall.SIGTERM)
	if code := d.exit(); code != 0 {
		t.Errorf("the daemon exits with %d", code)
	}
	if got := <-answered; !strings.HasPrefix(got, "503") || !strings.Contains(got, "daemon is shutting down") {
		t.Errorf("the stream: %s", got)
	}
	accepted, refused := d.records("http_connection_accepted"), d.records("http_request_refused")
	if len(accepted) != 1 || accepted[0]["peer_uid"] != float64(os.Getuid()) || accepted[0]["transport"] != "tcp" {
		t.Errorf("connections %v", accepted)
	}
	if len(refused) != 1 {
		t.Fatalf("requests %v", refused)
	}
	if id, _ := refused[0]["req_id"].(string); refused[0]["code"] != "backend_unavailable" || !strings.HasPrefix(id, "req_") {
		t.Errorf("requests %v", refused)
	}
}

// For a client that hangs up and for an answer that fails in the middle, the record has the
// outcome, the dialect and the name of the key, but not the key.
func TestHTTPRecords(t *testing.T) {
	const secret = "0123456789abcdef"
	t.Setenv("TEST_HTTP_KEY", secret)
	d := startWith(t, `{"http":{"listen":["127.0.0.1:0"],"keys":[{"name":"ci","key_env":"TEST_HTTP_KEY"}]},"backends":[
		{"kind":"mock","name":"slow","tokens":["a","b","c"],"token_delay_ms":50000},
		{"kind":"mock","name":"drop","tokens":["a","b","c"],"token_delay_ms":20,"mid_stream_drop_after":2}]}`)
	d.waitReady()
	base := "http://" + d.httpAddr()
	ask := func(ctx context.Context, model string) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/v1/messages", strings.NewReader(`{"model":"`+model+`","stream":true,"max_tokens":9,"messages":[{"role":"user","content":"hi"}]}`))
		if err != nil {
			t.Error(err)
			return
		}
		req.Header.Set("X-Api-Key", secret)
		if res, err := http.DefaultClient.Do(req); err == nil {
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
		}
	}
	ask(t.Context(), "drop")
	ctx, leave := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	asking.Go(func() { ask(ctx, "slow") })
	eventually(t, "the request runs", func() bool { return d.load() == 1 })
	leave()
	asking.Wait()
	for _, msg := range []string{"http_request_error_mid_stream", "http_request_gone"} {
		eventually(t, msg, func() bool { return len(d.records(msg)) == 1 })
		if r := d.records(msg)[0]; r["wire_version"] != "anthropic" || r["key"] != "ci" {
			t.Errorf("%s: %v", msg, r)
		}
	}
	if log, err := os.ReadFile(filepath.Join(d.logDir(), "inferd.ndjson")); err != nil || bytes.Contains(log, []byte(secret)) {
		t.Errorf("the log has the key, or %v", err)
	}
}

// The refusal of a request because of a full queue says when a slot will be free. Here eleven
// requests come first, and each takes four seconds.
func TestHTTPRetryAfter(t *testing.T) {
	d := mocked(t, `{"backends":[{"kind":"mock","name":"gen","n_slots":1,"tokens":["a","b"],"token_delay_ms":2000}]}`, "--http", "127.0.0.1:0")
	url := "http://" + d.httpAddr() + "/v1/chat/completions"
	if status, answer := askHTTP(t, &http.Client{Timeout: patience}, "http://"+d.httpAddr(), hiGen); status != http.StatusOK {
		t.Fatalf("the first one: %d %s", status, answer)
	}
	ctx, leave := context.WithCancel(t.Context())
	var others sync.WaitGroup
	defer others.Wait()
	defer leave()
	for range 11 { // one runs, and ten wait
		others.Go(func() {
			req, _ := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(hiGen))
			if res, err := http.DefaultClient.Do(req); err == nil {
				_, _ = io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
			}
		})
	}
	eventually(t, "the queue is full", func() bool { return d.load() == 11 })
	res, err := http.Post(url, "application/json", strings.NewReader(hiGen))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	// The upper bound allows for a busy machine, on which each request takes longer.
	after := res.Header.Get("Retry-After")
	if seconds, err := strconv.Atoi(after); res.StatusCode != http.StatusTooManyRequests || err != nil || seconds < 44 || seconds > 60 {
		t.Errorf("got %d, Retry-After: %q", res.StatusCode, after)
	}
}

// curlAs runs curl as another user, and returns the status and the body.
func curlAs(t *testing.T, uid uint32, args ...string) (status, body string) {
	t.Helper()
	cmd := exec.Command("curl", append([]string{"-s", "--max-time", "60", "-w", "\n%{http_code}"}, args...)...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("curl: %v", err)
	}
	i := bytes.LastIndexByte(out, '\n')
	return string(out[i+1:]), string(out[:i])
}

// Over TCP, too, the kernel reports the user to the daemon. Other users need a key, and each key is
// a caller of its own.
func TestHTTPOtherUsers(t *testing.T) {
	asRoot(t)
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("no curl")
	}
	t.Setenv("TEST_HTTP_KEY", "0123456789abcdef")
	d := startWith(t, `{"http":{"listen":["127.0.0.1:0"],"keys":[{"name":"ci","key_env":"TEST_HTTP_KEY"}]},"backends":[{"kind":"mock","name":"gen"}]}`)
	d.waitReady()
	url := "http://" + d.httpAddr() + "/v1/chat/completions"
	const other = 61234
	for name, test := range map[string]struct {
		args   []string
		status string
	}{
		"no key":      {nil, "403"},
		"a wrong key": {[]string{"-H", "Authorization: Bearer nothing-of-the-kind"}, "401"},
		"a key":       {[]string{"-H", "Authorization: Bearer 0123456789abcdef"}, "200"},
	} {
		if status, body := curlAs(t, other, append(test.args, "-d", hiGen, url)...); status != test.status {
			t.Errorf("%s: %s %s", name, status, body)
		}
	}
	if status, body := askHTTP(t, &http.Client{Timeout: patience}, "http://"+d.httpAddr(), hiGen); status != http.StatusOK {
		t.Errorf("the daemon's user: %d %s", status, body)
	}
	out, _, _ := d.ctl("stats")
	var s struct {
		Callers []struct{ User, Program string }
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatal(err)
	}
	callers := fmt.Sprint(s.Callers)
	for _, want := range []string{"{61234 ci}", "{0 http}"} {
		if !strings.Contains(callers, want) {
			t.Errorf("callers %s, want %s", callers, want)
		}
	}
}

// While a user holds thousands of idle connections, further ones are refused with a status, and
// another user gets answers. Once the connections are closed, all resources are free again.
func TestHTTPFlood(t *testing.T) {
	asRoot(t)
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("no curl")
	}
	d := startWith(t, `{"http":{"listen":["127.0.0.1:0"],"open":true},"backends":[{"kind":"mock","name":"gen"}]}`)
	d.waitReady()
	addr := d.httpAddr()
	before := d.resources()
	held := make([]net.Conn, 0, 10_000)
	defer func() {
		for _, nc := range held {
			_ = nc.Close()
		}
	}()
	refused := 0
	for i := range min(cap(held), descriptorsLeft(t)) {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		held = append(held, nc)
		if i < 1024 || i%500 != 0 {
			continue
		}
		_ = nc.SetDeadline(time.Now().Add(patience))
		if all, err := io.ReadAll(nc); err == nil && bytes.HasPrefix(all, []byte("HTTP/1.1 503")) && bytes.Contains(all, []byte("Retry-After: 1")) {
			refused++
		}
		if status, body := curlAs(t, 61234, "-d", hiGen, "http://"+addr+"/v1/chat/completions"); status != "200" {
			t.Fatalf("another user, after %d connections: %s %s", i, status, body)
		}
	}
	if refused == 0 {
		t.Error("no connection was refused with a status")
	}
	for _, nc := range held {
		_ = nc.Close()
	}
	d.recovers(before)
}

// descriptorsLeft returns how many connections this process may open.
func descriptorsLeft(t *testing.T) int {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	const others = 200
	return int(min(limit.Cur, 1<<20)) - others
}

// A user that floods the daemon with requests over TCP fills only its own queue. The next free slot
// goes to the request of another user.
func TestHTTPFloodOfRequests(t *testing.T) {
	asRoot(t)
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("no curl")
	}
	d := startWith(t, `{"http":{"listen":["127.0.0.1:0"],"open":true},"backends":[{"kind":"mock","name":"gen","n_slots":2,"tokens":["a","b","c"],"token_delay_ms":100}]}`)
	d.waitReady()
	url := "http://" + d.httpAddr() + "/v1/chat/completions"
	stop := make(chan struct{})
	var flood sync.WaitGroup
	c := &http.Client{Timeout: patience}
	for range 24 { // 2 run, 10 wait, the others are refused
		flood.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if res, err := c.Post(url, "application/json", strings.NewReader(hiGen)); err == nil {
					_, _ = io.Copy(io.Discard, res.Body)
					_ = res.Body.Close()
				}
			}
		})
	}
	defer flood.Wait()
	defer close(stop)
	eventually(t, "the queue is full", func() bool { return d.load() == 12 })
	least := patience
	for range 5 {
		status, body := curlAs(t, 61234, "-d", hiGen, url)
		var answer struct {
			Timings struct {
				QueueMS float64 `json:"queue_ms"`
			}
		}
		if err := json.Unmarshal([]byte(body), &answer); err != nil || status != "200" {
			t.Fatalf("another user: %s %s", status, body)
		}
		least = min(least, time.Duration(answer.Timings.QueueMS*float64(time.Millisecond)))
	}
	// If it waited behind the ten requests, it would wait for 1.5 s.
	if least > 900*time.Millisecond {
		t.Errorf("another user waited for %s or more", least)
	}
}
