// Package modelname parses the names of models as operators type them, and chooses the files of a
// model from the listing of a repository. It contains the catalog: a list of models with digests, so
// that these are known before a download. It reads no files and opens no connections: other packages
// resolve names and fetch files.
package modelname

import (
	"encoding/hex"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/inferd-go/inferd/internal/printable"
)

// A Kind is the form of a typed name.
type Kind int

// Forms of names.
const (
	Plain  Kind = iota // a manifest of the store, or an entry of the catalog
	Hub                // GGUF files of a repository of Hugging Face
	Ollama             // the model layer of an image of Ollama's registry
	Link               // an https URL
	File               // a file of this machine
)

// A Ref is the meaning of a typed name. Fields of other kinds than Kind are empty.
type Ref struct {
	Kind Kind

	Name string // Plain: as typed. Ollama: NAMESPACE/NAME, or NAME of the namespace "library"
	Tag  string // Ollama: "latest" if none was typed

	Owner, Repo string // Hub
	Quant       string // Hub: as typed; empty means the default
	File        string // Hub: path in the repository; empty means that Choose decides
	Rev         string // Hub: branch, tag or commit; empty means "main"

	URL    string // Link, without its fragment
	SHA256 string // Link: digest in lower-case hex from the fragment; empty: unknown

	Path string // File
}

// maxTyped bounds a typed name in bytes.
const maxTyped = 2048

var (
	plainName = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$`)
	segment   = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$`)
	revision  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/-]{0,254}$`)
	quantWord = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	drive     = regexp.MustCompile(`^[A-Za-z]:[\\/]`)
)

// Forms lists the accepted names, for errors and help.
const Forms = "a name of the catalog, hf:OWNER/REPO[:QUANT][@REV], hf:OWNER/REPO/FILE.gguf[@REV], ollama:NAME[:TAG], https://…[#sha256=HEX], or the path of a file"

// address matches the beginning of an address: its scheme and the slashes after it.
var address = regexp.MustCompile(`^(?i)(?:[a-z][a-z0-9+.-]*://|https?:/*)`)

// port matches a host with an optional port. Other texts may contain a password.
var port = regexp.MustCompile(`^[^:]*(?::[0-9]*)?$|^\[[0-9a-fA-F:.]*\](?::[0-9]*)?$`)

// Public returns a typed name without possible secrets. Of an address it keeps scheme, host and path, and
// omits user, password, query and fragment; if the host is not valid, it keeps only the scheme. It also
// omits the query and fragment of other names.
func Public(typed string) string {
	if i := strings.IndexAny(typed, "?#"); i >= 0 {
		typed = typed[:i]
	}
	scheme := address.FindString(typed)
	if scheme == "" {
		return typed
	}
	host, path := typed[len(scheme):], ""
	if i := strings.IndexByte(host, '/'); i >= 0 {
		host, path = host[:i], host[i:]
	}
	if i := strings.LastIndexByte(host, '@'); i >= 0 {
		host = host[i+1:]
	}
	if !port.MatchString(host) {
		return scheme + "…"
	}
	return scheme + host + path
}

// quoted quotes a typed name, or a part of one, for an error, without the parts that [Public] omits.
func quoted(text string) string { return fmt.Sprintf("%q", printable.Text(Public(text))) }

// Parse returns the meaning of a typed name. Errors quote at most 256 bytes of it, and nothing that
// [Public] omits.
func Parse(typed string) (Ref, error) {
	wrap := func(err error) error { return fmt.Errorf("model %s: %w", quoted(typed), err) }
	switch {
	case typed == "":
		return Ref{}, fmt.Errorf("the name of the model is empty: want %s", Forms)
	case len(typed) > maxTyped:
		return Ref{}, wrap(fmt.Errorf("its name has %d bytes, at most %d are allowed", len(typed), maxTyped))
	case !utf8.ValidString(typed) || strings.ContainsFunc(typed, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return Ref{}, wrap(fmt.Errorf("its name has control characters or is not UTF-8"))
	}
	ref, err := parse(typed)
	if err != nil {
		return Ref{}, wrap(err)
	}
	return ref, nil
}

func parse(typed string) (Ref, error) {
	scheme, rest, _ := strings.Cut(typed, ":")
	switch strings.ToLower(scheme) {
	case "hf":
		return parseHub(rest)
	case "ollama":
		return parseOllama(rest)
	case "https":
		return parseLink(typed)
	case "http":
		return Ref{}, fmt.Errorf("model URL must be https://")
	case "file":
		return parseFile(rest)
	case "ms", "modelscope":
		return Ref{}, fmt.Errorf("ModelScope is not supported: use the file's https:// address with #sha256=HEX")
	}
	for _, host := range []string{"hf.co/", "huggingface.co/"} {
		if after, ok := strings.CutPrefix(typed, host); ok {
			return parseHub(after)
		}
	}
	switch {
	case isPath(typed):
		return Ref{Kind: File, Path: typed}, nil
	case strings.Count(typed, "/") >= 1:
		return parseHub(typed)
	case strings.Count(typed, ":") == 1 && plainName.MatchString(strings.Replace(typed, ":", "-", 1)):
		return Ref{}, fmt.Errorf("not a valid form of a model name: did you mean ollama:%s?", typed)
	case strings.ContainsAny(typed, ":@"):
		return Ref{}, fmt.Errorf("not a valid form of a model name: want %s", Forms)
	}
	if !plainName.MatchString(typed) || strings.Contains(typed, "..") {
		return Ref{}, fmt.Errorf("a name has letters, digits, '.', '-' and '_', at most 128, and no leading dot: want %s", Forms)
	}
	return Ref{Kind: Plain, Name: typed}, nil
}

// isPath reports whether a name without a scheme is the path of a file. The name must not be empty.
func isPath(word string) bool {
	return strings.HasSuffix(strings.ToLower(word), ".gguf") || strings.ContainsAny(word[:1], `/.~\`) || drive.MatchString(word)
}

// parseHub parses OWNER/REPO[:QUANT][@REV] and OWNER/REPO/FILE[@REV].
func parseHub(text string) (Ref, error) {
	ref := Ref{Kind: Hub}
	path, rev, hasRev := strings.Cut(text, "@")
	if hasRev {
		if !revision.MatchString(rev) || !cleanPath(rev) {
			return Ref{}, fmt.Errorf("%s is not a revision: want a commit, a tag or a branch after '@'", quoted(rev))
		}
		ref.Rev = rev
	}
	parts := strings.SplitN(path, "/", 3)
	if len(parts) < 2 {
		return Ref{}, fmt.Errorf("hf: needs OWNER/REPO of Hugging Face")
	}
	ref.Owner, ref.Repo = parts[0], parts[1]
	if len(parts) == 2 {
		repo, quant, hasQuant := strings.Cut(ref.Repo, ":")
		if hasQuant {
			if !quantWord.MatchString(quant) {
				return Ref{}, fmt.Errorf("%s is not a quantisation: want a word such as Q4_K_M after ':'", quoted(quant))
			}
			ref.Repo, ref.Quant = repo, quant
		}
	}
	for _, s := range []string{ref.Owner, ref.Repo} {
		if !segment.MatchString(s) || strings.Contains(s, "..") {
			return Ref{}, fmt.Errorf("%s is not an owner or repository of Hugging Face", quoted(s))
		}
	}
	if len(parts) == 3 {
		ref.File = parts[2]
		if !cleanPath(ref.File) {
			return Ref{}, fmt.Errorf("%s is not a path in a repository", quoted(ref.File))
		}
		if !isGGUF(ref.File) {
			return Ref{}, fmt.Errorf("%s is not a GGUF file: its name must end in .gguf", quoted(ref.File))
		}
	}
	return ref, nil
}

// cleanPath reports whether no segment of a relative path with slashes is empty, "." or "..", or has a
// backslash.
func cleanPath(path string) bool {
	for s := range strings.SplitSeq(path, "/") {
		if s == "" || s == "." || s == ".." || strings.Contains(s, `\`) {
			return false
		}
	}
	return true
}

// parseOllama parses [NAMESPACE/]NAME[:TAG].
func parseOllama(text string) (Ref, error) {
	name, tag, hasTag := strings.Cut(text, ":")
	if !hasTag {
		tag = "latest"
	}
	if !segment.MatchString(tag) || strings.Contains(tag, "..") {
		return Ref{}, fmt.Errorf("%s is not a tag of Ollama's registry", quoted(tag))
	}
	parts := strings.Split(name, "/")
	if len(parts) > 2 {
		return Ref{}, fmt.Errorf("want ollama:NAME[:TAG] or ollama:NAMESPACE/NAME[:TAG]")
	}
	for _, s := range parts {
		if !segment.MatchString(s) || strings.Contains(s, "..") {
			return Ref{}, fmt.Errorf("%s is not a name of Ollama's registry", quoted(s))
		}
	}
	return Ref{Kind: Ollama, Name: name, Tag: tag}, nil
}

// parseLink parses an https URL. The address of a page of a repository or file at Hugging Face, without
// a digest, becomes a name of kind Hub.
func parseLink(text string) (Ref, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "":
		return Ref{}, fmt.Errorf("not a valid https:// address")
	case u.User != nil:
		return Ref{}, fmt.Errorf("an address with a user or password is refused: it would be written to the store")
	}
	ref := Ref{Kind: Link}
	if u.Fragment != "" {
		digest, ok := strings.CutPrefix(u.Fragment, "sha256=")
		if ref.SHA256 = strings.ToLower(digest); !ok || !IsSHA256(ref.SHA256) {
			return Ref{}, fmt.Errorf("want #sha256= and 64 hex characters after the address, or nothing")
		}
	}
	if ref.SHA256 == "" && (u.Host == "huggingface.co" || u.Host == "hf.co") {
		if page, ok := hubPage(u.Path); ok {
			return page, nil
		}
	}
	u.Fragment, u.RawFragment = "", ""
	ref.URL = u.String()
	return ref, nil
}

// hubPage parses the path of a page at Hugging Face: /OWNER/REPO, /OWNER/REPO/tree/REV,
// /OWNER/REPO/blob/REV/FILE or /OWNER/REPO/resolve/REV/FILE.
func hubPage(path string) (Ref, bool) {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	text := ""
	switch {
	case len(parts) == 2:
		text = parts[0] + "/" + parts[1]
	case len(parts) == 4 && parts[2] == "tree":
		text = parts[0] + "/" + parts[1] + "@" + parts[3]
	case len(parts) > 4 && (parts[2] == "blob" || parts[2] == "resolve"):
		text = parts[0] + "/" + parts[1] + "/" + strings.Join(parts[4:], "/") + "@" + parts[3]
	}
	ref, err := parseHub(text)
	return ref, err == nil
}

// parseFile parses the rest of file:PATH, file:///PATH and file://localhost/PATH.
func parseFile(rest string) (Ref, error) {
	path, hasHost := strings.CutPrefix(rest, "//")
	if hasHost {
		path = strings.TrimPrefix(path, "localhost")
		if !strings.HasPrefix(path, "/") {
			return Ref{}, fmt.Errorf("a file: address names a file of this machine, as in file:///models/m.gguf")
		}
		plain, err := url.PathUnescape(path)
		if err != nil {
			return Ref{}, fmt.Errorf("not a valid file: address")
		}
		path = plain
	}
	if path == "" || strings.ContainsRune(path, 0) {
		return Ref{}, fmt.Errorf("file: needs a path")
	}
	return Ref{Kind: File, Path: path}, nil
}

// IsSHA256 reports whether text is a SHA-256 in lower-case hex.
func IsSHA256(text string) bool {
	_, err := hex.DecodeString(text)
	return err == nil && len(text) == 64 && strings.ToLower(text) == text
}

// String returns the name in its canonical spelling. The list "asked" of a manifest contains it, but
// without the query of a web address.
func (r Ref) String() string {
	switch r.Kind {
	case Plain:
		return r.Name
	case Hub:
		text := "hf:" + r.Owner + "/" + r.Repo
		switch {
		case r.File != "":
			text += "/" + r.File
		case r.Quant != "":
			text += ":" + strings.ToUpper(r.Quant)
		}
		if r.Rev != "" {
			text += "@" + r.Rev
		}
		return text
	case Ollama:
		return "ollama:" + r.Name + ":" + r.Tag
	case Link:
		if r.SHA256 != "" {
			return r.URL + "#sha256=" + r.SHA256
		}
		return r.URL
	case File:
		return r.Path
	}
	panic(fmt.Sprintf("internal error: kind %d of a name", int(r.Kind)))
}
