package openai_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/openai"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// ask returns a chat request with one message. more is appended to its members.
func ask(more string) string {
	return `{"model":"gen","messages":[{"role":"user","content":"hi"}]` + more + "}"
}

// asked returns the task that ask("") encodes, modified by change.
func asked(change func(*infer.Generate)) *infer.Generate {
	gen := &infer.Generate{
		Model: "gen", Blocks: true, Messages: []infer.Message{infer.TextMessage(infer.User, "hi")}, Defaults: openai.Defaults(),
	}
	change(gen)
	return gen
}

func said(s infer.Sampling) func(*infer.Generate) {
	return func(g *infer.Generate) { g.Sampling = s }
}

func messages(all ...infer.Message) func(*infer.Generate) {
	return func(g *infer.Generate) { g.Messages = all }
}

func TestReadChat(t *testing.T) {
	same := func(*infer.Generate) {}
	call := func(id, name, input string) infer.Part {
		return &infer.CallPart{ID: id, Name: name, Input: []byte(input)}
	}
	result := func(id, text string) infer.Part {
		return &infer.ResultPart{ID: id, Content: []infer.Part{&infer.TextPart{Text: text}}}
	}
	f := infer.Tool{Name: "f", Description: "d", Schema: []byte(`{"type":"object"}`)}
	const tools = `,"tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object"},"strict":true}},{"type":"function","function":{"name":"g"}}]`
	withTools := func(c infer.ToolChoice) func(*infer.Generate) {
		return func(g *infer.Generate) { g.Tools, g.Choice = []infer.Tool{f, {Name: "g"}}, c }
	}
	for name, test := range map[string]struct {
		in   string
		want func(*infer.Generate)
	}{
		"nothing but a message": {ask(""), same},
		"null means missing": {ask(`,"stream":null,"stream_options":null,"max_tokens":null,"temperature":null,"stop":null,"seed":null,"logit_bias":null,
			"tools":null,"tool_choice":null,"response_format":null,"reasoning_effort":null,"n":null,"logprobs":null,"user":null,"functions":null,"audio":null,"modalities":null,"chat_template_kwargs":null`), same},
		"unknown members": {ask(`,"x":{"y":[1]},"Temperature":5`), same},
		"sampling": {
			ask(`,"temperature":0.5,"top_p":0.25,"top_k":7,"min_p":0.125,"repeat_penalty":1.5,"presence_penalty":-1,"frequency_penalty":2,"seed":-1,"logit_bias":{"5":-100}`),
			said(infer.Sampling{
				Temperature: new(0.5), TopP: new(0.25), TopK: new(7), MinP: new(0.125), RepeatPenalty: new(1.5), PresencePenalty: new(-1.0),
				FrequencyPenalty: new(2.0), Seed: new(uint32(0)), LogitBias: map[int]float64{5: -100},
			}),
		},
		"zeros":                         {ask(`,"temperature":0,"top_p":0,"seed":0`), said(infer.Sampling{Temperature: new(0.0), TopP: new(1e-6), Seed: new(uint32(0))})},
		"max_tokens":                    {ask(`,"max_tokens":9`), func(g *infer.Generate) { g.MaxTokens = 9 }},
		"max_completion_tokens wins":    {ask(`,"max_tokens":9,"max_completion_tokens":8`), func(g *infer.Generate) { g.MaxTokens = 8 }},
		"one stop":                      {ask(`,"stop":"x"`), func(g *infer.Generate) { g.Stop = []string{"x"} }},
		"several stops":                 {ask(`,"stop":["x","é"]`), func(g *infer.Generate) { g.Stop = []string{"x", "é"} }},
		"logprobs without alternatives": {ask(`,"logprobs":true,"top_logprobs":0`), func(g *infer.Generate) { g.Logprobs = 1 }},
		"logprobs":                      {ask(`,"logprobs":true,"top_logprobs":5`), func(g *infer.Generate) { g.Logprobs = 5 }},
		"n is 1":                        {ask(`,"n":1`), same},
		"text":                          {ask(`,"response_format":{"type":"text"}`), same},
		"an object":                     {ask(`,"response_format":{"type":"json_object"}`), func(g *infer.Generate) { g.Format.JSONObject = true }},
		"a schema":                      {ask(`,"response_format":{"type":"json_schema","json_schema":{"name":"n","strict":true,"schema":{"type":"object"}}}`), func(g *infer.Generate) { g.Format.Schema = []byte(`{"type":"object"}`) }},
		"a schema, llama.cpp's way":     {ask(`,"json_schema":{"type":"object"}`), func(g *infer.Generate) { g.Format.Schema = []byte(`{"type":"object"}`) }},
		"a grammar":                     {ask(`,"grammar":"root ::= \"a\""`), func(g *infer.Generate) { g.Format.Grammar = `root ::= "a"` }},
		"no effort":                     {ask(`,"reasoning_effort":"none"`), func(g *infer.Generate) { g.Thinking = infer.ThinkOff }},
		"some effort":                   {ask(`,"reasoning_effort":"low"`), func(g *infer.Generate) { g.Thinking, g.ThinkingBudget = infer.ThinkOn, 1024 }},
		"thinking, by the template":     {ask(`,"chat_template_kwargs":{"enable_thinking":true,"x":1}`), func(g *infer.Generate) { g.Thinking = infer.ThinkOn }},
		"no thinking, by the template":  {ask(`,"reasoning_effort":"high","chat_template_kwargs":{"enable_thinking":false}`), func(g *infer.Generate) { g.Thinking = infer.ThinkOff }},
		"a budget":                      {ask(`,"reasoning_budget":7`), func(g *infer.Generate) { g.Thinking, g.ThinkingBudget = infer.ThinkOn, 7 }},
		"an unlimited budget":           {ask(`,"reasoning_budget":-1`), func(g *infer.Generate) { g.Thinking = infer.ThinkOn }},
		"tools":                         {ask(tools), withTools(infer.ToolChoice{})},
		"tools, all of them":            {ask(tools + `,"tool_choice":"auto","parallel_tool_calls":true`), withTools(infer.ToolChoice{})},
		"at most one call":              {ask(`,"parallel_tool_calls":false`), func(g *infer.Generate) { g.OneCall = true }},
		"no call":                       {ask(tools + `,"tool_choice":"none"`), withTools(infer.ToolChoice{Mode: infer.ToolNone})},
		"a call":                        {ask(tools + `,"tool_choice":"required"`), withTools(infer.ToolChoice{Mode: infer.ToolRequired})},
		"a call of g":                   {ask(tools + `,"tool_choice":{"type":"function","function":{"name":"g"}}`), withTools(infer.ToolChoice{Mode: infer.ToolNamed, Tool: "g"})},
		"some of the tools":             {ask(tools + `,"tool_choice":{"type":"allowed_tools","allowed_tools":{"mode":"required","tools":[{"type":"function","function":{"name":"f"}}]}}`), func(g *infer.Generate) { g.Tools, g.Choice.Mode = []infer.Tool{f}, infer.ToolRequired }},
		"a choice without tools":        {ask(`,"tools":[],"tool_choice":"none"`), same},
		"functions, the older form": {ask(`,"functions":[{"name":"f","description":"d","parameters":{"type":"object"}}],"function_call":{"name":"f"}`), func(g *infer.Generate) {
			g.Tools, g.Choice, g.OneCall = []infer.Tool{f}, infer.ToolChoice{Mode: infer.ToolNamed, Tool: "f"}, true
		}},
		"no model": {`{"messages":[{"role":"user","content":"hi"}]}`, func(g *infer.Generate) { g.Model = "" }},
		"system messages at the start become one": {
			`{"model":"gen","messages":[{"role":"system","content":"a"},{"role":"developer","content":[{"type":"text","text":"b"},{"type":"text","text":"c"}]},{"role":"user","content":"hi"},{"role":"system","content":"later"}]}`,
			messages(infer.TextMessage(infer.System, "a\n\nbc"), infer.TextMessage(infer.User, "hi"), infer.TextMessage(infer.System, "later")),
		},
		"system messages alone": {
			`{"model":"gen","messages":[{"role":"system","content":"a"}]}`, messages(infer.TextMessage(infer.System, "a")),
		},
		"a round of tools": {
			`{"model":"gen","messages":[{"role":"user","content":"hi"},
			{"role":"assistant","content":null,"reasoning_content":"hm","tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{\"x\":1}"}},{"id":"2","type":"function","function":{"name":"g","arguments":""}}]},
			{"role":"tool","tool_call_id":"1","content":"r"},{"role":"tool","tool_call_id":"2","content":[{"type":"text","text":"s"}]},{"role":"user","content":"go"}]}`,
			messages(infer.TextMessage(infer.User, "hi"),
				infer.Message{Role: infer.Assistant, Content: []infer.Part{&infer.ThinkingPart{Text: "hm"}, &infer.TextPart{}, call("1", "f", `{"x":1}`), call("2", "g", "{}")}},
				infer.Message{Role: infer.User, Content: []infer.Part{result("1", "r"), result("2", "s")}},
				infer.TextMessage(infer.User, "go")),
		},
		"a round of functions": {
			`{"model":"gen","messages":[{"role":"assistant","content":"","reasoning":"hm","function_call":{"name":"f","arguments":"[]"}},{"role":"function","name":"f","content":"r"}]}`,
			messages(infer.Message{Role: infer.Assistant, Content: []infer.Part{&infer.ThinkingPart{Text: "hm"}, &infer.TextPart{}, call("f", "f", "[]")}},
				infer.Message{Role: infer.User, Content: []infer.Part{result("f", "r")}}),
		},
		"refusals": {
			`{"model":"gen","messages":[{"role":"assistant","content":[{"type":"refusal","refusal":"no"}]},{"role":"assistant","content":[],"refusal":"never"}]}`,
			messages(infer.TextMessage(infer.Assistant, "no"), infer.Message{Role: infer.Assistant, Content: []infer.Part{&infer.TextPart{}, &infer.TextPart{Text: "never"}}}),
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := openai.ReadChat([]byte(test.in))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(asked(test.want), got.Generate); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if got.Ignored != nil {
				t.Errorf("ignored %q", got.Ignored)
			}
		})
	}
}

func TestChatMembers(t *testing.T) {
	got, err := openai.ReadChat([]byte(ask(`,"stream":true,"stream_options":{"include_usage":true},"logprobs":true,"top_logprobs":2,"cache_salt":"s",
		"user":"u","store":false,"metadata":{},"service_tier":"auto","verbosity":"low","prompt_cache_key":"k","safety_identifier":"i","prediction":{},"cache_prompt":true`)))
	if err != nil {
		t.Fatal(err)
	}
	if !got.Stream || !got.Usage || !got.Logprobs || got.Top != 2 || got.CacheSalt != "s" || got.Model != "gen" {
		t.Errorf("got %+v", got)
	}
	if want := []string{"cache_prompt", "metadata", "prediction", "prompt_cache_key", "safety_identifier", "service_tier", "store", "user", "verbosity"}; !slices.Equal(got.Ignored, want) {
		t.Errorf("ignored %q, want %q", got.Ignored, want)
	}
}

// Stop texts have no effect if the format of the answer is constrained; they are listed as ignored.
func TestStopBesideFormat(t *testing.T) {
	for more, want := range map[string][]string{
		`,"stop":["x"]`: nil,
		`,"stop":["x"],"response_format":{"type":"text"}`:                                             nil,
		`,"response_format":{"type":"json_object"}`:                                                   nil,
		`,"stop":[],"response_format":{"type":"json_object"}`:                                         nil,
		`,"stop":["x"],"response_format":{"type":"json_object"}`:                                      {"stop"},
		`,"stop":"x","response_format":{"type":"json_schema","json_schema":{"schema":{}}},"user":"u"`: {"stop", "user"},
		`,"stop":"x","grammar":"root ::= \"a\""`:                                                      {"stop"},
	} {
		c, err := openai.ReadChat([]byte(ask(more)))
		if err != nil || !slices.Equal(c.Ignored, want) {
			t.Errorf("%s: %v, ignored %q, want %q", more, err, c.Ignored, want)
		}
	}
}

// If the model cannot think, a member that asks for thinking has no effect and is listed as
// ignored.
func TestOffer(t *testing.T) {
	for member, more := range map[string]string{
		"reasoning_effort": `,"reasoning_effort":"high"`, "reasoning_budget": `,"reasoning_budget":5`,
		"chat_template_kwargs": `,"chat_template_kwargs":{"enable_thinking":true}`,
	} {
		c, err := openai.ReadChat([]byte(ask(more + `,"user":"u"`)))
		if err != nil {
			t.Fatal(err)
		}
		c.Offer(infer.Abilities{Thinking: true})
		if c.Generate.Thinking != infer.ThinkOn || len(c.Ignored) != 1 {
			t.Errorf("%s, offered: %+v, ignored %q", member, c.Generate, c.Ignored)
		}
		c.Offer(infer.Abilities{})
		if c.Generate.Thinking == infer.ThinkOn || c.Generate.ThinkingBudget != 0 || !slices.Equal(c.Ignored, []string{member, "user"}) {
			t.Errorf("%s: %+v, ignored %q", member, c.Generate, c.Ignored)
		}
	}
}

// If the model cannot think, all members for thinking are listed as ignored, not only the member
// that takes precedence.
func TestOfferNamesAll(t *testing.T) {
	c, err := openai.ReadChat([]byte(ask(`,"reasoning_effort":"high","reasoning_budget":5,"chat_template_kwargs":{"enable_thinking":true}`)))
	if err != nil {
		t.Fatal(err)
	}
	c.Offer(infer.Abilities{})
	if want := []string{"chat_template_kwargs", "reasoning_budget", "reasoning_effort"}; !slices.Equal(c.Ignored, want) {
		t.Errorf("ignored %q, want %q", c.Ignored, want)
	}
}

// A member that is invalid or not supported is refused by name.
func TestChatRefusals(t *testing.T) {
	content := func(parts string) string {
		return `{"model":"gen","messages":[{"role":"user","content":` + parts + `}]}`
	}
	picture := func(url string) string {
		return content(`[{"type":"image_url","image_url":{"url":"` + url + `"}}]`)
	}
	for name, test := range map[string]struct{ in, param, text string }{
		"n is 2":                     {ask(`,"n":2`), "n", "n must be 1"},
		"audio":                      {ask(`,"modalities":["text","audio"],"audio":{}`), "modalities", "audio in answers"},
		"web search":                 {ask(`,"web_search_options":{}`), "web_search_options", "web search"},
		"no messages":                {`{"model":"gen","messages":[]}`, "messages", "must not be empty"},
		"messages missing":           {`{"model":"gen"}`, "messages", "must not be empty"},
		"a number out of range":      {ask(`,"temperature":-1`), "temperature", "temperature must be between"},
		"top_p above 1":              {ask(`,"top_p":1.5`), "top_p", "top_p must be between"},
		"no tokens":                  {ask(`,"max_tokens":0`), "max_tokens", "at least 1"},
		"no completion tokens":       {ask(`,"max_completion_tokens":0`), "max_completion_tokens", "at least 1"},
		"an empty stop":              {ask(`,"stop":[""]`), "stop", "stop[0] has 0 bytes"},
		"a stop of another type":     {ask(`,"stop":7`), "stop", "wrong form"},
		"many stops":                 {ask(`,"stop":[` + strings.Repeat(`"x",`, 16) + `"x"]`), "stop", "17 strings"},
		"a long stop":                {ask(`,"stop":"` + strings.Repeat("x", 257) + `"`), "stop", "257 bytes"},
		"many logprobs":              {ask(`,"logprobs":true,"top_logprobs":21`), "top_logprobs", "between 0 and 20"},
		"alternatives alone":         {ask(`,"top_logprobs":1`), "top_logprobs", "needs logprobs"},
		"a bias of no token":         {ask(`,"logit_bias":{"x":1}`), "logit_bias", "no token id"},
		"a large bias":               {ask(`,"logit_bias":{"1":101}`), "logit_bias", "between -100 and 100"},
		"a seed of 65 bits":          {ask(`,"seed":99999999999999999999`), "seed", "64 bits"},
		"an unknown format":          {ask(`,"response_format":{"type":"xml"}`), "response_format", "must be one of"},
		"a schema that is none":      {ask(`,"response_format":{"type":"json_schema"}`), "response_format", "must be an object"},
		"two constraints":            {ask(`,"response_format":{"type":"json_object"},"grammar":"root ::= \"a\""`), "grammar", "mutually exclusive"},
		"an unknown effort":          {ask(`,"reasoning_effort":"huge"`), "reasoning_effort", "must be one of"},
		"a budget below none":        {ask(`,"reasoning_budget":-2`), "reasoning_budget", "at least 0"},
		"a long salt":                {ask(`,"cache_salt":"` + strings.Repeat("x", 65) + `"`), "cache_salt", "65 bytes"},
		"a tool of another type":     {ask(`,"tools":[{"type":"custom","custom":{"name":"x"}}]`), "tools", "custom"},
		"a tool without a name":      {ask(`,"tools":[{"type":"function","function":{}}]`), "tools", "no name"},
		"two tools of one name":      {ask(`,"tools":[{"type":"function","function":{"name":"f"}},{"type":"function","function":{"name":"f"}}]`), "tools", "two tools are called"},
		"parameters that are none":   {ask(`,"tools":[{"type":"function","function":{"name":"f","parameters":[]}}]`), "tools", "must be an object"},
		"a call without tools":       {ask(`,"tool_choice":"required"`), "tool_choice", "needs tools"},
		"a choice of another tool":   {ask(`,"tool_choice":{"type":"function","function":{"name":"x"}}`), "tool_choice", "not among the tools"},
		"a choice without a name":    {ask(`,"tool_choice":{"type":"function"}`), "tool_choice", "the name of the tool is missing"},
		"an unknown choice":          {ask(`,"tool_choice":"maybe"`), "tool_choice", "must be one of"},
		"a choice of another form":   {ask(`,"tool_choice":{}`), "tool_choice", "must be a word"},
		"an unknown role":            {`{"messages":[{"role":"robot","content":"hi"}]}`, "messages", "messages[0].role"},
		"a result of no call":        {`{"messages":[{"role":"tool","content":"hi"}]}`, "messages", "tool_call_id"},
		"arguments that are no JSON": {`{"messages":[{"role":"assistant","tool_calls":[{"id":"1","function":{"name":"f","arguments":"{"}}]}]}`, "messages", "must be JSON"},
		"a call of the user":         {`{"messages":[{"role":"user","content":"hi","tool_calls":[{"id":"1","function":{"name":"f","arguments":"{}"}}]}]}`, "messages", "messages[0] has tool_calls"},
		"an old call of the system":  {`{"messages":[{"role":"system","content":"hi","function_call":{"name":"f","arguments":"{}"}}]}`, "messages", "messages[0] has tool_calls"},
		"a call of nothing":          {`{"messages":[{"role":"assistant","tool_calls":[{"id":"1","function":{}}]}]}`, "messages", "no name"},
		"content of another type":    {content("7"), "messages", "messages[0].content"},
		"an unknown part":            {content(`[{"type":"file"}]`), "messages", "messages[0].content[0].type"},
		"a part without its member":  {content(`[{"type":"text"}]`), "messages", "has no text"},
		"too many tools":             {ask(`,"tools":[` + strings.Repeat(`{"function":{"name":"f"}},`, 1024) + `{"function":{"name":"f"}}]`), "tools", "at most 1024"},
		"an image to fetch":          {picture("https://example.com/x.png"), "messages", "nothing is fetched"},
		"an image that is none":      {picture("data:image/png;base64,AAAA"), "messages", "PNG or JPEG"},
		"an image that is no base64": {picture("data:image/png;base64,***"), "messages", "not base64"},
		"an image in plain text":     {picture("data:image/png,x"), "messages", "base64"},
		"audio of an unknown format": {content(`[{"type":"input_audio","input_audio":{"format":"mp3","data":""}}]`), "messages", "mp3"},
		"audio that is none":         {content(`[{"type":"input_audio","input_audio":{"format":"wav","data":"AAAA"}}]`), "messages", "not a WAV file"},
		"a member of another type":   {ask(`,"temperature":"hot"`), "temperature", "wrong type"},
		"a member twice":             {ask(`,"n":1,"n":1`), "", "duplicate"},
		"not JSON":                   {`{"model":`, "", "unexpected EOF"},
		"an array":                   {`[]`, "", "not a JSON object"},
		"nothing":                    {``, "", "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := openai.ReadChat([]byte(test.in))
			if err == nil {
				t.Fatalf("accepted as %+v", got)
			}
			f := openai.ErrorOf(err)
			if f.Status != 400 || f.Type != "invalid_request_error" || f.Param != test.param || !strings.Contains(f.Message, test.text) {
				t.Errorf("got %+v, want param %q and %q", f, test.param, test.text)
			}
			if infer.CodeOf(err) != infer.Invalid {
				t.Errorf("its code is %s", infer.CodeOf(err))
			}
		})
	}
}

func TestReadMedia(t *testing.T) {
	picture := image.NewNRGBA(image.Rect(0, 0, 2, 1))
	picture.Set(0, 0, color.NRGBA{255, 0, 0, 255})
	picture.Set(1, 0, color.NRGBA{0, 0, 0, 0}) // transparent pixels become white
	var asPNG, asJPEG, wav bytes.Buffer
	if err := errors.Join(png.Encode(&asPNG, picture), jpeg.Encode(&asJPEG, picture, nil)); err != nil {
		t.Fatal(err)
	}
	wav.WriteString("RIFF\x00\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x02\x00")
	_ = binary.Write(&wav, binary.LittleEndian, []uint32{8000, 32000, 16<<16 | 4})
	wav.WriteString("data\x08\x00\x00\x00")
	_ = binary.Write(&wav, binary.LittleEndian, []int16{16384, 0, -32768, -32768})
	part := func(kind, rest string) string { return `{"type":"` + kind + `","` + kind + `":` + rest + `}` }
	b64 := base64.StdEncoding.EncodeToString
	c, err := openai.ReadChat([]byte(`{"messages":[{"role":"user","content":[` + strings.Join([]string{
		part("image_url", `{"url":"data:image/png;base64,`+b64(asPNG.Bytes())+`","detail":"low"}`),
		part("image_url", `{"url":"data:image/jpeg;base64,`+b64(asJPEG.Bytes())+`"}`),
		part("input_audio", `{"format":"wav","data":"`+b64(wav.Bytes())+`"}`),
	}, ",") + `]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if c.Images() != 4*15 || bytes.Equal(c.Generate.Attachments[0].Data, []byte{255, 0, 0, 255, 255, 255}) {
		t.Errorf("before they are decoded: %d bytes, %+v", c.Images(), c.Generate.Attachments)
	}
	if err := c.Decode(); err != nil {
		t.Fatal(err)
	}
	all := c.Generate.Attachments
	if len(all) != 3 || !bytes.Equal(all[0].Data, []byte{255, 0, 0, 255, 255, 255}) || all[0].Width != 2 || all[0].Height != 1 || all[1].Kind != infer.Image || len(all[1].Data) != 6 {
		t.Errorf("attachments %+v", all)
	}
	if want := []byte{0, 0, 0x80, 0x3e, 0, 0, 0x80, 0xbf}; all[2].Kind != infer.Audio || all[2].SampleRate != 8000 || !bytes.Equal(all[2].Data, want) { // 0.25, -1
		t.Errorf("audio %+v", all[2])
	}
	for i, p := range c.Generate.Messages[0].Content {
		if m, ok := p.(*infer.MediaPart); !ok || m.Attachment != all[i].ID {
			t.Errorf("part %d is %+v", i, p)
		}
	}
	many := strings.Repeat(part("image_url", `{"url":"data:image/png;base64,`+b64(asPNG.Bytes())+`"}`)+",", 33)
	_, err = openai.ReadChat([]byte(`{"messages":[{"role":"user","content":[` + strings.TrimSuffix(many, ",") + `]}]}`))
	if f := openai.ErrorOf(err); f.Status != 400 || !strings.Contains(f.Message, "at most 32") {
		t.Errorf("33 images: %+v", f)
	}
}

// A system message with media is refused, because only its text becomes the system prompt.
func TestSystemMedia(t *testing.T) {
	_, err := openai.ReadChat([]byte(`{"messages":[{"role":"developer","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="}}]},{"role":"user","content":"hi"}]}`))
	if f := openai.ErrorOf(err); f.Status != 400 || !strings.Contains(f.Message, "takes text only") {
		t.Errorf("%+v", f)
	}
}

func TestReadEmbeddings(t *testing.T) {
	for in, want := range map[string]openai.Embeddings{
		`{"model":"e","input":"a"}`:                                         {Task: &infer.Embed{Model: "e", Inputs: []string{"a"}}, Model: "e"},
		`{"input":["a","é"],"encoding_format":"float","dimensions":4}`:      {Task: &infer.Embed{Inputs: []string{"a", "é"}, Dimensions: 4}},
		`{"model":"e","input":["a"],"encoding_format":"base64","user":"u"}`: {Task: &infer.Embed{Model: "e", Inputs: []string{"a"}}, Model: "e", Base64: true, Ignored: []string{"user"}},
	} {
		got, err := openai.ReadEmbeddings([]byte(in))
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if diff := cmp.Diff(&want, got, cmp.AllowUnexported(openai.Embeddings{})); diff != "" {
			t.Errorf("%s: -want +got\n%s", in, diff)
		}
	}
	for in, want := range map[string][2]string{
		`{"model":"e"}`:                         {"input", "missing"},
		`{"input":[]}`:                          {"input", "must not be empty"},
		`{"input":[""]}`:                        {"input", "input[0] must not be empty"},
		`{"input":[1,2]}`:                       {"input", "send text"},
		`{"input":[[1,2]]}`:                     {"input", "send text"},
		`{"input":[null]}`:                      {"input", "not a string"},
		`{"input":7}`:                           {"input", "wrong form"},
		`{"input":"a","dimensions":0}`:          {"dimensions", "at least 1"},
		`{"input":"a","encoding_format":"hex"}`: {"encoding_format", "must be one of"},
		`{"input":[` + strings.Repeat(`"a",`, 2048) + `"a"]}`: {"input", "2049 texts"},
		`{"input":`: {"", "EOF"},
	} {
		_, err := openai.ReadEmbeddings([]byte(in))
		if err == nil {
			t.Errorf("%.80s is accepted", in)
			continue
		}
		if f := openai.ErrorOf(err); f.Status != 400 || f.Param != want[0] || !strings.Contains(f.Message, want[1]) {
			t.Errorf("%.80s: %+v", in, f)
		}
	}
}

// Each kind of error gets the right status, type, code and member.
func TestFaults(t *testing.T) {
	for name, test := range map[string]struct {
		err         error
		status      int
		kind, code  string
		param, text string
	}{
		"busy":            {infer.Errorf(infer.Busy, "queue full"), 429, "rate_limit_error", "queue_full", "", "queue full"},
		"unavailable":     {infer.Errorf(infer.Unavailable, "why"), 503, "api_error", "server_is_overloaded", "", "why"},
		"invalid":         {infer.Errorf(infer.Invalid, "why"), 400, "invalid_request_error", "", "", "why"},
		"unsupported":     {infer.Errorf(infer.Unsupported, "why"), 400, "invalid_request_error", "", "", "why"},
		"too large":       {infer.Errorf(infer.TooLarge, "why"), 413, "invalid_request_error", "", "", "why"},
		"malformed":       {infer.Errorf(infer.Malformed, "why"), 502, "api_error", "", "", "why"},
		"internal":        {infer.Errorf(infer.Internal, "why"), 500, "api_error", "", "", "why"},
		"no class":        {errors.New("secret"), 500, "api_error", "", "", "internal error"},
		"model unknown":   {web.UnknownModel("x"), 404, "invalid_request_error", "model_not_found", "model", `"x"`},
		"a long prompt":   {infer.Errorf(infer.Invalid, "%w", &infer.PromptError{Tokens: 9, Most: 8}), 400, "invalid_request_error", "context_length_exceeded", "messages", "9 tokens"},
		"tools":           {infer.Abilities{}.Check(&infer.Generate{Tools: []infer.Tool{{Name: "f"}}}), 400, "invalid_request_error", "", "tools", "not supported"},
		"a schema":        {infer.Abilities{}.Check(&infer.Generate{Format: infer.Format{Schema: []byte("{}")}}), 400, "invalid_request_error", "", "response_format", "not supported"},
		"a wrapped fault": {fmt.Errorf("x: %w", web.Invalid("n", "why")), 400, "invalid_request_error", "", "n", "why"},
		"a member's type": {&wire.FatalError{Err: infer.Errorf(infer.Invalid, "decode"), Member: "stop"}, 400, "invalid_request_error", "", "stop", "decode"},
	} {
		f := openai.ErrorOf(test.err)
		if f.Status != test.status || f.Type != test.kind || f.Code != test.code || f.Param != test.param || !strings.Contains(f.Message, test.text) {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

// An answer that the daemon ended early fails, so that it does not look complete.
func TestCanceled(t *testing.T) {
	a := openai.Answer{Chat: &openai.Chat{}}
	if _, err := a.Collect(&infer.Done{Reason: infer.Canceled}); infer.CodeOf(err) != infer.Unavailable {
		t.Errorf("Collect: %v", err)
	}
	if _, err := a.Stream(nil, &infer.Done{Reason: infer.Canceled}); infer.CodeOf(err) != infer.Unavailable {
		t.Errorf("Stream: %v", err)
	}
}

// A stream has exactly these bytes: all chunks have the same ID, the first has the role, and no
// chunk has usage, because it is not requested.
func TestStream(t *testing.T) {
	a := openai.Answer{ID: "c", Model: "m", Created: 1, Chat: &openai.Chat{}}
	var got []byte
	for _, ev := range []infer.Event{&infer.Text{Delta: []byte("a")}, &infer.ToolCall{ID: "t", Name: "f", Input: []byte(`{"x":1}`)}, &infer.Done{Reason: infer.CalledTool}} {
		var err error
		if got, err = a.Stream(got, ev); err != nil {
			t.Fatal(err)
		}
	}
	const head = `data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","system_fingerprint":"fp_inferd","choices":[{"index":0,"delta":`
	const open = `,"logprobs":null,"finish_reason":null}]}` + "\n\n"
	want := head + `{"role":"assistant","content":""}` + open +
		head + `{"content":"a"}` + open +
		head + `{"tool_calls":[{"index":0,"id":"t","type":"function","function":{"name":"f","arguments":""}}]}` + open +
		head + `{"tool_calls":[{"index":0,"function":{"arguments":"{\"x\":1}"}}]}` + open +
		head + `{},"logprobs":null,"finish_reason":"tool_calls"}]}` + "\n\ndata: [DONE]\n\n"
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if got, want := string(a.Fail(nil, web.Invalid("n", "why"))),
		`data: {"error":{"message":"why","type":"invalid_request_error","param":"n","code":null}}`+"\n\ndata: [DONE]\n\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTokensDoNotAllocate(t *testing.T) {
	a := openai.Answer{ID: "c", Model: "m", Chat: &openai.Chat{Usage: true}}
	ev := &infer.Text{Delta: []byte("a \"token\"\n")}
	buf := make([]byte, 0, 1024)
	if n := testing.AllocsPerRun(1000, func() {
		if _, err := a.Stream(buf, ev); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations a token", n)
	}
}

// Any body is either decoded, or refused with status 400 or 413. A decoded request is within the
// limits.
func FuzzReadChat(f *testing.F) {
	for _, more := range []string{"", `,"tools":[{"function":{"name":"f"}}],"tool_choice":{"type":"function","function":{"name":"f"}}`, `,"stop":["x"],"logit_bias":{"1":1}`} {
		f.Add([]byte(ask(more)))
	}
	f.Add([]byte(`{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBORw0KGgo="}}]}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if _, err := wire.Weigh(body); err != nil {
			return
		}
		c, err := openai.ReadChat(body)
		if err != nil {
			if f := openai.ErrorOf(err); f.Status != 400 && f.Status != 413 || !utf8.Valid(f.Append(nil)) {
				t.Fatalf("%+v", f)
			}
			return
		}
		if len(c.Generate.Messages) == 0 || c.Generate.MaxTokens < 0 || len(c.Generate.Stop) > 16 || c.Top > 20 {
			t.Fatalf("accepted %+v", c)
		}
	})
}
