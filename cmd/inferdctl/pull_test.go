package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/hubtest"
	"github.com/inferd-go/inferd/internal/status"
)

// hubFor returns a hub that the command finds through environment variables, and the folder of the
// store.
func hubFor(t *testing.T) (*hubtest.Server, string) {
	t.Helper()
	hub, home := hubtest.New(t), t.TempDir()
	for name, value := range map[string]string{
		"HF_ENDPOINT": hub.URL(), "OLLAMA_ENDPOINT": hub.URL(), "SSL_CERT_FILE": hub.RootsFile(t), "MODELS_HOME": home,
		"HOME": home, "XDG_STATE_HOME": home + "/state", "INFERD_CONFIG": "", "HF_TOKEN": "", "HF_TOKEN_PATH": "", "HF_HOME": "", "MODEL_ENDPOINT": "",
	} {
		t.Setenv(name, value)
	}
	return hub, home
}

func ctl(ctx context.Context, args ...string) result {
	var stdout, stderr bytes.Buffer
	code := run(ctx, args, strings.NewReader(""), &stdout, &stderr)
	return result{code, stdout.String(), stderr.String()}
}

const pullCommit = "0123456789abcdef0123456789abcdef01234567"

func gguf(n int, seed byte) []byte { return append([]byte("GGUF"), bytes.Repeat([]byte{seed}, n)...) }

func addRepo(hub *hubtest.Server, content []byte) {
	hub.AddRepo("O/R", pullCommit, "mit", map[string]*hubtest.File{"M-Q4_K_M.gguf": {Content: content}, "mmproj-F16.gguf": {Content: gguf(10, 9)}})
}

func TestPull(t *testing.T) {
	hub, _ := hubFor(t)
	content := gguf(100_000, 1)
	addRepo(hub, content)
	digest := hubtest.Sum(content)
	first := ctl(t.Context(), "pull", "O/R")
	want := result{0, "m-q4_k_m: pulled, 100.0 kB, sha256:" + digest + "\n", first.Stderr}
	if first != want || !strings.Contains(first.Stderr, "m-q4_k_m: 100% 100.0 kB of 100.0 kB\n") || !strings.Contains(first.Stderr, "hf:O/R/mmproj-F16.gguf") {
		t.Errorf("got %+v", first)
	}
	if got := ctl(t.Context(), "pull", "hf:O/R"); got != (result{0, "m-q4_k_m: already there, 100.0 kB, sha256:" + digest + "\n", ""}) {
		t.Errorf("again: %+v", got)
	}
	if got := ctl(t.Context(), "pull", "O/R", "--as", "mine"); got.Code != 0 || !strings.HasPrefix(got.Out, "mine: already there") {
		t.Errorf("by another name: %+v", got)
	}
	if got := ctl(t.Context(), "list"); !strings.Contains(got.Out, "mine") || !strings.Contains(got.Out, "m-q4_k_m") {
		t.Errorf("list: %+v", got)
	}
}

func TestPullJSON(t *testing.T) {
	hub, home := hubFor(t)
	content := gguf(1000, 2)
	addRepo(hub, content)
	got := ctl(t.Context(), "pull", "--json", "O/R", "O/none")
	if got.Code != 2 || !strings.HasPrefix(got.Stderr, "error: hf:O/none: there is no such model") {
		t.Errorf("%+v", got)
	}
	var phases []string
	for line := range strings.Lines(got.Out) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		phases = append(phases, fmt.Sprint(m["phase"]))
		switch m["phase"] {
		case "download":
			if m["asked"] != "O/R" || m["name"] != "m-q4_k_m" || m["total_bytes"] != 1004.0 || strings.Contains(fmt.Sprint(m["source_url"]), "?") {
				t.Errorf("%v", m)
			}
		case "done":
			path := filepath.Join(home, "blobs/sha256", hubtest.Sum(content)[:2], hubtest.Sum(content), "data")
			if m["path"] != path || m["digest"] != "sha256:"+hubtest.Sum(content) || m["fetched_bytes"] != 1004.0 || m["already"] != false || m["projector"] != "hf:O/R/mmproj-F16.gguf" {
				t.Errorf("%v", m)
			}
		case "failed":
			if m["asked"] != "O/none" {
				t.Errorf("%v", m)
			}
		}
	}
	if text := strings.Join(phases, " "); text != "checking_local download download verify message done failed" {
		t.Errorf("phases: %s", text)
	}
}

// The query of an address, which may contain a secret, appears neither on stdout nor on stderr.
func TestPullShowsNoQuery(t *testing.T) {
	hub, _ := hubFor(t)
	link := hub.AddFile("m.gguf", &hubtest.File{Content: gguf(1000, 7)})
	for _, query := range []string{"?sig=hunter2", "?sig=hunter2#wrong"} {
		for _, flags := range [][]string{{"pull", "--json"}, {"pull"}} {
			got := ctl(t.Context(), append(flags, link+query)...)
			if text := got.Out + got.Stderr; !strings.Contains(text, "m.gguf") && got.Code != 0 || strings.Contains(text, "hunter2") {
				t.Errorf("%+v", got)
			}
		}
	}
}

// If one model fails, the others are still pulled. Each error names its reason.
func TestPullFails(t *testing.T) {
	hub, _ := hubFor(t)
	addRepo(hub, gguf(1000, 3))
	got := ctl(t.Context(), "pull", "nonsense", "O/R")
	if got.Code != 2 || !strings.Contains(got.Stderr, `error: no model is called "nonsense"`) || !strings.Contains(got.Out, "m-q4_k_m: pulled") {
		t.Errorf("%+v", got)
	}
	for text, args := range map[string][]string{
		"--as needs one NAME":                          {"pull", "--as", "x", "a", "b"},
		"--max-bytes must not be negative":             {"pull", "--max-bytes", "-1", "a"},
		"the file is larger than the limit":            {"pull", "--max-bytes", "5", "--update", "--as", "y", "https://" + strings.TrimPrefix(hub.AddFile("z.gguf", &hubtest.File{Content: gguf(10, 1)}), "https://")},
		"is not at a configured endpoint":              {"pull", "--endpoint-only", "--as", "z", "https://elsewhere.example/m.gguf"},
		"no flag is called --updat: did you mean --up": {"pull", "--updat"},
		"is a file of this machine":                    {"pull", "./m.gguf"},
	} {
		if got := ctl(t.Context(), args...); got.Code != 2 || !strings.Contains(got.Stderr, text) {
			t.Errorf("%v: %+v", args, got)
		}
	}
}

// After Ctrl-C the received bytes are kept, as the message says, and the same command continues
// from them.
func TestPullInterrupted(t *testing.T) {
	hub, _ := hubFor(t)
	content := gguf(4<<20, 4)
	addRepo(hub, content)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	hub.Script = func(r hubtest.Request) *hubtest.Fault {
		if r.Origin == hubtest.CDN {
			time.AfterFunc(50*time.Millisecond, cancel)
			return &hubtest.Fault{StallAfter: 1 << 20}
		}
		return nil
	}
	got := ctl(ctx, "pull", "O/R")
	if got.Code != 130 || got.Out != "" || !strings.HasSuffix(got.Stderr, "interrupted: the received bytes are kept, and the same command continues from them\n") {
		t.Errorf("%+v", got)
	}
	if list := ctl(t.Context(), "list"); !strings.Contains(list.Out, "unfinished: m-q4_k_m") {
		t.Errorf("list: %+v", list)
	}
	hub.Script = nil
	hub.Forget()
	if got := ctl(t.Context(), "pull", "O/R"); got.Code != 0 {
		t.Errorf("%+v", got)
	}
	if sent := hub.Sent(); sent >= int64(len(content)) {
		t.Errorf("%d bytes were sent again", sent)
	}
}

// Without a name the models of the config are pulled.
func TestPullConfig(t *testing.T) {
	hub, home := hubFor(t)
	content := gguf(1000, 5)
	addRepo(hub, content)
	other := gguf(500, 6)
	link := hub.AddFile("o.gguf", &hubtest.File{Content: other})
	catalog := filepath.Join(t.TempDir(), "catalog.json")
	entry := fmt.Sprintf(`[{"name":"ours","file":"o.gguf","size_bytes":%d,"sha256":%q,"sources":[%q]}]`, len(other), hubtest.Sum(other), link)
	if err := os.WriteFile(catalog, []byte(entry), 0o600); err != nil {
		t.Fatal(err)
	}
	object := fmt.Sprintf(`{"name":"described","sha256":%q,"size_bytes":%d,"source_url":%q,"license":"x"}`, hubtest.Sum(other), len(other), link)
	write := func(text string) string {
		file := filepath.Join(t.TempDir(), "config.json")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	file := write(fmt.Sprintf(`{"models_home":%q,"catalog":%q,"backends":[
		{"kind":"llamacpp","name":"a","model":"O/R"}, {"kind":"llamacpp","name":"b","model":%s,"mmproj":%s},
		{"kind":"llamacpp","name":"c","model":%s}, {"kind":"llamacpp","name":"d","model":{"builtin":"chain"}},
		{"kind":"llamacpp","name":"e","model":"ours"},
		{"kind":"openai-compat","name":"f","model":"gpt-x"}, {"kind":"mock","name":"g"}]}`, home, catalog, object, object, object))
	got := ctl(t.Context(), "--config", file, "pull")
	want := "m-q4_k_m: pulled, 1.0 kB, sha256:" + hubtest.Sum(content) + "\ndescribed: pulled, 504 B, sha256:" + hubtest.Sum(other) +
		"\nours: already there, 504 B, sha256:" + hubtest.Sum(other) + "\n"
	if got.Code != 0 || got.Out != want || !strings.Contains(got.Stderr, "warning: the config has 1 mmproj, which is not pulled") {
		t.Errorf("%+v, want %s", got, want)
	}
	none := ctl(t.Context(), "--config", write(`{"backends":[{"kind":"mock","name":"g"}]}`), "pull")
	if none.Code != 0 || !strings.Contains(none.Stderr, "names no model that could be pulled") {
		t.Errorf("%+v", none)
	}
	for text, config := range map[string]string{
		"catalog: open":    `{"catalog":"/nonexistent"}`,
		"want an array":    fmt.Sprintf(`{"catalog":%q}`, file),
		"model of a":       `{"backends":[{"kind":"llamacpp","name":"a","model":{"name":5}}]}`,
		"has no source_ur": fmt.Sprintf(`{"model":{"name":"x","sha256":%q}}`, strings.Repeat("0", 64)),
	} {
		if got := ctl(t.Context(), "--config", write(config), "pull"); got.Code != 2 || !strings.Contains(got.Stderr, text) {
			t.Errorf("%s: %+v, want %q", config, got, text)
		}
	}
}

func TestDownloadLine(t *testing.T) {
	d := status.Download{Name: "m", Done: 1_200_000_000, Total: 5_100_000_000}
	for _, test := range []struct {
		d         status.Download
		perSecond float64
		width     int
		want      string
	}{
		{d, 0, 0, "m: 24% 1.20 GB of 5.10 GB"},
		{d, 85e6, 0, "m: 24% 1.20 GB of 5.10 GB, 85.0 MB/s, 46 s left"},
		{d, 1e6, 0, "m: 24% 1.20 GB of 5.10 GB, 1.0 MB/s, 1 h 05 min left"},
		{d, 10e6, 0, "m: 24% 1.20 GB of 5.10 GB, 10.0 MB/s, 6 min 30 s left"},
		{d, 85e6, 100, "m [######------------------]  24% 1.20 GB of 5.10 GB, 85.0 MB/s, 46 s left"},
		{d, 85e6, 40, "m  24% 1.20 GB of 5.10 GB, 85.0 MB/s, 4"},
		{status.Download{Name: "m", Done: 5, Total: 5}, 1e6, 0, "m: 100% 5 B of 5 B"},
		{status.Download{Name: "m", Done: 1e6}, 1e6, 0, "m: 1.0 MB, 1.0 MB/s"},
		{status.Download{Name: "m", Part: 2, Parts: 3, Total: 10}, 0, 0, "m (part 2 of 3): 0% 0 B of 10 B"},
	} {
		if got := downloadLine(test.d, test.perSecond, test.width); got != test.want {
			t.Errorf("got  %q\nwant %q", got, test.want)
		}
	}
}

func TestRate(t *testing.T) {
	var r rate
	start := time.Unix(0, 0)
	got := 0.0
	for i := range 30 { // once a second, at 1 MB/s at first and then at 3
		done := uint64(i) * 1e6
		if i > 15 {
			done = 15e6 + uint64(i-15)*3e6
		}
		got = r.add(start.Add(time.Duration(i)*time.Second), done)
	}
	if got < 2.9e6 || got > 3.1e6 || len(r.samples) > 12 {
		t.Errorf("%f bytes/s of %d samples", got, len(r.samples))
	}
	if got := r.add(start.Add(31*time.Second), 0); got != 0 {
		t.Errorf("begun again: %f", got)
	}
}

// On a terminal each line of progress replaces the one before. The last one is ended before any
// other output.
func TestBarOnTerminal(t *testing.T) {
	var out strings.Builder
	clock := time.Unix(0, 0)
	v := &plainView{out: &out, width: 60, now: func() time.Time { clock = clock.Add(time.Second); return clock }}
	v.begin("m")
	v.phase(status.CheckingLocal{Path: "/x"})
	v.phase(status.Download{Name: "m", Total: 4000})
	v.phase(status.Download{Name: "m", Done: 2000, Total: 4000})
	v.message("a download failed")
	v.phase(status.Verify{Path: "/x"})
	v.phase(status.Quarantine{Expected: "a", Actual: "b", MovedTo: "/q"})
	v.phase(status.Download{Name: "m", Done: 4000, Total: 4000})
	v.end()
	v.end()
	const wipe = "\r\x1b[K"
	want := wipe + "m [------------------------]   0% 0 B of 4.0 kB" +
		wipe + "m [#######------]  50% 2.0 kB of 4.0 kB, 2.0 kB/s, 1 s left" +
		wipe + "a download failed\n" +
		wipe + "verifying" +
		wipe + "SHA-256 mismatch (expected a, got b); quarantined to /q\n" +
		wipe + "m [########################] 100% 4.0 kB of 4.0 kB\n"
	if got := out.String(); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}
