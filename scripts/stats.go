//go:build ignore

// Command stats prints the size of the code in folders, with one line per package: lines, tests,
// long files and functions, the largest interface.
//
//	go run scripts/stats.go [-calls FUNCTION] FOLDER...
//
// With -calls, it also counts the calls of a function or method of that name in each package.
package main

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
)

// Files and functions with more lines than this count as long or huge.
const (
	longFile     = 400
	longFunction = 50
	hugeFunction = 60
)

// A count describes the files of a folder.
type count struct {
	code, test  int // lines
	files       []string
	functions   []int // lines of each, without tests
	long        []string
	interfaces  int // methods of the largest
	calls       int
	callsWanted string
}

func main() {
	calls := flag.String("calls", "", "count the calls of a `function` or method")
	flag.Parse()
	if err := run(flag.Args(), *calls); err != nil {
		fmt.Fprintln(os.Stderr, "stats:", err)
		os.Exit(1)
	}
}

func run(roots []string, calls string) error {
	if len(roots) == 0 {
		roots = []string{"."}
	}
	counts := make(map[string]*count)
	for _, root := range roots {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			switch name := d.Name(); {
			case err != nil:
				return err
			case d.IsDir() && path != root && (strings.HasPrefix(name, ".") || name == "testdata"):
				return filepath.SkipDir
			case d.IsDir() || !strings.HasSuffix(name, ".go"):
				return nil
			}
			folder := filepath.Dir(path)
			if counts[folder] == nil {
				counts[folder] = &count{callsWanted: calls}
			}
			return counts[folder].add(path)
		})
		if err != nil {
			return err
		}
	}
	return report(counts)
}

// add counts a file.
func (c *count) add(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	lines := bytes.Count(text, []byte("\n"))
	if strings.HasSuffix(path, "_test.go") {
		c.test += lines
		return nil
	}
	c.code += lines
	if lines > longFile {
		c.files = append(c.files, fmt.Sprintf("%s %d", filepath.Base(path), lines))
	}
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, path, text, parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			length := set.Position(n.End()).Line - set.Position(n.Pos()).Line + 1
			c.functions = append(c.functions, length)
			if length > longFunction {
				c.long = append(c.long, fmt.Sprintf("%s %d", n.Name.Name, length))
			}
		case *ast.InterfaceType:
			methods := 0
			for _, m := range n.Methods.List {
				if _, ok := m.Type.(*ast.FuncType); ok { // not an embedded interface, nor a type set
					methods += len(m.Names)
				}
			}
			c.interfaces = max(c.interfaces, methods)
		case *ast.CallExpr:
			switch f := n.Fun.(type) {
			case *ast.Ident:
				if f.Name == c.callsWanted {
					c.calls++
				}
			case *ast.SelectorExpr:
				if f.Sel.Name == c.callsWanted {
					c.calls++
				}
			}
		}
		return true
	})
	return nil
}

func report(counts map[string]*count) error {
	var all count
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	header := fmt.Sprintf("code\ttest\ttest÷code\tfiles>%d\tfuncs>%d\t>%d\tmedian\tinterface\tcalls\t  folder", longFile, longFunction, hugeFunction)
	fmt.Fprintln(out, header)
	for _, folder := range slices.Sorted(maps.Keys(counts)) {
		c := counts[folder]
		c.print(out, folder)
		all.code, all.test, all.calls = all.code+c.code, all.test+c.test, all.calls+c.calls
		all.files, all.long = append(all.files, c.files...), append(all.long, c.long...)
		all.functions, all.interfaces = append(all.functions, c.functions...), max(all.interfaces, c.interfaces)
	}
	all.print(out, "together")
	if err := out.Flush(); err != nil {
		return err
	}
	fmt.Println("long files:", strings.Join(all.files, ", "))
	fmt.Println("long functions:", strings.Join(all.long, ", "))
	return nil
}

func (c *count) print(out *tabwriter.Writer, folder string) {
	slices.Sort(c.functions)
	median, huge := 0, 0
	if n := len(c.functions); n > 0 {
		median = c.functions[n/2]
		at, _ := slices.BinarySearchFunc(c.functions, hugeFunction+1, cmp.Compare[int])
		huge = n - at
	}
	fmt.Fprintf(out, "%d\t%d\t%.2f\t%d\t%d\t%d\t%d\t%d\t%d\t  %s\n", c.code, c.test, float64(c.test)/float64(max(c.code, 1)),
		len(c.files), len(c.long), huge, median, c.interfaces, c.calls, folder)
}
