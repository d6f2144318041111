package speech_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/constraint"
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

// refusedNames has, by family, the oddNames that the family cannot spell in the outermost object. A family that is not
// listed can spell all.
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

// The name of a declared member is read back unchanged, or else the request is refused with an error that has the
// tool's name and the member's JSON pointer.
func TestOddNames(t *testing.T) {
	families := make(map[string]*dialect.Dialect)
	for _, name := range dialecttest.Names(testing.Short()) {
		families[name] = spaced(name, dialect.Space{JSON: true, Comma: " ", Colon: " "})
		if !testing.Short() {
			families[name+", any space"] = dialecttest.Fixtures()[name]
		}
	}
	families["lfm2, raw"] = rawPython()
	for family, d := range families {
		t.Run(family, func(t *testing.T) {
			refused := refusedNames[strings.TrimSuffix(family, ", any space")]
			for i, name := range oddNames {
				if testing.Short() && (i+len(family))%3 > 0 {
					continue
				}
				for _, nested := range []bool{false, true} {
					refuses := slices.Contains(refused, name)
					if nested {
						refuses = refuses && d.Shape == dialect.Literal // other notations have quotes there
					}
					for _, open := range []bool{false, true} {
						if testing.Short() && open != nested {
							continue
						}
						oddName(t, d, name, nested, open, refuses)
					}
				}
			}
		})
	}
}

// oddName tests one name: as a member of the outermost object, or, if nested is set, of an object in it. Objects may
// have additional members if open is set. If refused is set, the request must be refused.
func oddName(t *testing.T, d *dialect.Dialect, name string, nested, open, refused bool) {
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
	if refused {
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
	got := parseAnswer(t, m, o, withoutEnd(m, text.String()), true)
	if len(got) != 1 || !strings.HasPrefix(got[0], "call say ") || !equalJSON(strings.TrimPrefix(got[0], "call say "), input) {
		t.Errorf("%q, nested %v, open %v: %q gave %q", name, nested, open, text.String(), got)
	}
}

// The mask refuses the repeated name of an additional member, in the outermost object and in nested ones, in every
// notation. Names in other calls and other objects do not count.
func TestRepeatedNames(t *testing.T) {
	families := make(map[string]*dialect.Dialect)
	for _, name := range dialecttest.Names(testing.Short()) {
		families[name] = spaced(name, dialect.Space{JSON: true, Comma: " ", Colon: " "})
	}
	families["lfm2, raw"] = rawPython()
	say := []infer.Tool{{Name: "say", Schema: []byte(`{"type":"object","properties":{"x":{"type":["string","object"]},"o":{"type":"object"},"l":{"type":"array"}}}`)}}
	const fine = `{"x": "{\"a\": 1 ", "a": {"b": {"a": 1, "b": 2}, "ab": "a"}, "ab": [{"a": 1}, {"a": 2}], "b": ", a="}`
	for family, d := range families {
		t.Run(family, func(t *testing.T) {
			for _, m := range modelsOf(d) {
				k, err := compile(t, m, speech.Options{Dialect: d, Tools: say})
				if err != nil {
					t.Fatal(err)
				}
				calls := []dialect.Call{{ID: "tc0000001", Name: "say", Arguments: fine}, {ID: "tc0000002", Name: "say", Arguments: fine}}
				if !d.Calls.Several {
					calls = calls[:1]
				}
				r := written(t, m, k, d, calls)
				if len(r.log) != len(calls) {
					t.Fatalf("%d markers: %q", len(m.markers), r.log)
				}
				for i := range r.log {
					if !equalJSON(strings.TrimPrefix(r.log[i], "call say "), fine) {
						t.Errorf("%d markers: %q", len(m.markers), r.log[i])
					}
				}
				for _, twice := range []string{
					`{"a": 1, "a": 2}`, `{"a": "x", "b": {"a": 1}, "a": 2}`, `{"a": 1, "ab": 1, "a": "x"}`, `{"x": "{\"a\": 1 ", "a": 1, "a": 2}`,
					`{"o": {"b": 1, "b": 2}}`, `{"o": {"b": "y", "c": {"b": 1}, "b": 2}}`, `{"l": [{"b": 1, "c": "b", "b": 2}]}`,
				} {
					if r := written(t, m, k, d, []dialect.Call{{ID: "tc0000001", Name: "say", Arguments: twice}}); len(r.log) > 0 {
						t.Errorf("%d markers: %s gave %q", len(m.markers), twice, r.log)
					}
				}
			}
		})
	}
}

// written follows calls as a dialect writes them, up to a token that does not fit.
func written(t *testing.T, m model, k *constraint.Constraint, d *dialect.Dialect, calls []dialect.Call) *run {
	t.Helper()
	all, err := d.Write(calls)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, f := range all {
		text.WriteString(f.Text)
	}
	r, err := open(t, m, k)
	if err != nil {
		t.Fatal(err)
	}
	for rest := withoutEnd(m, text.String()); rest != ""; {
		id, size := m.first(rest)
		mask, err := r.answer.Mask()
		if err != nil {
			t.Fatal(err)
		}
		fits := mask[id>>6]>>(id&63)&1 != 0
		if took := r.answer.Try(id); took != fits {
			t.Fatalf("%q before %q: the mask says %v", text.String(), rest, fits)
		}
		if !fits {
			break
		}
		rest = rest[size:]
	}
	r.drain()
	return r
}
