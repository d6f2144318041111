package openai

import (
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
)

// toolMembers are the members about tools; functions are their older form.
type toolMembers struct {
	Tools             []toolMember   `json:"tools"`
	ToolChoice        jsontext.Value `json:"tool_choice"`
	ParallelToolCalls *bool          `json:"parallel_tool_calls"`
	Functions         []function     `json:"functions"`
	FunctionCall      jsontext.Value `json:"function_call"`
}

type toolMember struct {
	Type     string   `json:"type"`
	Function function `json:"function"`
}

type function struct {
	Name        string         `json:"name"`
	Description string         `json:"description"`
	Parameters  jsontext.Value `json:"parameters"`
}

// maxTools bounds the tools of a request.
const maxTools = 1024

// apply checks the tools and adds them to gen.
func (m *toolMembers) apply(gen *infer.Generate) error {
	functions, param := m.Functions, "functions"
	for i, t := range m.Tools {
		if t.Type != "function" && t.Type != "" {
			return Invalid("tools", "tools[%d].type %.64q is not supported: only function is", i, t.Type)
		}
		functions, param = append(functions, t.Function), "tools"
	}
	if len(functions) > maxTools {
		return Invalid(param, "%s: at most %d are allowed", param, maxTools)
	}
	taken := make(map[string]bool, len(functions))
	for i, f := range functions {
		switch {
		case f.Name == "":
			return Invalid(param, "%s[%d] has no name", param, i)
		case taken[f.Name]:
			return Invalid(param, "%s: two are called %.64q", param, f.Name)
		case present(f.Parameters) && f.Parameters.Kind() != jsontext.KindBeginObject:
			return Invalid(param, "%s[%d]: parameters must be an object", param, i)
		}
		taken[f.Name] = true
		gen.Tools = append(gen.Tools, infer.Tool{Name: f.Name, Description: f.Description, Schema: schemaOf(f.Parameters)})
	}
	gen.OneCall = !wire.ValueOr(m.ParallelToolCalls, true) || len(m.Functions) > 0 && len(m.Tools) == 0
	choice, param := m.ToolChoice, "tool_choice"
	if !present(choice) {
		choice, param = m.FunctionCall, "function_call"
	}
	return readChoice(choice, param, gen)
}

// readChoice reads tool_choice, or function_call, which is its older form.
func readChoice(choice jsontext.Value, param string, gen *infer.Generate) error {
	if !present(choice) {
		return nil
	}
	var m struct {
		word     string
		Type     string   `json:"type"`
		Name     string   `json:"name"`
		Function function `json:"function"`
		Allowed  struct {
			Mode  string       `json:"mode"`
			Tools []toolMember `json:"tools"`
		} `json:"allowed_tools"`
	}
	if choice.Kind() == jsontext.KindString {
		if err := decode(param, choice, &m.word); err != nil {
			return err
		}
	} else if err := decode(param, choice, &m); err != nil {
		return err
	}
	switch {
	case m.word != "":
		return chooseMode(m.word, param, gen)
	case m.Type == "allowed_tools":
		if len(m.Allowed.Tools) > maxTools {
			return Invalid(param, "%s: at most %d are allowed", param, maxTools)
		}
		allowed := make(map[string]bool, len(m.Allowed.Tools))
		for _, t := range m.Allowed.Tools {
			if err := declared(t.Function.Name, param, gen); err != nil {
				return err
			}
			allowed[t.Function.Name] = true
		}
		gen.Tools = slices.DeleteFunc(gen.Tools, func(t infer.Tool) bool { return !allowed[t.Name] })
		return chooseMode(m.Allowed.Mode, param, gen)
	case m.Type == "function" || m.Type == "" && m.Name != "":
		name := m.Function.Name
		if name == "" {
			name = m.Name
		}
		if err := declared(name, param, gen); err != nil {
			return err
		}
		gen.Choice = infer.ToolChoice{Mode: infer.ToolNamed, Tool: name}
		return nil
	}
	return Invalid(param, "%s must be a word, or name a function", param)
}

// chooseMode applies a word. Without tools none and auto mean the same, and SDKs send them.
func chooseMode(word, param string, gen *infer.Generate) error {
	switch word {
	case "auto":
	case "none":
		if len(gen.Tools) > 0 {
			gen.Choice.Mode = infer.ToolNone
		}
	case "required":
		if len(gen.Tools) == 0 {
			return Invalid(param, "%s required needs tools", param)
		}
		gen.Choice.Mode = infer.ToolRequired
	default:
		return Invalid(param, "%s must be one of: auto, none, required", param)
	}
	return nil
}

func declared(name, param string, gen *infer.Generate) error {
	if !slices.ContainsFunc(gen.Tools, func(t infer.Tool) bool { return t.Name == name }) {
		return Invalid(param, "%s names %.64q, which is not among the tools", param, name)
	}
	return nil
}
