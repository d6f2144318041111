package responses

import (
	"maps"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// A tool is a declared tool. Its members depend on its type.
type tool struct {
	Type        string           `json:"type"`
	Name        string           `json:"name"`
	Description string           `json:"description"`
	Parameters  jsontext.Value   `json:"parameters"`
	Strict      jsontext.Value   `json:"strict"`
	Tools       []jsontext.Value `json:"tools"` // of a namespace
	Format      struct {
		Type       string `json:"type"`
		Syntax     string `json:"syntax"`
		Definition string `json:"definition"`
	} `json:"format"` // format of the input of a custom tool
}

// The types of tools that the client runs.
const (
	functionType  = "function"
	namespaceType = "namespace"
	customType    = "custom"
)

// flat returns the name that the model sees for a tool. namespace is empty for a tool outside
// namespaces.
func flat(namespace, name string) string {
	if namespace == "" {
		return name
	}
	return namespace + "__" + name
}

// customSchema is the schema that the model sees for the arguments of a custom tool.
const customSchema = `{"type":"object","properties":{"input":{"type":"string"}},"required":["input"],"additionalProperties":false}`

// customInput returns the input of a custom tool as arguments with customSchema.
func customInput(text string) []byte {
	return append(wire.AppendString([]byte(`{"input":`), text), '}')
}

// customText returns the input of a custom tool from the arguments that the model has written:
// arguments with customSchema, or a JSON string. It returns other arguments unchanged.
func customText(input []byte) []byte {
	var m struct {
		Input *string `json:"input"`
	}
	if wire.Unmarshal(input, &m) == nil && m.Input != nil {
		return []byte(*m.Input)
	}
	var text string
	if wire.Unmarshal(input, &text) == nil {
		return []byte(text)
	}
	return input
}

// declare checks and copies the tools and tool_choice.
func (m *request) declare(r *Request) error {
	r.names = make(map[string]name)
	d := declaration{r: r}
	for _, value := range m.Tools {
		if err := d.add(value, ""); err != nil {
			return err
		}
	}
	if err := web.AddTools("tools", d.tools, r.Generate); err != nil {
		return err
	}
	r.tools = d.echo
	r.Generate.OneCall = !wire.ValueOr(m.ParallelToolCalls, true)
	if !web.Present(m.ToolChoice) {
		return nil
	}
	return choose(m.ToolChoice, r)
}

// A declaration collects the tools of a request.
type declaration struct {
	r     *Request
	tools []web.Tool
	echo  []byte // the tools as the answer repeats them: JSON, without brackets
}

// add adds a declared tool, or all tools of a declared namespace. namespace is the namespace that
// contains the tool; it is empty at the top level. Tools of types that the client does not run are
// ignored.
func (d *declaration) add(value jsontext.Value, namespace string) error {
	if err := web.CheckTools("tools", len(d.tools)); err != nil {
		return err
	}
	var t tool
	if err := web.Decode("tools", value, &t); err != nil {
		return err
	}
	switch {
	case t.Type == functionType || t.Type == "" && t.Name != "":
		if namespace == "" {
			d.echo = t.appendFunction(web.Comma(d.echo))
		}
		return d.model(&t, namespace, t.Description, t.Parameters)
	case t.Type == customType:
		if namespace == "" {
			d.echo = append(web.Comma(d.echo), value...)
		}
		text := t.Description
		if t.Format.Type == "grammar" { // the grammar is not enforced
			d.r.Ignore("tools.format")
			text = strings.TrimSpace(text + "\n\nThe input follows this grammar (" + t.Format.Syntax + "):\n" + t.Format.Definition)
		}
		return d.model(&t, namespace, text, jsontext.Value(customSchema))
	case t.Type == namespaceType && namespace == "":
		if t.Name == "" {
			return web.Invalid("tools", "tools: a namespace has no name")
		}
		d.echo = append(web.Comma(d.echo), value...)
		for _, inner := range t.Tools {
			if err := d.add(inner, t.Name); err != nil {
				return err
			}
		}
		return nil
	}
	d.r.IgnoreTool(t.Type)
	return nil
}

// model adds a tool to the functions that the model sees.
func (d *declaration) model(t *tool, namespace, description string, parameters jsontext.Value) error {
	if t.Name == "" {
		return web.Invalid("tools", "tools[%d] has no name", len(d.tools))
	}
	known := flat(namespace, t.Name)
	d.tools = append(d.tools, web.Tool{Name: known, Description: description, Parameters: parameters})
	d.r.names[known] = name{name: t.Name, namespace: namespace, custom: t.Type == customType}
	return nil
}

// appendFunction appends a function, with all members that an answer must have.
func (t *tool) appendFunction(dst []byte) []byte {
	dst = append(dst, `{"type":"function","name":`...)
	dst = wire.AppendString(dst, t.Name)
	dst = append(dst, `,"description":`...)
	dst = web.AppendNullable(dst, t.Description)
	dst = append(dst, `,"parameters":`...)
	dst = appendValue(dst, t.Parameters)
	dst = append(dst, `,"strict":`...)
	return append(appendValue(dst, t.Strict), '}')
}

// fullName returns the name that the model sees for a tool. namespace is empty if the request gives
// none. fullName returns an error if namespace is empty and the tool is declared only in a
// namespace.
func (r *Request) fullName(member, namespace, tool string) (string, error) {
	full := flat(namespace, tool)
	if _, declared := r.names[full]; declared || namespace != "" || tool == "" {
		return full, nil
	}
	for _, known := range slices.Sorted(maps.Keys(r.names)) {
		if r.names[known].name == tool {
			return "", web.Invalid(member, "%s names %.64q, which is in a namespace: its full name is %.64q", member, tool, known)
		}
	}
	return full, nil
}

// choose checks and copies tool_choice: a mode, a tool, or the tools that are allowed.
func choose(value jsontext.Value, r *Request) error {
	const member = "tool_choice"
	if value.Kind() == jsontext.KindString {
		var word string
		if err := web.Decode(member, value, &word); err != nil {
			return err
		}
		return web.ChooseMode(member, word, r.Generate)
	}
	type choice struct {
		Type      string `json:"type"`
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
	}
	var m struct {
		choice

		Mode  string   `json:"mode"`
		Tools []choice `json:"tools"`
	}
	if err := web.Decode(member, value, &m); err != nil {
		return err
	}
	switch m.Type {
	case functionType, customType:
		known, err := r.fullName(member, m.Namespace, m.Name)
		if err != nil {
			return err
		}
		return web.ChooseTool(member, known, r.Generate)
	case "allowed_tools":
		if err := web.CheckTools(member, len(m.Tools)); err != nil {
			return err
		}
		var names []string
		for _, t := range m.Tools {
			switch t.Type {
			case functionType, customType:
				known, err := r.fullName(member, t.Namespace, t.Name)
				if err != nil {
					return err
				}
				names = append(names, known)
			case namespaceType:
				for known, n := range r.names {
					if n.namespace == t.Name {
						names = append(names, known)
					}
				}
			default:
				r.IgnoreTool(t.Type)
			}
		}
		if err := web.ChooseFrom(member, names, r.Generate); err != nil {
			return err
		}
		return web.ChooseMode(member, m.Mode, r.Generate)
	}
	return web.Invalid(member, "tool_choice must be auto, none or required, or name a function or a custom tool")
}
