package modelname_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/inferd-go/inferd/internal/modelname"
)

const digest = "30d1e7949597a3446726064e80b876fd1b5cba4aa6eec53d27afa420e731fb36"

func TestParse(t *testing.T) {
	type ref = modelname.Ref
	for typed, want := range map[string]ref{
		"gemma-4-e4b":                          {Kind: modelname.Plain, Name: "gemma-4-e4b"},
		"hf:O-1/R.2":                           {Kind: modelname.Hub, Owner: "O-1", Repo: "R.2"},
		"HF:O/R":                               {Kind: modelname.Hub, Owner: "O", Repo: "R"},
		"O/R":                                  {Kind: modelname.Hub, Owner: "O", Repo: "R"},
		"O/R:q4_k_m":                           {Kind: modelname.Hub, Owner: "O", Repo: "R", Quant: "q4_k_m"},
		"hf:O/R:UD-Q4_K_XL@abc":                {Kind: modelname.Hub, Owner: "O", Repo: "R", Quant: "UD-Q4_K_XL", Rev: "abc"},
		"hf:O/R@refs/pr/3":                     {Kind: modelname.Hub, Owner: "O", Repo: "R", Rev: "refs/pr/3"},
		"hf:O/R/f.gguf":                        {Kind: modelname.Hub, Owner: "O", Repo: "R", File: "f.gguf"},
		"hf:O/R/a b/f.GGUF@v1":                 {Kind: modelname.Hub, Owner: "O", Repo: "R", File: "a b/f.GGUF", Rev: "v1"},
		"hf.co/O/R:Q8_0":                       {Kind: modelname.Hub, Owner: "O", Repo: "R", Quant: "Q8_0"},
		"huggingface.co/O/R":                   {Kind: modelname.Hub, Owner: "O", Repo: "R"},
		"https://huggingface.co/O/R":           {Kind: modelname.Hub, Owner: "O", Repo: "R"},
		"https://huggingface.co/O/R/tree/main": {Kind: modelname.Hub, Owner: "O", Repo: "R", Rev: "main"},
		"https://huggingface.co/O/R/blob/main/d/f.gguf":                 {Kind: modelname.Hub, Owner: "O", Repo: "R", File: "d/f.gguf", Rev: "main"},
		"https://huggingface.co/O/R/resolve/c0/f.gguf?download=true":    {Kind: modelname.Hub, Owner: "O", Repo: "R", File: "f.gguf", Rev: "c0"},
		"https://huggingface.co/O/R/resolve/c0/f.gguf#sha256=" + digest: {Kind: modelname.Link, URL: "https://huggingface.co/O/R/resolve/c0/f.gguf", SHA256: digest},
		"ollama:qwen3":                                  {Kind: modelname.Ollama, Name: "qwen3", Tag: "latest"},
		"ollama:qwen3:0.6b":                             {Kind: modelname.Ollama, Name: "qwen3", Tag: "0.6b"},
		"ollama:me/mine:x":                              {Kind: modelname.Ollama, Name: "me/mine", Tag: "x"},
		"https://h.example/m.gguf":                      {Kind: modelname.Link, URL: "https://h.example/m.gguf"},
		"https://h:8443/m.gguf?x=1":                     {Kind: modelname.Link, URL: "https://h:8443/m.gguf?x=1"},
		"https://h/m#sha256=" + strings.ToUpper(digest): {Kind: modelname.Link, URL: "https://h/m", SHA256: digest},
		"file:/m/a.gguf":                                {Kind: modelname.File, Path: "/m/a.gguf"},
		"file:///m/a%20b.gguf":                          {Kind: modelname.File, Path: "/m/a b.gguf"},
		"file://localhost/m/a.gguf":                     {Kind: modelname.File, Path: "/m/a.gguf"},
		"file:a.gguf":                                   {Kind: modelname.File, Path: "a.gguf"},
		"m.gguf":                                        {Kind: modelname.File, Path: "m.gguf"},
		"sub/m.GGUF":                                    {Kind: modelname.File, Path: "sub/m.GGUF"},
		"/models/m":                                     {Kind: modelname.File, Path: "/models/m"},
		"./m":                                           {Kind: modelname.File, Path: "./m"},
		"~/m":                                           {Kind: modelname.File, Path: "~/m"},
		`C:\m\m`:                                        {Kind: modelname.File, Path: `C:\m\m`},
	} {
		got, err := modelname.Parse(typed)
		if err != nil {
			t.Errorf("%s: %v", typed, err)
			continue
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", typed, diff)
		}
		again, err := modelname.Parse(got.String())
		if err != nil || !strings.EqualFold(again.Quant, got.Quant) || again.String() != got.String() {
			t.Errorf("%s is spelt %s, which is %+v, %v", typed, got, again, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for typed, want := range map[string]string{
		"":                          "is empty: want",
		strings.Repeat("a", 10_000): "its name has 10000 bytes, at most 2048 are allowed",
		strings.Repeat("a", 129):    "at most 128",
		"a\x00b":                    "control characters",
		"a\nb":                      "control characters",
		"\xff":                      "not UTF-8",
		"a b":                       "a name has letters",
		"a..b":                      "a name has letters",
		"käse":                      "a name has letters",
		"qwen3:0.6b":                "did you mean ollama:qwen3:0.6b?",
		"a@b":                       "not a valid form of a model name",
		"x:y:z":                     "not a valid form of a model name",
		"http://h/m.gguf":           "model URL must be https://",
		"https:///m":                "not a valid https:// address",
		"https://u:p@h/m":           "with a user or password is refused",
		"https://h/m#sha256=12":     "64 hex characters",
		"https://h/m#md5=12":        "want #sha256=",
		"https://%zz/":              "not a valid https:// address",
		"hf:":                       "hf: needs OWNER/REPO",
		"hf:O":                      "hf: needs OWNER/REPO",
		"hf:O/":                     `"" is not an owner or repository`,
		"hf:../R":                   `".." is not an owner`,
		"hf:O/R..x":                 `is not an owner or repository`,
		"hf:O/R/../f.gguf":          "not a path in a repository",
		"hf:O/R//f.gguf":            "not a path in a repository",
		`hf:O/R/a\f.gguf`:           "not a path in a repository",
		"hf:O/R/f.bin":              "must end in .gguf",
		"O/R/config.json":           "must end in .gguf",
		"hf:O/R@":                   "is not a revision",
		"hf:O/R@../x":               "is not a revision",
		"hf:O/R@a//b":               "is not a revision",
		"hf:O/R:":                   "is not a quantisation",
		"hf:O/R:a b":                "is not a quantisation",
		"ollama:":                   "is not a name of Ollama's registry",
		"ollama:a/b/c":              "want ollama:NAME[:TAG]",
		"ollama:a:":                 "is not a tag",
		"ollama:a:b/c":              "is not a tag",
		"ollama:../a":               "is not a name of Ollama's registry",
		"ms:O/R/f.gguf":             "ModelScope is not supported",
		"file:":                     "file: needs a path",
		"file://host/m.gguf":        "names a file of this machine",
		"file:///%zz":               "not a valid file: address",
	} {
		if _, err := modelname.Parse(typed); err == nil || !strings.Contains(err.Error(), want) || len(err.Error()) > 1024 {
			t.Errorf("%.40q: got %v, want %q", typed, err, want)
		}
	}
}

// Errors quote no user, password, query or fragment of an address.
func TestSecretsAreNotQuoted(t *testing.T) {
	for typed, shown := range map[string]string{
		"https://user:hunter2@h.example/m.gguf":                    `"https://h.example/m.gguf"`,
		"https://hunter2@h.example/m.gguf?x":                       `"https://h.example/m.gguf"`,
		"https://h.example:x/m.gguf?token=hunter2":                 `"https://…"`,
		"https://user:hun/ter2@h.example/m.gguf":                   `"https://…"`,
		"https://user:hunter2?@h.example/m.gguf":                   `"https://…"`,
		"https://h.example/m.gguf?sig=hunter2#sha256=12":           `"https://h.example/m.gguf"`,
		"https://h.example/m.gguf#hunter2":                         `"https://h.example/m.gguf"`,
		"https:/user:hunter2@h.example/m.gguf":                     `"https:/h.example/m.gguf"`,
		"https:user:hunter2@/m.gguf":                               `"https:/m.gguf"`,
		"HTTP://user:hunter2@h.example:80/m?sig=hunter2":           `"HTTP://h.example:80/m"`,
		"http://[::1]:80/m.gguf?sig=hunter2":                       `"http://[::1]:80/m.gguf"`,
		"s3://key:hunter2@bucket/m.bin":                            `"s3://bucket/m.bin"`,
		"ms:O/R/m.gguf?token=hunter2":                              `"ms:O/R/m.gguf"`,
		"h.example/dir/m.bin?sig=hunter2":                          `"h.example/dir/m.bin"`,
		"hf:O/R@main?token=hunter2":                                `"hf:O/R@main"`,
		"hf:O/R:Q4?token=hunter2":                                  `"hf:O/R:Q4"`,
		"ollama:a:b?token=hunter2":                                 `"ollama:a:b"`,
		"https://h.example/\x01?hunter2":                           `"https://h.example/`,
		"https://h.example/m?hunter2=" + strings.Repeat("x", 3000): `"https://h.example/m"`,
	} {
		_, err := modelname.Parse(typed)
		if err == nil || !strings.HasPrefix(err.Error(), "model "+shown) || strings.Contains(err.Error(), "hun") || strings.Contains(err.Error(), "ter2") {
			t.Errorf("%s: got %v, want %s", typed, err, shown)
		}
	}
	if _, err := modelname.ParseCatalog([]byte(`[{"name":"a","file":"a.gguf","size_bytes":1,"sha256":"` + digest + `","sources":["http://u:hunter2@h/a.gguf?hunter2"]}]`)); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("catalog: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"a", "hf:O/R:Q@r", "ollama:a/b:c", "https://h/m#sha256=" + digest, "file:///x", "~"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, typed string) {
		ref, err := modelname.Parse(typed)
		if err != nil {
			return
		}
		if ref.Kind != modelname.File && strings.Contains(ref.Owner+"/"+ref.Repo+"/"+ref.File+"/"+ref.Rev+"/"+ref.Name+"/"+ref.Tag, "..") && !strings.Contains(ref.File+ref.Rev, "..") {
			t.Errorf("%q has '..': %+v", typed, ref)
		}
	})
}

func TestCatalog(t *testing.T) {
	c := modelname.Embedded()
	if len(c) < 8 {
		t.Fatalf("%d entries", len(c))
	}
	for _, e := range c {
		for _, s := range e.Sources {
			if strings.Contains(s, "/main/") || !strings.HasSuffix(s, "/"+e.File) {
				t.Errorf("%s: source %s is not the file at a commit", e.Name, s)
			}
		}
	}
	if e, ok := c.Find("GEMMA-4-e4b"); !ok || e.SHA256 != digest || e.SizeBytes != 5126304928 {
		t.Errorf("%+v, %t", e, ok)
	}
	own := modelname.Catalog{{Name: "gemma-4-e4b", File: "mine.gguf"}, {Name: "mine"}}
	merged := own.Over(c)
	if e, _ := merged.Find("gemma-4-e4b"); e.File != "mine.gguf" || len(merged) != len(c)+1 {
		t.Errorf("merged: %+v", merged)
	}
	for name, want := range map[string]string{"gema-4-e4b": "did you mean gemma-4-e4b?", "zzz": "the catalog has gemma-4-e4b, "} {
		if err := c.Unknown(name); !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParseCatalogRefuses(t *testing.T) {
	good := `{"name":"a","file":"a.gguf","size_bytes":1,"sha256":"` + digest + `","sources":["https://h/a.gguf"],"task":"embed"}`
	if c, err := modelname.ParseCatalog([]byte("[" + good + "]")); err != nil || len(c) != 1 {
		t.Fatal(c, err)
	}
	for text, want := range map[string]string{
		"":                            "want an array",
		"{}":                          "want an array",
		"[] []":                       "data follows",
		"[" + good + "," + good + "]": "an earlier entry has the same name",
		"[" + strings.Replace(good, `"task"`, `"tsak"`, 1) + "]":              "tsak",
		"[" + strings.Replace(good, `"a"`, `"../a"`, 1) + "]":                 "name is not",
		"[" + strings.Replace(good, `a.gguf","s`, `a.bin","s`, 1) + "]":       "file is not",
		"[" + strings.Replace(good, `:1,`, `:0,`, 1) + "]":                    "size_bytes",
		"[" + strings.Replace(good, digest, digest[1:], 1) + "]":              "sha256 must",
		"[" + strings.Replace(good, digest, strings.ToUpper(digest), 1) + "]": "sha256 must",
		"[" + strings.Replace(good, "https:", "http:", 1) + "]":               "is not an https:// address",
		"[" + strings.Replace(good, `"embed"`, `"speak"`, 1) + "]":            "is none of",
		"[" + strings.Replace(good, `:1,`, `:1,"n_ctx":-1,`, 1) + "]":         "n_ctx",
	} {
		if _, err := modelname.ParseCatalog([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}
