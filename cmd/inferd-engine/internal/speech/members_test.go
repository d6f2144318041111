package speech_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialect"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialecttest"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/speech"
	"github.com/inferd-go/inferd/internal/infer"
)

// oddNames are names of members that a notation without quotes may not be able to spell.
var oddNames = []string{
	"a", "a:b", ":", "og:title", "a=b", "=", `"a"`, `"`, "a>b", ">", `a">`, `a"`, "</parameter>", "<parameter=x>", "</arg_key>", " a", "a ", "\na\t", "}a", "a}", "a,b", "a, b=1", "'", "'a", "", "ü",
	"a b", "{", "[x]", "a\nb", `a\`, "None", "<|tool_call>", "</arg_key>\n<arg_value>",
}

// refusedNames are those of them that the families cannot spell in the outermost object; families that are missing spell all.
var refusedNames = map[string][]string{
	"gemma4":          {"a:b", ":", "og:title", "}a"},
	"functiongemma":   {"a:b", ":", "og:title", "}a"},
	"lfm2":            {"a=b", "=", "a, b=1", "<parameter=x>"},
	"llama4-pythonic": {"a=b", "=", "a, b=1", "<parameter=x>"},
	"lfm2, raw":       {"a=b", "=", "a, b=1", "<parameter=x>", "'", "'a"},
	"qwen3-coder":     {"a>b", ">", `a">`, "</parameter>", "<parameter=x>", "</arg_key>", "</arg_key>\n<arg_value>", "<|tool_call>"},
	"seed-oss":        {"a>b", ">", `a">`, "</parameter>", "<parameter=x>", "</arg_key>", "</arg_key>\n<arg_value>", "<|tool_call>"},
	"minimax-m2":      {`a">`},
	"glm":             {"</arg_key>\n<arg_value>"},
}

// A declared name of a member is read back as it is, or the request is refused with the tool's name and the JSON pointer.
func TestOddNames(t *testing.T) {
	families := make(map[string]*dialect.Dialect)
	for _, name := range dialecttest.Names(testing.Short()) {
		families[name] = spaced(name, dialect.Space{JSON: true, Comma: " ", Colon: " "})
		families[name+", any space"] = dialecttest.Fixtures()[name]
	}
	families["lfm2, raw"] = rawPython()
	for family, d := range families {
		t.Run(family, func(t *testing.T) {
			refused := refusedNames[strings.TrimSuffix(family, ", any space")]
			for _, name := range oddNames {
				for _, nested := range []bool{false, true} {
					not := slices.Contains(refused, name)
					if nested {
						not = not && d.Shape == dialect.Literal // other notations have quotes there
					}
					for _, open := range []bool{false, true} {
						oddName(t, d, name, nested, open, not)
					}
				}
			}
		})
	}
}

// oddName tests one name; not says that it is refused.
func oddName(t *testing.T, d *dialect.Dialect, name string, nested, open, not bool) {
	t.Helper()
	quoted := strings.NewReplacer(`"`, `\"`, `\`, `\\`, "\n", `\n`, "\t", `\t`).Replace(name)
	quoted = `"` + quoted + `"`
	object := func(name, value string) string {
		return fmt.Sprintf(`{"type":"object","properties":{%s:%s},"additionalProperties":%v}`, name, value, open)
	}
	schema, input := object(quoted, `{"type":"integer"}`), fmt.Sprintf(`{%s: 1}`, quoted)
	pointer := "/properties/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
	if nested {
		schema, input, pointer = object(`"o"`, schema), fmt.Sprintf(`{"o": {%s: 1}}`, quoted), "/properties/o"+pointer
	}
	o := speech.Options{Dialect: d, Tools: []infer.Tool{{Name: "say", Schema: []byte(schema)}}}
	if not {
		_, err := compile(t, plain, o)
		if err == nil || !strings.Contains(err.Error(), `"say"`) || !strings.Contains(err.Error(), pointer+": ") || !strings.Contains(err.Error(), "does not support the name") {
			t.Errorf("%q, nested %v: %v", name, nested, err)
		}
		return
	}
	all, err := d.Write([]dialect.Call{{ID: "tc0000001", Name: "say", Arguments: input}})
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, f := range all {
		text.WriteString(f.Text)
	}
	m := modelsOf(d)[0]
	got := understand(t, m, o, withoutEnd(m, text.String()), true)
	if len(got) != 1 || !strings.HasPrefix(got[0], "call say ") || !equalJSON(strings.TrimPrefix(got[0], "call say "), input) {
		t.Errorf("%q, nested %v, open %v: %q gave %q", name, nested, open, text.String(), got)
	}
}
