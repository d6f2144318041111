package caches

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/printable"
)

const huggingFace = "huggingface.co"

// huggingFace finds the models in the cache of Hugging Face's tools, which llama.cpp uses, too:
// models--OWNER--REPO/snapshots/COMMIT/FILE is a link to a file in blobs. That file is named by its
// ETag, which for a large file is its SHA-256.
func (f *finder) huggingFace() {
	hub := f.env.Getenv("HF_HUB_CACHE")
	if home := f.env.Getenv("HF_HOME"); hub == "" && home != "" {
		hub = filepath.Join(home, "hub")
	}
	if hub == "" {
		hub = filepath.Join(f.cacheHome(), "huggingface", "hub")
	}
	for _, root := range f.roots(hub, f.env.Getenv("LLAMA_CACHE")) {
		repos, err := os.ReadDir(root)
		if err != nil {
			f.problem(root, err)
			continue
		}
		for _, r := range repos {
			words := strings.Split(r.Name(), "--")
			if len(words) != 3 || words[0] != "models" || !r.IsDir() {
				continue
			}
			f.repo(root, filepath.Join(root, r.Name()), words[1]+"/"+words[2])
		}
	}
}

// repo finds the models in the snapshots of the repository repo, OWNER/NAME, in the folder dir. Links
// must stay within root, the folder of all repositories.
func (f *finder) repo(root, dir, repo string) {
	snapshots, err := os.ReadDir(filepath.Join(dir, "snapshots"))
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			f.problem(dir, err)
		}
		return
	}
	head, _ := readSmall(filepath.Join(dir, "refs", "main")) // if it cannot be read, the commit of main is unknown
	for _, s := range snapshots {
		commit := s.Name()
		claims := f.tree(filepath.Join(dir, "trees", commit+".json"))
		files := f.walk(root, filepath.Join(dir, "snapshots", commit))
		for _, parts := range f.group(files, func(x found) string {
			if claims[x.rel] != "" {
				return claims[x.rel]
			}
			if name := filepath.Base(x.path); digest.MatchString(name) {
				return name
			}
			return ""
		}) {
			m := Model{
				Tool: "huggingface", Name: nameOf(stemOf(parts[0].Name)), Files: parts,
				Registry: huggingFace, Repo: repo, Revision: commit,
				Asked: []string{fmt.Sprintf("hf:%s/%s@%s", repo, parts[0].Name, commit)},
			}
			if q := quantOf(parts[0].Name); q != "" && strings.TrimSpace(string(head)) == commit {
				m.Asked = append(m.Asked, fmt.Sprintf("hf:%s:%s", repo, q))
			}
			f.models = append(f.models, m)
		}
	}
}

// tree reads the listing of a commit, and returns the SHA-256 of its files by path.
func (f *finder) tree(file string) map[string]string {
	data, err := readSmall(file)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			f.problem(file, err)
		}
		return nil
	}
	type entry struct {
		Path string `json:"path"`
		LFS  *struct {
			OID    string `json:"oid"`
			SHA256 string `json:"sha256"`
		} `json:"lfs"`
	}
	var entries []entry
	if json.Unmarshal(data, &entries) != nil {
		var object map[string]jsontext.Value // either the list is a member, or each path is a member
		if err := json.Unmarshal(data, &object); err != nil {
			f.problem(file, err)
			return nil
		}
		for name, value := range object {
			var list []entry
			var one entry
			switch {
			case json.Unmarshal(value, &list) == nil:
				entries = append(entries, list...)
			case json.Unmarshal(value, &one) == nil:
				if one.Path == "" {
					one.Path = name
				}
				entries = append(entries, one)
			}
		}
	}
	claims := make(map[string]string)
	for _, e := range entries {
		if e.LFS == nil {
			continue
		}
		for _, claim := range []string{e.LFS.SHA256, strings.TrimPrefix(e.LFS.OID, "sha256:")} {
			if digest.MatchString(claim) {
				claims[e.Path] = claim
			}
		}
	}
	return claims
}

// llamaCpp finds the models in llama.cpp's own cache. Releases since March 2026 use Hugging Face's cache.
func (f *finder) llamaCpp() {
	dir := f.env.Getenv("LLAMA_CACHE")
	if dir == "" {
		dir = filepath.Join(f.cacheHome(), "llama.cpp")
		if f.env.GOOS == "darwin" {
			dir = filepath.Join(f.env.Home, "Library", "Caches", "llama.cpp")
		}
	}
	for _, root := range f.roots(dir) {
		entries, err := os.ReadDir(root)
		if err != nil {
			f.problem(root, err)
			continue
		}
		var files []found
		for _, e := range entries {
			if e.IsDir() || !isModel(e.Name()) {
				continue
			}
			target, err := inside(root, filepath.Join(root, e.Name()))
			if err != nil {
				f.problem(filepath.Join(root, e.Name()), err)
				continue
			}
			files = append(files, found{e.Name(), target})
		}
		f.plain("llama.cpp", files, func(string) string { return "" })
	}
}

// lmStudio finds the models in the folders of LM Studio: PUBLISHER/REPO/FILE.
func (f *finder) lmStudio() {
	for _, root := range f.roots(filepath.Join(f.env.Home, ".lmstudio", "models"), filepath.Join(f.cacheHome(), "lm-studio", "models")) {
		f.plain("lmstudio", f.walk(root, root), func(rel string) string {
			if dir := path.Dir(rel); strings.Count(dir, "/") == 1 {
				return dir
			}
			return ""
		})
	}
}

// plain adds the models of a tool that stores no digests. repo returns the repository of a file, or
// an empty string if it is unknown.
func (f *finder) plain(tool string, files []found, repo func(rel string) string) {
	for _, parts := range f.group(files, func(found) string { return "" }) {
		f.models = append(f.models, Model{Tool: tool, Name: nameOf(stemOf(parts[0].Name)), Files: parts, Repo: repo(parts[0].Name)})
	}
}

// ollamaModel is the media type of a model's layer in Ollama's manifests.
const ollamaModel = "application/vnd.ollama.image.model"

// ollama finds the models in the folders of Ollama: manifests/HOST/NAMESPACE/MODEL/TAG names a
// layer, which is blobs/sha256-HEX.
func (f *finder) ollama() {
	named := f.env.Getenv("OLLAMA_MODELS")
	roots := f.roots(named, filepath.Join(f.env.Home, ".ollama", "models"))
	for _, root := range roots {
		f.ollamaRoot(root)
	}
	system := cmp.Or(f.env.OllamaSystem, "/usr/share/ollama/.ollama/models")
	if named == system {
		return
	}
	f.foreign = true
	defer func() { f.foreign = false }()
	for _, root := range f.roots(system) {
		if !slices.Contains(roots, root) {
			f.ollamaRoot(root)
		}
	}
}

// ollamaRoot finds the models in one folder of Ollama.
func (f *finder) ollamaRoot(root string) {
	manifests := filepath.Join(root, "manifests")
	entries := 0
	err := filepath.WalkDir(manifests, func(name string, e fs.DirEntry, err error) error {
		switch entries++; {
		case err != nil:
			if !errors.Is(err, fs.ErrNotExist) {
				f.problem(name, err)
			}
			return nil
		case entries > maxEntries:
			return fmt.Errorf("it has more than %d entries: the rest is left out", maxEntries)
		case e.IsDir():
			return nil
		}
		rel, err := filepath.Rel(manifests, name)
		if err != nil {
			return err
		}
		if words := strings.Split(filepath.ToSlash(rel), "/"); len(words) == 4 {
			f.ollamaTag(root, name, words)
		}
		return nil
	})
	if err != nil {
		f.problem(manifests, err)
	}
}

// ollamaTag reads a manifest. words are host, namespace, model and tag.
func (f *finder) ollamaTag(root, file string, words []string) {
	target, err := inside(root, file)
	if err != nil {
		f.problem(file, err)
		return
	}
	data, err := readSmall(target)
	if err != nil {
		f.problem(file, err)
		return
	}
	var manifest struct {
		Layers []struct {
			MediaType string `json:"mediaType"`
			Digest    string `json:"digest"`
		} `json:"layers"`
	}
	if err := json.Unmarshal(data, &manifest); err != nil {
		f.problem(file, err)
		return
	}
	m := Model{Tool: "ollama", Registry: words[0], Repo: words[1] + "/" + words[2], Revision: words[3]}
	model, tag := words[2], words[3]
	if words[1] != "library" {
		model = words[1] + "/" + model
	}
	m.Name = nameOf(model + "-" + tag)
	m.Asked = []string{"ollama:" + model + ":" + tag}
	if tag == "latest" {
		m.Asked = append(m.Asked, "ollama:"+model)
	}
	for _, layer := range manifest.Layers {
		if layer.MediaType != ollamaModel {
			continue
		}
		claim := strings.TrimPrefix(layer.Digest, "sha256:")
		if !digest.MatchString(claim) {
			f.problem(file, fmt.Errorf("layer %q has no SHA-256", printable.Text(layer.Digest)))
			return
		}
		blob, err := inside(root, filepath.Join(root, "blobs", "sha256-"+claim))
		if err != nil {
			f.problem(file, err)
			return
		}
		m.Files = append(m.Files, File{blob, m.Name + ".gguf", claim})
	}
	if len(m.Files) > 0 {
		f.models = append(f.models, m)
	}
}
