package test

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/inferd-go/inferd/internal/builtin"
	"github.com/inferd-go/inferd/internal/hubtest"
	"github.com/inferd-go/inferd/internal/shortdir"
)

const modelCommit = "0123456789abcdef0123456789abcdef01234567"

// A hubStore is a hub of models, and a model store for daemons.
type hubStore struct {
	t       *testing.T
	hub     *hubtest.Server
	home    string
	content []byte // content of the model "O/R" at the hub
	digest  string

	mu      sync.Mutex // guards the fields below
	fault   func(hubtest.Request) *hubtest.Fault
	watched chan struct{} // the hub answers once it is closed; nil means at once
}

// answer is the script of the hub. It waits for watched, and then returns the result of fault.
func (s *hubStore) answer(r hubtest.Request) *hubtest.Fault {
	s.mu.Lock()
	fault, watched := s.fault, s.watched
	s.mu.Unlock()
	if watched != nil {
		<-watched
	}
	if fault == nil {
		return nil
	}
	return fault(r)
}

func (s *hubStore) set(fault func(hubtest.Request) *hubtest.Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = fault
}

func newHubStore(t *testing.T) *hubStore {
	t.Helper()
	var model bytes.Buffer
	if err := builtin.Write("chain", &model); err != nil {
		t.Fatal(err)
	}
	s := &hubStore{t: t, hub: hubtest.New(t), home: t.TempDir(), content: model.Bytes(), digest: hubtest.Sum(model.Bytes())}
	s.hub.Script = s.answer
	s.hub.AddRepo("O/R", modelCommit, "mit", map[string]*hubtest.File{"Chain-Q8_0.gguf": {Content: s.content}})
	for name, value := range map[string]string{
		"HF_ENDPOINT": s.hub.URL(), "OLLAMA_ENDPOINT": s.hub.URL(), "SSL_CERT_FILE": s.hub.RootsFile(t), "MODELS_HOME": s.home,
		"XDG_STATE_HOME": t.TempDir(), "HF_TOKEN": "", "HF_TOKEN_PATH": filepath.Join(s.home, "none"), "MODEL_ENDPOINT": "", "HTTPS_PROXY": "",
	} {
		t.Setenv(name, value)
	}
	return s
}

// described returns the model as an object of the config, with an address at the hub's second
// origin.
func (s *hubStore) described() string {
	link := s.hub.AddFile("c.gguf", &hubtest.File{Content: s.content})
	return fmt.Sprintf(`{"name":"described","sha256":%q,"size_bytes":%d,"source_url":%q,"license":"mit"}`, s.digest, len(s.content), link)
}

// blob returns the path of the model in the store.
func (s *hubStore) blob() string {
	return filepath.Join(s.home, "blobs", "sha256", s.digest[:2], s.digest, "data")
}

// boot starts a daemon with a config. The hub does not answer before the admin socket is watched.
// boot returns the daemon, and the frames up to one with the given status and phase.
func (s *hubStore) boot(config, status, phase string) (*daemon, []map[string]any) {
	s.t.Helper()
	dir := shortdir.New(s.t)
	write(s.t, filepath.Join(dir, "config.json"), config)
	watched := make(chan struct{})
	open := sync.OnceFunc(func() { close(watched) })
	s.t.Cleanup(open)
	s.mu.Lock()
	s.watched = watched
	s.mu.Unlock()
	d := start(s.t, dir)
	w := d.watch()
	defer w.Close()
	open()
	return d, w.until(status, phase)
}

// phases returns the phases in the frames, in order, without repetitions.
func phases(frames []map[string]any) []string {
	var all []string
	for _, f := range frames {
		if phase, ok := f["phase"].(string); ok {
			all = append(all, phase)
		}
	}
	return slices.Compact(all)
}

// downloads returns the frames of downloads. It checks that they go from 0 to the total, and never
// back.
func (s *hubStore) downloads(frames []map[string]any, name, backend string) (all []map[string]any) {
	s.t.Helper()
	last := -1.0
	for _, f := range frames {
		if f["phase"] != "download" {
			continue
		}
		done := f["downloaded_bytes"].(float64)
		if len(all) == 0 && done != 0 || done < last {
			s.t.Errorf("%v bytes after %v", done, last)
		}
		if f["name"] != name || f["backend"] != backend || f["status"] != "loading_model" || f["total_bytes"] != float64(len(s.content)) || strings.Contains(f["source_url"].(string), "?") {
			s.t.Errorf("frame %v", f)
		}
		last = done
		all = append(all, f)
	}
	if last != float64(len(s.content)) {
		s.t.Errorf("the last frame has %v bytes of %d", last, len(s.content))
	}
	return all
}

func TestBootPulls(t *testing.T) {
	if testing.Short() {
		t.Skip("starts engines")
	}
	for name, test := range map[string]struct{ model, manifest string }{
		"a name of a hub":     {`"hf:O/R"`, "chain-q8_0"},
		"a described model":   {"", "described"},
		"a name of a catalog": {`"ours"`, "ours"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newHubStore(t)
			if test.model == "" {
				test.model = s.described()
			}
			catalog := filepath.Join(t.TempDir(), "catalog.json")
			write(t, catalog, fmt.Sprintf(`[{"name":"ours","file":"o.gguf","size_bytes":%d,"sha256":%q,"sources":["https://huggingface.co/O/R/resolve/%s/Chain-Q8_0.gguf"]}]`,
				len(s.content), s.digest, modelCommit))
			config := fmt.Sprintf(`{"catalog":%q,"backends":[{"kind":"llamacpp","name":"gen","model":%s}]}`, catalog, test.model)
			d, frames := s.boot(config, "ready", "")
			if got, want := phases(frames), []string{"checking_local", "download", "verify", "mmap", "kv_cache"}; !slices.Equal(got, want) {
				t.Errorf("phases %q, want %q", got, want)
			}
			s.downloads(frames, test.manifest, "gen")
			for _, f := range frames {
				if path, ok := f["path"]; ok && path != s.blob() {
					t.Errorf("frame %v, want the path %s", f, s.blob())
				}
			}
			d.works()
			if sent := s.hub.Sent(); sent != int64(len(s.content)) {
				t.Errorf("%d bytes were sent of %d", sent, len(s.content))
			}
			d.signal(syscall.SIGTERM)
			d.exit()

			// The next start sends no request, and hashes no file.
			s.hub.Forget()
			d, frames = s.boot(config, "ready", "")
			if seen := phases(frames); slices.Contains(seen, "verify") || slices.Contains(seen, "download") {
				t.Errorf("phases %q", seen)
			}
			d.works()
			if all := s.hub.Requests(); len(all) > 0 {
				t.Errorf("the hub was asked for %v", all)
			}
			d.signal(syscall.SIGTERM)
			d.exit()

			// With verify the next start hashes the content. It still needs no hub.
			t.Setenv("HF_ENDPOINT", "http://not-encrypted")
			d, frames = s.boot(strings.Replace(config, "{", `{"verify":"always",`, 1), "ready", "")
			if seen := phases(frames); !slices.Contains(seen, "verify") && seen[0] == "checking_local" {
				t.Errorf("phases %q", seen)
			}
			d.works()
		})
	}
}

// Two entries with the same model fetch it once.
func TestBootPullsOnce(t *testing.T) {
	s := newHubStore(t)
	object := s.described()
	d, _ := s.boot(fmt.Sprintf(`{"backends":[{"kind":"llamacpp","name":"a","model":%s},{"kind":"llamacpp","name":"b","model":%s}]}`, object, object), "ready", "")
	d.works()
	if sent := s.hub.Sent(); sent > int64(len(s.content))*101/100 {
		t.Errorf("%d bytes were sent of %d", sent, len(s.content))
	}
}

// A daemon that is stopped during a download keeps the received bytes, and the next daemon
// continues from them.
func TestBootInterrupted(t *testing.T) {
	s := newHubStore(t)
	kept := int64(len(s.content) / 2)
	s.set(func(r hubtest.Request) *hubtest.Fault {
		if r.Origin == hubtest.CDN {
			return &hubtest.Fault{StallAfter: kept}
		}
		return nil
	})
	config := `{"model":"hf:O/R"}`
	d, _ := s.boot(config, "loading_model", "download")
	data := filepath.Join(filepath.Dir(filepath.Dir(s.blob())), ".partial-"+s.digest, "data.tmp")
	eventually(t, "the bytes are on disk", func() bool { return s.hub.Sent() >= kept && fileExists(data) })
	d.signal(syscall.SIGINT)
	if code := d.exit(); code != 0 {
		t.Errorf("exit %d", code)
	}
	s.set(nil)
	s.hub.Forget()
	d, frames := s.boot(config, "ready", "")
	d.works()
	all := s.downloads(frames, "chain-q8_0", "llamacpp")
	resumed, _ := all[len(all)-1]["resumed_bytes"].(float64)
	if sent := s.hub.Sent(); resumed == 0 || sent+int64(resumed) != int64(len(s.content)) {
		t.Errorf("%v bytes were resumed and %d sent of %d", resumed, sent, len(s.content))
	}
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// A model with a wrong digest is fetched twice, and then never again.
func TestBootWithAWrongDigest(t *testing.T) {
	s := newHubStore(t)
	lie := slices.Clone(s.content)
	lie[len(lie)-1] ^= 1
	s.set(func(r hubtest.Request) *hubtest.Fault {
		if r.Origin == hubtest.CDN {
			return &hubtest.Fault{Content: lie}
		}
		return nil
	})
	config := fmt.Sprintf(`{"model":%s}`, s.described())
	d, frames := s.boot(config, "loading_model", "quarantine")
	last := frames[len(frames)-1]
	if last["expected_sha256"] != s.digest || last["actual_sha256"] != hubtest.Sum(lie) || !fileExists(last["quarantine_path"].(string)) || last["path"] != s.blob() {
		t.Errorf("frame %v", last)
	}
	if code := d.exit(); code != 1 || !strings.Contains(d.stderr.String(), "SHA-256 mismatch (expected "+s.digest) {
		t.Errorf("exit %d", code)
	}
	if sent := s.hub.Sent(); sent != 2*int64(len(lie)) {
		t.Errorf("%d bytes were sent, want two times %d", sent, len(lie))
	}
	if fileExists(s.blob()) || fileExists(filepath.Join(s.home, "manifests", "described.json")) {
		t.Error("the model with the wrong digest is in the store")
	}
	s.hub.Forget()
	d = start(t, d.dir)
	if code := d.exit(); code != 1 || !strings.Contains(d.stderr.String(), "inferdctl pull --update") {
		t.Errorf("exit %d", code)
	}
	if all := s.hub.Requests(); len(all) > 0 {
		t.Errorf("the next boot asked for %v", all)
	}
}

// Without auto_pull, the error for a missing model has the command that pulls it. If the store has
// the blob, the model is served, even without a manifest.
func TestBootWithoutPull(t *testing.T) {
	s := newHubStore(t)
	for model, want := range map[string]string{
		`"qwen3-0.6b"`: "run inferdctl pull qwen3-0.6b\n", `"hf:O/R"`: "run inferdctl pull hf:O/R\n",
		s.described(): "run inferdctl pull, which pulls the models of the config",
	} {
		dir := shortdir.New(t)
		write(t, filepath.Join(dir, "config.json"), `{"auto_pull":false,"model":`+model+`}`)
		d := start(t, dir)
		if code := d.exit(); code != 1 || !strings.Contains(d.stderr.String(), "is not in the model store "+s.home+", and auto_pull is false: "+want) {
			t.Errorf("%s: exit %d, want %q", model, code, want)
		}
	}
	if err := os.MkdirAll(filepath.Dir(s.blob()), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.blob(), s.content, 0o444); err != nil {
		t.Fatal(err)
	}
	d, frames := s.boot(`{"auto_pull":false,"model":`+s.described()+`}`, "ready", "")
	if got, want := phases(frames), []string{"checking_local", "verify", "mmap", "kv_cache"}; len(got) > len(want) || !slices.Equal(got, want[len(want)-len(got):]) {
		t.Errorf("phases %q, want an end of %q", got, want)
	}
	d.works()
	if all := s.hub.Requests(); len(all) > 0 {
		t.Errorf("the hub was asked for %v", all)
	}
	if fileExists(filepath.Join(s.home, "manifests")) {
		t.Error("a manifest was written")
	}
}

// A blob in the store that has no manifest is hashed. If its digest is right, it gets a manifest; otherwise it is
// quarantined, and the model is fetched.
func TestBootWithABlob(t *testing.T) {
	s := newHubStore(t)
	if err := os.MkdirAll(filepath.Dir(s.blob()), 0o755); err != nil {
		t.Fatal(err)
	}
	put := func(content []byte) {
		if err := os.WriteFile(s.blob(), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	config := `{"model":` + s.described() + `}`
	put(bytes.Repeat([]byte{7}, 1000))
	d, frames := s.boot(config, "ready", "")
	if got := phases(frames); !slices.Contains(got, "download") {
		t.Errorf("phases %q", got)
	}
	d.works()
	if left, err := filepath.Glob(filepath.Join(s.home, "locks", "quarantine", "*.bin")); err != nil || len(left) != 1 {
		t.Errorf("the quarantine has %q, %v", left, err)
	}
	d.signal(syscall.SIGTERM)
	d.exit()

	manifest := filepath.Join(s.home, "manifests", "described.json")
	if err := os.Remove(manifest); err != nil {
		t.Fatal(err)
	}
	s.hub.Forget()
	d, _ = s.boot(config, "ready", "")
	d.works()
	if all := s.hub.Requests(); !fileExists(manifest) || len(all) > 0 {
		t.Errorf("no manifest, or the hub was asked for %v", all)
	}
}

// inferd --model needs no config file. A model that cannot be found ends the start with the reason.
func TestModelFlag(t *testing.T) {
	s := newHubStore(t)
	d := serve(t, "--model", "hf:O/R")
	d.works()
	if out, _, code := d.ctl("list"); code != 0 || !strings.Contains(out, "chain-q8_0") {
		t.Errorf("list: %d, %s", code, out)
	}
	if _, errs, code := d.ctl("rm", "chain-q8_0"); code != 2 || !fileExists(s.blob()) {
		t.Errorf("rm of a model that is served: %d, %s", code, errs)
	}
	for want, model := range map[string]string{
		"no model is called":                      "qwen3-0.7c",
		"there is no such model or revision":      "hf:O/missing",
		"the repository has no Q3_K":              "hf:O/R:Q3_K",
		"is not an owner or repository":           "hf:../R",
		"no such file":                            "./missing.gguf",
		"no built-in model is called \\\"gpt\\\"": "builtin:gpt",
	} {
		d := start(t, "", "--model", model)
		if code := d.exit(); code != 1 || !strings.Contains(d.stderr.String(), strings.ReplaceAll(want, `\"`, `"`)) {
			t.Errorf("%s: exit %d, want %q", model, code, want)
		}
	}
}

// A client of Ollama's interface pulls into the daemon's store. If the client hangs up, the pull ends, and a later
// pull completes the model. The model is not served until the config names it.
func TestPullOverHTTP(t *testing.T) {
	s := newHubStore(t)
	d := startWith(t, `{"auto_pull":false,"backends":[{"kind":"mock","name":"gen"}]}`)
	d.waitReady()
	s.set(func(r hubtest.Request) *hubtest.Fault {
		if r.Origin == hubtest.CDN {
			return &hubtest.Fault{StallAfter: 4096}
		}
		return nil
	})
	res, err := d.overSocket().Post("http://x/api/pull", "application/json", strings.NewReader(`{"model":"hf.co/O/R"}`))
	if err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(res.Body); !strings.Contains(lines.Text(), `"total"`); {
		if !lines.Scan() {
			t.Fatalf("no progress: %v", lines.Err())
		}
	}
	_ = res.Body.Close() // the client hangs up
	eventually(t, "the pull ends", func() bool { return strings.Contains(d.stderr.String(), "a pull has ended with its client") })
	s.set(nil)
	status, answer := d.overHTTP("/api/pull", `{"model":"hf.co/O/R"}`)
	lines := strings.Split(strings.TrimSpace(answer), "\n")
	total := fmt.Sprintf(`"digest":"sha256:%s","total":%d,"completed":%d}`, s.digest, len(s.content), len(s.content))
	if status != 200 || lines[0] != `{"status":"pulling manifest"}` || !strings.Contains(answer, total) || lines[len(lines)-1] != `{"status":"success"}` {
		t.Errorf("%d %s", status, answer)
	}
	if content, err := os.ReadFile(s.blob()); err != nil || !bytes.Equal(content, s.content) {
		t.Errorf("the blob has %d bytes, %v", len(content), err)
	}
	if status, answer := d.overHTTP("/api/pull", `{"model":"chain-q8_0","stream":false}`); status != 200 || answer != `{"status":"success"}`+"\n" {
		t.Errorf("a model of the store: %d %s", status, answer)
	}
	if status, answer := d.overHTTP("/api/pull", `{"model":"hf.co/O/None","stream":false}`); status != 502 || !strings.HasPrefix(answer, `{"error":"`) {
		t.Errorf("an unknown model: %d %s", status, answer)
	}
	if _, tags := d.overHTTP("/api/show", `{"model":"chain-q8_0"}`); !strings.Contains(tags, "not found") {
		t.Errorf("a model that the config does not name: %s", tags)
	}
}
