package v2

import (
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
)

// A toolChoice is a mode, or an object that names a tool.
type toolChoice struct {
	mode string
	name *string // the name in the object
}

// errChoice is the error for any other value, such as an object without the name of a tool.
const errChoice = wire.TypeError(`auto, required, none or {"type":"tool","name":NAME}`)

// UnmarshalJSONFrom accepts a string or an object.
func (c *toolChoice) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	switch d.PeekKind() {
	case jsontext.KindString:
		return json.UnmarshalDecode(d, &c.mode)
	case jsontext.KindBeginObject:
	default:
		return errChoice
	}
	var object struct {
		Type *string `json:"type"`
		Name *string `json:"name"`
	}
	if err := json.UnmarshalDecode(d, &object); err != nil {
		return err
	}
	if object.Type == nil || *object.Type != "tool" || object.Name == nil {
		return errChoice
	}
	c.name = object.Name
	return nil
}

// choices maps the strings that tool_choice may be to modes.
var choices = map[string]infer.ToolMode{"auto": infer.ToolAuto, "required": infer.ToolRequired, "none": infer.ToolNone}

func (m *request) choice(gen *infer.Generate) error {
	c := m.ToolChoice
	if c == nil {
		return nil
	}
	mode, ok := choices[c.mode]
	switch {
	case c.name == nil && !ok:
		return wire.Invalid("tool_choice must be one of: auto, required, none")
	case len(gen.Tools) == 0:
		return wire.Invalid("tool_choice requires a non-empty tools array")
	case c.name == nil:
		gen.Choice.Mode = mode
		return nil
	case !slices.ContainsFunc(gen.Tools, func(t infer.Tool) bool { return t.Name == *c.name }):
		return wire.Invalid("tool_choice names %.64q, which is not among the tools", *c.name)
	}
	gen.Choice = infer.ToolChoice{Mode: infer.ToolNamed, Tool: *c.name}
	return nil
}
