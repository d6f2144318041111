package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestSchemaCheck(t *testing.T) {
	for name, test := range map[string]struct {
		source string
		args   []string
		code   int
		out    string // a regular expression
		err    string
	}{
		"enforced":         {`{"type":"object","properties":{"a":{"type":"integer","format":"port"}},"required":["a"]}`, nil, 0, `^enforced: compiled in [0-9.]+ ms, [0-9]+ KiB\nshortest value: \{"a":0\}\n  /properties/a/format: has no effect\n$`, ""},
		"enforced as JSON": {`{"const":1,"x":2}`, []string{"--json"}, 0, `^\{"enforced":true,"states":[0-9]+,"bytes":[0-9]+,"compile_ms":[0-9.]+,"refused":\[\],"annotations":\["/x"\]\}\n$`, ""},
		"refused":          {`{"items":{"pattern":"(?=a)"}}`, nil, 1, `^not enforced:\n  /items/pattern: pattern "\(\?=a\)", byte 1: look-around is not supported\n$`, ""},
		"refused as JSON":  {`{"unevaluatedItems":false}`, []string{"--json"}, 1, `^\{"enforced":false,"states":0,"bytes":0,"compile_ms":[0-9.]+,"refused":\[\{"pointer":"/unevaluatedItems","keyword":"unevaluatedItems","why":"this keyword cannot be enforced"\}\],"annotations":\[\]\}\n$`, ""},
		"no value":         {`{"not":{}}`, nil, 1, `^not enforced:\n  the schema: no value satisfies it\n$`, ""},
		"no schema":        {`{"type":`, nil, 2, `^$`, "not a JSON Schema: byte 9: a value is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "s.json")
			if err := os.WriteFile(file, []byte(test.source), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, from := range []string{file, "-"} {
				var out, errs strings.Builder
				code := run(t.Context(), append([]string{"schema", "check", from}, test.args...), strings.NewReader(test.source), &out, &errs)
				if code != test.code || !regexp.MustCompile(test.out).MatchString(out.String()) || !strings.Contains(errs.String(), test.err) {
					t.Errorf("%s: exit %d, stdout %q, stderr %q", from, code, out.String(), errs.String())
				}
			}
		})
	}
	var out, errs strings.Builder
	if code := run(t.Context(), []string{"schema", "lint", "x"}, nil, &out, &errs); code != 2 || !strings.Contains(errs.String(), `"lint" is not a command of schema`) {
		t.Errorf("exit %d, stderr %q", code, errs.String())
	}
	if code := run(t.Context(), []string{"schema", "check", filepath.Join(t.TempDir(), "none")}, nil, &out, &errs); code != 2 {
		t.Errorf("no file: exit %d", code)
	}
}
