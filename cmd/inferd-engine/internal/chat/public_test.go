package chat_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/chat"
	"github.com/inferd-go/inferd/internal/infer"
)

// public returns the folder of public templates and the Python with jinja2; make test-templates sets both.
func public(t *testing.T) (files []string, python string) {
	t.Helper()
	folder, python := os.Getenv("INFERD_TEST_TEMPLATES"), os.Getenv("INFERD_TEST_PYTHON")
	if folder == "" || python == "" {
		t.Skip("make test-templates sets INFERD_TEST_TEMPLATES and INFERD_TEST_PYTHON")
	}
	files, err := filepath.Glob(filepath.Join(folder, "*.jinja"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %d templates, %v", folder, len(files), err)
	}
	return files, python
}

// A reference renders templates with Python's jinja2.
type reference struct {
	in  io.Writer
	out *bufio.Reader
}

func startReference(t *testing.T, python string) *reference {
	t.Helper()
	c := exec.CommandContext(t.Context(), python, "../../../../scripts/render.py")
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = c.Wait()
	})
	return &reference{in, bufio.NewReaderSize(out, 1<<20)}
}

// render returns the text of a template.
func (r *reference) render(t *testing.T, file string, context []byte) (string, error) {
	t.Helper()
	if _, err := fmt.Fprintf(r.in, "{\"template\":%q,\"context\":%s}\n", file, context); err != nil {
		t.Fatal(err)
	}
	line, err := r.out.ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ Text, Error string }
	if err := json.Unmarshal(line, &got); err != nil {
		t.Fatal(err)
	}
	if got.Error != "" {
		return "", fmt.Errorf("%s", got.Error)
	}
	return got.Text, nil
}

// conversations are those that the public templates render as the reference does.
func conversations() map[string]*chat.Conversation {
	yes, no := true, false
	call := func(id, name, input string) *infer.CallPart {
		return &infer.CallPart{ID: id, Name: name, Input: []byte(input)}
	}
	result := func(id, text string) *infer.ResultPart {
		return &infer.ResultPart{ID: id, Content: []infer.Part{&infer.TextPart{Text: text}}}
	}
	system := infer.TextMessage(infer.System, "Be brief.")
	ask := infer.TextMessage(infer.User, "  What is the weather in Zürich & <Köln>? ")
	say := infer.TextMessage(infer.Assistant, "It is \"fine\".\n")
	tools := []infer.Tool{
		{Name: "get_weather", Description: "Weather of a <city> & its \"region\" – now", Schema: []byte(`{"type":"object","properties":{` +
			`"city":{"type":"string","description":"A name, as in \"Zürich\" or <Köln>"},"days":{"type":"integer","minimum":1,"default":3},` +
			`"unit":{"type":"string","enum":["°C","°F"]},"at":{"type":["object","null"],"properties":{"lat":{"type":"number"},"lon":{"type":"number","maximum":180.5}}},` +
			`"tags":{"type":"array","items":{"type":"string"}}},"required":["city","unit"],"additionalProperties":false}`)},
		{Name: "stop", Description: "Stops"},
	}
	one := infer.Message{Role: infer.Assistant, Content: []infer.Part{
		&infer.TextPart{Text: "I look."}, call("tc-1", "get_weather", `{"unit":"°C","city":"Zürich & <Köln>","days":3,"at":{"lat":47.0,"lon":8.55},"tags":["a",null,true]}`),
	}}
	bare := infer.Message{Role: infer.Assistant, Content: []infer.Part{call("tc-1", "get_weather", `{"city":"Köln","unit":"°F"}`)}}
	two := infer.Message{Role: infer.Assistant, Content: []infer.Part{
		call("tc-1", "get_weather", `{"city":"Köln","unit":"°F"}`), call("tc-2", "stop", `{}`),
	}}
	answered := infer.Message{Role: infer.User, Content: []infer.Part{result("tc-1", "{\"sun\": true, \"text\": \"<b>\"}")}}
	failed := infer.Message{Role: infer.User, Content: []infer.Part{
		result("tc-1", "12 °F"), &infer.ResultPart{ID: "tc-2", Failed: true, Content: []infer.Part{&infer.TextPart{Text: "no such thing"}}},
	}}
	thought := infer.Message{Role: infer.Assistant, Content: []infer.Part{&infer.ThinkingPart{Text: "They ask\nfor weather."}, &infer.TextPart{Text: "Fine."}}}
	considered := infer.Message{Role: infer.Assistant, Content: []infer.Part{&infer.ThinkingPart{Text: "I need a tool."}, call("tc-1", "get_weather", `{"city":"Köln","unit":"°F"}`)}}
	return map[string]*chat.Conversation{
		"plain":            {Messages: []infer.Message{system, ask, say, ask}},
		"plain, no system": {Messages: []infer.Message{ask, say, ask}},
		"plain, late":      {Messages: []infer.Message{ask, say, system, ask, ask}},
		"plain, thoughts":  {Messages: []infer.Message{ask, thought, ask}},
		"plain, thinking":  {Messages: []infer.Message{ask}, Think: &yes},
		"plain, no thoughts": {Messages: []infer.Message{ask}, Think: &no},
		"tools":              {Messages: []infer.Message{system, ask}, Tools: tools},
		"tools, one call":    {Messages: []infer.Message{system, ask, one, answered}, Tools: tools},
		"tools, bare call":   {Messages: []infer.Message{ask, bare, answered, say, ask}, Tools: tools},
		"tools, two calls":   {Messages: []infer.Message{ask, two, failed}, Tools: tools},
		"tools, interrupted": {Messages: []infer.Message{ask, bare, answered, ask}, Tools: tools},
		"tools, thoughts":    {Messages: []infer.Message{ask, considered, answered}, Tools: tools, Think: &yes},
	}
}

func TestPublicTemplates(t *testing.T) {
	files, python := public(t)
	ref := startReference(t, python)
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(filepath.Base(file), func(t *testing.T) {
			tmpl, err := chat.New(string(source), nil, "<BOS>", "<EOS>")
			if err != nil {
				t.Fatal(err)
			}
			for name, c := range conversations() {
				var want string
				for _, described := range []bool{false, true} {
					context, tail, err := tmpl.Context(c, described)
					if err != nil {
						t.Fatalf("%s: %v", name, err)
					}
					if want, err = ref.render(t, file, context); err == nil {
						want += tail
						break
					}
					t.Logf("%s: the reference: %v", name, err)
				}
				got, err := text(tmpl.Prompt(c))
				if err != nil {
					t.Errorf("%s: %v", name, err)
					continue
				}
				if got != want {
					n := 0
					for n < len(got) && n < len(want) && got[n] == want[n] {
						n++
					}
					n = max(0, n-40)
					t.Errorf("%s differs:\ngot  %.160q\nwant %.160q", name, got[min(n, len(got)):], want[min(n, len(want)):])
				}
			}
		})
	}
}

// text joins the segments of a prompt.
func text(segments []chat.Segment, err error) (string, error) {
	var b strings.Builder
	for _, s := range segments {
		b.WriteString(s.Text)
	}
	return b.String(), err
}
