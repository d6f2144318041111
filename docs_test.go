package inferd_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// Every package says what it is for and what it does not know.
func TestPackagesAreDocumented(t *testing.T) {
	for _, p := range list(t, "./...") {
		if len(p.GoFiles) == 0 {
			continue // tests only
		}
		file := token.NewFileSet()
		var doc strings.Builder
		for _, name := range p.GoFiles {
			f, err := parser.ParseFile(file, filepath.Join(p.Dir, name), nil, parser.ParseComments|parser.PackageClauseOnly)
			if err != nil {
				t.Fatal(err)
			}
			if f.Doc != nil {
				doc.WriteString(f.Doc.Text())
			}
		}
		if sentences := strings.Count(strings.ReplaceAll(doc.String()+" ", "\n", " "), ". "); sentences < 2 {
			t.Errorf("%s: its doc comment has %d sentences, want at least 2", p.ImportPath, sentences)
		}
	}
}

// The model of a request belongs to no wire format.
func TestModelHasNoTags(t *testing.T) {
	files, err := filepath.Glob("internal/infer/*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if field, ok := n.(*ast.Field); ok && field.Tag != nil {
				t.Errorf("%s: a struct tag %s", name, field.Tag.Value)
			}
			return true
		})
	}
}
