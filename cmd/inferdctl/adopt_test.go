package main

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/caches"
)

// ollama writes a model in Ollama's layout to the user's home, with a blob that is named after
// digest. It returns the path of the blob.
func (s *storeTest) ollama(name, digest string) (blob string) {
	s.t.Helper()
	root := filepath.Join(filepath.Dir(s.home), ".ollama", "models")
	manifest := filepath.Join(root, "manifests", "registry.ollama.ai", "library", name, "latest")
	blob = filepath.Join(root, "blobs", "sha256-"+digest)
	data, err := os.ReadFile(s.file)
	if err = errors.Join(err, os.MkdirAll(filepath.Dir(manifest), 0o755), os.MkdirAll(filepath.Dir(blob), 0o755)); err != nil {
		s.t.Fatal(err)
	}
	layer := `{"layers":[{"mediaType":"application/vnd.ollama.image.model","digest":"sha256:` + digest + `"}]}`
	if err := errors.Join(os.WriteFile(blob, data, 0o644), os.WriteFile(manifest, []byte(layer), 0o644)); err != nil {
		s.t.Fatal(err)
	}
	for start := time.Now(); time.Since(start) < 50*time.Millisecond; { // the store does not trust the times of a file that has just been written
		runtime.Gosched()
	}
	return blob
}

// A folder of another user that this user may not read is printed, but is not a failure.
func TestLeftOut(t *testing.T) {
	var out strings.Builder
	c := &command{stderr: &out}
	err := errors.New("bell\a")
	if got := c.leftOut([]caches.Problem{{Path: "/closed", Err: err, Closed: true}, {Path: "/bad", Err: err}}); got != 1 {
		t.Errorf("%d failures", got)
	}
	if got, want := out.String(), "left out: /closed: bell \nleft out: /bad: bell \n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestAdopt(t *testing.T) {
	s := newStoreTest(t)
	for _, name := range []string{"XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE", "LLAMA_CACHE", "OLLAMA_MODELS"} {
		t.Setenv(name, "")
	}
	if out, errs := s.run(0, "adopt"); out != "" || !strings.Contains(errs, "no models of other tools") {
		t.Errorf("%q, %q", out, errs)
	}
	good := s.ollama("chain", s.digest)
	lie := s.ollama("lie", strings.Repeat("0", 64))
	out, _ := s.run(0, "adopt", "--list")
	for _, want := range []string{"chain-latest  ollama", good, lie} {
		if !strings.Contains(out, want) {
			t.Errorf("--list lacks %q:\n%s", want, out)
		}
	}
	if _, err := os.Stat(s.home); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("--list made the store: %v", err)
	}
	// A blob with a wrong digest is reported and left out, and the other one is adopted.
	out, errs := s.run(2, "adopt")
	if !strings.HasPrefix(out, "adopted chain-latest from ollama by ") || strings.Count(out, "\n") != 1 || !strings.Contains(errs, lie) {
		t.Errorf("%q, %q", out, errs)
	}
	if out, _ := s.run(0, "list"); !strings.Contains(out, "chain-latest") || strings.Contains(out, "lie") || !strings.Contains(out, " ok ") {
		t.Errorf("%s", out)
	}
	for name, args := range map[string][]string{
		`adopt lie-latest: `:         {"adopt", "lie-latest"},
		`did you mean chain-latest?`: {"adopt", "chain-latset"},
		`adopt --list prints all`:    {"adopt", "something-else"},
		`--as needs a single NAME`:   {"adopt", "--as", "x"},
	} {
		if _, errs := s.run(2, args...); !strings.Contains(errs, name) {
			t.Errorf("%q: %q", args, errs)
		}
	}
	s.run(0, "adopt", "chain-latest", "--as", "mine")
	if out, _ := s.run(0, "show", "mine"); !strings.Contains(out, "ollama:chain:latest") {
		t.Errorf("%s", out)
	}
	s.run(0, "rm", "mine", "chain-latest")
	if _, err := os.Stat(good); err != nil {
		t.Error(err)
	}
}
