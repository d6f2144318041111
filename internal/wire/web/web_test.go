package web_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"image/png"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/web"
)

func TestErrorOf(t *testing.T) {
	prompt := &infer.PromptError{Tokens: 9, Most: 8}
	for name, test := range map[string]struct {
		err  error
		want web.Error
	}{
		"a class":           {infer.Errorf(infer.Busy, "why"), web.Error{Code: infer.Busy, Message: "why"}},
		"no class":          {errors.New("secret"), web.Error{Code: infer.Internal, Message: "internal error"}},
		"a member":          {fmt.Errorf("x: %w", web.Invalid("n", "n is %d", 2)), web.Error{Code: infer.Invalid, Member: "n", Message: "n is 2"}},
		"a status":          {web.Refused(404, "unknown_url", "why"), web.Error{Code: infer.Invalid, Status: 404, Reason: "unknown_url", Message: "why"}},
		"a large body":      {web.Refused(413, "", "why"), web.Error{Code: infer.TooLarge, Status: 413, Message: "why"}},
		"a member's type":   {&wire.FatalError{Err: infer.Errorf(infer.Invalid, "decode"), Member: "stop"}, web.Error{Code: infer.Invalid, Member: "stop", Message: "decode"}},
		"a feature":         {infer.Abilities{}.Check(&infer.Generate{Thinking: infer.ThinkOn}), web.Error{Code: infer.Invalid, Feature: "thinking", Message: "invalid request: thinking is not supported by this model"}},
		"a long prompt":     {infer.Errorf(infer.Invalid, "%w", prompt), web.Error{Code: infer.Invalid, Prompt: prompt, Message: prompt.Error()}},
		"an unknown model":  {web.UnknownModel("x\n"), web.Error{Code: infer.Invalid, Status: 404, Reason: web.NoModel, Member: "model", Message: `The model "x\n" does not exist: GET /v1/models lists the models`}},
		"a very long model": {web.UnknownModel(strings.Repeat("x", 100)), web.Error{Code: infer.Invalid, Status: 404, Reason: web.NoModel, Member: "model", Message: `The model "` + strings.Repeat("x", 64) + `…" does not exist: GET /v1/models lists the models`}},
	} {
		if diff := cmp.Diff(&test.want, web.ErrorOf(test.err)); diff != "" {
			t.Errorf("%s: -want +got\n%s", name, diff)
		}
		if infer.CodeOf(test.err) != test.want.Code {
			t.Errorf("%s: its code is %s", name, infer.CodeOf(test.err))
		}
	}
	if _, other := errors.AsType[*wire.FatalError](web.Invalid("", "why")); other {
		t.Error("it is another error, too")
	}
}

func TestIgnore(t *testing.T) {
	var a web.Ask
	a.Ignore("b")
	a.Ignore("a")
	a.Ignore("b")
	a.IgnorePresent(map[string]jsontext.Value{"d": jsontext.Value("0"), "c": nil, "e": jsontext.Value("null")})
	a.IgnoreTool("web_search_20250305")
	for _, strange := range []string{"", "X", "a b", "a\r\nb", strings.Repeat("x", 65)} {
		a.IgnoreTool(strange)
	}
	if want := []string{"a", "b", "d", "tools", "web_search_20250305"}; !slices.Equal(a.Ignored, want) {
		t.Errorf("got %q, want %q", a.Ignored, want)
	}
	for i := range 1000 {
		a.IgnoreTool(fmt.Sprint("t", i))
	}
	if len(a.Ignored) > 64 {
		t.Errorf("%d are named", len(a.Ignored))
	}
}

func TestEffort(t *testing.T) {
	for word, want := range map[string]struct {
		thinks bool
		budget int
	}{"none": {false, 0}, "minimal": {false, 0}, "low": {true, 1024}, "medium": {true, 4096}, "high": {true, 16384}, "xhigh": {true, 0}, "max": {true, 0}} {
		a := web.Ask{Generate: &infer.Generate{}}
		if err := a.Effort("effort", word); err != nil || (a.Generate.Thinking == infer.ThinkOn) != want.thinks || a.Generate.ThinkingBudget != want.budget {
			t.Errorf("%s: %+v, %v", word, a.Generate, err)
		}
		a.Offer(infer.Abilities{Thinking: true})
		if (a.Generate.Thinking == infer.ThinkOn) != want.thinks || a.Ignored != nil {
			t.Errorf("%s, offered: %+v", word, a)
		}
		if a.Offer(infer.Abilities{}); a.Generate.Thinking == infer.ThinkOn || a.Generate.ThinkingBudget != 0 || want.thinks != slices.Equal(a.Ignored, []string{"effort"}) {
			t.Errorf("%s, not offered: %+v", word, a)
		}
	}
	a := web.Ask{Generate: &infer.Generate{}}
	if f := web.ErrorOf(a.Effort("effort", "huge")); f.Member != "effort" || !strings.Contains(f.Message, "must be one of") {
		t.Errorf("got %+v", f)
	}
}

func TestSampling(t *testing.T) {
	for in, want := range map[string]infer.Sampling{
		`{}`: {},
		`{"temperature":0,"top_p":0,"top_k":0,"min_p":0.5,"repeat_penalty":1.5,"presence_penalty":-1,"frequency_penalty":2,"seed":-1}`: {
			Temperature: new(0.0), TopP: new(1e-6), TopK: new(0), MinP: new(0.5), RepeatPenalty: new(1.5), PresencePenalty: new(-1.0), FrequencyPenalty: new(2.0), Seed: new(uint32(0)),
		},
	} {
		var m web.Sampling
		var got infer.Sampling
		if err := errors.Join(json.Unmarshal([]byte(in), &m), m.Apply(&got)); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: -want +got\n%s", in, diff)
		}
	}
	for in, member := range map[string]string{
		`{"temperature":-1}`: "temperature", `{"top_p":1.5}`: "top_p", `{"min_p":-0.5}`: "min_p", `{"top_k":-1}`: "top_k", `{"temperature":1e999}`: "temperature",
		`{"seed":99999999999999999999}`: "seed", `{"frequency_penalty":1e7}`: "frequency_penalty",
	} {
		var m web.Sampling
		if err := json.Unmarshal([]byte(in), &m); err != nil {
			t.Error(err)
		}
		if f := web.ErrorOf(m.Apply(&infer.Sampling{})); f.Member != member || f.Code != infer.Invalid {
			t.Errorf("%s: %+v", in, f)
		}
	}
}

func TestTools(t *testing.T) {
	gen := &infer.Generate{}
	if err := web.AddTools("tools", []web.Tool{{Name: "f", Description: "d", Parameters: jsontext.Value("{}")}, {Name: "g", Parameters: jsontext.Value("null")}}, gen); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]infer.Tool{{Name: "f", Description: "d", Schema: []byte("{}")}, {Name: "g"}}, gen.Tools); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	for name, tools := range map[string][]web.Tool{
		"no name":              {{}},
		"two tools are called": {{Name: "f"}, {Name: "f"}},
		"must be an object":    {{Name: "f", Parameters: jsontext.Value("[]")}},
		"at most 1024":         make([]web.Tool, 1025),
	} {
		if f := web.ErrorOf(web.AddTools("tools", tools, &infer.Generate{})); f.Member != "tools" || !strings.Contains(f.Message, name) {
			t.Errorf("%s: %+v", name, f)
		}
	}
	for word, want := range map[string]infer.ToolMode{"auto": infer.ToolAuto, "none": infer.ToolNone, "required": infer.ToolRequired} {
		gen.Choice = infer.ToolChoice{}
		if err := web.ChooseMode("tool_choice", word, gen); err != nil || gen.Choice.Mode != want {
			t.Errorf("%s: %+v, %v", word, gen.Choice, err)
		}
	}
	if err := web.ChooseTool("tool_choice", "g", gen); err != nil || gen.Choice != (infer.ToolChoice{Mode: infer.ToolNamed, Tool: "g"}) {
		t.Errorf("%+v, %v", gen.Choice, err)
	}
	if err := web.ChooseFrom("tool_choice", []string{"g"}, gen); err != nil || len(gen.Tools) != 1 {
		t.Errorf("%+v, %v", gen.Tools, err)
	}
	for text, err := range map[string]error{
		"must be one of":      web.ChooseMode("tool_choice", "maybe", gen),
		"needs tools":         web.ChooseMode("tool_choice", "required", &infer.Generate{}),
		"not among the tools": web.ChooseTool("tool_choice", "f", gen),
		"names \"f\"":         web.ChooseFrom("tool_choice", []string{"f"}, gen),
		"at most 1024":        web.ChooseFrom("tool_choice", make([]string, 1025), gen),
	} {
		if f := web.ErrorOf(err); f.Member != "tool_choice" || !strings.Contains(f.Message, text) {
			t.Errorf("%s: %+v", text, f)
		}
	}
}

func TestStopsAndArguments(t *testing.T) {
	if all, err := web.Stops("stop", []string{"a"}); err != nil || !slices.Equal(all, []string{"a"}) {
		t.Errorf("%q, %v", all, err)
	}
	for _, stops := range [][]string{{""}, {strings.Repeat("x", 257)}, make([]string, 17)} {
		if _, err := web.Stops("stop", stops); web.ErrorOf(err).Member != "stop" {
			t.Errorf("%.20q: %v", stops, err)
		}
	}
	for text, want := range map[string]string{"": "{}", " \n": "{}", `{"x":1}`: `{"x":1}`, "7": "7"} {
		if got, err := web.Arguments("input", "input[0]", text); string(got) != want || err != nil {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	if _, err := web.Arguments("input", "input[0]", "{"); web.ErrorOf(err).Member != "input" || !strings.Contains(err.Error(), "input[0]") {
		t.Errorf("got %v", err)
	}
	var gen infer.Generate
	if web.AddSystem(nil, &gen); gen.Messages != nil {
		t.Errorf("no system message: %+v", gen.Messages)
	}
	if web.AddSystem([]string{"a", "b"}, &gen); len(gen.Messages) != 1 || gen.Messages[0].Text() != "a\n\nb" {
		t.Errorf("system messages: %+v", gen.Messages)
	}
}

func TestImages(t *testing.T) {
	var asPNG, asJPEG bytes.Buffer
	if err := errors.Join(png.Encode(&asPNG, image.NewNRGBA(image.Rect(0, 0, 2, 1))), jpeg.Encode(&asJPEG, image.NewGray(image.Rect(0, 0, 1, 1)), nil)); err != nil {
		t.Fatal(err)
	}
	b64 := base64.StdEncoding.EncodeToString
	a := web.Ask{Generate: &infer.Generate{}, History: "messages"}
	for _, data := range []string{b64(asPNG.Bytes()), b64(asJPEG.Bytes())[:20] + "\r\n" + b64(asJPEG.Bytes())[20:]} {
		m, err := web.Image(data)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := web.Attach("messages", "messages[0]", m, a.Generate); err != nil {
			t.Fatal(err)
		}
	}
	if a.Images() != 3*15 {
		t.Errorf("decoding takes %d bytes", a.Images())
	}
	if err := a.Decode(); err != nil || len(a.Generate.Attachments[0].Data) != 6 || !bytes.Equal(a.Generate.Attachments[0].Data[:3], []byte{255, 255, 255}) || len(a.Generate.Attachments[1].Data) != 3 {
		t.Errorf("%+v, %v", a.Generate.Attachments, err)
	}
	damaged, err := web.ImageURL("data:image/png;base64," + b64(asPNG.Bytes()[:40]))
	if err != nil {
		t.Fatal(err)
	}
	a.Generate.Attachments = []infer.Attachment{damaged}
	if f := web.ErrorOf(a.Decode()); f.Member != "messages" || !strings.Contains(f.Message, "damaged") {
		t.Errorf("a damaged image: %+v", f)
	}
	for url, text := range map[string]string{
		"https://x/y.png": "nothing is fetched", "data:image/png,x": "base64", "data:image/png;base64,***": "not base64", "data:image/png;base64,AAAA": "PNG or JPEG", "": "nothing is fetched",
	} {
		if _, err := web.ImageURL(url); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%q: %v", url, err)
		}
	}
}

// An image with too many pixels is refused. An attachment is refused if the attachments of its
// request would have too many bytes together, or if there are already 32.
func TestLimitsOfMedia(t *testing.T) {
	var wide bytes.Buffer
	err := png.Encode(&wide, image.NewGray(image.Rect(0, 0, 5000, 5000)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := web.Image(base64.StdEncoding.EncodeToString(wide.Bytes())); err == nil || !strings.Contains(err.Error(), "5000 × 5000") {
		t.Errorf("25 million pixels: %v", err)
	}
	gen := &infer.Generate{}
	large := infer.Attachment{Kind: infer.Image, Width: 4000, Height: 4000}
	for range 4 {
		if _, err = web.Attach("messages", "messages[0]", large, gen); err != nil {
			break
		}
	}
	if f := web.ErrorOf(err); f.Status != http.StatusRequestEntityTooLarge || f.Code != infer.TooLarge {
		t.Errorf("192 MB: %+v", f)
	}
	gen = &infer.Generate{}
	for range 33 {
		if _, err = web.Attach("messages", "messages[0]", infer.Attachment{Kind: infer.Audio}, gen); err != nil {
			break
		}
	}
	if f := web.ErrorOf(err); f.Member != "messages" || !strings.Contains(f.Message, "at most 32") || len(gen.Attachments) != 32 || gen.Attachments[31].ID != "audio-31" {
		t.Errorf("33 attachments: %+v", f)
	}
}
