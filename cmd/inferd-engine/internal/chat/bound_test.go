package chat_test

import (
	"strings"
	"testing"

	"github.com/inferd-go/inferd/internal/infer"
)

// A template that would go on for ever, or end the process, is stopped, and works with the
// next conversation.
func TestEndlessTemplates(t *testing.T) {
	const unless = `{% if messages[0]['content'] == 'fine' %}fine{% else %}`
	for name, source := range map[string]string{
		"loops in loops":            `{% for a in range(1000) %}{%- for b in range(1000) -%}{% for c in range(1000) %}{% endfor %}{% endfor %}{% endfor %}`,
		"a long range":              `{% for a in range(1000000000000) %}{% endfor %}`,
		"a long way down":           `{% for a in range(0, -1000000000000, -1) %}{% endfor %}`,
		"a macro that calls itself": `{% macro f(x) -%} {{ f(x) }} {%- endmacro %}{{ f(1) }}`,
		"two that call each other":  `{%macro f()%}{{ g() }}{%endmacro%}{% macro g() %}{{ f() }}{% endmacro %}{{ f() }}`,
		"more and more text":        `{% set ns = namespace(x="0123456789") %}{% for i in range(100) %}{% set ns.x = ns.x + ns.x %}{% endfor %}`,
	} {
		t.Run(name, func(t *testing.T) {
			tmpl := compile(t, unless+source+`{% endif %}`)
			_, err := tmpl.Render(talk("loop"))
			if infer.CodeOf(err) != infer.Invalid || !strings.Contains(err.Error(), "does not come to an end") {
				t.Errorf("got %v", err)
			}
			if got, err := tmpl.Render(talk("fine")); err != nil || len(got) != 1 || got[0].Text != "fine" {
				t.Errorf("then: %+v, %v", got, err)
			}
		})
	}
}

// What keeps templates in bounds shows nowhere.
func TestBoundsDoNotShow(t *testing.T) {
	for name, test := range map[string]struct{ source, want string }{
		"loops":               {"a\n{% for i in range(2) %}\n  {{ i }}\n{% endfor %}\nz", "a\n  0\n  1\nz"},
		"loops, trimmed":      {"a\n{%- for i in range(1, 3) -%}\n  {{ i }}\n{%- endfor -%}\nz", "a12z"},
		"loops, half":         {"a {%- for i in range(3, 0, -2) %}  {{ i }}  {%- endfor %} z", "a  3  1 z"},
		"an empty loop":       {"{% for i in range(0) %}x{% else %}none{% endfor %}", "none"},
		"a filtered loop":     {"{% for i in range(5) if i > 2 %}{{ loop.index }}:{{ i }} {% endfor %}", "1:3 2:4 "},
		"blank lines":         {"{%- for i in range(1) %}\n\n\nx\n{%- endfor %}", "\n\nx"},
		"macros":              {"{% macro f(x) %}\n  <{{ x }}>\n{% endmacro %}\n{{ f(1) }}{{ f(2) }}", "  <1>\n  <2>\n"},
		"macros, trimmed":     {"{%- macro f(x) -%}\n  <{{ x }}>\n{%- endmacro -%}\n{{ f(1) }}{{ f(2) }}", "<1><2>"},
		"a macro a line":      {strings.Repeat("{%- macro f(x) -%}{{ x }}{%- endmacro -%}", 1) + strings.Repeat("{{ f(1) }}", 300), strings.Repeat("1", 300)},
		"tags in strings":     {`{{ "{% for x in y %}" + '%}' + "\"{% macro f() %}" }}`, `{% for x in y %}%}"{% macro f() %}`},
		"the end in a string": {`{% for i in ["%}", '-%}'] %}{{ i }}{% endfor %}`, `%}-%}`},
		"tags in comments":    {"{# {% for x in y %} ' #}a", "a"},
		"what is raw":         {"{% raw %}{% for i in x %}{{ i }}{% endfor %}{% endraw %}{% for i in range(2) %}{{ i }}{% endfor %}", "{% for i in x %}{{ i }}{% endfor %}01"},
		"braces":              {"{ {a} }", "{ {a} }"},
		"a float in range":    {"{% for i in range(4 / 2) %}{{ i }}{% endfor %}", "01"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := compile(t, test.source).Render(talk("x"))
			if err != nil || len(got) != 1 || got[0].Text != test.want {
				t.Errorf("got %+v, %v; want %q", got, err, test.want)
			}
		})
	}
}
