package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/inferd-go/inferd/client"
	"github.com/inferd-go/inferd/internal/paths"
)

// maxToolsFile bounds a file of tools, in bytes.
const maxToolsFile = 16 << 20

// toolFlags are the values of chat's flags about tools and thinking.
type toolFlags struct {
	file   string // file with the tools; empty if there is none
	choice string
	think  string
}

func (f *toolFlags) add(fs *flag.FlagSet) {
	fs.Func("tools", "`file` with the tools that the model may call: an array, as in v2 or in OpenAI's interface", notEmpty(&f.file))
	fs.Func("tool-choice", "auto, required, none, or the `name` of the tool to call", notEmpty(&f.choice))
	fs.Func("thinking", "on, off, or a limit for the `tokens` of thinking; default: as the model does", notEmpty(&f.think))
}

// notEmpty returns a function that sets a flag. An empty value, such as that of an unset variable of
// a script, is an error.
func notEmpty(value *string) func(string) error {
	return func(s string) error {
		if s == "" {
			return errors.New("it is empty")
		}
		*value = s
		return nil
	}
}

// apply checks the flags, reads the file with the tools, and sets the fields of a request.
func (f *toolFlags) apply(c *command, req *client.Request) error {
	if *f == (toolFlags{}) {
		return nil
	}
	if c.surface() == client.V1 {
		return fmt.Errorf("--tools, --tool-choice and --thinking need the length-prefixed socket %s: --addr names another one", paths.LPLeaf)
	}
	switch f.think {
	case "":
	case "on":
		req.Thinking = client.ThinkOn
	case "off":
		req.Thinking = client.ThinkOff
	default:
		n, err := strconv.ParseUint(f.think, 10, 31)
		if err != nil || n == 0 {
			return fmt.Errorf("--thinking %q is neither on nor off nor a number of tokens", f.think)
		}
		req.Thinking, req.ThinkingBudget = client.ThinkOn, int(n)
	}
	if f.file == "" {
		if f.choice != "" {
			return errors.New("--tool-choice needs --tools")
		}
		return nil
	}
	req.ToolChoice = client.ToolChoice(f.choice)
	var err error
	req.Tools, err = readTools(f.file)
	return err
}

// readTools reads a file with an array of tools, in v2's form or in OpenAI's.
func readTools(path string) ([]client.Tool, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxToolsFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxToolsFile {
		return nil, fmt.Errorf("%s has more than %d bytes", path, maxToolsFile)
	}
	var list []json.RawMessage
	if err := json.Unmarshal(data, &list); err != nil || list == nil {
		if _, malformed := errors.AsType[*json.SyntaxError](err); malformed {
			return nil, fmt.Errorf("%s is no array of tools: %w", path, err)
		}
		return nil, fmt.Errorf("%s is no array of tools: put its tools between [ and ]", path)
	}
	tools := make([]client.Tool, len(list))
	for i, value := range list {
		if tools[i], err = readTool(value); err != nil {
			return nil, fmt.Errorf("%s: tool %d %w", path, i, err)
		}
	}
	return tools, nil
}

// readTool reads a tool. The text of its error continues a sentence that begins with "tool N".
func readTool(value []byte) (client.Tool, error) {
	type function struct {
		Name        string          `json:"name"`
		Description string          `json:"description"`
		Parameters  json.RawMessage `json:"parameters"`
		InputSchema json.RawMessage `json:"input_schema"`
	}
	var t struct {
		function
		Type     string    `json:"type"`
		Function *function `json:"function"`
	}
	if err := json.Unmarshal(value, &t); err != nil {
		wrong, ok := errors.AsType[*json.UnmarshalTypeError](err)
		switch {
		case !ok:
			return client.Tool{}, fmt.Errorf("is not JSON: %w", err)
		case wrong.Field == "":
			return client.Tool{}, errors.New("is not an object")
		}
		return client.Tool{}, fmt.Errorf("has a %s as its %s", wrong.Value, wrong.Field[strings.LastIndexByte(wrong.Field, '.')+1:])
	}
	if t.Type != "" && t.Type != "function" && t.Type != "custom" {
		return client.Tool{}, fmt.Errorf("has the type %.64q, which only a provider's own server runs: declare a function", t.Type)
	}
	f := t.function
	if t.Function != nil {
		f = *t.Function
	}
	if f.Name == "" {
		return client.Tool{}, errors.New("has no name")
	}
	if f.InputSchema == nil {
		f.InputSchema = f.Parameters
	}
	return client.Tool{Name: f.Name, Description: f.Description, InputSchema: f.InputSchema}, nil
}

// call prints a tool call on a line of its own.
func (t *textWriter) call(c *client.ToolCall) error {
	if err := t.end(); err != nil {
		return err
	}
	return t.write(fmt.Sprintf("call %s %s\n", c.Name, c.Input))
}
