package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestComparison(t *testing.T) {
	fresh := answered{first: firstValue{7, -1.5, true}, text: "yes"}
	for name, test := range map[string]struct {
		now                 answered
		equal, texts, other int
		off                 float64
	}{
		"the same":               {fresh, 1, 1, 0, 0},
		"another value":          {answered{first: firstValue{7, -1.25, true}, text: "yes"}, 0, 1, 0, 0.25},
		"another text":           {answered{first: firstValue{7, -1.5, true}, text: "yes,"}, 1, 0, 0, 0},
		"another first token":    {answered{first: firstValue{8, -1.5, true}, text: "no"}, 0, 0, 1, 0},
		"nothing where it began": {answered{}, 0, 0, 1, 1.5},
	} {
		var c comparison
		c.add(fresh, test.now)
		if c.count != 1 || c.equal != test.equal || c.texts != test.texts || c.other != test.other || c.values[0] != test.off {
			t.Errorf("%s: %+v", name, c)
		}
	}
	var c comparison
	if c.add(answered{}, answered{}); c.equal != 1 || c.texts != 1 {
		t.Errorf("two empty answers: %+v", c)
	}
}

func TestRestricted(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "lib")
	for _, name := range []string{"libllama.so", "libggml-cpu-haswell.so", "libggml-cpu-icelake.so", "libggml-base.so"} {
		if err := os.WriteFile(filepath.Join(from, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if all, err := restricted(from, to, "all"); all != from || err != nil {
		t.Errorf("all kernels are in %s, %v", all, err)
	}
	got, err := restricted(from, to, "icelake")
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(got)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
		if text, err := os.ReadFile(filepath.Join(got, e.Name())); string(text) != e.Name() {
			t.Errorf("%s holds %q, %v", e.Name(), text, err)
		}
	}
	if want := []string{"libggml-base.so", "libggml-cpu-icelake.so", "libllama.so"}; !slices.Equal(names, want) {
		t.Errorf("the folder has %q, want %q", names, want)
	}
	if _, err := restricted(from, filepath.Join(t.TempDir(), "lib"), "z80"); err == nil {
		t.Error("a folder for kernels that are not there")
	}
}

func TestProse(t *testing.T) {
	words, bytes := subject{}, subject{bytes: true}
	if a, b := words.prose(1, 50), words.prose(1, 50); a != b || a == words.prose(2, 50) || len(words.prose(1, 60)) <= len(a) {
		t.Errorf("prose of one seed: %q, %q", a, b)
	}
	if got := bytes.prose(1, 50); len(got) != 50 {
		t.Errorf("%d bytes, not 50: %q", len(got), got)
	}
}

func TestCosine(t *testing.T) {
	if got := cosine([]float32{1, 0}, []float32{3, 4}); got != 0.6 {
		t.Errorf("cosine %v", got)
	}
}
