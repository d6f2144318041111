package config

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/internal/backend"
	"github.com/inferd-go/inferd/internal/backend/llamacpp"
	"github.com/inferd-go/inferd/internal/backend/mock"
	"github.com/inferd-go/inferd/internal/paths"
	"github.com/inferd-go/inferd/internal/settings"
)

// kinds are the daemon's kinds of backends. The tests start no backend.
var kinds = []*backend.Kind{&llamacpp.Kind, &mock.Kind}

var update = flag.Bool("update", false, "rewrite docs/settings.md")

// docs/settings.md equals the page generated from the tables, so it lists every setting.
func TestSettingsPage(t *testing.T) {
	const page = "../../docs/settings.md"
	var b strings.Builder
	b.WriteString("# Settings\n\n" +
		"Generated from the tables in `internal/config` and in the packages of the kinds of backends\n" +
		"(`go test ./internal/config -update`). A flag beats its variable, and a variable beats the config file.\n" +
		"[configuring.md](configuring.md) explains them.\n")
	f, err := ParseFlags(nil, env(nil), kinds, &b)
	if err != nil {
		t.Fatal(err)
	}
	section(&b, "The daemon", settings.Of(daemonSettings, &f))
	section(&b, "Every entry of `backends`", settings.Of(limitSettings, &f.limits))
	for _, k := range kinds {
		t := k.New().Table()
		title := "An entry of kind `" + k.Name + "`"
		if slices.ContainsFunc(t.Rows(), func(r settings.Row) bool { return r.Flag != "" }) {
			title += "; the flags are for the model of `--model-path`"
		}
		section(&b, title, t)
	}
	if *update {
		if err := os.WriteFile(page, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("%s is not up to date: run go test ./internal/config -update", page)
	}
}

// env returns the environment of a Linux machine with the given variables.
func env(vars map[string]string) paths.Env {
	return paths.Env{GOOS: "linux", Getenv: func(name string) string { return vars[name] }, UID: 1000}
}

// section writes a table of settings in Markdown.
func section(b *strings.Builder, title string, table settings.Table) {
	fmt.Fprintf(b, "\n## %s\n\n| flag | variable | config file | default | meaning |\n|---|---|---|---|---|\n", title)
	for _, r := range table.Rows() {
		name, variable, key := "", "", ""
		if r.Flag != "" {
			name, variable = "`--"+r.Flag+"`", "`"+variableOf(r.Flag)+"`"
		}
		if r.Flag == "version" {
			variable = ""
		}
		if r.Key != "" {
			key = "`" + r.Key + "`"
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s |\n", name, variable, key, cmp.Or(r.Value, "–"), strings.ReplaceAll(strings.ReplaceAll(r.Help, "`", ""), "|", "\\|"))
	}
}

// Every setting of the daemon that has both a flag and a member of the file can be set as either,
// and as a variable. The flag overrides the variable, which overrides the file.
func TestEverySetting(t *testing.T) {
	for _, s := range daemonSettings {
		if s.Flag == "version" || s.Key == "" || s.Flag == "" {
			continue
		}
		t.Run(s.Flag, func(t *testing.T) {
			values := []string{"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"}
			before, behind := `"`, `"`
			switch s.At(new(Flags)).(type) {
			case *int:
				values, before, behind = []string{"11", "12", "13"}, "", ""
			case *bool:
				values, before, behind = []string{"false", "true", "false"}, "", ""
			case *settings.Words:
				before, behind = `["`, `"]`
			}
			if s.Flag == "verify" {
				values = []string{"always", "once", "always"}
			}
			path := t.TempDir() + "/config.json"
			file := fmt.Sprintf(`{%q:%s%s%s}`, s.Key, before, values[0], behind)
			if section, member, inner := strings.Cut(s.Key, "."); inner {
				file = fmt.Sprintf(`{%q:{%q:%s%s%s}}`, section, member, before, values[0], behind)
			}
			if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
				t.Fatal(err)
			}
			for i, vars := range []map[string]string{nil, {variableOf(s.Flag): values[1]}, {variableOf(s.Flag): values[1]}} {
				args := []string{"--config", path}
				if i == 2 {
					args = append(args, "--"+s.Flag+"="+values[2])
				}
				f, err := ParseFlags(args, env(vars), kinds, nil)
				if err != nil {
					t.Fatal(err)
				}
				doc, err := settings.Open(path)
				if err != nil {
					t.Fatal(err)
				}
				new(Config).fromFile(doc, &f, paths.Env{Getenv: func(string) string { return "" }})
				if doc.Err() != nil {
					t.Fatal(doc.Err())
				}
				if got := fmt.Sprint(deref(s.At(&f))); got != values[i] {
					t.Errorf("%s, with %d sources: %s, want %s", s.Flag, i+1, got, values[i])
				}
				if unknown := doc.Unknown(); len(unknown) > 0 {
					t.Error(unknown)
				}
			}
		})
	}
}

func deref(p any) any {
	switch p := p.(type) {
	case *string:
		return *p
	case *int:
		return *p
	case *bool:
		return *p
	case *settings.Words:
		return p.String()
	}
	return p
}

// Each of 40,000 unknown members causes a warning with its line. If the time to read them were
// quadratic in their number, this test would be slow.
func TestManyUnknownMembers(t *testing.T) {
	var b strings.Builder
	b.WriteString(`{"backends":[{"kind":"mock","name":"m"`)
	many := 40_000
	if testing.Short() {
		many = 5_000
	}
	for i := range many {
		fmt.Fprintf(&b, ",\n\"x%d\":1", i)
	}
	b.WriteString("}]}")
	path := t.TempDir() + "/config.json"
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := ParseFlags([]string{"--config", path}, env(nil), kinds, nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Load(&f, env(nil))
	if err != nil || len(c.Warnings) != many || !strings.HasSuffix(c.Warnings[many-1], fmt.Sprintf(":%d: unknown key backends[0].x%d", many+1, many-1)) {
		t.Errorf("%v, %d warnings, the last %q", err, len(c.Warnings), c.Warnings[len(c.Warnings)-1])
	}
}
