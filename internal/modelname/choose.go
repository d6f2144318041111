package modelname

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/inferd-go/inferd/internal/printable"
)

// A Listed is a file of a repository.
type Listed struct {
	Path   string
	Size   int64
	SHA256 string // of the content, in lower-case hex; empty: unknown
}

// A Choice is the model that a name stands for in a repository.
type Choice struct {
	Parts     []Listed // in order; one if the model is not split
	Quant     string   // as in the name of the file, else of its folder; empty: neither has one
	Projector *Listed  // the model's mmproj file, or nil
}

// MaxParts bounds the parts of a split model, because the engine holds a descriptor for each.
const MaxParts = 512

// preferred lists the quantisations that are chosen if the name has none, best first.
var preferred = []string{"Q4_K_M", "Q8_0"}

var (
	splitName = regexp.MustCompile(`^(.*)-([0-9]{5})-of-([0-9]{5})\.(?i:gguf)$`)
	// quantSuffix matches a quantisation at the end of a stem: a type of llama.cpp, with the prefixes
	// and suffixes that publishers add, as in UD-Q4_K_XL.
	quantSuffix = regexp.MustCompile(`(?i)(?:^|[-._])((?:UD-)?(?:I?Q[1-9][0-9]*|TQ[12]|MXFP[0-9]+|NVFP[0-9]+|BF16|FP?16|FP?32)(?:_[A-Z0-9]+)*)$`)
	// helper matches GGUF files that belong to models, but are not models.
	helper = regexp.MustCompile(`(?i)(?:mmproj|imatrix|(?:^|[-._/])(?:mtp|eagle3|dflash|dspark)(?:-|/))`)
)

func isGGUF(path string) bool { return len(path) > 5 && strings.EqualFold(path[len(path)-5:], ".gguf") }

// leafOf returns the last segment of a path with slashes, and dirOf the segments before it.
func leafOf(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

func dirOf(path string) string {
	return strings.TrimSuffix(strings.TrimSuffix(path, leafOf(path)), "/")
}

// A part is the parsed file name of a part of a split model.
type part struct {
	base      string
	no, count int
}

// partOf parses a file name of the form BASE-NNNNN-of-MMMMM.gguf.
func partOf(leaf string) (part, bool) {
	m := splitName.FindStringSubmatch(leaf)
	if m == nil {
		return part{}, false
	}
	no, errNo := strconv.Atoi(m[2])
	count, errCount := strconv.Atoi(m[3])
	return part{m[1], no, count}, errNo == nil && errCount == nil
}

// name returns the file name of the part with that number.
func (p part) name(no int) string { return fmt.Sprintf("%s-%05d-of-%05d.gguf", p.base, no, p.count) }

// A candidate is one model of a repository: a file, or the parts of a split.
type candidate struct {
	dir, stem string // stem: the file name without .gguf and the suffix of a split
	quant     string // as spelt; empty if neither the stem nor the folder has one
	part      part   // count 0: not split
	files     []Listed
}

// String returns the path of the candidate's file, or of its first part.
func (c *candidate) String() string {
	if len(c.files) == 0 {
		return c.stem
	}
	return c.files[0].Path
}

// missing returns the names of the parts that are not listed.
func (c *candidate) missing() (names []string) {
	for no := 1; no <= c.part.count; no++ {
		name := c.part.name(no)
		if !slices.ContainsFunc(c.files, func(f Listed) bool { return strings.EqualFold(leafOf(f.Path), name) }) {
			names = append(names, name)
		}
	}
	return names
}

// check returns an error if a split model lacks parts or has too many.
func (c *candidate) check() error {
	if c.part.count == 0 {
		return nil
	}
	if c.part.count > MaxParts {
		return fmt.Errorf("%s has %d parts: at most %d can be loaded", c, c.part.count, MaxParts)
	}
	if missing := c.missing(); len(missing) > 0 {
		const shown = 5
		more := ""
		if len(missing) > shown {
			more = fmt.Sprintf(" and %d more", len(missing)-shown)
			missing = missing[:shown]
		}
		return fmt.Errorf("the split model %s is incomplete: the repository lacks %s%s", c, strings.Join(missing, ", "), more)
	}
	if len(c.files) != c.part.count {
		return fmt.Errorf("the split model %s has %d files for %d parts", c, len(c.files), c.part.count)
	}
	return nil
}

// candidates groups the GGUF files of a listing into candidates, in the order of their paths.
func candidates(files []Listed) []*candidate {
	type key struct {
		dir, base string
		count     int
	}
	groups := make(map[key]*candidate)
	var all []*candidate
	sorted := slices.Clone(files)
	slices.SortFunc(sorted, func(a, b Listed) int { return cmp.Compare(a.Path, b.Path) })
	for _, f := range sorted {
		if !isGGUF(f.Path) {
			continue
		}
		leaf, dir := leafOf(f.Path), dirOf(f.Path)
		p, split := partOf(leaf)
		if !split {
			stem := leaf[:len(leaf)-len(".gguf")]
			all = append(all, &candidate{dir: dir, stem: stem, quant: quantOf(dir, stem), files: []Listed{f}})
			continue
		}
		k := key{dir, p.base, p.count}
		c := groups[k]
		if c == nil {
			c = &candidate{dir: dir, stem: p.base, quant: quantOf(dir, p.base), part: p}
			groups[k] = c
			all = append(all, c)
		}
		c.files = append(c.files, f)
	}
	return all
}

// quantOf returns the quantisation at the end of a stem, else at the end of its folder's name, else "".
func quantOf(dir, stem string) string {
	for _, text := range []string{stem, leafOf(dir)} {
		if m := quantSuffix.FindStringSubmatch(text); m != nil {
			return m[1]
		}
	}
	return ""
}

// has reports whether the candidate has the quantisation quant: its stem, or the name of its folder if
// only that has a quantisation, ends in the word quant. quant may lack the prefix UD- of the candidate's
// quantisation, but no other part of it.
func (c *candidate) has(quant string) bool {
	text := c.stem
	if quantSuffix.FindString(text) == "" && c.quant != "" {
		text = leafOf(c.dir)
	}
	rest, ok := cutSuffixFold(text, quant)
	plain, _ := strings.CutPrefix(strings.ToUpper(c.quant), "UD-")
	return ok && len(quant) >= len(plain) && (rest == "" || strings.ContainsRune("-._", rune(rest[len(rest)-1])))
}

func cutSuffixFold(text, suffix string) (rest string, ok bool) {
	if len(text) < len(suffix) || !strings.EqualFold(text[len(text)-len(suffix):], suffix) {
		return text, false
	}
	return text[:len(text)-len(suffix)], true
}

// Choose returns the files of the model that ref, of kind Hub, names. files is the listing of the
// repository. The error for an ambiguous name lists the choices; the error for an incomplete split model
// lists missing parts.
func Choose(files []Listed, ref Ref) (Choice, error) {
	all := candidates(files)
	if ref.File != "" {
		return chooseFile(files, all, ref.File)
	}
	models := slices.DeleteFunc(slices.Clone(all), func(c *candidate) bool { return helper.MatchString(c.String()) })
	if len(models) == 0 {
		if len(all) > 0 {
			return Choice{}, fmt.Errorf("the repository has no model among its GGUF files, only %s", listOf(all))
		}
		return Choice{}, fmt.Errorf("the repository has no GGUF file%s", beside(files))
	}
	var chosen []*candidate
	if ref.Quant != "" {
		if chosen = matches(models, ref.Quant); len(chosen) == 0 {
			return Choice{}, fmt.Errorf("the repository has no %s: it has %s", printable.Text(ref.Quant), quantsOf(models))
		}
	} else {
		for _, quant := range preferred {
			if chosen = matches(models, quant); len(chosen) > 0 {
				break
			}
		}
		if len(chosen) == 0 {
			chosen = models
		}
	}
	if len(chosen) > 1 {
		if ref.Quant == "" && len(chosen) == len(models) && distinctQuants(models) {
			return Choice{}, fmt.Errorf("the repository has neither %s: choose one of %s as in hf:%s/%s:QUANT",
				strings.Join(preferred, " nor "), quantsOf(models), ref.Owner, ref.Repo)
		}
		return Choice{}, fmt.Errorf("the repository has several such models: choose one of %s as in hf:%s/%s/FILE.gguf", listOf(chosen), ref.Owner, ref.Repo)
	}
	return choice(files, chosen[0])
}

// matches returns the models with exactly the quantisation quant. If there are none, it returns the
// models that have quant by [candidate.has], such as UD-Q4_K_M for Q4_K_M.
func matches(models []*candidate, quant string) []*candidate {
	var loose, exact []*candidate
	for _, c := range models {
		if c.has(quant) {
			loose = append(loose, c)
		}
		if strings.EqualFold(c.quant, quant) {
			exact = append(exact, c)
		}
	}
	if len(exact) > 0 {
		return exact
	}
	return loose
}

// chooseFile finds a model by the path of a file. A part of a split model stands for all parts.
func chooseFile(files []Listed, all []*candidate, path string) (Choice, error) {
	for _, c := range all {
		for _, f := range c.files {
			if f.Path == path {
				return choice(files, c)
			}
		}
	}
	var near []*candidate
	for _, c := range all {
		if strings.EqualFold(leafOf(c.String()), leafOf(path)) {
			near = append(near, c)
		}
	}
	switch {
	case len(near) > 0:
		return Choice{}, fmt.Errorf("the repository has no file %s: did you mean %s?", printable.Text(path), listOf(near))
	case len(all) == 0:
		return Choice{}, fmt.Errorf("the repository has no GGUF file%s", beside(files))
	}
	return Choice{}, fmt.Errorf("the repository has no file %s: it has %s", printable.Text(path), listOf(all))
}

func choice(files []Listed, c *candidate) (Choice, error) {
	if err := c.check(); err != nil {
		return Choice{}, err
	}
	parts := slices.Clone(c.files)
	slices.SortFunc(parts, func(a, b Listed) int { return cmp.Compare(strings.ToLower(a.Path), strings.ToLower(b.Path)) })
	return Choice{Parts: parts, Quant: c.quant, Projector: projector(files, c)}, nil
}

// projector returns the mmproj file of a model, or nil if there is none or c itself is a projector. Of
// the mmproj files in the model's folder, or else in the nearest parent folder that has one, it returns
// the file with the bits per weight nearest to the model's. A model without a quantisation counts as F16.
func projector(files []Listed, c *candidate) *Listed {
	if strings.Contains(strings.ToLower(leafOf(c.String())), "mmproj") {
		return nil
	}
	for dir := c.dir; ; dir = dirOf(dir) {
		var best *Listed
		for i, f := range files {
			leaf := strings.ToLower(leafOf(f.Path))
			if dirOf(f.Path) != dir || !isGGUF(leaf) || !strings.Contains(leaf, "mmproj") {
				continue
			}
			if best == nil || nearer(&files[i], best, bitsOf(c.quant)) {
				best = &files[i]
			}
		}
		if best != nil {
			found := *best
			return &found
		}
		if dir == "" {
			return nil
		}
	}
}

// nearer reports whether the bits per weight of file a are nearer to want than those of file b. If they
// are equally near, the shorter name of a quantisation counts as nearer, such as F16 before BF16, and
// then the path that sorts first.
func nearer(a, b *Listed, want int) bool {
	quantA, quantB := quantOfFile(a.Path), quantOfFile(b.Path)
	distance := func(quant string) int { return max(bitsOf(quant)-want, want-bitsOf(quant)) }
	return cmp.Or(
		cmp.Compare(distance(quantA), distance(quantB)),
		cmp.Compare(len(quantA), len(quantB)),
		cmp.Compare(a.Path, b.Path),
	) < 0
}

func quantOfFile(path string) string {
	leaf := leafOf(path)
	return quantOf("", leaf[:len(leaf)-len(".gguf")])
}

// bitsOf returns the bits per weight of a quantisation; 16 if they are unknown.
func bitsOf(quant string) int {
	digits := strings.TrimLeftFunc(quant, func(r rune) bool { return r < '0' || r > '9' })
	end := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' })
	if end >= 0 {
		digits = digits[:end]
	}
	if bits, err := strconv.Atoi(digits); err == nil && bits <= 64 {
		return bits
	}
	return 16
}

// distinctQuants reports whether each model has a quantisation, and no two have the same.
func distinctQuants(models []*candidate) bool {
	seen := make(map[string]bool)
	for _, c := range models {
		quant := strings.ToLower(c.quant)
		if quant == "" || seen[quant] {
			return false
		}
		seen[quant] = true
	}
	return true
}

// maxListed bounds the names in an error.
const maxListed = 40

// quantsOf lists the quantisations of models, and the files without one.
func quantsOf(models []*candidate) string {
	var names []string
	for _, c := range models {
		name := c.quant
		if name == "" {
			name = leafOf(c.String())
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return list(names)
}

// listOf lists the files of models.
func listOf(models []*candidate) string {
	names := make([]string, len(models))
	for i, c := range models {
		names[i] = c.String()
	}
	return list(names)
}

func list(names []string) string {
	more := ""
	if len(names) > maxListed {
		more = fmt.Sprintf(" and %d more", len(names)-maxListed)
		names = names[:maxListed]
	}
	for i, name := range names {
		names[i] = printable.Text(name)
	}
	return strings.Join(names, ", ") + more
}

// beside returns a hint, to be appended to an error, about a repository that has weights but no GGUF
// files. It is empty if the repository has no weights in .safetensors files.
func beside(files []Listed) string {
	for _, f := range files {
		if strings.HasSuffix(strings.ToLower(f.Path), ".safetensors") {
			return ": it has weights for other programs (.safetensors); look for a repository of the same model whose name ends in -GGUF"
		}
	}
	return ""
}
