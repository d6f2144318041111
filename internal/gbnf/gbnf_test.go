package gbnf_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/internal/automaton"
	"github.com/inferd-go/inferd/internal/gbnf"
)

// anyToken is a Tokens that finds a token with any name.
func anyToken(string) (int32, bool) { return 1, true }

func TestRefuses(t *testing.T) {
	deep := func(n int) string { return "root ::= " + strings.Repeat("(", n) + `"a"` + strings.Repeat(")", n) }
	for name, test := range map[string]struct{ grammar, want string }{
		"empty":                      {"", `line 1, column 1: no rule is called "root"`},
		"another start":              {`start ::= "a"`, `line 1, column 14: no rule is called "root"`},
		"an open parenthesis":        {"root ::= (\n \"a\"", `line 2, column 5: ")" is missing`},
		"a closed one":               {`root ::= "a" )`, `line 1, column 14: ')' does not belong here`},
		"a rule that is missing":     {"root ::= a b\na ::= \"a\"", `line 1, column 12: no rule is called "b"`},
		"no name":                    {"\n\"a\"", "line 2, column 1: the name of a rule is missing"},
		"an underscore":              {`root_a ::= "a"`, `line 1, column 5: "::=" is missing`},
		"an open literal":            {"root ::= \"a\\n\n", `line 1, column 10: '"' has no end`},
		"an open class":              {"root ::= [a-", `line 1, column 10: '[' has no end`},
		"an unknown escape":          {`root ::= "\q"`, "line 1, column 11: an unknown escape"},
		"too few digits":             {`root ::= "\x1"`, "line 1, column 11: 2 hexadecimal digits are missing"},
		"an escape of nothing":       {`root ::= "\`, "line 1, column 11: an unknown escape"},
		"nothing to be repeated":     {`root ::= * "a"`, `line 1, column 10: there is nothing before '*' to be repeated`},
		"an empty literal repeated":  {`root ::= ""?`, `line 1, column 12: there is nothing`},
		"from more to less":          {`root ::= "a"{5,2}`, "line 1, column 13: the bounds contradict each other: at least 5 and at most 2"},
		"a negative number":          {`root ::= "a"{-1}`, "line 1, column 14: a number is missing"},
		"a huge number":              {`root ::= "a"{99999999999999999999}`, "line 1, column 14: a number is missing, or too large"},
		"a star of a star":           {`root ::= "a"**`, `line 1, column 14: '*' repeats without a maximum what may be empty`},
		"a plus of an option":        {"root ::=\n  [a-z]?+", `line 2, column 9: '+' repeats without a maximum what may be empty`},
		"a star of a few":            {`root ::= "a"{0,3}*`, `line 1, column 18: '*' repeats without a maximum`},
		"an empty range":             {`root ::= [z-a]`, `line 1, column 11: the range "z-a" is empty`},
		"an empty range of many":     {"root ::= \"x\" [^0-9b-aé]", `line 1, column 19: the range "b-a" is empty`},
		"an empty range of escapes":  {`root ::= [\u00e9-\x41]`, `line 1, column 11: the range "\\u00e9-\\x41" is empty`},
		"a NUL":                      {"root ::= \"a\"\x00", "line 1, column 13: a NUL"},
		"parentheses":                {deep(101), "line 1, column 110: parentheses nested more than 100 deep"},
		"many parentheses":           {deep(30000), "parentheses nested more than 100 deep"},
		"it begins with itself":      {`root ::= root "a" | "b"`, "line 1, column 10: a rule begins with itself"},
		"through something optional": {"root ::= x root \"a\" | \"b\"\nx ::= \"a\"?", "line 1, column 12: a rule begins with itself"},
		"through another":            {"root ::= (\"x\"* a)\na ::= \"\" root", "begins with itself"},
		"no UTF-8":                   {"root ::= \"\xf0\"", "line 1, column 11: invalid UTF-8"},
		"a token without an end":     {`root ::= <think`, `line 1, column 10: ">" is missing`},
		"no token":                   {`root ::= !"a"`, `line 1, column 11: "<" is missing`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := gbnf.Compile(test.grammar, anyToken, nil)
			if _, ok := errors.AsType[*gbnf.Error](err); !ok || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
	names := make([]string, 4000)
	for i := range names {
		names[i] = fmt.Sprintf(`"name-%d"`, i)
	}
	for name, grammar := range map[string]string{
		"nothing":               "root ::= ",
		"every notation":        "# a comment\nroot ::= a | \"\\x41\\u00e9\\U0001F600\\\"\\n\" [^a-z\\]-] . <think> !<[5]> (\n a |\r\n b) # end\r\na ::= \"a\"* [0-9]+ \"é\"? \"x\"{2} \"x\"{2,} \"x\"{0,5} \"x\" {0}\nb ::= [] \"\"\n",
		"a rule said twice":     "root ::= a\na ::= a\na ::= \"a\"",
		"it ends with itself":   `root ::= "a" root | "b"`,
		"a tree with ends":      "root ::= \"(\" root* \")\" \" \"*",
		"sums":                  "root ::= sum\nsum ::= product (\"+\" product)*\nproduct ::= factor (\"*\" factor)*\nfactor ::= [0-9]+ | \"(\" sum \")\"",
		"ranges":                "root ::= [a-a] [+--] [a-] [-a] [\\x00-\\U0010FFFF] [é-日] [\\t-\\n] [\\[-\\]]",
		"repetitions in groups": `root ::= ("a"{0,50}){0,39} (("b"{0,10}){0,10}){0,21} ("c"{1000}){1000} ("d"{0,1000})* "e"{0,1000}{0,2} "f"+* "g"*? "h"?{0,2}`,
		"stars of stars":        `root ::= (("a"*)*)*`,
		"many words":            "root ::= \"[\" word (\",\" word)* \"]\"\nword ::= " + strings.Join(names, " | "),
		"many optional members": "root ::= " + strings.Repeat(`("\"name\":" [0-9]+)? `, 100),
		"long white space":      "root ::= (\"a\" ws){0,100}\nws ::= (\" \" | \"\\n\" | \"\\t\"){0,20}",
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := gbnf.Compile(grammar, anyToken, nil); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestCompile(t *testing.T) {
	tokens := func(name string) (int32, bool) {
		id, ok := map[string]int32{"<think>": 3, "<[5]>": 5}[name]
		return id, ok
	}
	for grammar, test := range map[string]struct{ yes, no []string }{
		`root ::= "a" ("b" | [c-e])* "é"?`:                          {[]string{"a", "abcde", "abé"}, []string{"", "aé2", "b"}},
		"root ::= x{2,3} .\nx ::= \"ab\" | x1\nx1 ::= \"c\"":        {[]string{"abc!", "ccc日"}, []string{"ab!", "ccccc"}},
		`root ::= [^"\\]{0,3} "\""`:                                 {[]string{`"`, `日本x"`, "\n\""}, []string{`abcd"`, `\"`, `""`}},
		`root ::= "(" root ")" | "x"`:                               {[]string{"x", "((x))"}, []string{"((x)", "(x))"}},
		`root ::= "a" root | "b"`:                                   {[]string{"b", strings.Repeat("a", 20_000) + "b"}, []string{"a"}},
		`root ::= ("a" | "b" root "c")*`:                            {[]string{"", "abacaa"}, []string{"b", "c"}},
		`root ::= "x"{65535}`:                                       {[]string{strings.Repeat("x", 65_535)}, []string{strings.Repeat("x", 65_534)}},
		`root ::= [\U0010FFFF\UFFFFFFFF-\UFFFFFFFF] | "\UFFFFFFFF"`: {[]string{"\U0010FFFF"}, []string{"\uFFFF"}},
		"root ::= [] | \"y\" \"\"":                                  {[]string{"y", ""}, []string{"yy"}},
	} {
		g, err := gbnf.Compile(grammar, tokens, nil)
		if err != nil {
			t.Errorf("%s: %v", grammar, err)
			continue
		}
		fits := func(text string) bool {
			c := automaton.New(g).Open()
			return c.Feed([]byte(text)) && c.MayEnd()
		}
		for _, text := range test.yes {
			if !fits(text) {
				t.Errorf("%s refuses %.30q", grammar, text)
			}
		}
		for _, text := range test.no {
			if fits(text) {
				t.Errorf("%s takes %.30q", grammar, text)
			}
		}
	}
	g, err := gbnf.Compile(`root ::= <think> !<[5]> "x"`, tokens, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := automaton.New(g).Open()
	if c.FeedToken(5) || !c.FeedToken(3) || c.FeedToken(5) || !c.FeedToken(3) || !c.Feed([]byte("x")) || !c.MayEnd() {
		t.Error("want <think>, any token but 5, and x")
	}
}

func TestCompileRefuses(t *testing.T) {
	for name, test := range map[string]struct{ grammar, want string }{
		"an open parenthesis":       {"root ::= (\n \"a\"", `line 2, column 5: ")" is missing`},
		"it begins with itself":     {`root ::= root "a" | "b"`, "line 1, column 10: a rule begins with itself"},
		"many repetitions":          {`root ::= "a"{0,65536}`, "line 1, column 13: more than 65535 repetitions"},
		"a token that is not there": {"root ::= \"a\"\n <x>", "line 2"},
		"a token of no model":       {`root ::= <x>`, "line 1, column 10: the model has no token <x>"},
		"no text":                   {`root ::= "a" root`, "line 1, column 1: no text matches the grammar"},
		"too large":                 {"root ::= " + strings.Repeat(" ", gbnf.MaxBytes), "line 1, column 1: larger than 65536 bytes"},
		"too many alternatives":     {"root ::= \"a\"" + strings.Repeat("|\"a\"", 4097), "line 1, column 1: 4097 alternatives, at most 4096"},
		"too many items":            {`root ::= ("a"? "b"?){0,60000} "c"`, "line 1, column 1: the text could go on in more than 4096 ways"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := gbnf.Compile(test.grammar, nil, nil)
			if _, ok := errors.AsType[*gbnf.Error](err); !ok || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// FuzzCompile checks that a grammar is refused with the position of an error, or has a shortest
// text.
func FuzzCompile(f *testing.F) {
	for _, grammar := range []string{
		"root ::= (\"a\" | [^b-c]){2,3} . rest?\nrest ::= \"\\u00e9\"* # end",
		"root ::= object\nobject ::= \"{\" (pair (\",\" pair)*)? \"}\"\npair ::= \"\\\"\" [a-z]+ \"\\\":\" (object | [0-9]+)\n",
		"root ::= <think> [^\\x00-\\x1f]* </think> !<[3]>\n", `root ::= [\uD800-\uDFFF] | "a" root | ""`,
		`root ::= ("a"? "b"?){0,60000} "c"`, `root ::= ((((([a-z]+)+)+)+)+)+`, `root ::= root "a" | "b"`, `root ::= "a"{5,2}`, "root ::= (\n \"a\"",
	} {
		f.Add(grammar)
	}
	f.Fuzz(func(t *testing.T, grammar string) {
		g, err := gbnf.Compile(grammar, anyToken, &automaton.Budget{Bytes: 8 << 20})
		if err != nil {
			e, ok := errors.AsType[*gbnf.Error](err)
			if !ok || e.Line < 1 || e.Column < 1 || e.Line > strings.Count(grammar, "\n")+1 || e.Column > len(grammar)+1 {
				t.Errorf("%v", err)
			}
			return
		}
		a := automaton.New(g)
		c := a.Open()
		if end, ok := c.Shortest(1 << 16); !ok && a.Err() == nil && a.Cost(c.State()) < 1<<16 {
			t.Errorf("no end: %v", end)
		}
	})
}
