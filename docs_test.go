package inferd_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// Every package documents its purpose and its limits: its doc comment has at least two sentences.
func TestPackagesAreDocumented(t *testing.T) {
	for _, p := range packages(t) {
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

// The types of package infer have no struct tags, because they belong to no wire format.
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

// Lines of prose on all pages have at most 120 characters. Lines of tables and of code blocks may
// be longer.
func TestLinesOfPages(t *testing.T) {
	pages(t, func(page, text string) {
		code := false
		for i, line := range strings.Split(text, "\n") {
			fence := strings.HasPrefix(strings.TrimSpace(line), "```")
			code = code != fence
			if n := utf8.RuneCountInString(line); n > 120 && !code && !fence && !strings.HasPrefix(line, "|") {
				t.Errorf("%s:%d has %d characters, want at most 120", page, i+1, n)
			}
		}
	})
}

// markdownLink matches the target of a link or an image.
var markdownLink = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// Every relative link of a page has an existing file as its target, and an existing heading if it
// names one.
func TestLinksOfPages(t *testing.T) {
	links := 0
	pages(t, func(page, text string) {
		for _, m := range markdownLink.FindAllStringSubmatch(text, -1) {
			target, heading, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			links++
			file := page
			if target != "" {
				file = filepath.Join(filepath.Dir(page), target)
			}
			if _, err := os.Stat(file); err != nil {
				t.Errorf("%s: link %s: %v", page, m[1], err)
			} else if heading != "" && !slices.Contains(headings(t, file), heading) {
				t.Errorf("%s: link %s: no such heading", page, m[1])
			}
		}
	})
	if links < 30 {
		t.Errorf("checked only %d links", links)
	}
}

// pages calls check with each page of the repository.
func pages(t *testing.T, check func(page, text string)) {
	t.Helper()
	err := filepath.WalkDir(".", func(page string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && page != "." && strings.HasPrefix(d.Name(), "."):
			return filepath.SkipDir
		case d.IsDir() || filepath.Ext(page) != ".md":
			return nil
		}
		text, err := os.ReadFile(page)
		if err != nil {
			return err
		}
		check(page, string(text))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// headings returns the anchors of a page's headings, as code hosts derive them.
func headings(t *testing.T, page string) (anchors []string) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		title, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " ")
		if !ok || !strings.HasPrefix(line, "#") {
			continue
		}
		anchors = append(anchors, strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case unicode.IsLetter(r) || unicode.IsDigit(r) || r == '-' || r == '_':
				return unicode.ToLower(r)
			}
			return -1
		}, strings.TrimSpace(title)))
	}
	return anchors
}
