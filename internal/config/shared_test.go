package config_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestShared(t *testing.T) {
	engines := `"backends":[{"kind":"llamacpp","name":"a","aliases":["x"],"max_stall_ms":250,"model":{"builtin":"chain"}},{"kind":"mock","name":"m"},
		{"kind":"llamacpp","name":"e","embed":true,"model":{"builtin":"embed"}}`
	for name, test := range map[string]struct {
		shared, more string
		want         string // of the error, or else the texts of the first entry
	}{
		"the only one that can be meant": {`[{"text":"one"},{"text":"two"}]`, "", `["one" "two"]`},
		"by its name":                    {`[{"model":"a","text":"one"}]`, "", `["one"]`},
		"by its alias":                   {`[{"model":"x","text":"one"}]`, "", `["one"]`},
		"no text":                        {`[{"model":"a"}]`, "", "shared_prefixes[0].text must not be empty"},
		"an unknown name":                {`[{"model":"b","text":"one"}]`, "", `no entry is called "b"`},
		"one of several":                 {`[{"text":"one"}]`, `,{"kind":"llamacpp","name":"b","model":{"builtin":"loop"}}`, "must say which entry"},
		"a mock":                         {`[{"model":"m","text":"one"}]`, "", "does not generate"},
		"one that may not generate":      {`[{"model":"v","text":"one"}]`, `,{"kind":"llamacpp","name":"v","generate":false,"model":{"builtin":"chain"}}`, `"v" does not generate`},
		"one that embeds, too":           {`[{"model":"e","text":"one"}]`, "", `[]`},
		"too much":                       {`[{"text":"` + strings.Repeat("x", 100_000) + `"}]`, "", "more than"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := load(t, `{"shared_prefixes":`+test.shared+`,`+engines+test.more+`]}`, nil)
			switch {
			case err != nil && !strings.Contains(err.Error(), test.want):
				t.Errorf("%v, want %q", err, test.want)
			case err == nil && (fmt.Sprintf("%q", c.Backends[0].Shared) != test.want || c.Backends[0].MaxStallMS != 250 || len(c.Warnings) > 0):
				t.Errorf("%q, %d ms, warnings %q", c.Backends[0].Shared, c.Backends[0].MaxStallMS, c.Warnings)
			}
		})
	}
	if c, err := load(t, `{`+engines+`]}`, nil, "--max-stall-ms", "70"); err != nil || c.Backends[0].MaxStallMS != 70 || c.Backends[2].MaxStallMS != 70 {
		t.Errorf("%+v, %v", c, err)
	}
}

// Each entry has its own setting exact. The flag, true or false, overrides it in all entries.
func TestExact(t *testing.T) {
	const file = `{"backends":[{"kind":"llamacpp","name":"a","exact":true,"model":{"path":"m"}},{"kind":"llamacpp","name":"b","model":{"path":"m"}}]}`
	for name, test := range map[string]struct {
		file string
		args []string
		want []bool
	}{
		"of one":         {file, nil, []bool{true, false}},
		"of all":         {file, []string{"--exact"}, []bool{true, true}},
		"of none":        {file, []string{"--exact=false"}, []bool{false, false}},
		"on the line":    {"", []string{"--model-path", "m", "--exact"}, []bool{true}},
		"not by default": {"", []string{"--model-path", "m"}, []bool{false}},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := load(t, test.file, nil, test.args...)
			if err != nil {
				t.Fatal(err)
			}
			var got []bool
			for _, b := range c.Backends {
				got = append(got, b.Exact)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("%v, want %v", got, test.want)
			}
		})
	}
	if _, err := load(t, `{"backends":[{"kind":"llamacpp","name":"a","exact":1,"model":{"path":"m"}}]}`, nil); err == nil || !strings.Contains(err.Error(), "backends[0].exact") {
		t.Errorf("a number: %v", err)
	}
}
