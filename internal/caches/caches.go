// Package caches finds GGUF models that other tools keep on this machine: in the caches of Hugging
// Face's tools and of llama.cpp, and in the folders of Ollama and LM Studio. It reads only names,
// links and small files, and writes nothing. The digests that it reports are claims of the tools,
// not verified. It does not use the model store.
package caches

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// A Model is a model in the folder of another tool.
type Model struct {
	Tool  string // such as "ollama"
	Name  string // in lower case; if an earlier model has the same name, the repository's name precedes it
	Files []File // the parts in order
	// Asked are the names under which a pull fetches the model; see docs/models.md.
	Asked []string
	// Registry, Repo and Revision are the model's source; empty if unknown.
	Registry, Repo, Revision string
}

// A File is one file of a model.
type File struct {
	Path   string // absolute, without links
	Name   string // in its repository
	SHA256 string // as the tool claims, in lower-case hex; empty if it claims none
}

// A Problem is a file or folder that was skipped.
type Problem struct {
	Path string
	Err  error
	// Closed means that the file is in another user's folder, which this user may not read.
	Closed bool
}

// An Env is the environment, which determines the folders of the tools.
type Env struct {
	Getenv func(string) string
	Home   string
	GOOS   string
	// OllamaSystem is the model folder of an Ollama that runs as a system service; empty means the
	// usual one.
	OllamaSystem string
}

// Limits of the search: folders of other tools may be large or deep.
const (
	maxEntries = 20_000  // in all folders of a tool
	maxDepth   = 8       // of nested folders
	maxFile    = 4 << 20 // bytes of a manifest or a listing
	maxParts   = 512
)

// Find returns the models of all tools, sorted by tool and name, and the files and folders that it
// skipped.
func Find(env Env) ([]Model, []Problem) {
	f := &finder{env: env}
	f.huggingFace()
	f.llamaCpp()
	f.ollama()
	f.lmStudio()
	slices.SortStableFunc(f.models, func(a, b Model) int { return cmp.Or(cmp.Compare(a.Tool, b.Tool), cmp.Compare(a.Name, b.Name)) })
	taken := make(map[string]bool)
	for n := range f.models {
		m := &f.models[n]
		if taken[m.Name] && m.Repo != "" {
			m.Name = nameOf(strings.ReplaceAll(m.Repo, "/", "-") + "-" + m.Name)
		}
		taken[m.Name] = true
	}
	return f.models, f.problems
}

// A finder collects models and problems.
type finder struct {
	env      Env
	foreign  bool // the folder being searched is another user's, and no variable names it
	models   []Model
	problems []Problem
}

// problem records a file or folder that is skipped.
func (f *finder) problem(path string, err error) {
	f.problems = append(f.problems, Problem{path, err, f.foreign && errors.Is(err, fs.ErrPermission)})
}

// roots returns the existing folders among paths, with links resolved and without duplicates.
func (f *finder) roots(paths ...string) []string {
	var roots []string
	for _, p := range paths {
		if p == "" {
			continue
		}
		target, err := filepath.EvalSymlinks(p)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				f.problem(p, err)
			}
			continue
		}
		if info, err := os.Stat(target); err == nil && info.IsDir() && !slices.Contains(roots, target) {
			roots = append(roots, target)
		}
	}
	return roots
}

// cacheHome returns the folder of the user's caches.
func (f *finder) cacheHome() string {
	if dir := f.env.Getenv("XDG_CACHE_HOME"); filepath.IsAbs(dir) {
		return dir
	}
	return filepath.Join(f.env.Home, ".cache")
}

// inside returns path with its links resolved. It returns an error if they lead out of root.
func inside(root, path string) (string, error) {
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	if rel, err := filepath.Rel(root, target); err != nil || !filepath.IsLocal(rel) {
		return "", fmt.Errorf("it is a symbolic link to %s, outside of %s: not used", target, root)
	}
	return target, nil
}

// excluded matches the names of GGUF files that are not models, such as projectors and draft models.
var excluded = regexp.MustCompile(`(?i)mmproj|imatrix|^mtp-|^eagle3-|^dflash-|^dspark-`)

func isModel(name string) bool {
	return strings.EqualFold(filepath.Ext(name), ".gguf") && !excluded.MatchString(name)
}

// A found is a model file below a folder.
type found struct {
	rel  string // path relative to the folder, with slashes
	path string // with links resolved
}

// walk returns the model files below dir. It follows links to files within root, and skips folders
// that are nested deeper than maxDepth. If dir has more than maxEntries entries, it stops and records
// a problem.
func (f *finder) walk(root, dir string) []found {
	var all []found
	entries := 0
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			f.problem(path, err)
			return nil
		}
		if entries++; entries > maxEntries {
			return fmt.Errorf("it has more than %d entries: the rest is left out", maxEntries)
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if e.IsDir() {
			if strings.Count(rel, string(filepath.Separator)) >= maxDepth {
				return fs.SkipDir
			}
			return nil
		}
		if !isModel(e.Name()) {
			return nil
		}
		target, err := inside(root, path)
		if err != nil {
			f.problem(path, err)
			return nil
		}
		if info, err := os.Stat(target); err == nil && info.Mode().IsRegular() {
			all = append(all, found{filepath.ToSlash(rel), target})
		}
		return nil
	})
	if err != nil {
		f.problem(dir, err)
	}
	return all
}

// part matches the stem of a part of a split model.
var part = regexp.MustCompile(`^(.*)-([0-9]{5})-of-([0-9]{5})$`)

// group returns the files of each model; the parts of a split model are one model. claim returns the
// digest that the tool claims for a file. Models with missing parts, or more than maxParts, become
// problems.
func (f *finder) group(files []found, claim func(found) string) [][]File {
	var models [][]File
	byRel := make(map[string]found)
	for _, file := range files {
		byRel[file.rel] = file
	}
	fileOf := func(x found) File { return File{x.path, x.rel, claim(x)} }
	for _, file := range files {
		ext := filepath.Ext(file.rel)
		match := part.FindStringSubmatch(strings.TrimSuffix(file.rel, ext))
		switch {
		case match == nil || match[3] == "00001":
			models = append(models, []File{fileOf(file)})
		case match[2] == "00001":
			var count int
			if _, err := fmt.Sscanf(match[3], "%d", &count); err != nil || count > maxParts {
				f.problem(file.path, fmt.Errorf("it has %s parts, at most %d can be loaded", match[3], maxParts))
				continue
			}
			var parts []File
			for n := 1; n <= count; n++ {
				name := fmt.Sprintf("%s-%05d-of-%s%s", match[1], n, match[3], ext)
				other, ok := byRel[name]
				if !ok {
					f.problem(file.path, fmt.Errorf("part %s is missing", filepath.Base(name)))
					parts = nil
					break
				}
				parts = append(parts, fileOf(other))
			}
			if parts != nil {
				models = append(models, parts)
			}
		}
	}
	return models
}

// nameOf converts text to a model's name: lower case, and dashes for other characters.
func nameOf(text string) string {
	return strings.Trim(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '.' || r == '-' || r == '_' {
			return r
		}
		return '-'
	}, strings.ToLower(text)), ".-")
}

// stemOf returns the name of a file without its extension and part number.
func stemOf(file string) string {
	stem := filepath.Base(file)
	stem = stem[:len(stem)-len(filepath.Ext(stem))]
	if match := part.FindStringSubmatch(stem); match != nil {
		stem = match[1]
	}
	return stem
}

// quant matches a quantisation at the end of a stem.
var quant = regexp.MustCompile(`(?i)(?:^|[-._])((?:UD-)?I?Q[0-9][A-Z0-9_]*|B?F16|F32|MXFP4[A-Z0-9_]*|TQ[0-9]_[0-9])$`)

func quantOf(file string) string {
	if match := quant.FindStringSubmatch(stemOf(file)); match != nil {
		return strings.ToUpper(match[1])
	}
	return ""
}

// digest matches a SHA-256 in lower-case hex.
var digest = regexp.MustCompile(`^[0-9a-f]{64}$`)

// readSmall reads a regular file. It fails if the file has more than maxFile bytes.
func readSmall(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is not a regular file")
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("it has more than %d bytes", maxFile)
	}
	return data, err
}
