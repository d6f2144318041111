package page_test

import (
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// row matches a row of the table of libraries. Its groups are the name and the SHA-256 of a file.
var row = regexp.MustCompile(`(?m)^\| (\S+\.js) \| \S+ \| [\d.]+ \| \S+ \| \S+ \| ([0-9a-f]{64}) \|$`)

// The table in README.md lists exactly the files in the folder of libraries, which come from other
// projects, with their digests. The licence of each library is beside it.
func TestLibraries(t *testing.T) {
	const dir = "files/lib"
	table, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	sums := make(map[string]string)
	for _, m := range row.FindAllStringSubmatch(string(table), -1) {
		sums[m[1]] = m[2]
	}
	seen := 0
	err = fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(name) != ".js" {
			return err
		}
		seen++
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		if sum := sha256.Sum256(text); hex.EncodeToString(sum[:]) != sums[name] {
			t.Errorf("%s has the SHA-256 %x, the table says %q", name, sum, sums[name])
		}
		licence := strings.TrimSuffix(name, ".js") + ".LICENSE"
		if folder := filepath.Dir(name); folder != "." {
			licence = filepath.Join(folder, "LICENSE")
		}
		if info, err := os.Stat(filepath.Join(dir, licence)); err != nil || info.Size() < 500 {
			t.Errorf("%s: no licence: %v", name, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 9 || seen != len(sums) {
		t.Errorf("%d files, and %d rows", seen, len(sums))
	}
}
