// Package setup has the texts that connect other tools to a daemon over HTTP: settings to paste, or
// a small program. Each is a template in the folder clients, named after the tool. The package
// sends no request, and no text contains a key: the texts name the environment variable that holds
// it.
package setup

import (
	"embed"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"text/template"

	"github.com/go-json-experiment/json"

	"github.com/inferd-go/inferd/internal/usage"
)

//go:embed clients
var clients embed.FS

// KeyVariable is the environment variable that holds the key of a client.
const KeyVariable = "INFERD_HTTP_KEY"

// A Target is the daemon that a tool is to use.
type Target struct {
	Base   string // URL without a path; empty if the daemon has only a socket
	Socket string // path of its HTTP socket; empty if there is none
	Model  string
	Key    bool // KeyVariable holds a key
}

// byName returns the file names of the templates by the names of their tools.
func byName() map[string]string {
	all := make(map[string]string)
	files, err := fs.Glob(clients, "clients/*")
	if err != nil {
		panic(fmt.Sprintf("internal error: embedded files: %v", err))
	}
	for _, f := range files {
		all[strings.TrimSuffix(path.Base(f), path.Ext(f))] = f
	}
	return all
}

// Names returns the names of the tools, sorted.
func Names() []string {
	var names []string
	for name := range byName() {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// overSocket lists the tools that can use a Unix socket.
var overSocket = []string{"curl"}

// NeedsTCP reports whether a tool cannot use a Unix socket.
func NeedsTCP(name string) bool { return !slices.Contains(overSocket, name) }

// Check returns an error if there is no tool with the given name.
func Check(name string) error {
	names := Names()
	if slices.Contains(names, name) {
		return nil
	}
	hint := ""
	if near := usage.Nearest(name, names); near != "" {
		hint = ": did you mean " + near + "?"
	}
	return fmt.Errorf("no client is called %q%s (known: %s)", name, hint, strings.Join(names, ", "))
}

// Text returns the text that connects a tool to a daemon.
func Text(name string, to Target) (string, error) {
	if err := Check(name); err != nil {
		return "", err
	}
	file := byName()[name]
	t, err := template.New(path.Base(file)).Funcs(template.FuncMap{"quote": quote, "sh": shell}).ParseFS(clients, file)
	if err != nil {
		return "", fmt.Errorf("internal error: %w", err)
	}
	var b strings.Builder
	if err := t.Execute(&b, to); err != nil {
		return "", fmt.Errorf("internal error: %w", err)
	}
	return b.String(), nil
}

// quote joins parts to a JSON string, which is also a string in TOML, YAML, Python and JavaScript.
func quote(parts ...string) (string, error) {
	text, err := json.Marshal(strings.Join(parts, ""))
	return string(text), err
}

// shell joins parts to one word of a shell command, and quotes it if needed.
func shell(parts ...string) string {
	text := strings.Join(parts, "")
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:=@%+,", r)
	}
	if text != "" && !strings.ContainsFunc(text, func(r rune) bool { return !plain(r) }) {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
