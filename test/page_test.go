package test

import (
	"bufio"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// getHTTP requests a path as a browser does, and returns the status and the body.
func getHTTP(t *testing.T, url string) (status int, body string) {
	t.Helper()
	return exchangeHTTP(t, &http.Client{Timeout: patience}, http.MethodGet, url, "", "Accept: text/html")
}

// The daemon serves the page, reports where it listens, and answers inferdctl over HTTP.
func TestPageOfTheDaemon(t *testing.T) {
	d := startWith(t, `{"http":{"listen":["127.0.0.1:0"]},"backends":[{"kind":"mock","name":"gen"}]}`)
	base := "http://" + d.httpAddr()
	d.waitReady()
	if status, body := getHTTP(t, base+"/"); status != http.StatusOK || !strings.Contains(body, "<title>inferd</title>") {
		t.Errorf("the page: %d %s", status, body)
	}
	var s struct {
		Owner     bool
		Listeners []struct{ Surface, Addr string }
	}
	status, body := getHTTP(t, base+"/inferd/stats")
	if err := json.Unmarshal([]byte(body), &s); err != nil || status != http.StatusOK || !s.Owner {
		t.Fatalf("stats: %d %s, %v", status, body, err)
	}
	at := make(map[string]bool)
	for _, l := range s.Listeners {
		at[l.Surface+" "+l.Addr] = true
	}
	for _, want := range []string{
		"admin " + d.socket("admin.sock"), "control " + d.socket("control.sock"), "http " + d.socket("http.sock"), "http " + strings.TrimPrefix(base, "http://"),
		"v1 " + d.socket("infer.sock"), "v2 " + d.socket("infer.v2.sock"), "lp " + d.socket("inferd.sock"),
		"embed " + d.socket("infer.embed.sock"), "rerank " + d.socket("infer.rerank.sock"),
	} {
		if !at[want] {
			t.Errorf("%q is not among the listeners %v", want, s.Listeners)
		}
	}
	eventually(t, "the log has the start", func() bool {
		_, body := getHTTP(t, base+"/inferd/log")
		return strings.HasPrefix(body, `[{"`) && strings.Contains(body, `"inferd starting"`)
	})
	for _, address := range []string{base, "unix:" + d.socket("http.sock")} {
		for verb, want := range map[string]string{"status": `"status":"ready"`, "stats": `"owner":true`, "chat -m hi": "mock-response\n", "embed a": `"embedding":[`} {
			out, err := exec.Command(bin+"/inferdctl", append([]string{"--http", address}, strings.Fields(verb)...)...).CombinedOutput()
			if err != nil || !strings.Contains(string(out), want) {
				t.Errorf("%s over %s: %v\n%s", verb, address, err, out)
			}
		}
	}
	if _, err := exec.LookPath("curl"); err == nil {
		text, _, _ := d.ctl("client", "curl")
		if out := run(t, "sh", "-c", text); !strings.Contains(out, "mock-response") {
			t.Errorf("%s\nprints %s", text, out)
		}
	}
	off := startWith(t, `{"http":{"listen":["127.0.0.1:0"],"page":false},"backends":[{"kind":"mock","name":"gen"}]}`)
	base = "http://" + off.httpAddr()
	for _, path := range []string{"/inferd/", "/inferd/page/main.js", "/inferd/events", "/inferd/stats"} {
		if status, body := getHTTP(t, base+path); status != http.StatusNotFound {
			t.Errorf("switched off, %s: %d %s", path, status, body)
		}
	}
	if _, body := getHTTP(t, base+"/"); strings.Contains(body, "<html") {
		t.Errorf("switched off: %s", body)
	}
}

// Another user gets the page. A user with access also gets their own rows of the statistics, but no
// rows of other users.
func TestPageOfOthers(t *testing.T) {
	asRoot(t)
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("no curl")
	}
	const other = 61234
	config := `{"http":{"listen":["127.0.0.1:0"]OPEN},"backends":[{"kind":"mock","name":"gen"}]}`
	closed := startWith(t, strings.Replace(config, "OPEN", "", 1))
	closed.waitReady()
	base := "http://" + closed.httpAddr()
	if status, body := curlAs(t, other, "-H", "Accept: text/html", base+"/"); status != "200" || !strings.Contains(body, "<title>") {
		t.Errorf("the page: %s %s", status, body)
	}
	if status, body := curlAs(t, other, base+"/inferd/stats"); status != "403" {
		t.Errorf("stats: %s %s", status, body)
	}
	open := startWith(t, strings.Replace(config, "OPEN", `,"open":true`, 1))
	open.waitReady()
	base = "http://" + open.httpAddr()
	if status, _ := askHTTP(t, &http.Client{Timeout: patience}, base, hiGen); status != http.StatusOK {
		t.Fatal(status)
	}
	if status, body := curlAs(t, other, "-d", hiGen, base+"/v1/chat/completions"); status != "200" {
		t.Fatalf("%s %s", status, body)
	}
	status, body := curlAs(t, other, base+"/inferd/stats")
	var s struct {
		Owner     bool
		Callers   []struct{ User string }
		Listeners []struct{}
	}
	if err := json.Unmarshal([]byte(body), &s); err != nil || status != "200" {
		t.Fatalf("%s %s, %v", status, body, err)
	}
	if s.Owner || len(s.Listeners) > 0 || len(s.Callers) != 1 || s.Callers[0].User != "61234" {
		t.Errorf("another user sees %s", body)
	}
	if status, body := curlAs(t, other, base+"/inferd/log"); status != "403" {
		t.Errorf("the log: %s %s", status, body)
	}
}

// listener is a Python program that accepts connections, and prints the bytes that it receives on
// each.
const listener = `
import socket, sys
s = socket.create_server(("127.0.0.1", 0))
print(s.getsockname()[1], flush=True)
while True:
    c, _ = s.accept()
    print(c.recv(4096), flush=True)
    c.close()
`

// inferdctl sends no byte to a listener of another user, which may have taken the port.
func TestForeignListener(t *testing.T) {
	asRoot(t)
	const python = "/usr/bin/python3" // every user can run it
	if _, err := os.Stat(python); err != nil {
		t.Skip("no ", python)
	}
	const other = 61234
	cmd := exec.Command(python, "-u", "-c", listener)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: other, Gid: other}}
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	lines := bufio.NewScanner(pipe)
	if !lines.Scan() {
		t.Fatal("no port")
	}
	at := "127.0.0.1:" + lines.Text()
	t.Setenv("INFERD_HTTP_KEY", "0123456789abcdef")
	for _, args := range [][]string{{"--http", "http://" + at, "stats"}, {"--http", "http://" + at, "chat", "-m", "secret"}} {
		out, err := exec.Command(bin+"/inferdctl", args...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), at+" is not used: user 61234 listens there, and it must be you or root") {
			t.Errorf("%s: %v\n%s", args, err, out)
		}
		if !lines.Scan() || lines.Text() != "b''" {
			t.Errorf("%s: the server sent %s", args, lines.Text())
		}
	}
	out, err := exec.Command(bin+"/inferdctl", "client", "codex", "--addr", at, "--model", "m").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "user 61234 listens there") {
		t.Errorf("client: %v\n%s", err, out)
	}
}
