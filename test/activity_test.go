package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/shortdir"
)

// records returns the lines of the daemon's activity log with the given msg. The daemon writes them
// a moment after an answer. A last line without a newline is still being written, and is left out.
func (d *daemon) records(msg string) []map[string]any {
	d.t.Helper()
	raw, err := os.ReadFile(filepath.Join(d.logDir(), "inferd.ndjson"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.t.Fatal(err)
	}
	var all []map[string]any
	for line := range strings.Lines(string(raw)) {
		if !strings.HasSuffix(line, "\n") {
			break
		}
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			d.t.Fatalf("%v: %q", err, line)
		}
		if _, err := time.Parse(time.RFC3339, m["t"].(string)); err != nil {
			d.t.Errorf("%v in %s", err, line)
		}
		if m["msg"] == msg {
			all = append(all, m)
		}
	}
	return all
}

// recorded waits for the nth line with the given msg, and returns it.
func (d *daemon) recorded(msg string, n int) map[string]any {
	d.t.Helper()
	eventually(d.t, fmt.Sprintf("there are %d of %s", n, msg), func() bool { return len(d.records(msg)) >= n })
	return d.records(msg)[n-1]
}

// has checks that a record has the members in want.
func has(t *testing.T, record, want map[string]any) {
	t.Helper()
	for name, value := range want {
		if fmt.Sprint(record[name]) != fmt.Sprint(value) {
			t.Errorf("%s is %v, want %v, in %v", name, record[name], value, record)
		}
	}
}

// The activity log has the requests on the generation, embed and rerank sockets, with the caller, the
// outcome and figures. Neither the log nor stderr has text of prompts or answers.
func TestActivityLog(t *testing.T) {
	const secret = "the-prompt-that-nobody-may-read"
	d := mocked(t, `{"backends":[{"kind":"mock","name":"m","tokens":["the-answer-that-nobody-may-read","y"]}]}`)
	common := map[string]any{"component": "activity", "level": "info", "transport": "unix", "peer_uid": os.Getuid(), "peer_pid": os.Getpid()}
	for i, test := range []struct {
		leaf, request, prefix string
		want                  map[string]any
	}{
		{"infer.sock", `{"id":"one","messages":[{"role":"user","content":"%s"}]}`, "", map[string]any{
			"req_id": "one", "backend": "mock", "stop_reason": "End", "prompt_tokens": 0, "completion_tokens": 2, "wire_version": nil,
		}},
		{"infer.v2.sock", `{"id":"two","messages":[{"role":"user","content":[{"type":"text","text":"%s"}]}],"tools":[{"name":"t","description":"","input_schema":{}}]}`, "v2_", map[string]any{
			"req_id": "two", "stop_reason": "EndTurn", "input_tokens": 0, "output_tokens": 2, "wire_version": "v2", "n_attachments": 0, "n_tools": 1,
		}},
		{"inferd.sock", `{"id":"three","wire_version":1,"messages":[{"role":"user","content":[{"type":"text","text":"%s"}]}]}`, "v2_", map[string]any{
			"req_id": "three", "wire_version": "v2",
		}},
		{"infer.embed.sock", `{"id":"four","input":["a","%s"]}`, "embed_", map[string]any{
			"req_id": "four", "n_inputs": 2, "input_tokens": 1 + len(secret), "dimensions": 8, "wire_version": "embed",
		}},
		{"infer.rerank.sock", `{"id":"five","query":"%s","documents":["b","c","d"],"top_n":2}`, "rerank_", map[string]any{
			"req_id": "five", "n_documents": 3, "n_results": 2, "wire_version": "rerank",
		}},
	} {
		p := d.peer(test.leaf)
		if _, err := p.Write(p.framed(fmt.Sprintf(test.request, secret))); err != nil {
			t.Fatal(err)
		}
		if m, err := p.terminal(); err != nil || m["type"] == "error" {
			t.Fatalf("%s: %v, %v", test.leaf, m, err)
		}
		nth := 1
		if i == 2 {
			nth = 2
		}
		has(t, d.recorded(test.prefix+"connection_accepted", nth), common)
		record := d.recorded(test.prefix+"request_done", nth)
		has(t, record, test.want)
		for _, name := range []string{"queue_ms", "prefill_ms", "decode_ms", "peer_uid", "peer_pid", "peer_exe"} {
			if record[name] == nil {
				t.Errorf("%s: no %s in %v", test.leaf, name, record)
			}
		}
	}
	d.recorded("ready", 1)
	raw, err := os.ReadFile(filepath.Join(d.logDir(), "inferd.ndjson"))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{secret, "the-answer"} {
		if strings.Contains(string(raw), text) || strings.Contains(d.stderr.String(), text) {
			t.Errorf("%q has been written down", text)
		}
	}
}

// Requests that fail, are refused or lose their client are in the log, with the reason.
func TestActivityLogOfFailures(t *testing.T) {
	d := mocked(t, `{"backends":[{"kind":"mock","name":"m","tokens":["x","y"],"token_delay_ms":60000}]}`, "--active-permits", "1", "--queue-depth", "1")
	running := d.peer("infer.sock")
	running.ask("runs")
	eventually(t, "it runs", func() bool { return d.stats().Running == 1 })
	queued := d.peer("infer.v2.sock")
	queued.ask("waits")
	eventually(t, "it waits", func() bool { return d.stats().Waiting == 1 })
	refused := d.peer("inferd.sock")
	refused.ask("refused")
	refused.refused("refused", "queue_full")
	has(t, d.recorded("v2_request_refused", 1), map[string]any{"req_id": "refused", "code": "queue_full", "level": "warn"})
	_ = queued.Close()
	has(t, d.recorded("v2_request_gone", 1), map[string]any{"req_id": "waits", "stage": "queue"})
	_ = running.Close()
	has(t, d.recorded("request_gone", 1), map[string]any{"req_id": "runs", "stage": "prefill"})

	bad := d.peer("infer.sock")
	if _, err := bad.Write([]byte("{\"id\":\"bad\",\"messages\":[]}\nnonsense\n")); err != nil {
		t.Fatal(err)
	}
	has(t, d.recorded("request_refused", 2), map[string]any{"code": "invalid_request"})

	drops := mocked(t, `{"backends":[{"kind":"mock","name":"m","mid_stream_drop_after":1}]}`)
	p := drops.peer("infer.sock")
	p.ask("drops")
	_, _ = p.terminal()
	has(t, drops.recorded("request_error_mid_stream", 1), map[string]any{"req_id": "drops", "code": "backend_unavailable", "level": "warn"})
}

// Secrets in request IDs appear neither in the log nor on stderr.
func TestSecretsAreRedacted(t *testing.T) {
	d := mocked(t, oneMock)
	for i, id := range []string{
		"Bearer abcdefgh1234", "password=hunter2", "eyJhbGciOi.eyJzdWIi.c2lnbmF0", "sk-abcdefghijklmnop", "ghp_abcdefghijklmnopqrst",
		"xoxb-1234567890", "AKIAABCDEFGHIJKLMNOP", "ASIAABCDEFGHIJKLMNOP", `{\"secret\":\"swordfish\"}`,
		strings.Repeat("x", 125) + " password=swordfish",
	} {
		p := d.peer("infer.sock")
		if _, err := p.Write([]byte(`{"id":"` + id + `","messages":[{"role":"user","content":"x"}]}` + "\n")); err != nil {
			t.Fatal(err)
		}
		if m, err := p.terminal(); err != nil || m["type"] != "done" {
			t.Fatalf("%v, %v", m, err)
		}
		if got := d.recorded("request_done", i+1)["req_id"].(string); !strings.Contains(got, "[REDACTED:") && len(got) < 120 || len(got) > 128 {
			t.Errorf("%s became %s", id, got)
		}
	}
	raw, err := os.ReadFile(filepath.Join(d.logDir(), "inferd.ndjson"))
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"abcdefgh", "hunter2", "c2lnbmF0", "1234567890", "ABCDEFGH", "swordfish"} {
		if strings.Contains(string(raw)+d.stderr.String(), part) {
			t.Errorf("%q has been written down", part)
		}
	}
}

// The daemon does not start if it cannot write to the log folder. If the folder becomes unwritable
// later, the daemon continues and counts the lost lines. It logs again as soon as it can.
func TestActivityLogFolder(t *testing.T) {
	dir := shortdir.New(t)
	write(t, filepath.Join(dir, "config.json"), oneMock)
	write(t, dir+".logs", "a file")
	d := start(t, dir)
	if code := d.exit(); code != 1 || !strings.Contains(d.stderr.String(), "activity log: ") {
		t.Errorf("exit %d:\n%s", code, d.stderr)
	}

	d = mocked(t, oneMock)
	d.recorded("ready", 1) // the last line, so the folder can be removed
	if err := os.RemoveAll(d.logDir()); err != nil {
		t.Fatal(err)
	}
	write(t, d.logDir(), "a file")
	d.serves()
	eventually(t, "lines are counted as lost", func() bool { return d.stats().LogLost > 0 })
	if err := os.Remove(d.logDir()); err != nil {
		t.Fatal(err)
	}
	d.serves()
	d.recorded("request_done", 1)
}
