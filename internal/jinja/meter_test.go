package jinja_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/jinja"
)

// render compiles and renders a source.
func render(source string, data map[string]any) (string, error) {
	tmpl, err := jinja.Compile(source)
	if err != nil {
		return "", err
	}
	return tmpl.Render(data)
}

// Work within a bound succeeds, and work beyond it fails with an error that names the bound.
func TestBounds(t *testing.T) {
	macros := func(n int) string {
		return fmt.Sprintf(`{%% macro f(n) %%}{%% if n > 1 %%}{{ f(n - 1) }}{%% else %%}end{%% endif %%}{%% endmacro %%}{{ f(%d) }}`, n)
	}
	nested := func(n int) string { return "{{ " + strings.Repeat("[", n) + strings.Repeat("]", n) + " }}" }
	values := func(n int) string {
		return fmt.Sprintf(`{%% set ns = namespace(l=[]) %%}{%% for i in range(%d) %%}{%% set ns.l = [ns.l] %%}{%% endfor %%}{{ ns.l | string | length }}`, n-1)
	}
	for name, test := range map[string]struct {
		source string
		want   string // the output, or a part of the error
	}{
		"200 calls of macros in each other":     {macros(200), "end"},
		"201 calls of macros in each other":     {macros(201), "deeper than 200 levels"},
		"198 brackets in each other":            {nested(198), strings.Repeat("[", 198) + strings.Repeat("]", 198)},
		"300 brackets in each other":            {nested(300), "deeper than 200 levels"},
		"200 lists in each other":               {values(200), "400"},
		"201 lists in each other":               {values(201), "deeper than 200 levels"},
		"900 additions":                         {"{{ 1" + strings.Repeat("+1", 900) + " }}", "901"},
		"1,001 additions":                       {"{{ 1" + strings.Repeat("+1", 1_001) + " }}", "more than 1000 operators in a row"},
		"60 million bytes":                      {`{{ ('x' * 30000000 ~ 'x' * 30000000) | length }}`, "makes more than 67108864 bytes"},
		"30 million bytes":                      {`{{ ('x' * 15000000 ~ 'x' * 15000000) | length }}`, "30000000"},
		"a hundred thousand iterations":         {`{% for i in range(100000) %}{% if loop.last %}{{ i }}{% endif %}{% endfor %}`, "99999"},
		"ten million iterations":                {`{% set l = range(100000) %}{% for i in range(100) %}{% for j in l %}{% endfor %}{% endfor %}`, "more than 5000000 steps"},
		"a name of 256 letters":                 {`{{ ` + strings.Repeat("x", 256) + ` }}`, ""},
		"a name of 257 letters":                 {`{{ ` + strings.Repeat("x", 257) + ` }}`, "a name longer than 256 bytes"},
		"a source of 1 MiB":                     {strings.Repeat("x", 1<<20), strings.Repeat("x", 1<<20)},
		"a source of more than 1 MiB":           {strings.Repeat("x", 1<<20+1), "it is longer than 1048576 bytes"},
		"a bound in the argument of a slice":    {`{{ [1][('x' * 100000000) | length:] }}`, "makes more than 67108864 bytes"},
		"a bound in an indented JSON text":      {`{{ [1] | tojson(indent=100000000) }}`, "makes more than 67108864 bytes"},
		"a long exception":                      {`{{ raise_exception('x' * 1000) }}`, strings.Repeat("x", 256) + "…"},
		"a list that is called, not a function": {`{{ [1]() }}`, "list is not callable: [1]"},
	} {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && name == "ten million iterations" {
				t.Skip("TestBoundsBegin exceeds the same bound")
			}
			got, err := render(test.source, nil)
			if err != nil {
				got = err.Error()
			}
			if got != test.want && (err == nil || !strings.Contains(got, test.want)) {
				t.Errorf("got %.300s", got)
			}
		})
	}
}

// Operations that count their results on the meter give the expected text, which is not always Python's.
func TestResults(t *testing.T) {
	for source, want := range map[string]string{
		`{{ 'x' * -1 }}|{{ 'ab' * 2 }}`:                                             `|abab`,
		`{{ 'a\nb' | indent(-1) }}|{{ 'a\n\nb' | indent(2, true) }}`:                "a\nb|  a\n\n  b",
		`{{ [1, 'ä', {'b': none}] | tojson }}`:                                      `[1, "ä", {"b": null}]`,
		`{{ [1, {'b': '<'}] | tojson(indent=1) }}`:                                  "[\n 1,\n {\n  \"b\": \"<\"\n }\n]",
		`{{ '[1, {"a": [2]}]' | from_json }}`:                                       `[1, {'a': [2]}]`,
		`{{ [1, 2, 3, 4, 5][1:] }}{{ [1, 2, 3, 4, 5][::2] }}`:                       `[2, 3, 4, 5][1, 3, 5]`,
		`{{ [1, 2, 3, 4, 5][::-2] }}{{ [1, 2, 3, 4, 5][-2::-1] }}`:                  `[5, 3, 1][4, 3, 2, 1]`,
		`{{ [1, 2, 3, 4, 5][9:1:-3] }}{{ [1, 2, 3][-9:9:2] }}`:                      `[5][1, 3]`,
		`{{ [1, 2, 3][5:] }}{{ [1, 2, 3][2:1] }}{{ [][::-1] }}`:                     `[][][]`,
		`{{ 'hello'[1:-1] }}{{ 'hello'[::-1] }}{{ 'hello'[::2] }}`:                  `ellollehhlo`,
		`{{ 'héllo'[1:-1] }}{{ 'héllo'[::-1] }}{{ 'héllo'[4::-2] }}`:                `élloll` + `éhol` + `h`,
		`{{ 'héllo'[1] }}{{ 'hello'[-1] }}{{ 'x'[1] }}`:                             `éo`,
		`{% for i in range(3) %}{{ loop.cycle('a', 'b') }}{% endfor %}`:             `aba`,
		`{{ range(3) }}{{ range(1, 6, 2) }}{{ range(3, 0, -2) }}`:                   `[0, 1, 2][1, 3, 5][3, 1]`,
		`{{ range(3, 3) }}{{ range(9223372036854775806, 9223372036854775807, 5) }}`: `[][9223372036854775806]`,
		`{{ ' 12x' | int }}{{ '\n1' | int }}{{ '-1.5e1z' | float }}{{ 'x' | int }}`: `120-15.00`,
		`{{ '0x1p4' | float }}{{ 'infinite' | float }}{{ '1_0' | float }}`:          `16.0inf10.0`,
		`{{ 'xxaxx'.strip('x') }}{{ 'éaé' | trim('é') }}{{ ' a '.lstrip() }}`:       `aaa `,
		`{{ 'a.b.c'.replace('.', '-', 1) }}{{ 'ab' | replace('', '.') }}`:           `a-b.c.a.b.`,
		`{{ '{} {1} {}'.format('a', 'b') }}`:                                        `a b b`,
		`{{ '<a href="x">\'&' | escape }}`:                                          `&lt;a href=&quot;x&quot;&gt;&#39;&amp;`,
		`{{ ['b', 'a', 'c'] | sort(reverse=true) }}{{ [2, 1, 2] | unique }}`:        `['c', 'b', 'a'][2, 1]`,
		`{{ [{'a': 1}, {}] | selectattr('a') | list }}{{ [0, 1] | select | list }}`: `[{'a': 1}][1]`,
		`{{ [1, 2, 3] | batch(2) }}{{ {'b': 1, 'a': 2} | dictsort }}`:               `[[1, 2], [3]][['a', 2], ['b', 1]]`,
		`{{ 'aXb' | upper }}{{ 'ÄB' | lower }}{{ 'ab cd' | title }}`:                `AXBäbAb Cd`,
		`{{ 1.5 }}{{ 10.0 ** 20 }}{{ true }}{{ none }}{{ [none, 'x'] }}`:            `1.51e+20TrueNone[None, 'x']`,
	} {
		got, err := render(source, nil)
		if err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q", source, got, err, want)
		}
	}
}

// Renderings of one template share no state: after an exceeded bound, the next rendering counts
// from zero.
func TestBoundsBegin(t *testing.T) {
	tmpl, err := jinja.Compile(`{% set l = range(100000) %}{% for i in range(n) %}{% for j in l %}{% endfor %}{% endfor %}{{ n }}`)
	if err != nil {
		t.Fatal(err)
	}
	if testing.Short() {
		t.Skip("takes ten million iterations")
	}
	for range 3 {
		if got, err := tmpl.Render(map[string]any{"n": 100}); err == nil {
			t.Errorf("a hundred loops: got %q", got)
		}
		if got, err := tmpl.Render(map[string]any{"n": 2}); err != nil || got != "2" {
			t.Errorf("two loops: got %q, %v", got, err)
		}
	}
}

// FuzzRender checks that any source is soon rendered or refused, without a panic.
func FuzzRender(f *testing.F) {
	for _, source := range []string{
		`{%- for m in messages -%}<{{ m['role'] }}>{{ m.content | trim }}{%- if not loop.last %},{% endif -%}{%- endfor -%}`,
		`{% macro f(x, y=1) %}{{ caller() }}{{ f(x) if x else y }}{% endmacro %}{% call(a) f(0) %}{{ a }}{% endcall %}`,
		`{% set ns = namespace(a=[1, 2.5, 'x', none, true]) %}{% set ns.a = ns.a + [ns.a] %}{{ ns.a[::-1] | tojson(indent=2) }}`,
		`{% set x %}{{ 'a' * 3 ~ 'b' }}{% endset %}{% filter upper %}{{ x.replace('a', 'b') }}{% endfilter %}{{ x[1:-1:2] }}`,
		`{{ {'a': {'b': 1}}.items() | list | length }}{{ 'a,b'.split(',') | join('-') | indent(2, true) }}{{ range(3, 0, -1) | sort }}`,
		`{% raw %}{{ x }}{% endraw %}{# c #}{% generation %}{{ -1 ** 2 // 3 % 4 }}{% endgeneration %}{{ x is not defined and 1 not in [2] }}`,
		`{% for k, v in {'a': 1} | dictsort if v recursive %}{% continue %}{% else %}{% break %}{% endfor %}{{ strftime_now('%Y') }}`,
		`{{ '{"a": [1, {"b": null}]}' | from_json }}{{ '{} {0}'.format(1) }}{{ [1, 2] | batch(1) | map(attribute='x') | list }}`,
	} {
		f.Add(source, "text")
	}
	f.Fuzz(func(t *testing.T, source, content string) {
		message := map[string]any{"role": "user", "content": content}
		began := time.Now()
		_, err := render(source, map[string]any{"messages": []any{message, message}, "x": content})
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("it took %v: %v", took, err)
		}
	})
}
