package config

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/paths"
)

var update = flag.Bool("update", false, "rewrite docs/settings.md")

// The page of all settings is made of the tables, so it lacks none.
func TestSettingsPage(t *testing.T) {
	const page = "../../docs/settings.md"
	var b strings.Builder
	b.WriteString("# Settings\n\n" +
		"Generated from the tables in `internal/config` (`go test ./internal/config -update`). A flag beats its variable, and a\n" +
		"variable beats the config file. [configuring.md](configuring.md) explains them.\n")
	f, err := ParseFlags(nil, env(nil), &b)
	if err != nil {
		t.Fatal(err)
	}
	section(&b, "The daemon", settings, &f)
	section(&b, "Every entry of `backends`", limitSettings, &f.limits)
	section(&b, "An entry of kind `llamacpp`; the flags are for the model of `--model-path`", engineSettings, &f.model)
	section(&b, "An entry of kind `mock`", mockSettings, newMock(""))
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

// env is a Linux machine with the given variables.
func env(vars map[string]string) paths.Env {
	return paths.Env{GOOS: "linux", Getenv: func(name string) string { return vars[name] }, UID: 1000}
}

// section writes one table of settings.
func section[T any](b *strings.Builder, title string, table []setting[T], from *T) {
	fmt.Fprintf(b, "\n## %s\n\n| flag | variable | config file | default | meaning |\n|---|---|---|---|---|\n", title)
	for _, s := range table {
		name, variable, key := "", "", ""
		if s.flag != "" {
			name, variable = "`--"+s.flag+"`", "`"+variableOf(s.flag)+"`"
		}
		if s.flag == "version" {
			variable = ""
		}
		if s.key != "" {
			key = "`" + s.key + "`"
		}
		value := ""
		switch p := s.at(from).(type) {
		case *string:
			value = *p
		case *bool:
			value = fmt.Sprint(*p)
		case *int:
			if *p != 0 {
				value = fmt.Sprint(*p)
			}
		case *time.Duration:
			if *p != 0 {
				value = ticks{p, s.unit}.String()
			}
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s |\n", name, variable, key, cmp.Or(value, "–"), strings.ReplaceAll(strings.ReplaceAll(s.help, "`", ""), "|", "\\|"))
	}
}

// Every setting can be given in each of its ways, and the flag beats the variable, which beats
// the file.
func TestEverySetting(t *testing.T) {
	for _, s := range settings {
		if s.flag == "version" || s.key == "" || s.flag == "" {
			continue
		}
		t.Run(s.flag, func(t *testing.T) {
			values := []string{"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"}
			quote := `"`
			switch s.at(new(Flags)).(type) {
			case *int:
				values, quote = []string{"11", "12", "13"}, ""
			case *bool:
				values, quote = []string{"false", "true", "false"}, ""
			}
			path := t.TempDir() + "/config.json"
			section, member, _ := strings.Cut(s.key, ".")
			file := fmt.Sprintf(`{%q:{%q:%s%s%s}}`, section, member, quote, values[0], quote)
			if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
				t.Fatal(err)
			}
			for i, vars := range []map[string]string{nil, {variableOf(s.flag): values[1]}, {variableOf(s.flag): values[1]}} {
				args := []string{"--config", path}
				if i == 2 {
					args = append(args, "--"+s.flag+"="+values[2])
				}
				f, err := ParseFlags(args, env(vars), nil)
				if err != nil {
					t.Fatal(err)
				}
				doc, err := open(path)
				if err != nil {
					t.Fatal(err)
				}
				new(Config).fromFile(doc, &f)
				if doc.err != nil {
					t.Fatal(doc.err)
				}
				if got := fmt.Sprint(deref(s.at(&f))); got != values[i] {
					t.Errorf("%s, with %d sources: %s, want %s", s.flag, i+1, got, values[i])
				}
				if unknown := doc.unknown(); len(unknown) > 0 {
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
	}
	return p
}

// A file of unknown members only is read in a time that grows with its size.
func TestManyUnknownMembers(t *testing.T) {
	var b strings.Builder
	b.WriteString(`{"backends":[{"kind":"mock","name":"m"`)
	for i := range 40_000 {
		fmt.Fprintf(&b, ",\n\"x%d\":1", i)
	}
	b.WriteString("}]}")
	path := t.TempDir() + "/config.json"
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := ParseFlags([]string{"--config", path}, env(nil), nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Load(&f, env(nil))
	if err != nil || len(c.Warnings) != 40_000 || !strings.HasSuffix(c.Warnings[39_999], ":40001: unknown key backends[0].x39999") {
		t.Errorf("%v, %d warnings, the last %q", err, len(c.Warnings), c.Warnings[len(c.Warnings)-1])
	}
}
