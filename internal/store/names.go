package store

import (
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/inferd-go/inferd/internal/printable"
)

// Folders and files of the store. Other programs rely on these names. Paths have slashes.
const (
	blobsDir      = "blobs/sha256"
	manifestsDir  = "manifests"
	locksDir      = "locks"
	quarantineDir = "locks/quarantine"

	partialPrefix = ".partial-" // followed by [Want.ref]: the folder of an ingest
	tempLeaf      = "data.tmp"  // the bytes of an ingest
	stateLeaf     = "state.json"
	durableLeaf   = "durable.json"
	dataLeaf      = "data" // the bytes of a blob
	manifestExt   = ".json"
)

func blobDir(digest string) string  { return path.Join(blobsDir, digest[:2], digest) }
func blobPath(digest string) string { return path.Join(blobDir(digest), dataLeaf) }
func partialDir(ref string) string  { return path.Join(blobsDir, ref[:2], partialPrefix+ref) }
func manifestPath(name string) string {
	return path.Join(manifestsDir, name+manifestExt)
}

// path returns the absolute path of a file of the store, for reports and errors.
func (d *disk) path(name string) string {
	return filepath.Join(d.root.Name(), filepath.FromSlash(name))
}

// maxName bounds a model's name in bytes.
const maxName = 128

// CheckName returns an error if a model cannot have the name: names are parts of file names.
func CheckName(name string) error {
	var reason string
	switch {
	case name == "":
		reason = "it is empty"
	case len(name) > maxName:
		reason = fmt.Sprintf("it has %d bytes, at most %d are allowed", len(name), maxName)
	case strings.ContainsFunc(name, func(r rune) bool { return !isNameRune(r) }):
		reason = "only letters, digits, '.', '-' and '_' of ASCII are allowed"
	case name[0] == '.':
		reason = "it begins with a dot"
	case strings.Contains(name, ".."):
		reason = "it has two dots in a row"
	case isDevice(name):
		reason = "it is the name of a device on Windows"
	default:
		return nil
	}
	return fmt.Errorf("model name %q: %s", printable.Text(name), reason)
}

func isNameRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' || r == '_'
}

// isDevice reports whether Windows opens a device by the name, whatever its extension.
func isDevice(name string) bool {
	stem, _, _ := strings.Cut(strings.ToLower(name), ".")
	if slices.Contains([]string{"con", "prn", "aux", "nul"}, stem) {
		return true
	}
	return len(stem) == 4 && (strings.HasPrefix(stem, "com") || strings.HasPrefix(stem, "lpt")) && stem[3] >= '1' && stem[3] <= '9'
}

// NameOf derives the name of a model from its file: the stem in lower case, without a part number,
// and with dashes in place of characters that a name must not have.
func NameOf(file string) (string, error) {
	stem := strings.TrimSuffix(strings.ToLower(filepath.Base(file)), ".gguf")
	if match := anyPart.FindStringSubmatch(stem); match != nil {
		stem = match[1]
	}
	name := strings.Map(func(r rune) rune {
		if !isNameRune(r) {
			return '-'
		}
		return r
	}, stem)
	return name, CheckName(name)
}

var errNotDigest = errors.New("must be 64 hex characters")

// ParseDigest returns a SHA-256 in lower-case hex. The prefix "sha256:" is optional.
func ParseDigest(text string) (string, error) {
	digest := strings.ToLower(strings.TrimPrefix(text, "sha256:"))
	if b, err := hex.DecodeString(digest); err != nil || len(b) != 32 {
		return "", fmt.Errorf("%w (got %s)", errNotDigest, printable.Text(text))
	}
	return digest, nil
}

// isDigest reports whether a text is a SHA-256 in lower-case hex.
func isDigest(text string) bool {
	digest, err := ParseDigest(text)
	return err == nil && digest == text
}
