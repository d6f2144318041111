package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/client"
)

// A file of tools may have v2's form or OpenAI's.
func TestReadTools(t *testing.T) {
	for name, test := range map[string]struct{ file, want string }{
		"v2":                  {`[{"name":"now","description":"d","input_schema":{"type":"object"}}]`, `now d {"type":"object"}`},
		"OpenAI's":            {`[{"type":"function","function":{"name":"now","description":"d","parameters":{"type":"object"}}}]`, `now d {"type":"object"}`},
		"Anthropic's":         {`[{"type":"custom","name":"now","description":"d","input_schema":{"type":"object"}}]`, `now d {"type":"object"}`},
		"one object":          {`{"name":"now"}`, "is no array of tools: put its tools between [ and ]"},
		"an object of tools":  {`{"tools": []}`, "is no array of tools: put its tools between [ and ]"},
		"null":                {`null`, "is no array of tools: put its tools between [ and ]"},
		"not JSON":            {`[{"name":`, "is no array of tools: unexpected end of JSON input"},
		"a name":              {`["now"]`, "tool 0 is not an object"},
		"a number as a name":  {`[{"name":7}]`, "tool 0 has a number as its name"},
		"a server's tool":     {`[{"type":"web_search"}]`, `tool 0 has the type "web_search"`},
		"a named server tool": {`[{"type":"web_search_20250305","name":"web_search"}]`, `tool 0 has the type "web_search_20250305"`},
		"no name":             {`[{"description":"d"}]`, "tool 0 has no name"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "tools.json")
			if err := os.WriteFile(path, []byte(test.file), 0o600); err != nil {
				t.Fatal(err)
			}
			tools, err := readTools(path)
			if err != nil {
				if !strings.Contains(err.Error(), test.want) {
					t.Errorf("%v, want %q", err, test.want)
				}
				return
			}
			if got := tools[0].Name + " " + tools[0].Description + " " + string(tools[0].InputSchema); got != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}

// A tool call is printed on a line of its own.
func TestCallIsPrinted(t *testing.T) {
	var b strings.Builder
	w := textWriter{w: &b}
	for _, err := range []error{w.write("Let me see."), w.call(&client.ToolCall{Name: "now", Input: []byte(`{}`)})} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if want := "Let me see.\ncall now {}\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}
