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

// spaced returns the dialect of a family with s as the template's white space.
func spaced(family string, s dialect.Space) *dialect.Dialect {
	d := dialecttest.Fixtures()[family]
	d.Calls.Space = &s
	return d
}

// Behind a marker that is a token, all white space of a call must be the template's. Behind a marker of bytes, only the
// white space within and behind the arguments must be: a call with other white space in front of the arguments is still
// a call, not text.
func TestSpace(t *testing.T) {
	d := spaced("hermes", dialect.Space{JSON: true, Comma: " ", Colon: " "})
	const exact = "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"x\", \"days\": 2}}\n</tool_call>"
	const loose = `<tool_call>{"name":"get_weather", "arguments": {"city": "x", "days": 2}` + "}\n</tool_call>"
	const open = `<tool_call>{"name":"get_weather", "arguments": {"city": "x"} }`
	const compact = `<tool_call>{"name":"get_weather","arguments": {"city":"x"}}</tool_call>`
	for name, test := range map[string]struct {
		m          model
		text, rest string
	}{
		"tokens":            {controls(d), exact, ""},
		"tokens, loose":     {controls(d), loose, loose[len("<tool_call>"):]},
		"bytes":             {plain, exact, ""},
		"bytes, loose":      {plain, loose, ""},
		"bytes, behind":     {plain, open, " }"},
		"bytes, compact":    {plain, compact, compact[len(`<tool_call>{"name":"get_weather","arguments": {"city":`):]},
		"tokens, two calls": {controls(d), exact + "\n" + exact, ""},
		"no line between":   {controls(d), exact + exact, exact},
		"a line at the end": {controls(d), exact + "\n", ""},
		"two lines":         {controls(d), exact + "\n\n", "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			r := begin(t, test.m, speech.Options{Dialect: d, Tools: tools})
			if rest := r.feed(test.text, nil); rest != test.rest {
				t.Errorf("%q is left, want %q", rest, test.rest)
			}
		})
	}
}

// The end tag ends a raw value, even without the newline that the template writes in front of the tag; that newline is
// not part of the value. The newline is required behind a value that no byte can continue, such as true, and in front
// of a tag that is a token. White space within a tag must be as the dialect spells it.
func TestTags(t *testing.T) {
	d := spaced("qwen3-coder", dialect.Space{JSON: true, Comma: " ", Colon: " "})
	tokens := model{markers: []string{"<|im_end|>", "<tool_call>", "</tool_call>", "</parameter>"}}
	loose, named := dialecttest.Fixtures()["qwen3-coder"], dialecttest.Fixtures()["qwen3-coder"]
	named.Calls.Param = dialect.Param{Open: "<parameter name=\"", Middle: "\">", Close: "</parameter>"}
	for name, test := range map[string]struct {
		m          model
		d          *dialect.Dialect
		text, want string // want is the rest if the text does not fit
	}{
		"a line":             {plain, d, "run>\n<parameter=command>\nls\n</parameter>\n</function>\n</tool_call>", `call run {"command": "ls"}`},
		"no line":            {plain, d, "run>\n<parameter=command>\nls</parameter>\n</function>\n</tool_call>", `call run {"command": "ls"}`},
		"no line, another":   {plain, d, "run>\n<parameter=command>\nls</parameter>\n<parameter=force>\ntrue\n</parameter>\n</function>\n</tool_call>", `call run {"command": "ls", "force": true}`},
		"two lines":          {plain, d, "run>\n<parameter=command>\nls\n\n</parameter>\n</function>\n</tool_call>", `call run {"command": "ls\n"}`},
		"JSON, no line":      {plain, d, "run>\n<parameter=force>\ntrue</parameter>", "</parameter>"},
		"of a list, no line": {plain, d, "run>\n<parameter=mode>\nfast</parameter>", "</parameter>"},
		"a token":            {tokens, d, "run>\n<parameter=command>\nls\n</parameter>\n</function>\n</tool_call>", `call run {"command": "ls"}`},
		"a token, no line":   {tokens, d, "run>\n<parameter=command>\nls</parameter>", "</parameter>"},
		"loose, no line":     {plain, loose, "run><parameter=force>true</parameter></function></tool_call>", `call run {"force": true}`},
		"a space":            {plain, named, "run><parameter name=\"force\">true</parameter></function></tool_call>", `call run {"force": true}`},
		"a tab":              {plain, named, "run><parameter\tname=\"force\">true", "\tname=\"force\">true"},
	} {
		t.Run(name, func(t *testing.T) {
			text := "<tool_call>\n<function=" + test.text
			if !strings.HasPrefix(test.want, "call ") {
				if rest := begin(t, test.m, speech.Options{Dialect: test.d, Tools: tools}).feed(text, nil); rest != test.want {
					t.Errorf("%q is left, want %q", rest, test.want)
				}
			} else if got := parseAnswer(t, test.m, speech.Options{Dialect: test.d, Tools: tools}, text, true); !slices.Equal(got, []string{test.want}) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// The markers in front of a text and behind it are no part of it, whether they are tokens or bytes. The marker in front
// is required before a demanded call that takes the place of the text.
func TestHeaders(t *testing.T) {
	space := &dialect.Space{JSON: true, Comma: " ", Colon: " "}
	header := func(text dialect.Text) *dialect.Dialect {
		d := dialect.Generic()
		d.Calls.Space, d.Text = space, text
		return d
	}
	letters, token, lead := header(dialect.Text{Begins: []string{"all\n"}}), header(dialect.Text{Begins: []string{" to=user<|message|>"}}), header(dialect.Text{Lead: " "})
	around := dialecttest.Fixtures()["hermes"]
	around.Text = dialect.Text{Begins: []string{"<response>"}, End: "</response>"}
	m := model{markers: []string{"<|im_end|>", "<|message|>"}}
	const call = `{"tool_calls": [{"name": "now", "arguments": {}}]}`
	const tagged = `<tool_call>{"name": "now", "arguments": {}}</tool_call>`
	for name, test := range map[string]struct {
		d      *dialect.Dialect
		choice infer.ToolChoice
		tools  []infer.Tool
		text   string
		want   []string // nil: it does not fit
	}{
		"a text":                {letters, infer.ToolChoice{}, nil, "all\nHi", []string{"text Hi"}},
		"a text beside tools":   {letters, infer.ToolChoice{}, tools, "all\nHi", []string{"text Hi"}},
		"another text":          {letters, infer.ToolChoice{}, tools, "all I know", []string{"text all I know"}},
		"a call":                {letters, infer.ToolChoice{}, tools, "all\n" + call, []string{"call now {}"}},
		"a call without it":     {letters, infer.ToolChoice{}, tools, call, []string{"call now {}"}},
		"demanded":              {letters, required, tools, "all\n" + call, []string{"call now {}"}},
		"demanded, without it":  {letters, required, tools, call, nil},
		"a token":               {token, infer.ToolChoice{}, nil, " to=user<|message|>Hi", []string{"text Hi"}},
		"a token, demanded":     {token, required, tools, " to=user<|message|>" + call, []string{"call now {}"}},
		"white space":           {lead, infer.ToolChoice{}, tools, " Hi", []string{"text Hi"}},
		"white space, demanded": {lead, required, tools, " " + call, []string{"call now {}"}},
		"none, demanded":        {lead, required, tools, call, nil},
		"around":                {around, infer.ToolChoice{}, nil, "<think>Hm.</think>\n<response>\nHi <response>.\n</response>\n", []string{"thought Hm.", "text Hi <response>."}},
		"around, not ended":     {around, infer.ToolChoice{}, tools, "<response>Hi </resp", []string{"text Hi </resp"}},
		"around, a call":        {around, required, tools, "<response>Hi</response>\n" + tagged, []string{"text Hi", "call now {}"}},
		"around, a call within": {around, infer.ToolChoice{}, tools, "<response>Hi\n" + tagged, []string{"text Hi", "call now {}"}},
		"around, in a fence":    {around, infer.ToolChoice{}, nil, "<response>\n```\n</response>\n```\n</response>", []string{"text ```\n</response>\n```"}},
		"not around":            {around, infer.ToolChoice{}, tools, "Hi</response>", []string{"text Hi</response>"}},
	} {
		t.Run(name, func(t *testing.T) {
			o := speech.Options{Dialect: test.d, Tools: test.tools, Choice: test.choice}
			if test.want == nil {
				if rest := begin(t, m, o).feed(test.text, nil); rest != test.text {
					t.Errorf("%q is left, want all", rest)
				}
			} else if got := parseAnswer(t, m, o, test.text, true); !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if !speech.Needed(&o) && len(test.d.Text.Begins) > 0 {
				t.Error("a text with a marker needs no speech")
			}
		})
	}
}

// If the template sorts the members of arguments, the mask requires that order.
func TestSortedMembers(t *testing.T) {
	d := spaced("gemma4", dialect.Space{Sorted: true})
	text := `<|tool_call>call:get{deep:{},list:[1],url:<|"|>a<|"|>}<tool_call|>`
	want := []string{`call get {"deep": {}, "list": [1], "url": "a"}`}
	if got := parseAnswer(t, controls(d), speech.Options{Dialect: d, Tools: tools}, text, true); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	r := begin(t, controls(d), speech.Options{Dialect: d, Tools: tools})
	if rest := r.feed(`<|tool_call>call:get{url:<|"|>a<|"|>,deep:{}`, nil); rest != `:{}` { // another name may begin with deep

		t.Errorf("%q is left", rest)
	}
}

// NextID returns the numbers and ids of calls as the next prompt will have them, each only once.
func TestNextID(t *testing.T) {
	for name, test := range map[string]struct {
		d            *dialect.Dialect
		text         string // up to the number
		before, last int
		want         string // the number, and the text behind it if that ends the number
		first        int
		another      string
	}{
		"nine":     {dialecttest.Fixtures()["mistral-small-3.2"], "[TOOL_CALLS]now[CALL_ID]", 3, 7, "tc%07d", 8, "[ARGS]{}[TOOL_CALLS]now[CALL_ID]"},
		"an array": {dialecttest.Fixtures()["mistral-nemo"], `[TOOL_CALLS][{"name": "now", "arguments": {}, "id": "`, 0, 0, `tc%07d`, 1, `"}, {"name": "now", "arguments": {}, "id": "`},
		"counter":  {kimi(), "<|begin|>functions.now:", 3, 7, "%d<|args|>", 3, "{}<|end|><|begin|>functions.now:"},
	} {
		t.Run(name, func(t *testing.T) {
			m := model{markers: append([]string{"<|im_end|>", "<|begin|>", "<|args|>", "<|end|>"}, markersOf[test.d.Name]...)}
			r := begin(t, m, speech.Options{Dialect: test.d, Tools: tools})
			r.parser.CallsBefore, r.parser.LastID = test.before, test.last
			for i, text := range []string{test.text, test.another} {
				if rest := r.feed(text, nil); rest != "" {
					t.Fatalf("%q is left", rest)
				}
				var got strings.Builder
				id, behind := r.parser.NextID()
				for _, x := range slices.Concat(id, behind) {
					if x >= 512 {
						got.WriteString(m.markers[x-512])
					} else {
						got.WriteString(string(rune(x)))
					}
				}
				if want := fmt.Sprintf(test.want, test.first+i); got.String() != want {
					t.Errorf("call %d: got %q, want %q", i, got.String(), fmt.Sprintf(test.want, test.first+i))
				}
				if rest := r.feed(got.String(), nil); rest != "" {
					t.Fatalf("%q is left", rest)
				}
				if again, _ := r.parser.NextID(); again != nil {
					t.Error("the number comes twice")
				}
			}
		})
	}
}

// A marker behind a forced number or id stays one token, even if it is ordinary text in the vocabulary.
func TestMarkersBehindNumbers(t *testing.T) {
	d, nine := kimi(), dialecttest.Fixtures()["mistral-small-3.2"]
	d.Calls.Call[4].Text = "[ARGS]"
	for name, test := range map[string]struct {
		d    *dialect.Dialect
		text string
		want string
	}{
		"a number": {d, "<|begin|>functions.now:", "0|[ARGS]|{"},
		"nine":     {nine, "[TOOL_CALLS]now[CALL_ID]", "t|c|0|0|0|0|0|0|1|[ARGS]|{"},
	} {
		t.Run(name, func(t *testing.T) {
			m := model{markers: []string{"<|im_end|>", "<|begin|>", "<|end|>", "[TOOL_CALLS]", "[CALL_ID]"}, pieces: []string{"[AR", "[ARGS]"}}
			r := begin(t, m, speech.Options{Dialect: test.d, Tools: tools})
			if rest := r.feed(test.text, nil); rest != "" {
				t.Fatalf("%q is left", rest)
			}
			var got []string
			for range strings.Count(test.want, "|") + 1 {
				r.answer.Force(r.parser.NextID())
				mask, err := r.answer.Mask()
				if err != nil {
					t.Fatal(err)
				}
				id := int32(len(mask)*64 - 1) // the last one of the mask: a piece, if there is one
				for id > 0 && mask[id>>6]>>(id&63)&1 == 0 {
					id--
				}
				if !r.answer.Take(id) {
					t.Fatalf("%q is refused behind %q", m.text([]int32{id}), got)
				}
				got = append(got, m.text([]int32{id}))
			}
			if got := strings.Join(got, "|"); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

// kimi is a dialect with calls that are counted over the conversation.
func kimi() *dialect.Dialect {
	return &dialect.Dialect{Name: "kimi", Shape: dialect.Named, Calls: dialect.Calls{Several: true, Call: []dialect.Piece{
		{Kind: dialect.Fixed, Text: "<|begin|>functions."},
		{Kind: dialect.Name},
		{Kind: dialect.Fixed, Text: ":"},
		{Kind: dialect.NumberInConversation},
		{Kind: dialect.Fixed, Text: "<|args|>"},
		{Kind: dialect.Arguments},
		{Kind: dialect.Fixed, Text: "<|end|>"},
	}}}
}

// InnerMarkers are allowed within thoughts, and are no part of them.
func TestMarkersWithinThoughts(t *testing.T) {
	d := &dialect.Dialect{Thinking: dialect.Thinking{
		Begin: "<seed:think>", End: "</seed:think>", InnerMarkers: []string{"<seed:cot_budget_reflect>", "</seed:cot_budget_reflect>"},
	}}
	m := model{markers: []string{"<|im_end|>", "<seed:think>", "</seed:think>", "<seed:cot_budget_reflect>", "</seed:cot_budget_reflect>"}}
	text := "<seed:think>Hm. <seed:cot_budget_reflect>Used 5.</seed:cot_budget_reflect> So.</seed:think>Yes."
	want := []string{"thought Hm. Used 5. So.", "text Yes."}
	if got := parseAnswer(t, m, speech.Options{Dialect: d}, text, true); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
