package caches_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/inferd-go/inferd/internal/caches"
)

const (
	commit = "0123456789abcdef0123456789abcdef01234567"
	hexA   = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	hexB   = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	hexC   = "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
)

// A home is the home of a user, in which a test makes the folders of tools.
type home struct {
	t    *testing.T
	dir  string
	vars map[string]string
}

func newHome(t *testing.T) *home {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return &home{t, dir, map[string]string{}}
}

func (h *home) file(name, text string) string {
	h.t.Helper()
	path := filepath.Join(h.dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
	return path
}

func (h *home) link(name, to string) {
	h.t.Helper()
	path := filepath.Join(h.dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.Symlink(filepath.FromSlash(to), path); err != nil {
		h.t.Skip(err)
	}
}

func (h *home) find() (string, string) {
	h.t.Helper()
	models, problems := caches.Find(caches.Env{Getenv: func(name string) string { return h.vars[name] }, Home: h.dir, GOOS: "linux"})
	var all, wrong []string
	for _, m := range models {
		var files []string
		for _, f := range m.Files {
			rel, err := filepath.Rel(h.dir, f.Path)
			if err != nil {
				h.t.Fatal(err)
			}
			files = append(files, filepath.ToSlash(rel)+" "+f.SHA256[:min(len(f.SHA256), 2)])
		}
		all = append(all, strings.TrimSpace(fmt.Sprintf("%s %s [%s] %s %s", m.Tool, m.Name, strings.Join(files, ", "), m.Repo, strings.Join(m.Asked, " "))))
	}
	for _, p := range problems {
		rel, _ := filepath.Rel(h.dir, p.Path)
		wrong = append(wrong, filepath.ToSlash(rel)+": "+p.Err.Error())
	}
	slices.Sort(wrong)
	return strings.Join(all, "\n"), strings.Join(wrong, "\n")
}

func (h *home) want(models, problems string) {
	h.t.Helper()
	gotModels, gotProblems := h.find()
	if diff := cmp.Diff(strings.TrimSpace(models), gotModels); diff != "" {
		h.t.Errorf("models (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(strings.TrimSpace(problems), gotProblems); diff != "" {
		h.t.Errorf("problems (-want +got):\n%s", diff)
	}
}

func TestNothing(t *testing.T) { newHome(t).want("", "") }

func TestHuggingFace(t *testing.T) {
	h := newHome(t)
	repo := ".cache/huggingface/hub/models--ggml-org--Tiny-GGUF/"
	h.file(repo+"blobs/"+hexA, "a")
	h.file(repo+"blobs/etag", "b")
	h.file(repo+"blobs/"+hexC, "c")
	h.file(repo+"refs/main", commit)
	snapshot := repo + "snapshots/" + commit + "/"
	h.link(snapshot+"Tiny-Q4_K_M.gguf", "../../blobs/"+hexA)
	h.link(snapshot+"sub/Tiny-BF16.gguf", "../../../blobs/etag")
	h.link(snapshot+"mmproj-Tiny-F16.gguf", "../../blobs/"+hexC)
	h.link(snapshot+"README.md", "../../blobs/etag")
	h.link(snapshot+"Evil-Q8_0.gguf", "../../../../../../secret")
	h.link(snapshot+"Dangling-Q8_0.gguf", "../../blobs/none")
	h.file("secret", "x")
	h.file(repo+"trees/"+commit+".json", fmt.Sprintf(`[{"type":"file","path":"sub/Tiny-BF16.gguf","size":1,"lfs":{"oid":%q,"size":1}},{"path":"README.md"}]`, hexB))
	h.file(".cache/huggingface/hub/datasets--a--b/snapshots/x/y.gguf", "no model")
	h.want(`
huggingface tiny-bf16 [.cache/huggingface/hub/models--ggml-org--Tiny-GGUF/blobs/etag bb] ggml-org/Tiny-GGUF hf:ggml-org/Tiny-GGUF/sub/Tiny-BF16.gguf@`+commit+` hf:ggml-org/Tiny-GGUF:BF16
huggingface tiny-q4_k_m [.cache/huggingface/hub/models--ggml-org--Tiny-GGUF/blobs/`+hexA+` aa] ggml-org/Tiny-GGUF hf:ggml-org/Tiny-GGUF/Tiny-Q4_K_M.gguf@`+commit+` hf:ggml-org/Tiny-GGUF:Q4_K_M
`, snapshot+"Dangling-Q8_0.gguf: lstat "+filepath.Join(h.dir, repo, "blobs/none")+": no such file or directory\n"+
		snapshot+"Evil-Q8_0.gguf: it is a symbolic link to "+filepath.Join(h.dir, "secret")+", outside of "+filepath.Join(h.dir, ".cache/huggingface/hub")+": not used")
}

func TestTreeInOtherForms(t *testing.T) {
	for _, tree := range []string{
		fmt.Sprintf(`{"sha":"x","siblings":[{"path":"m.gguf","lfs":{"sha256":%q}}]}`, hexB),
		fmt.Sprintf(`{"m.gguf":{"size":1,"lfs":{"oid":"sha256:%s"}},"other":3}`, hexB),
	} {
		h := newHome(t)
		h.vars["HF_HOME"] = filepath.Join(h.dir, "hf")
		h.file("hf/hub/models--o--r/snapshots/"+commit+"/m.gguf", "a")
		h.file("hf/hub/models--o--r/trees/"+commit+".json", tree)
		h.want("huggingface m [hf/hub/models--o--r/snapshots/"+commit+"/m.gguf bb] o/r hf:o/r/m.gguf@"+commit, "")
	}
	h := newHome(t)
	h.vars["HF_HUB_CACHE"] = filepath.Join(h.dir, "hub")
	h.file("hub/models--o--r/snapshots/"+commit+"/m.gguf", "a")
	h.file("hub/models--o--r/trees/"+commit+".json", "{torn")
	if models, problems := h.find(); !strings.Contains(models, "/m.gguf ]") || !strings.Contains(problems, commit+".json") {
		t.Errorf("%s\n%s", models, problems)
	}
}

func TestSplitModels(t *testing.T) {
	h := newHome(t)
	for _, name := range []string{"Big-00001-of-00002", "Big-00002-of-00002", "Half-00001-of-00002", "One-00001-of-00001", "Many-00001-of-09999"} {
		h.file(".lmstudio/models/pub/repo/"+name+".gguf", "x")
	}
	h.want(`
lmstudio big [.lmstudio/models/pub/repo/Big-00001-of-00002.gguf , .lmstudio/models/pub/repo/Big-00002-of-00002.gguf ] pub/repo
lmstudio one [.lmstudio/models/pub/repo/One-00001-of-00001.gguf ] pub/repo`, `
.lmstudio/models/pub/repo/Half-00001-of-00002.gguf: part Half-00002-of-00002.gguf is missing
.lmstudio/models/pub/repo/Many-00001-of-09999.gguf: it has 09999 parts, at most 512 can be loaded`)
}

func TestLMStudioAndLlamaCpp(t *testing.T) {
	h := newHome(t)
	h.file(".lmstudio/models/a/x/Model-Q8_0.gguf", "1")
	h.file(".lmstudio/models/b/y/Model-Q8_0.gguf", "2")
	h.file(".cache/lm-studio/models/c/z/Old.gguf", "3")
	h.file(".cache/llama.cpp/org_repo_Tiny.gguf", "4")
	h.file(".cache/llama.cpp/org_repo_Tiny.gguf.etag", "x")
	h.file(".cache/llama.cpp/imatrix.gguf", "x")
	h.want(`
llama.cpp org_repo_tiny [.cache/llama.cpp/org_repo_Tiny.gguf ]
lmstudio model-q8_0 [.lmstudio/models/a/x/Model-Q8_0.gguf ] a/x
lmstudio b-y-model-q8_0 [.lmstudio/models/b/y/Model-Q8_0.gguf ] b/y
lmstudio old [.cache/lm-studio/models/c/z/Old.gguf ] c/z`, "")
}

func TestOllama(t *testing.T) {
	h := newHome(t)
	layers := func(digest string) string {
		return `{"layers":[{"mediaType":"application/vnd.ollama.image.template","digest":"sha256:` + hexC + `"},{"mediaType":"application/vnd.ollama.image.model","digest":"` + digest + `"}]}`
	}
	blob := ".ollama/models/blobs/sha256-" + hexA
	h.file(blob, "a")
	manifests := ".ollama/models/manifests/registry.ollama.ai/"
	h.file(manifests+"library/gemma3/270m", layers("sha256:"+hexA))
	h.file(manifests+"library/gemma3/latest", layers("sha256:"+hexA))
	h.file(manifests+"someone/Special Model/q8", layers("sha256:"+hexA))
	h.file(manifests+"library/gone/latest", layers("sha256:"+hexB))
	h.file(manifests+"library/evil/latest", layers("sha256:../../../secret"))
	h.file(manifests+"library/torn/latest", "{")
	h.file(manifests+"library/remote/latest", `{"layers":[]}`)
	h.file(manifests+".DS_Store", "x")
	models, problems := h.find()
	want := strings.Join([]string{
		"ollama gemma3-270m [" + blob + " aa] library/gemma3 ollama:gemma3:270m",
		"ollama gemma3-latest [" + blob + " aa] library/gemma3 ollama:gemma3:latest ollama:gemma3",
		"ollama someone-special-model-q8 [" + blob + " aa] someone/Special Model ollama:someone/Special Model:q8",
	}, "\n")
	if diff := cmp.Diff(want, models); diff != "" {
		t.Error(diff)
	}
	for _, part := range []string{"gone/latest: lstat ", `evil/latest: layer "sha256:../../../secret" has no SHA-256`, "torn/latest: "} {
		if !strings.Contains(problems, part) {
			t.Errorf("problems lack %q:\n%s", part, problems)
		}
	}
	if strings.Count(problems, "\n") != 2 {
		t.Errorf("%s", problems)
	}
}
