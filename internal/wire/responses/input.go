package responses

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// An item is an item of the input. Its members depend on its type; without a type it is a message.
type item struct {
	Type             string         `json:"type"`
	Role             string         `json:"role"`
	Content          jsontext.Value `json:"content"` // a text or parts
	Summary          []part         `json:"summary"`
	EncryptedContent string         `json:"encrypted_content"`
	CallID           string         `json:"call_id"`
	Name             string         `json:"name"`
	Namespace        string         `json:"namespace"`
	Arguments        string         `json:"arguments"`
	Input            string         `json:"input"`
	Output           jsontext.Value `json:"output"` // a text or parts
}

// A part is a part of the content of an item. Its members depend on its type.
type part struct {
	Type       string  `json:"type"`
	Text       *string `json:"text"`
	Refusal    *string `json:"refusal"`
	ImageURL   *string `json:"image_url"`
	InputAudio *struct {
		Data   string `json:"data"`
		Format string `json:"format"`
	} `json:"input_audio"`
}

// foreign are the types of items that are ignored. Most come from tools that only OpenAI runs; a
// history that began with another server may have such items.
var foreign = []string{
	"file_search_call", "web_search_call", "computer_call", "computer_call_output", "image_generation_call",
	"code_interpreter_call", "local_shell_call", "local_shell_call_output", "shell_call", "shell_call_output",
	"apply_patch_call", "apply_patch_call_output", "mcp_list_tools", "mcp_approval_request", "mcp_approval_response",
	"mcp_call", "tool_search_call", "tool_search_output", "additional_tools", "compaction", "compaction_summary",
	"compaction_trigger", "program", "program_output",
}

// A reader adds the items of an input to a request.
type reader struct {
	r       *Request
	leading []string // texts of system messages at the beginning
	begun   bool     // an item other than a leading system message was read
}

// history reads the instructions and the input.
func (m *request) history(r *Request) error {
	in := reader{r: r}
	if web.Present(m.Instructions) {
		var text string
		if m.Instructions.Kind() != jsontext.KindString {
			return web.Invalid("instructions", "instructions must be a string")
		}
		if err := web.Decode("instructions", m.Instructions, &text); err != nil {
			return err
		}
		in.leading = append(in.leading, text)
	}
	var items []item
	switch {
	case !web.Present(m.Input):
		return web.Invalid("input", "input is missing")
	case m.Input.Kind() == jsontext.KindString:
		items = []item{{Role: "user", Content: m.Input}}
	default:
		if err := wire.Unmarshal(m.Input, &items); err != nil {
			return web.Invalid("input", "input must be a string or an array of items")
		}
	}
	if len(items) == 0 {
		return web.Invalid("input", "input must not be empty")
	}
	for i := range items {
		if err := in.read(&items[i], fmt.Sprintf("input[%d]", i)); err != nil {
			return err
		}
	}
	in.start() // has an effect only if all messages are system messages
	if len(r.Generate.Messages) == 0 {
		return web.Invalid("input", "input has no message")
	}
	return nil
}

// start adds the leading system messages to the request. It must be called before the first other
// item is added; further calls do nothing.
func (in *reader) start() {
	if !in.begun {
		in.begun = true
		web.AddSystem(in.leading, in.r.Generate)
	}
}

// read adds an item. at is its path in the request.
func (in *reader) read(it *item, at string) error {
	switch {
	case it.Type == "" || it.Type == "message":
		return in.message(it, at)
	case it.Type == "item_reference":
		return web.Invalid("input", "%s: item_reference is not supported: responses are not stored, so send the item itself", at)
	case slices.Contains(foreign, it.Type):
		in.r.Ignore("input." + it.Type)
		return nil
	}
	in.start()
	switch it.Type {
	case "reasoning":
		return in.reasoning(it, at)
	case "function_call", "custom_tool_call":
		return in.call(it, at)
	case "function_call_output", "custom_tool_call_output":
		return in.output(it, at)
	}
	return web.Invalid("input", "%s.type %.64q is not supported", at, it.Type)
}

func (in *reader) message(it *item, at string) error {
	gen := in.r.Generate
	parts, err := readContent(it.Content, at, gen)
	if err != nil {
		return err
	}
	if it.Role != "user" {
		if err := textOnly(parts, at); err != nil {
			return err
		}
	}
	switch it.Role {
	case "system", "developer":
		msg := infer.Message{Role: infer.System, Content: parts}
		if !in.begun {
			in.leading = append(in.leading, msg.Text())
			return nil
		}
		gen.Messages = append(gen.Messages, msg)
		return nil
	case "user":
		in.start()
		gen.Messages = append(gen.Messages, infer.Message{Role: infer.User, Content: parts})
		return nil
	case "assistant":
		in.start()
		in.assistant(false, parts...)
		return nil
	}
	return web.Invalid("input", "%s.role must be one of: user, assistant, system, developer", at)
}

// textOnly returns an error if a part is not text.
func textOnly(parts []infer.Part, at string) error {
	for _, p := range parts {
		if _, text := p.(*infer.TextPart); !text {
			return web.Invalid("input", "%s takes text only: media are for messages of the user and outputs", at)
		}
	}
	return nil
}

// assistant adds parts that the model wrote; call is set if the parts are a tool call. The parts
// continue the last message if it is a message of the model, and if call is set or the message has
// no text yet. Otherwise they begin a new message.
func (in *reader) assistant(call bool, parts ...infer.Part) {
	gen := in.r.Generate
	if n := len(gen.Messages) - 1; n >= 0 && gen.Messages[n].Role == infer.Assistant {
		last := &gen.Messages[n]
		if call || !slices.ContainsFunc(last.Content, func(p infer.Part) bool { _, text := p.(*infer.TextPart); return text }) {
			last.Content = append(last.Content, parts...)
			return
		}
	}
	gen.Messages = append(gen.Messages, infer.Message{Role: infer.Assistant, Content: parts})
}

// sealPrefix is the prefix of the sealed form of thinking.
const sealPrefix = "inferd1."

// seal returns the sealed form of thinking, which clients send back without interpreting it. It is not
// encrypted, because the client has seen the text.
func seal(text []byte) string { return sealPrefix + base64.StdEncoding.EncodeToString(text) }

// unseal is the inverse of seal. It returns an empty text if sealed is not a result of seal.
func unseal(sealed string) string {
	text, ours := strings.CutPrefix(sealed, sealPrefix)
	if !ours {
		return ""
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return ""
	}
	return strings.ToValidUTF8(string(raw), "\uFFFD")
}

// reasoning adds earlier thinking of the model, from the first of these that is not empty: its sealed
// form, its text, its summary.
func (in *reader) reasoning(it *item, at string) error {
	thoughts := unseal(it.EncryptedContent)
	if thoughts == "" && web.Present(it.Content) {
		parts, err := readContent(it.Content, at, in.r.Generate)
		if err == nil {
			err = textOnly(parts, at)
		}
		if err != nil {
			return err
		}
		thoughts = infer.Message{Content: parts}.Text()
	}
	if thoughts == "" {
		var all []string
		for _, p := range it.Summary {
			if p.Text != nil {
				all = append(all, *p.Text)
			}
		}
		thoughts = strings.Join(all, "\n\n")
	}
	if thoughts != "" {
		in.assistant(false, &infer.ThinkingPart{Text: thoughts})
	}
	return nil
}

// call adds a call of a tool.
func (in *reader) call(it *item, at string) error {
	switch {
	case it.CallID == "":
		return web.Invalid("input", "%s has no call_id", at)
	case it.Name == "":
		return web.Invalid("input", "%s has no name", at)
	}
	input := customInput(it.Input)
	if it.Type == "function_call" {
		var err error
		if input, err = web.Arguments("input", at, it.Arguments); err != nil {
			return err
		}
	}
	in.assistant(true, &infer.CallPart{ID: it.CallID, Name: flat(it.Namespace, it.Name), Input: input})
	return nil
}

// output adds the result of a tool. Consecutive results form one message.
func (in *reader) output(it *item, at string) error {
	if it.CallID == "" {
		return web.Invalid("input", "%s has no call_id", at)
	}
	gen := in.r.Generate
	parts, err := readContent(it.Output, at, gen)
	if err != nil {
		return err
	}
	result := &infer.ResultPart{ID: it.CallID, Content: parts}
	if n := len(gen.Messages) - 1; n >= 0 {
		if _, follows := gen.Messages[n].Content[0].(*infer.ResultPart); follows {
			gen.Messages[n].Content = append(gen.Messages[n].Content, result)
			return nil
		}
	}
	gen.Messages = append(gen.Messages, infer.Message{Role: infer.User, Content: []infer.Part{result}})
	return nil
}

// readContent returns the parts of the content or the output of an item, at least one. at is the
// path of the item in the request, for errors. Media become attachments of gen.
func readContent(content jsontext.Value, at string, gen *infer.Generate) ([]infer.Part, error) {
	return web.ReadContent("input", at, "%s: it must be a string or an array of parts", content, func(i int, p *part) ([]infer.Part, error) {
		one, err := p.read(fmt.Sprintf("%s.content[%d]", at, i), gen)
		return []infer.Part{one}, err
	})
}

func (p *part) read(at string, gen *infer.Generate) (infer.Part, error) {
	switch p.Type {
	case "input_text", "output_text", "text", "summary_text", "reasoning_text":
		if p.Text != nil {
			return &infer.TextPart{Text: *p.Text}, nil
		}
	case "refusal":
		if p.Refusal != nil {
			return &infer.TextPart{Text: *p.Refusal}, nil
		}
	case "input_image":
		if p.ImageURL == nil {
			return nil, web.Invalid("input", "%s has no image_url: files are not stored", at)
		}
		return attach(at, gen)(web.ImageURL(*p.ImageURL))
	case "input_audio":
		if p.InputAudio != nil {
			return attach(at, gen)(web.WAV(p.InputAudio.Data, p.InputAudio.Format))
		}
	default:
		return nil, web.Invalid("input", "%s.type must be one of: input_text, output_text, input_image, input_audio, refusal", at)
	}
	return nil, web.Invalid("input", "%s has no %s", at, p.Type)
}

func attach(at string, gen *infer.Generate) func(infer.Attachment, error) (infer.Part, error) {
	return func(a infer.Attachment, err error) (infer.Part, error) {
		if err != nil {
			return nil, web.Invalid("input", "%s: %v", at, err)
		}
		return web.Attach("input", at, a, gen)
	}
}
