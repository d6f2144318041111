package engine_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/engine"
	"github.com/inferd-go/inferd/internal/builtin"
	"github.com/inferd-go/inferd/internal/infer"
)

// randomSchema returns a random schema of a value, with keywords of every kind.
func randomSchema(r *rand.Rand, depth int) string {
	kinds := 14
	if depth > 0 {
		kinds = 18
	}
	switch r.IntN(kinds) {
	case 0:
		return `{"type":"string"}`
	case 1:
		return fmt.Sprintf(`{"type":"string","minLength":%d,"maxLength":%d}`, r.IntN(4), 4+r.IntN(9))
	case 2:
		return []string{`{"type":"string","pattern":"^[A-Z]{2}-[0-9]+$","maxLength":9}`, `{"type":"string","pattern":"a|é"}`}[r.IntN(2)]
	case 3:
		return fmt.Sprintf(`{"type":"string","format":%q}`, []string{"date", "date-time", "uuid", "ipv4", "email", "uri"}[r.IntN(6)])
	case 4:
		return fmt.Sprintf(`{"type":"integer","minimum":%d,"maximum":%d}`, -r.IntN(50), 1+r.IntN(5000))
	case 5:
		return []string{`{"type":"integer"}`, `{"type":"number"}`, `{"type":"number","exclusiveMinimum":0,"maximum":1}`, `{"type":"integer","multipleOf":5}`}[r.IntN(4)]
	case 6:
		return `{"type":"boolean"}`
	case 7:
		return `{"enum":["none","fast","null","true","4",null,4]}`
	case 8:
		return `{"type":["string","null"]}`
	case 9:
		return `{"type":["integer","string"],"maxLength":6}`
	case 10:
		return `{"const":"a <b> & \"c\""}`
	case 11:
		return `{"anyOf":[{"type":"integer","minimum":100},{"type":"string","maxLength":3}]}`
	case 12:
		return `{"type":"string","enum":["red","green","blue"]}`
	case 13:
		return `{"type":["null","boolean"]}`
	case 14, 15:
		return fmt.Sprintf(`{"type":"array","items":%s,"minItems":%d,"maxItems":%d}`, randomSchema(r, depth-1), r.IntN(2), 2+r.IntN(3))
	case 16:
		return `{"type":"array","items":{"type":"integer"},"uniqueItems":true,"minItems":2,"maxItems":4}`
	default:
		return randomObject(r, depth-1)
	}
}

// randomObject returns a random schema of an object.
func randomObject(r *rand.Rand, depth int) string {
	var members, required []string
	for i := range r.IntN(5) {
		name := []string{"city", "days", "to", "a_b", "zeit"}[i]
		members = append(members, fmt.Sprintf("%q:%s", name, randomSchema(r, depth)))
		if r.IntN(2) == 0 {
			required = append(required, strconv.Quote(name))
		}
	}
	more := ""
	if r.IntN(4) > 0 {
		more = `,"additionalProperties":false`
	}
	return fmt.Sprintf(`{"type":"object","properties":{%s},"required":[%s]%s}`, strings.Join(members, ","), strings.Join(required, ","), more)
}

// randomTools returns fifty tools with random schemas, and the validator of each schema by the tool's name.
func randomTools(t *testing.T, seed uint64) (tools []infer.Tool, judged map[string]*jsonschema.Schema) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 3))
	var sources []string
	for range 50 {
		sources = append(sources, randomObject(r, 2))
	}
	all := judges(t, sources)
	judged = make(map[string]*jsonschema.Schema)
	for i, source := range sources {
		name := fmt.Sprintf("%s_%d", []string{"get", "get_the", "set-all", "run", "x"}[i%5], i)
		tools = append(tools, infer.Tool{Name: name, Description: "d", Schema: []byte(source)})
		judged[name] = all[i]
	}
	return tools, judged
}

// loadRandom loads a model with random weights. Its vocabulary has the markers of a family, and tokens across
// the borders of words, strings and numbers.
func loadRandom(t *testing.T, family string, seed uint64) *engine.Engine {
	t.Helper()
	s := &scene{template: familyTemplate(t, family)}
	d := s.dialect(t)
	pieces := []string{
		`{"`, `":`, `": "`, `",`, `"}`, `"}}`, `}}`, `[[`, `]]`, `, "`, `null`, `true`, "aaaa", "bbbbbbbb", "éé", "ü", `0000`, `12`, `\"`, `\u`, "\n\n", "  ", `-`, `{"a":{`,
		"city", "days", "none", "fast", "get", "_the", "None", "True", "False", "\n</", "</param", ")]", "='", `="`, "2024-", "T00:00:00Z", "@", "://", ".5", "e5",
	}
	// The declarations of fifty tools have more bytes than the context, so the prompt declares only
	// the first tool.
	template := s.template
	if family == "generic" || family == "deepseek-v3.1" { // the template of generic declares all tools, that of deepseek-v3.1 none
		template = familyTemplate(t, "hermes")
	}
	template = "{% if tools %}{% set tools = tools[:1] %}{% endif %}" + template
	e := loadScripted(t, &builtin.Scripted{
		Template: template, Controls: markersOf(d), Unused: unused, Random: seed,
		Recitals: []builtin.Recital{{After: "<|bos|>", Tokens: pieces}},
	})
	e.Dialect = d
	e.Formats.Time = time.Minute // the machine of the test may be busy
	return e
}

// callsWanted is the minimum number of calls that [TestCallsValidate] checks, over all families; make
// test-answers sets a larger one.
func callsWanted(t *testing.T) int {
	t.Helper()
	if long := os.Getenv("INFERD_TEST_CALLS"); long != "" {
		n, err := strconv.Atoi(long)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if testing.Short() {
		return 4
	}
	return 20
}

// With random weights, in every dialect and with the tool choices required, named and auto, each call names a
// declared tool, and a public validator accepts its arguments.
func TestCallsValidate(t *testing.T) {
	names := families()
	if testing.Short() {
		names = names[:2]
	}
	each := (callsWanted(t) + len(names) - 1) / len(names)
	for i, family := range names {
		t.Run(family, func(t *testing.T) {
			e := loadRandom(t, family, uint64(i+1))
			tools, judged := randomTools(t, uint64(i))
			calls, chosen := 0, make(map[infer.ToolMode]int)
			for seed := uint32(0); calls < each; seed += 2 {
				var all sync.WaitGroup
				var replies [2]*reply
				var modes [2]infer.ToolMode
				for j := range replies {
					n := seed + uint32(j)
					gen := randomCall(tools, n)
					modes[j] = gen.Choice.Mode
					all.Go(func() {
						h, err := tryRequest(t, e, gen)
						if err != nil {
							t.Errorf("%d: %v", n, err)
						}
						replies[j] = h
						if p := problem(gen, h, judged); p != "" {
							t.Errorf("%d, %s %s: %s", n, gen.Choice.Mode, gen.Choice.Tool, p)
						}
					})
				}
				all.Wait()
				if t.Failed() {
					return
				}
				for j, h := range replies {
					calls += len(h.calls)
					chosen[modes[j]] += len(h.calls)
				}
			}
			t.Logf("%d calls: %v", calls, chosen)
		})
	}
}

// randomCall returns a request for a call, at temperature 1. n is its seed, and determines the tool choice.
func randomCall(tools []infer.Tool, n uint32) *infer.Generate {
	gen := greedy(tools)
	gen.MaxTokens = 500
	gen.Messages = []infer.Message{infer.TextMessage(infer.User, fmt.Sprint("call ", n))}
	gen.Sampling = infer.Sampling{Temperature: new(1.0), Seed: &n}
	gen.Choice = []infer.ToolChoice{
		{Mode: infer.ToolRequired}, {Mode: infer.ToolNamed, Tool: tools[int(n)%6*8].Name}, {Mode: infer.ToolAuto},
	}[n%3]
	return gen
}

// problem describes the first fault of an answer that should have calls; empty means that there is none.
func problem(gen *infer.Generate, h *reply, judged map[string]*jsonschema.Schema) string {
	for i, c := range h.calls {
		judge := judged[c.Name]
		switch {
		case c.ID != fmt.Sprintf("tc-%d", i+1):
			return "the id is " + c.ID
		case judge == nil || gen.Choice.Mode == infer.ToolNamed && c.Name != gen.Choice.Tool:
			return "the tool is " + c.Name
		}
		value, err := jsonschema.UnmarshalJSON(strings.NewReader(string(c.Input)))
		if err != nil {
			return fmt.Sprintf("%s %s: %v", c.Name, c.Input, err)
		}
		if err := judge.Validate(value); err != nil {
			tool := gen.Tools[slices.IndexFunc(gen.Tools, func(t infer.Tool) bool { return t.Name == c.Name })]
			return fmt.Sprintf("%s %s: %v; %s", c.Name, c.Input, err, tool.Schema)
		}
	}
	switch {
	case gen.Choice.Mode != infer.ToolAuto && (len(h.calls) == 0 || h.done.Unsatisfied):
		return fmt.Sprintf("no call: %+v, %q", h.done, h.log)
	case h.done.Out > gen.MaxTokens:
		return fmt.Sprintf("%+v", h.done)
	case len(h.calls) > 0 && h.done.Reason != infer.CalledTool && h.done.Reason != infer.Length:
		return fmt.Sprintf("%+v", h.done)
	}
	return ""
}
