package usage_test

import (
	"errors"
	"flag"
	"io"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/internal/usage"
)

func TestExplain(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"a misspelt flag":           {[]string{"--queue-detph", "3"}, "no flag is called --queue-detph: did you mean --queue-depth?"},
		"a flag with one dash":      {[]string{"-queue_depth", "3"}, "no flag is called --queue_depth: did you mean --queue-depth?"},
		"a flag like no other":      {[]string{"--nonsense"}, "no flag is called --nonsense"},
		"a letter":                  {[]string{"-x"}, "no flag is called -x"},
		"a flag without a value":    {[]string{"--queue-depth"}, "--queue-depth needs a value"},
		"a letter without a value":  {[]string{"-m"}, "-m needs a value"},
		"a word for a number":       {[]string{"--queue-depth", "many"}, `invalid value "many" for --queue-depth: parse error`},
		"a word for yes or no":      {[]string{"--v1=maybe"}, `invalid boolean value "maybe" for --v1: parse error`},
		"a value with a flag in it": {[]string{"--queue-depth", `" for flag -x: y`}, `invalid value "\" for flag -x: y" for --queue-depth: parse error`},
		"help":                      {[]string{"--help"}, flag.ErrHelp.Error()},
		"nothing wrong":             {[]string{"--queue-depth", "3"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			fs := flag.NewFlagSet("x", flag.ContinueOnError)
			fs.SetOutput(io.Discard)
			fs.Int("queue-depth", 0, "")
			fs.Bool("v1", true, "")
			fs.String("m", "", "")
			got := ""
			if err := usage.Explain(fs, fs.Parse(test.args)); err != nil {
				got = err.Error()
			}
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
	other := errors.New("other")
	if err := usage.Explain(nil, other); !errors.Is(err, other) {
		t.Errorf("any other error became %v", err)
	}
}

func TestNearest(t *testing.T) {
	names := []string{"status", "stats", "top", "retry", "watch"}
	for in, want := range map[string]string{
		"stat": "stats", "statsu": "status", "STATUS": "status", "retyr": "retry", "topp": "top", "wacth": "watch",
		"": "", "x": "", "conform": "", strings.Repeat("status", 1000): "",
	} {
		if got := usage.Nearest(in, names); got != want {
			t.Errorf("%.20q: got %q, want %q", in, got, want)
		}
	}
}
