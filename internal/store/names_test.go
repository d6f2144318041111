package store_test

import (
	"strings"
	"testing"

	"github.com/inferd-go/inferd/internal/store"
)

func TestNames(t *testing.T) {
	for _, name := range []string{"gemma-4-e4b", "A_b.c-1", "x", strings.Repeat("n", 128), "con-1", "com10", "common"} {
		if err := store.CheckName(name); err != nil {
			t.Error(err)
		}
	}
	for name, want := range map[string]string{
		"":                          "empty",
		"..":                        "dot",
		"../../etc/passwd":          "only letters",
		"a..b":                      "two dots",
		".hidden":                   "begins with a dot",
		"a/b":                       "only letters",
		`a\b`:                       "only letters",
		"a\x00b":                    "only letters",
		"a b":                       "only letters",
		"naïve":                     "only letters",
		strings.Repeat("x", 10_000): "10000 bytes",
		"CON":                       "device",
		"nul.gguf":                  "device",
		"lpt1":                      "device",
	} {
		err := store.CheckName(name)
		if err == nil || !strings.Contains(err.Error(), want) || len(err.Error()) > 512 || strings.ContainsRune(err.Error(), 0) {
			t.Errorf("%.20q: %v, want %q", name, err, want)
		}
	}
}

// The methods refuse a model name that is not valid, and change nothing.
func TestBadNamesAreRefusedEverywhere(t *testing.T) {
	s, home := open(t)
	put(t, s, "m", []byte("m"))
	before := len(tree(t, home))
	for _, name := range []string{"../m", "a\x00", strings.Repeat("x", 10_000), ""} {
		_, manifest := s.Manifest(name)
		_, lock := s.LockName(name)
		_, remove := s.Remove(name, true)
		_, show := s.Show(name)
		_, verify := s.Verify(t.Context(), []string{name}, nil)
		for call, err := range map[string]error{
			"Manifest": manifest, "LockName": lock, "Remove": remove, "Show": show, "Verify": verify,
			"PutManifest": s.PutManifest(&store.Manifest{Name: name, Blob: "sha256:" + sum("m"), Size: 1}, true),
		} {
			if err == nil || !strings.Contains(err.Error(), "model name") {
				t.Errorf("%s of %.10q: %v", call, name, err)
			}
		}
	}
	if after := len(tree(t, home)); after != before {
		t.Errorf("%d files, %d before", after, before)
	}
}

func TestNameOfAFile(t *testing.T) {
	for file, want := range map[string]string{
		"/a/Gemma-3-270M-Q4_K_M.gguf":     "gemma-3-270m-q4_k_m",
		"big-Q8_0-00001-of-00003.gguf":    "big-q8_0",
		"My Model (final).GGUF":           "my-model--final-",
		"no-extension":                    "no-extension",
		"v1.5.gguf":                       "v1.5",
		"strange-00001-of-00002-end.gguf": "strange-00001-of-00002-end",
		"/models/x.gguf/y-00002-of-00002": "y",
		"C3-00001-of-00001.gguf":          "c3",
	} {
		if got, err := store.NameOf(file); got != want || err != nil {
			t.Errorf("%s: %q, %v, want %q", file, got, err, want)
		}
	}
	for _, file := range []string{".gguf", "/a/..gguf", "nul.gguf", strings.Repeat("x", 200) + ".gguf"} {
		if got, err := store.NameOf(file); err == nil {
			t.Errorf("%.20s has the name %q", file, got)
		}
	}
}

func TestDigests(t *testing.T) {
	right := sum("x")
	for _, text := range []string{right, strings.ToUpper(right), "sha256:" + right} {
		if got, err := store.ParseDigest(text); got != right || err != nil {
			t.Errorf("%s: %s, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "abc", right[1:], right + "00", "g" + right[1:], "sha512:" + right} {
		if _, err := store.ParseDigest(text); err == nil || !strings.Contains(err.Error(), "must be 64 hex characters (got ") {
			t.Errorf("%q: %v", text, err)
		}
	}
}
