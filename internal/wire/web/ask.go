package web

import (
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
)

// An Ask is a request to generate, in any dialect.
type Ask struct {
	Generate  *infer.Generate
	CacheSalt string
	Model     string // as the client spells it; may be empty
	Stream    bool
	Ignored   []string // members without effect, sorted
	Thinks    []string // members that ask for thinking
	History   string   // name of the member with the messages or the prompt, for errors
}

// Ignore adds a member to the members without effect, unless it is there already.
func (a *Ask) Ignore(member string) {
	if i, there := slices.BinarySearch(a.Ignored, member); !there {
		a.Ignored = slices.Insert(a.Ignored, i, member)
	}
}

// IgnorePresent adds the members that are present and not null to the members without effect.
func (a *Ask) IgnorePresent(members map[string]jsontext.Value) {
	for name, value := range members {
		if Present(value) {
			a.Ignore(name)
		}
	}
}

// IgnoreStops adds member, the name of the member with the stop texts, to the members without effect, if
// the request has stop texts and also constrains the format of the answer.
func (a *Ask) IgnoreStops(member string) {
	if len(a.Generate.Stop) > 0 && a.Generate.Format.Constrains() {
		a.Ignore(member)
	}
}

// Offer adapts the request to the abilities of the model. If the model cannot think, a request for
// thinking is dropped, and its members are listed as ignored.
func (a *Ask) Offer(can infer.Abilities) {
	if can.Thinking || a.Generate.Thinking != infer.ThinkOn {
		return
	}
	a.Generate.Thinking, a.Generate.ThinkingBudget = infer.ThinkAuto, 0
	for _, member := range a.Thinks {
		a.Ignore(member)
	}
}

// efforts maps the words for an effort to budgets for thinking, in tokens; -1 means no thinking, and 0
// means no limit.
var efforts = map[string]int{"none": -1, "minimal": -1, "low": 1024, "medium": 4096, "high": 16384, "xhigh": 0, "max": 0}

// Effort sets the thinking of the request, and its budget, by the effort named word. member is the
// name of the member with the effort. It returns an error if word is unknown.
func (a *Ask) Effort(member, word string) error {
	budget, ok := efforts[word]
	if !ok {
		return Invalid(member, "%s must be one of: none, minimal, low, medium, high, xhigh, max", member)
	}
	a.Thinks = append(a.Thinks, member)
	a.Generate.Thinking, a.Generate.ThinkingBudget = infer.ThinkIf(budget >= 0), max(budget, 0)
	return nil
}

// Limits of a request.
const (
	maxStops  = 16
	maxStop   = 256 // bytes
	maxNumber = 1e6
	minTopP   = 1e-6
	maxTools  = 1024
)

// Stops checks the stop texts of a request, and returns them. member is the name of the member with
// the stop texts.
func Stops(member string, all []string) ([]string, error) {
	if len(all) > maxStops {
		return nil, Invalid(member, "%s has %d strings, at most %d are allowed", member, len(all), maxStops)
	}
	for i, s := range all {
		if len(s) == 0 || len(s) > maxStop {
			return nil, Invalid(member, "%s[%d] has %d bytes, it must have 1 to %d", member, i, len(s), maxStop)
		}
	}
	return all, nil
}

// Sampling has the members that control the choice of tokens. Dialects embed it in their requests.
type Sampling struct {
	Temperature      *wire.Number  `json:"temperature"`
	TopP             *wire.Number  `json:"top_p"`
	PresencePenalty  *wire.Number  `json:"presence_penalty"`
	FrequencyPenalty *wire.Number  `json:"frequency_penalty"`
	Seed             *wire.Integer `json:"seed"`
	TopK             *wire.Integer `json:"top_k"`
	MinP             *wire.Number  `json:"min_p"`
	RepeatPenalty    *wire.Number  `json:"repeat_penalty"`
}

// Apply checks the members and copies them to s.
func (m *Sampling) Apply(s *infer.Sampling) error {
	for _, number := range []struct {
		member   string
		value    *wire.Number
		min, max float64
		to       **float64
	}{
		{"temperature", m.Temperature, 0, maxNumber, &s.Temperature},
		{"top_p", m.TopP, 0, 1, &s.TopP},
		{"min_p", m.MinP, 0, 1, &s.MinP},
		{"repeat_penalty", m.RepeatPenalty, 0, maxNumber, &s.RepeatPenalty},
		{"presence_penalty", m.PresencePenalty, -maxNumber, maxNumber, &s.PresencePenalty},
		{"frequency_penalty", m.FrequencyPenalty, -maxNumber, maxNumber, &s.FrequencyPenalty},
	} {
		if number.value == nil {
			continue
		}
		value := float64(*number.value)
		if !(value >= number.min && value <= number.max) {
			return Invalid(number.member, "%s must be between %.0f and %.0f", number.member, number.min, number.max)
		}
		*number.to = &value
	}
	if s.TopP != nil { // 0 allows only the likeliest token, but means no limit in infer.Sampling
		*s.TopP = max(*s.TopP, minTopP)
	}
	if m.TopK != nil {
		k, err := Integer("top_k", m.TopK, 0)
		if err != nil {
			return err
		}
		s.TopK = &k
	}
	if m.Seed != nil {
		seed, err := m.Seed.Seed()
		if err != nil {
			return Invalid("seed", "%v", err)
		}
		s.Seed = &seed
	}
	return nil
}

// A Tool is a declared function. Parameters is a JSON Schema.
type Tool struct {
	Name, Description string
	Parameters        jsontext.Value
}

// AddTools checks the tools of a request and adds them to gen. member is the name of the member with
// the tools, for errors.
func AddTools(member string, tools []Tool, gen *infer.Generate) error {
	if err := CheckTools(member, len(tools)); err != nil {
		return err
	}
	taken := make(map[string]bool, len(tools))
	for i, f := range tools {
		switch {
		case f.Name == "":
			return Invalid(member, "%s[%d] has no name", member, i)
		case taken[f.Name]:
			return Invalid(member, "%s: two tools are called %.64q", member, f.Name)
		case Present(f.Parameters) && f.Parameters.Kind() != jsontext.KindBeginObject:
			return Invalid(member, "%s[%d]: parameters must be an object", member, i)
		}
		taken[f.Name] = true
		gen.Tools = append(gen.Tools, infer.Tool{Name: f.Name, Description: f.Description, Schema: Bytes(f.Parameters)})
	}
	return nil
}

// CheckTools returns an error if n, the number of tools or names of tools in member, exceeds
// maxTools.
func CheckTools(member string, n int) error {
	if n > maxTools {
		return Invalid(member, "%s: at most %d are allowed", member, maxTools)
	}
	return nil
}

// ChooseMode sets the choice of tools to the mode named word. In a request without tools, "auto" and
// "none" are accepted and have no effect, because SDKs send them.
func ChooseMode(member, word string, gen *infer.Generate) error {
	switch word {
	case "auto":
	case "none":
		if len(gen.Tools) > 0 {
			gen.Choice.Mode = infer.ToolNone
		}
	case "required":
		if len(gen.Tools) == 0 {
			return Invalid(member, "%s required needs tools", member)
		}
		gen.Choice.Mode = infer.ToolRequired
	default:
		return Invalid(member, "%s must be one of: auto, none, required", member)
	}
	return nil
}

// ChooseTool requires a call of the tool with the given name.
func ChooseTool(member, name string, gen *infer.Generate) error {
	if err := Declared(member, name, gen); err != nil {
		return err
	}
	gen.Choice = infer.ToolChoice{Mode: infer.ToolNamed, Tool: name}
	return nil
}

// ChooseFrom removes the tools of gen that are not in names. It returns an error if gen lacks a
// tool in names.
func ChooseFrom(member string, names []string, gen *infer.Generate) error {
	if err := CheckTools(member, len(names)); err != nil {
		return err
	}
	allowed := make(map[string]bool, len(names))
	for _, name := range names {
		if err := Declared(member, name, gen); err != nil {
			return err
		}
		allowed[name] = true
	}
	gen.Tools = slices.DeleteFunc(gen.Tools, func(t infer.Tool) bool { return !allowed[t.Name] })
	return nil
}

// Declared returns an error if gen has no tool with the given name.
func Declared(member, name string, gen *infer.Generate) error {
	if name == "" { // no tool has an empty name: see AddTools
		return Invalid(member, "%s: the name of the tool is missing", member)
	}
	if !slices.ContainsFunc(gen.Tools, func(t infer.Tool) bool { return t.Name == name }) {
		return Invalid(member, "%s names %.64q, which is not among the tools", member, name)
	}
	return nil
}

// Arguments returns text, the arguments of a call in the history, as JSON. An empty text means an
// empty object; a text that is not JSON is an error.
func Arguments(member, at, text string) ([]byte, error) {
	input := jsontext.Value(text)
	if strings.TrimSpace(text) == "" {
		input = jsontext.Value("{}")
	}
	if !input.IsValid() {
		return nil, Invalid(member, "%s: arguments must be JSON", at)
	}
	return input, nil
}

// AddSystem joins the texts of leading system messages, and adds the result to gen as its first
// message. gen must not have messages yet. Without texts, AddSystem does nothing.
func AddSystem(texts []string, gen *infer.Generate) {
	if len(texts) > 0 {
		gen.Messages = append(gen.Messages, infer.TextMessage(infer.System, strings.Join(texts, "\n\n")))
	}
}

// ReadContent returns the parts of a message's content, at least one. A string is one part. For a
// list, read returns the parts of item i. If there is no content, or the list yields no parts, the
// only part is an empty text. member and at are the name of the member and the path of the message,
// for errors; wrong is the text of the error for content of any other type, with a %s for at.
func ReadContent[T any](member, at, wrong string, content jsontext.Value, read func(i int, item *T) ([]infer.Part, error)) ([]infer.Part, error) {
	text := new(infer.TextPart) // also the part of an empty content
	if !Present(content) {
		return []infer.Part{text}, nil
	}
	if content.Kind() == jsontext.KindString {
		if err := Decode(member, content, &text.Text); err != nil {
			return nil, err
		}
		return []infer.Part{text}, nil
	}
	var items []T
	if wire.Unmarshal(content, &items) != nil {
		return nil, Invalid(member, wrong, at)
	}
	var parts []infer.Part
	for i := range items {
		more, err := read(i, &items[i])
		if err != nil {
			return nil, err
		}
		parts = append(parts, more...)
	}
	if len(parts) == 0 {
		return []infer.Part{text}, nil
	}
	return parts, nil
}

// maxIgnoredTools bounds the members without effect to which the type of a tool is added.
const maxIgnoredTools = 64

// IgnoreTool records in Ignored the type of a tool that the vendor's server would run, such as
// web_search_20250305; the caller omits the tool. If kind is empty, too long or has other characters
// than a-z, 0-9, _ and ., or if Ignored has maxIgnoredTools members, it records "tools" instead.
func (a *Ask) IgnoreTool(kind string) {
	plain := func(r rune) bool { return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_' || r == '.' }
	if kind == "" || len(kind) > maxQuoted || len(a.Ignored) >= maxIgnoredTools || strings.ContainsFunc(kind, func(r rune) bool { return !plain(r) }) {
		kind = "tools"
	}
	a.Ignore(kind)
}
