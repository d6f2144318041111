package dialect_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialect"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialecttest"
)

var quoted = regexp.MustCompile("`([^`]+)`")

// The table of docs/tools.md has exactly the possible names of a dialect, and package dialecttest
// has a template for each family.
func TestNamesAreDocumented(t *testing.T) {
	source, err := os.ReadFile("../../../../docs/tools.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(source), "| `tools_dialect` | families | a call |\n|---|---|---|\n")
	if !ok {
		t.Fatal("docs/tools.md has no table of tools_dialect")
	}
	table, _, _ = strings.Cut(table, "\n\n")
	var got []string
	for row := range strings.Lines(table) {
		for _, name := range quoted.FindAllStringSubmatch(strings.Split(row, "|")[1], -1) {
			got = append(got, name[1])
		}
	}
	want := dialect.Names()
	slices.Sort(got)
	slices.Sort(want)
	if want = slices.Compact(want); !slices.Equal(got, want) {
		t.Errorf("documented are\n%q, want\n%q", got, want)
	}
	for _, name := range want { // each family has a template in dialecttest
		if !slices.Contains(dialecttest.Names(false), name) && !slices.Contains([]string{"object", "array", "named", "params", "gemma"}, name) {
			t.Errorf("no test has the dialect %q", name)
		}
	}
}
