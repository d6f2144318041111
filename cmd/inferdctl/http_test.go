package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/status"
)

// web starts a server that answers each path with a fixed text, and returns the server's URL. asked
// has the Authorization header and the body of the latest request to each path.
func web(t *testing.T, answers map[string]string) (url string, asked map[string]string) {
	t.Helper()
	asked = make(map[string]string)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked[r.URL.Path] = r.Header.Get("Authorization") + string(body)
		answer, ok := answers[r.URL.Path]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			answer = `{"error":{"message":"there is no such path","type":"invalid_request_error","param":null,"code":null}}`
		}
		_, _ = io.WriteString(w, answer)
	}))
	t.Cleanup(server.Close)
	return server.URL, asked
}

// bare runs the program with args only, without the flags for a fake daemon.
func bare(t *testing.T, args ...string) result {
	t.Helper()
	var out, stderr bytes.Buffer
	code := run(t.Context(), args, strings.NewReader(""), &out, &stderr)
	return result{code, out.String(), stderr.String()}
}

const (
	streamed = "data: {\"choices\":[{\"delta\":{\"content\":\"Blue\"},\"finish_reason\":null}]}\n\n" +
		": ping\ndata: {\"choices\":[{\"delta\":{\"content\":\".\"},\"finish_reason\":null}]}\n\n" +
		"data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n"
	frames = "data: {\"backend\":\"gen\",\"status\":\"capabilities\",\"v2\":true}\n\ndata: {\"status\":\"ready\"}\n\n"
)

// The verbs of overHTTP work with --http, and the other verbs and --addr are refused with it. The
// key comes from the environment variable.
func TestOverHTTP(t *testing.T) {
	t.Setenv("INFERD_HTTP_KEY", "0123456789abcdef")
	url, asked := web(t, map[string]string{
		"/v1/chat/completions": streamed,
		"/v1/embeddings":       `{"data":[{"embedding":"AACAPwAAAD8="}],"usage":{"prompt_tokens":1}}`,
		"/v1/rerank":           `{"results":[{"index":1,"relevance_score":2.5}]}`,
		"/inferd/events":       frames, "/inferd/stats": statsJSON,
	})
	for name, test := range map[string]struct {
		args []string
		want result
	}{
		"chat":             {[]string{"chat", "-m", "Why?"}, result{0, "Blue.\n", ""}},
		"chat, raw":        {[]string{"chat", "-m", "Why?", "--json"}, result{0, strings.NewReplacer("data: ", "", ": ping\n", "", "\n\n", "\n").Replace(streamed), ""}},
		"embed":            {[]string{"embed", "a"}, result{0, `{"text":"a","embedding":[1,0.5]}` + "\n", ""}},
		"rerank":           {[]string{"rerank", "--query", "q", "a", "b"}, result{0, `{"score":2.5,"index":1,"text":"b"}` + "\n", ""}},
		"status":           {[]string{"status"}, result{0, `{"backend":"gen","status":"capabilities","v2":true}` + "\n" + `{"status":"ready"}` + "\n", ""}},
		"stats":            {[]string{"stats"}, result{0, statsJSON + "\n", ""}},
		"a rank too high":  {[]string{"rerank", "--query", "q", "a"}, result{2, "", "error: the daemon ranks document 1 of 1\n"}},
		"another verb":     {[]string{"retry", "gen"}, result{2, "", "error: retry does not work over HTTP: only chat, embed, rerank, status, stats, top do\n"}},
		"a store's verb":   {[]string{"list"}, result{2, "", "error: list does not work over HTTP: only chat, embed, rerank, status, stats, top do\n"}},
		"a socket as well": {[]string{"stats", "--addr", "/x/infer.sock"}, result{2, "", "error: --http and an address of a socket exclude each other\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			(&fakeDaemon{t: t}).want(bare(t, append([]string{"--http", url}, test.args...)...), test.want)
		})
	}
	if got := asked["/v1/chat/completions"]; !strings.HasPrefix(got, `Bearer 0123456789abcdef{"messages":[{"role":"user","content":"Why?"}],"stream":true`) {
		t.Errorf("asked %s", got)
	}
	if got := bare(t, "--http", url, "top"); got.Code != 0 || !strings.HasPrefix(got.Out, "inferd 1.2, up 1h2m3s") {
		t.Errorf("top: %+v", got)
	}
	if got := bare(t, "chat", "-m", "x", "--http", "nowhere"); got.Code != 2 || !strings.Contains(got.Stderr, `--http: "nowhere" is no address`) {
		t.Errorf("no address: %+v", got)
	}
	off, _ := web(t, nil)
	if got := bare(t, "--http", off, "status"); got.Code != 2 || !strings.Contains(got.Stderr, "there is no such path (the state of the daemon needs http.page") {
		t.Errorf("without the page: %+v", got)
	}
}

// listening returns a fake daemon. Its stats list HTTP on a socket and, if addr is not empty, at
// addr.
func listening(t *testing.T, addr string) *fakeDaemon {
	t.Helper()
	f := newFake(t)
	var listeners []string
	for _, at := range []string{"/run/inferd/http.sock", addr} {
		if at != "" {
			listeners = append(listeners, fmt.Sprintf(`{"surface":"http","addr":%q}`, at))
		}
	}
	f.scripted("control.sock", true, `{"type":"stats","id":"1","stats":{"listeners":[{"surface":"v1","addr":"127.0.0.1:1"},`+strings.Join(listeners, ",")+
		`],"backends":[{"name":"vec"},{"name":"gen"}]}}`)
	board, _ := f.admin(status.Ready{})
	board.Publish(status.Capabilities{Backend: "vec", Abilities: infer.Abilities{Embed: true}})
	board.Publish(status.Capabilities{Backend: "gen", Abilities: infer.Abilities{Generate: true}})
	return f
}

func TestClients(t *testing.T) {
	t.Setenv("INFERD_HTTP_KEY", "")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	at := ln.Addr().String()
	f := listening(t, at)
	got := f.run("client", "codex")
	want := "# For ~/.codex/config.toml. The first two lines belong above every [table] of the file.\n" +
		"model = \"gen\"\nmodel_provider = \"inferd\"\n\n[model_providers.inferd]\nname = \"inferd\"\nbase_url = \"http://" + at + "/v1\"\nwire_api = \"responses\"\n"
	f.want(got, result{0, want, ""})
	if got := f.run("client", "claude", "--model", "other"); got.Code != 0 || !strings.Contains(got.Out, "export ANTHROPIC_MODEL=other\n") {
		t.Errorf("with a model: %+v", got)
	}
	if got := bare(t, "client", "openai-js", "--addr", at, "--model", "m"); got.Code != 0 || !strings.Contains(got.Out, `baseURL: "http://`+at+`/v1"`) {
		t.Errorf("with an address and a model: %+v", got)
	}
	if got := bare(t, "client", "--list"); got.Code != 0 || !strings.HasPrefix(got.Out, "aider\nanthropic-js\n") {
		t.Errorf("the list: %+v", got)
	}
	f.want(f.run("client"), result{2, "", "error: client needs one name: aider, anthropic-js, anthropic-python, claude, codex, continue, curl, ollama-python, openai-js, openai-python, opencode\n"})
	if got := f.run("client", "emacs"); got.Code != 2 || !strings.Contains(got.Stderr, `no client is called "emacs" (known: aider,`) {
		t.Errorf("an unknown one: %+v", got)
	}
	if got := bare(t, "client", "codex", "--addr", "nowhere", "--model", "m"); got.Code != 2 || !strings.Contains(got.Stderr, `"nowhere" is no address`) {
		t.Errorf("no address: %+v", got)
	}
	if got := bare(t, "--http", "http://"+at, "client", "codex"); got.Code != 2 {
		t.Errorf("over HTTP: %+v", got)
	}
	url, _ := web(t, map[string]string{"/inferd/events": frames, "/inferd/stats": `{"backends":[{"name":"gen"}]}`})
	if got := bare(t, "client", "curl", "--addr", url); got.Code != 0 || !strings.Contains(got.Out, `"model": "gen"`) {
		t.Errorf("the model of an address: %+v", got)
	}
}

// Without a TCP address only curl can reach the daemon, over its socket. An address where no
// process listens is refused, unless the system does not report listeners.
func TestClientsWithoutTCP(t *testing.T) {
	f := listening(t, "")
	f.want(f.run("client", "codex"), result{2, "", "error: the daemon has no address over TCP: start inferd with --http\n"})
	got := f.run("client", "curl")
	if got.Code != 0 || !strings.Contains(got.Out, "--unix-socket /run/inferd/http.sock http://inferd/v1/chat/completions") || !strings.Contains(got.Out, `"model": "gen"`) {
		t.Errorf("curl: %+v", got)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := ln.Addr().String()
	_ = ln.Close()
	if got := bare(t, "client", "codex", "--addr", at, "--model", "m"); got.Code != 2 && got.Code != 0 || got.Code == 2 && !strings.Contains(got.Stderr, "start inferd with --http") {
		t.Errorf("no process listens: %+v", got) // the text is printed where the system does not report listeners
	}
}

// The command that is printed for curl works.
func TestClientCurlRuns(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("no curl")
	}
	url, asked := web(t, map[string]string{"/v1/chat/completions": "fine"})
	got := bare(t, "client", "curl", "--addr", url, "--model", `it's "odd"`)
	out, err := exec.Command("sh", "-c", got.Out).Output()
	if err != nil || string(out) != "fine" {
		t.Errorf("%s: %s, %v\n%s", curl, out, err, got.Out)
	}
	if !strings.Contains(asked["/v1/chat/completions"], `"model": "it's \"odd\""`) {
		t.Errorf("asked %s", asked["/v1/chat/completions"])
	}
}

// The table shows where the daemon listens, TCP addresses first.
func TestListenersInTheTable(t *testing.T) {
	f := listening(t, "127.0.0.1:8080")
	got := f.run("top", "--once")
	if want := "\nlistening: v1 127.0.0.1:1, http 127.0.0.1:8080, http /run/inferd/http.sock\n"; !strings.Contains(got.Out, want) {
		t.Errorf("got %+v", got)
	}
}
