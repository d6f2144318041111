package printable_test

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/inferd-go/inferd/internal/printable"
)

func TestText(t *testing.T) {
	long := strings.Repeat("x", printable.Max)
	for name, test := range map[string]struct{ in, want string }{
		"nothing":                      {"", ""},
		"plain text":                   {"no model", "no model"},
		"orders to a terminal":         {"\x1b[31mred\x1b[0m\x07", "[31mred [0m"},
		"lines":                        {"one\ntwo\r\n", "one two"},
		"other characters":             {"é 日本 😀", "é 日本 😀"},
		"right to left":                {"a\u202eb", "a b"},
		"bytes that are not UTF-8":     {"a\xffb", "a\uFFFDb"},
		"a text of the maximum length": {long, long},
		"a byte more than the maximum": {long + "y", long},
		"a character across the limit": {long[1:] + "é", long[1:]},
		"spaces around it":             {strings.Repeat(" ", 1000) + "x", "x"},
		"a gigantic text":              {strings.Repeat("x", 1<<24), long},
	} {
		t.Run(name, func(t *testing.T) {
			if got := printable.Text(test.in); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func FuzzText(f *testing.F) {
	f.Add("a\x00\xff\u202e")
	f.Fuzz(func(t *testing.T, in string) {
		got := printable.Text(in)
		if len(got) > printable.Max || !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q became %q", in, got)
		}
		if again := printable.Text(got); again != got {
			t.Errorf("%q is not stable: %q", got, again)
		}
	})
}
