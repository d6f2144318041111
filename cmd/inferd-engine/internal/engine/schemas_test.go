package engine_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/batch"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/constraint"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/engine"
	"github.com/inferd-go/inferd/internal/infer"
)

// schemas use every kind of keyword that is enforced.
var schemas = []string{
	`{"type":"object"}`,
	`{}`,
	`{"type":"string"}`,
	`{"type":"number"}`,
	`{"type":"array"}`,
	`{"type":["null","boolean"]}`,
	`{"const":{"a":[1,2,{"b":null}],"c":"é"}}`,
	`{"enum":["red","green","blue",3,null]}`,
	`{"type":"object","properties":{"name":{"type":"string"},"age":{"type":"integer"}},"required":["name","age"],"additionalProperties":false}`,
	`{"type":"object","properties":{"name":{"type":"string","minLength":5}},"required":["name"]}`,
	`{"type":"object","properties":{"a":{"type":"integer"}},"required":["a","z"],"additionalProperties":{"type":"boolean"}}`,
	`{"type":"object","minProperties":3,"maxProperties":5,"additionalProperties":{"type":"null"}}`,
	`{"type":"object","propertyNames":{"pattern":"^[a-c]{1,2}$"},"minProperties":2}`,
	`{"type":"object","patternProperties":{"^x":{"type":"integer"},"y$":{"minimum":3}}}`,
	`{"type":"array","items":{"type":"integer","minimum":-5,"maximum":5},"minItems":2,"maxItems":6}`,
	`{"type":"array","items":{"type":"integer"},"uniqueItems":true,"minItems":4}`,
	`{"type":"array","items":{"type":"array","items":{"type":"integer"},"uniqueItems":true,"minItems":40}}`,
	`{"type":"array","items":{"enum":["a","b","ab"]},"uniqueItems":true,"minItems":2}`,
	`{"anyOf":[{"type":"array","items":{"enum":[1,2,12]},"uniqueItems":true},{"type":"array","items":{"type":"integer"},"minItems":4}]}`,
	`{"type":"array","prefixItems":[{"type":"string"},{"type":"boolean"}],"items":{"type":"number"}}`,
	`{"type":"array","contains":{"const":7},"items":{"type":"integer"}}`,
	`{"type":"array","items":{"type":"array","items":{"type":"string","maxLength":3},"minItems":1}}`,
	`{"type":"string","minLength":3,"maxLength":8}`,
	`{"type":"string","pattern":"^[A-Z]{2}-[0-9]{3,5}$"}`,
	`{"type":"string","pattern":"é|x","maxLength":12}`,
	`{"type":"string","format":"date-time"}`,
	`{"type":"string","format":"uuid"}`,
	`{"type":"string","format":"ipv4"}`,
	`{"type":"string","format":"email"}`,
	`{"type":"string","format":"json-pointer"}`,
	`{"type":"integer","minimum":17,"exclusiveMaximum":4000}`,
	`{"type":"integer","multipleOf":7}`,
	`{"type":"number","multipleOf":0.25,"minimum":-3}`,
	`{"anyOf":[{"type":"object","properties":{"a":{"type":"string"}},"required":["a"]},{"type":"integer","minimum":100}]}`,
	`{"oneOf":[{"type":"object","properties":{"kind":{"const":"circle"},"r":{"type":"number"}},"required":["kind","r"]},{"type":"object","properties":{"kind":{"const":"box"},"w":{"type":"number"},"h":{"type":"number"}},"required":["kind","w","h"]}]}`,
	`{"allOf":[{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]},{"properties":{"a":{"minimum":10},"b":{"type":"string"}},"required":["b"]}]}`,
	`{"type":"integer","not":{"enum":[0,1,2]}}`,
	`{"type":"object","properties":{"a":{"type":"boolean"},"b":{"type":"integer"}},"required":["a"],"if":{"properties":{"a":{"const":true}}},"then":{"required":["b"]},"additionalProperties":false}`,
	`{"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"integer"}},"dependentRequired":{"a":["b"]}}`,
	`{"$defs":{"node":{"type":"object","properties":{"v":{"type":"integer"},"next":{"anyOf":[{"$ref":"#/$defs/node"},{"type":"null"}]}},"required":["v","next"],"additionalProperties":false}},"$ref":"#/$defs/node"}`,
	`{"$defs":{"tree":{"type":"array","items":{"$ref":"#/$defs/tree"},"maxItems":3}},"$ref":"#/$defs/tree"}`,
	`{"type":"object","properties":{"tags":{"type":"array","items":{"type":"string","minLength":1,"maxLength":4},"minItems":1,"maxItems":3,"uniqueItems":true},"id":{"type":"string","format":"uuid"},"at":{"type":"string","format":"date"}},"required":["tags","id","at"],"additionalProperties":false}`,
	`{"type":"object","properties":{"a":{"type":"object","properties":{"b":{"type":"object","properties":{"c":{"type":"array","items":{"type":"object","required":["d"],"properties":{"d":{"type":"number"}}},"minItems":2}},"required":["c"]}},"required":["b"]}},"required":["a"]}`,
}

// sample adds the schemas nested in an object, and some nested in an array: 100 schemas in all.
func sample(all []string) []string {
	const want = 100
	var alone []string
	for _, s := range all {
		if !strings.Contains(s, "$ref") { // nested, its references would point to the wrong schema
			alone = append(alone, s)
		}
	}
	all = slices.Clone(all)
	for i := 0; len(all) < want; i++ {
		format := `{"type":"object","properties":{"n":{"type":"integer"},"x":%s},"required":["x"],"additionalProperties":false}`
		if i >= len(alone) {
			format = `{"type":"array","items":%s,"minItems":1,"maxItems":3}`
		}
		all = append(all, fmt.Sprintf(format, alone[i%len(alone)]))
	}
	return all
}

// judges returns validators of schemas, compiled by a public validator.
func judges(t *testing.T, schemas []string) []*jsonschema.Schema {
	t.Helper()
	var all []*jsonschema.Schema
	for _, source := range schemas {
		doc, err := jsonschema.UnmarshalJSON(strings.NewReader(source))
		if err != nil {
			t.Fatal(err)
		}
		c := jsonschema.NewCompiler()
		c.AssertFormat()
		if err := c.AddResource("schema.json", doc); err != nil {
			t.Fatal(err)
		}
		s, err := c.Compile("schema.json")
		if err != nil {
			t.Fatalf("%s: %v", source, err)
		}
		all = append(all, s)
	}
	return all
}

// needs returns the number of tokens of the shortest answer. It checks that a request for one token
// less is refused with an error that has this number.
func needs(t *testing.T, e *engine.Engine, source string) int {
	t.Helper()
	k, _, err := e.Formats.Compile(t.Context(), "", constraint.Format{Format: &infer.Format{Schema: []byte(source)}})
	if err != nil {
		t.Fatalf("%s: %v", source, err)
	}
	defer k.Release()
	least := k.Least()
	if least == 1 {
		return 1
	}
	gen := user("a", least-1)
	gen.Format.Schema = []byte(source)
	err = e.Handle(t.Context(), &infer.Request{Task: gen}, func(infer.Event) error { return nil })
	if err == nil {
		t.Fatalf("%s: %d tokens are taken, %d are needed", source, least-1, least)
	}
	said := regexp.MustCompile(`has (\d+) tokens`).FindStringSubmatch(err.Error())
	if infer.CodeOf(err) != infer.Invalid || said == nil || said[1] != strconv.Itoa(least) {
		t.Fatalf("%s: %v, want %d tokens", source, err, least)
	}
	return least
}

// Every answer satisfies its schema, whatever the model prefers and wherever max_tokens cuts the
// answer.
func TestAnswersValidate(t *testing.T) {
	each := 3
	if testing.Short() {
		each = 1
	}
	if long := os.Getenv("INFERD_TEST_ANSWERS"); long != "" { // answers of each schema and model: 20 give 4,000 in all
		var err error
		if each, err = strconv.Atoi(long); err != nil {
			t.Fatal(err)
		}
	}
	schemas := schemas
	if !testing.Short() {
		schemas = sample(schemas)
	}
	for name, load := range map[string]func(t *testing.T, limits batch.Limits) *engine.Engine{
		"random weights": func(t *testing.T, limits batch.Limits) *engine.Engine { t.Helper(); return load(t, "tiny", limits) },
		// Tokens have several bytes, and the likeliest token is always a wrong one.
		"wrong tokens": func(t *testing.T, _ batch.Limits) *engine.Engine {
			t.Helper()
			return loadScript(t, `}}`, `{"`, `":`, `",`, `"}`, `[[`, `]]`, `,"`, `null`, `true`, "aaaa", "bbbbbbbb", "éé", `0000`, `12`, `\"`, `\u`, "\n\n", "  ", `-`, `{"a":{`, `[[[[[[`, `"]`, `]}`, `name`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := load(t, batch.Limits{Context: 8192, Batch: 64, Sequences: 8})
			e.Formats.Time = time.Minute // the machine of the test may be busy
			judged := judges(t, schemas)
			leasts := make([]int, len(schemas))
			for i, source := range schemas {
				leasts[i] = needs(t, e, source)
			}
			var all sync.WaitGroup
			turns := make(chan struct{}, 8)
			for i, source := range schemas {
				least := leasts[i]
				all.Go(func() {
					r := rand.New(rand.NewPCG(7, uint64(i)))
					for n := range each {
						most := least + n*n*r.IntN(8)
						turns <- struct{}{}
						problem := validates(t, e, judged[i], source, most, r.Uint32())
						<-turns
						if problem != "" {
							t.Errorf("%s\nin %d tokens of at least %d: %s", source, most, least, problem)
						}
					}
				})
			}
			all.Wait()
			if used := e.Formats.Used(); used > 256<<20 {
				t.Errorf("%d bytes are in use", used)
			}
		})
	}
}

// validates requests an answer to a schema, and describes its first fault; empty means that there is
// none.
func validates(t *testing.T, e *engine.Engine, judge *jsonschema.Schema, source string, most int, seed uint32) string {
	t.Helper()
	gen := user(fmt.Sprint(seed%100), most)
	gen.Format.Schema, gen.Sampling.Seed, gen.Stop = []byte(source), &seed, []string{`"`, "}", "a"}
	switch seed % 3 {
	case 0:
		gen.Sampling = infer.Sampling{}
	case 1:
		gen.Sampling.TopK, gen.Sampling.RepeatPenalty = new(3), new(1.3)
	}
	text, done := ask(t, e, gen)
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		return fmt.Sprintf("%q: %v, %+v", text, err, done)
	}
	if err := judge.Validate(v); err != nil {
		return fmt.Sprintf("%q: %v", text, err)
	}
	if done.Out > most || !done.StopIgnored {
		return fmt.Sprintf("%+v", done)
	}
	return ""
}

// If the likeliest token inside a string is a control token with a spelling that would fit, it is not
// chosen, and no part of its spelling is in the answer (llama.cpp issues 23677, 13341 and 13690).
func TestControlTokensInStrings(t *testing.T) {
	e := loadScript(t, `"`, "abc") // behind abc the likeliest token ends the turn
	schemas := []string{
		`{"type":"string","minLength":8,"maxLength":8}`,
		`{"type":"string","pattern":"^[a-z]{3}[^\\x00-\\x1f]{5}$"}`,
		`{"type":"array","items":{"type":"string","minLength":5},"minItems":2,"maxItems":2}`,
	}
	for i, judge := range judges(t, schemas) {
		gen := user("a", 60)
		gen.Format.Schema = []byte(schemas[i])
		text, done := ask(t, e, gen)
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
		if err == nil {
			err = judge.Validate(v)
		}
		if err != nil || !strings.Contains(text, "abc") || strings.Contains(text, "<|im_end") || done.Reason == infer.Length {
			t.Errorf("%s: %q, %+v: %v", schemas[i], text, done, err)
		}
	}
}

// A refusal reports the cost of compiling; a refusal that is found in the cache reports none.
func TestRefusalsCost(t *testing.T) {
	e := load(t, "tiny", batch.Limits{Context: 2048, Batch: 64, Sequences: 4})
	ask(t, e, user("a", 100)) // measures the unit of costs, the mean time of a step
	// These formats take the time of many steps to compile, even if the machine was busy during the
	// measured steps.
	var words strings.Builder
	for i := range 20_000 {
		fmt.Fprintf(&words, `"v%d",`, i)
	}
	for name, f := range map[string]infer.Format{
		"a keyword":      {Schema: []byte(`{"enum":[` + words.String() + `1],"unevaluatedItems":false}`)},
		"too few tokens": {Schema: []byte(`{"type":"string","minLength":1000,"description":"` + strings.Repeat("a", 900_000) + `"}`)},
	} {
		t.Run(name, func(t *testing.T) {
			for _, first := range []bool{true, false} {
				gen := user("a", 100)
				gen.Format = f
				cost := 0
				err := e.Handle(t.Context(), &infer.Request{Task: gen, Peer: infer.Peer{User: "1"}}, func(ev infer.Event) error {
					text, ok := ev.(*infer.Text)
					if !ok || len(text.Delta) > 0 || text.Tokens > 0 {
						t.Errorf("%+v", ev)
						return nil
					}
					cost += text.Cost
					return nil
				})
				if infer.CodeOf(err) != infer.Invalid || (cost > 0) != first {
					t.Errorf("first %v: cost %d, %.200v", first, cost, err)
				}
			}
		})
	}
}

// A format that cannot be enforced is refused before the prompt is prefilled, with the place of the
// fault or another reason; the engine continues.
func TestFormatsRefused(t *testing.T) {
	e := load(t, "tiny", batch.Limits{Context: 2048, Batch: 64, Sequences: 4})
	for want, f := range map[string]infer.Format{
		"/properties/a/pattern":        {Schema: []byte(`{"properties":{"a":{"type":"string","pattern":"(?=a)b"}}}`)},
		"/unevaluatedProperties":       {Schema: []byte(`{"unevaluatedProperties":false}`)},
		"no value satisfies it":        {Schema: []byte(`{"type":"integer","minimum":3,"maximum":2}`)},
		"schema:":                      {Schema: []byte(`{"type":`)},
		"line 2, column 3":             {Grammar: "root ::= \"a\"\n  ("},
		"root":                         {Grammar: `start ::= "a"`},
		"undefined":                    {Grammar: `root ::= undefined`},
		"at least 5 and at most 2":     {Grammar: `root ::= "a"{5,2}`},
		"no token <no-such-token>":     {Grammar: `root ::= <no-such-token>`},
		"its shortest value has more":  {Schema: []byte(`{"type":"string","minLength":100000}`)},
		"the shortest answer has more": {Grammar: `root ::= "a"{40000}`},
		"max_tokens must be at least":  {Schema: []byte(`{"type":"string","minLength":1000}`)},
		"the context has room for":     {Schema: []byte(`{"type":"string","minLength":3000}`)},
		"/$ref":                        {Schema: []byte(`{"$ref":"#"}`)},
	} {
		gen := user("a", 500)
		gen.Format = f
		if want == "the context has room for" {
			gen.MaxTokens = 100_000
		}
		began := e.Loop.Progress.Report().Units
		err := e.Handle(t.Context(), &infer.Request{Task: gen}, func(infer.Event) error { return nil })
		if infer.CodeOf(err) != infer.Invalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
		if now := e.Loop.Progress.Report().Units; now != began {
			t.Errorf("%s: the prompt was read", want)
		}
	}
	ask(t, e, user("a", 10))
}

// Hostile schemas and grammars end in a refusal or in an answer, and streams continue beside them.
func TestHostileFormats(t *testing.T) {
	e := load(t, "tiny", batch.Limits{Context: 4096, Batch: 64, Sequences: 8})
	deep := strings.Repeat(`{"items":`, 1000) + `{}` + strings.Repeat(`}`, 1000)
	var enum strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&enum, `"v%d",`, i)
	}
	formats := map[string]infer.Format{
		"a large one":             {Schema: []byte(`{"description":"` + strings.Repeat("a", 1<<20) + `"}`)},
		"deep":                    {Schema: []byte(deep)},
		"an enum":                 {Schema: []byte(`{"enum":[` + strings.TrimSuffix(enum.String(), ",") + `]}`)},
		"a cycle":                 {Schema: []byte(`{"$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}},"$ref":"#/$defs/a"}`)},
		"a pattern":               {Schema: []byte(`{"type":"string","pattern":"^(a*)*b$"}`)},
		"an exploding pattern":    {Schema: []byte(`{"type":"string","pattern":"(a|b)*a(a|b){30}"}`)},
		"an exploding union":      {Schema: []byte(`{"allOf":[` + strings.TrimSuffix(strings.Repeat(`{"anyOf":[{"required":["a"]},{"required":["b"]},{"required":["c"]}]},`, 12), ",") + `]}`)},
		"an exploding product":    {Schema: []byte(`{"allOf":[{"pattern":"^(.{97})*$"},{"pattern":"^(.{98})*$"},{"pattern":"^(.{99})*$"},{"pattern":"^(.{101})*$"}]}`)},
		"many counts":             {Schema: []byte(`{"type":"array","minItems":500,"uniqueItems":true,"items":{"type":"integer"}}`)},
		"long names":              {Schema: []byte(`{"type":"object","minProperties":100}`)},
		"an ambiguous grammar":    {Grammar: costly},
		"a grammar of many items": {Grammar: `root ::= ([a-z]? [a-z]? [a-z]? [a-z]?){0,2000}`},
		"a nested grammar":        {Grammar: `root ::= ((((([a-z]+)+)+)+)+)+`},
		"a left recursion":        {Grammar: `root ::= root "a" | "b"`},
	}
	tokens, beside := 1500, 600
	if testing.Short() {
		tokens, beside = 60, 200
		for _, costs := range []string{"an enum", "an exploding pattern", "an exploding union", "an exploding product", "many counts", "a grammar of many items"} {
			delete(formats, costs)
		}
	}
	var all sync.WaitGroup
	for i := range 2 {
		all.Go(func() { ask(t, e, user(strings.Repeat("a", i+1), beside)) })
	}
	for name, f := range formats {
		all.Go(func() {
			gen := user(name, tokens)
			gen.Format = f
			err := e.Handle(t.Context(), &infer.Request{Task: gen}, func(infer.Event) error { return nil })
			if err != nil && infer.CodeOf(err) != infer.Invalid {
				t.Errorf("%s: %v", name, err)
			}
			t.Logf("%s: %.100v", name, err)
		})
	}
	all.Wait()
	ask(t, e, user("a", 10))
}

// Compiled formats of a user are cached for that user, within the budget. A format in use is not
// dropped.
func TestFormatsAreKept(t *testing.T) {
	e := load(t, "tiny", batch.Limits{Context: 2048, Batch: 64, Sequences: 4})
	e.Formats.Time = time.Minute
	compile := func(owner, source string) *constraint.Constraint {
		t.Helper()
		k, _, err := e.Formats.Compile(t.Context(), owner, constraint.Format{Format: &infer.Format{Schema: []byte(source)}})
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	first := compile("a", schemas[0])
	if again := compile("a", schemas[0]); again != first {
		t.Error("it is compiled again for the same user")
	}
	if other := compile("b", schemas[0]); other == first {
		t.Error("users share it")
	}
	e.Formats.Bytes = e.Formats.Used() + 1<<10
	for _, source := range schemas {
		if k, _, err := e.Formats.Compile(t.Context(), "c", constraint.Format{Format: &infer.Format{Schema: []byte(source)}}); err == nil {
			k.Release()
		} else if infer.CodeOf(err) != infer.Busy {
			t.Fatal(err)
		}
		if used := e.Formats.Used(); used > e.Formats.Bytes {
			t.Fatalf("%d bytes of %d are in use", used, e.Formats.Bytes)
		}
	}
	if again := compile("a", schemas[0]); again != first {
		t.Error("it was dropped while in use")
	}
}
