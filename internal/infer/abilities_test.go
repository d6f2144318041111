package infer_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/internal/infer"
)

// A feature that is not among the abilities is refused by name; a feature among them is not
// refused.
func TestAbilitiesCheck(t *testing.T) {
	user := func(parts ...infer.Part) []infer.Message {
		return []infer.Message{infer.TextMessage(infer.System, "a"), {Role: infer.User, Content: parts}}
	}
	seen := func(kind infer.Media) infer.Generate {
		return infer.Generate{
			Messages:    user(&infer.TextPart{Text: "see"}, &infer.MediaPart{Attachment: "cat"}),
			Attachments: []infer.Attachment{{ID: "dog", Kind: infer.Image}, {ID: "cat", Kind: kind}},
		}
	}
	nested := seen(infer.Image)
	nested.Messages = user(&infer.ResultPart{ID: "1", Content: nested.Messages[1].Content})
	lost := seen(infer.Image)
	lost.Attachments = nil
	text := infer.Abilities{Generate: true}
	for name, test := range map[string]struct {
		task infer.Generate
		can  infer.Abilities // with these abilities, Check returns the error
		code infer.Code
		want string
	}{
		"an attachment":        {seen(infer.Image), text, infer.Unsupported, `this model takes no attachments: "cat" cannot be used`},
		"audio to a viewer":    {seen(infer.Audio), infer.Abilities{Vision: true}, infer.Unsupported, `this model takes no audio: "cat" cannot be used`},
		"an image to an ear":   {seen(infer.Image), infer.Abilities{Audio: true}, infer.Unsupported, `this model takes no image: "cat" cannot be used`},
		"video":                {seen(infer.Video), infer.Abilities{Vision: true, Audio: true}, infer.Unsupported, `this model takes no video: "cat" cannot be used`},
		"an image in a result": {nested, infer.Abilities{Tools: true}, infer.Unsupported, `this model takes no attachments: "cat" cannot be used`},
		"tools":                {infer.Generate{Tools: []infer.Tool{{Name: "f"}}}, text, infer.Invalid, "invalid request: tools is not supported by this model"},
		"a tool_choice":        {infer.Generate{Choice: infer.ToolChoice{Mode: infer.ToolNone}}, text, infer.Invalid, "invalid request: tool_choice is not supported by this model"},
		"a schema":             {infer.Generate{Format: infer.Format{Schema: []byte("{}")}}, text, infer.Invalid, "invalid request: response_format json_schema is not supported by this model"},
		"an object":            {infer.Generate{Format: infer.Format{JSONObject: true}}, text, infer.Invalid, "invalid request: response_format json_object is not supported by this model"},
		"a grammar":            {infer.Generate{Format: infer.Format{Grammar: "root ::= \"a\""}}, text, infer.Invalid, "invalid request: response_format grammar is not supported by this model"},
		"thinking":             {infer.Generate{Thinking: infer.ThinkOn}, text, infer.Invalid, "invalid request: thinking is not supported by this model"},
		"a thinking budget":    {infer.Generate{ThinkingBudget: 5}, text, infer.Invalid, "invalid request: thinking_budget is not supported by this model"},
		"a prompt":             {infer.Generate{Prompt: new("a")}, text, infer.Invalid, "invalid request: prompt is not supported by this model"},
		"a gap":                {infer.Generate{Prompt: new("a"), Suffix: new("b")}, infer.Abilities{Generate: true, Prompt: true}, infer.Invalid, "invalid request: suffix is not supported by this model"},
		"a prompt of tokens":   {infer.Generate{Tokens: []int32{}}, text, infer.Invalid, "invalid request: prompt is not supported by this model"},
		"files around a gap":   {infer.Generate{Prompt: new("a"), Files: []infer.File{{}}}, infer.Abilities{Generate: true, Prompt: true}, infer.Invalid, "invalid request: files is not supported by this model"},
		"logprobs":             {infer.Generate{Logprobs: 1}, text, infer.Invalid, "invalid request: logprobs is not supported by this model"},
		"a call in the past":   {infer.Generate{Messages: user(&infer.CallPart{ID: "1", Name: "f"})}, text, infer.Invalid, "invalid request: messages[1]: tool calls are not supported by this model"},
		"a result of a call":   {infer.Generate{Messages: user(&infer.ResultPart{ID: "1"})}, text, infer.Invalid, "invalid request: messages[1]: tool calls are not supported by this model"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := test.can.Check(&test.task); infer.CodeOf(err) != test.code || err == nil || err.Error() != test.want {
				t.Errorf("got %v (%s), want %q (%s)", err, infer.CodeOf(err), test.want, test.code)
			}
			member, _, _ := strings.Cut(strings.TrimPrefix(test.want, "invalid request: "), " ")
			if strings.HasPrefix(member, "messages") || test.code == infer.Unsupported {
				member = "messages"
			}
			if feature, ok := errors.AsType[*infer.FeatureError](test.can.Check(&test.task)); !ok || feature.Member != member {
				t.Errorf("it is about %+v, want %s", feature, member)
			}
			if err := infer.AllAbilities().Check(&test.task); err != nil {
				t.Errorf("with all abilities: %v", err)
			}
			need := infer.Needs(&test.task)
			if test.can.Cover(need) || !infer.AllAbilities().Cover(need) {
				t.Errorf("it needs %+v", need)
			}
			if err := need.Check(&test.task); err != nil {
				t.Errorf("with the abilities that it needs: %v", err)
			}
		})
	}
	if err := infer.AllAbilities().Check(&lost); infer.CodeOf(err) != infer.Invalid || !strings.Contains(err.Error(), `no attachment "cat"`) {
		t.Errorf("an attachment that is not there: %v", err)
	}
	count := &infer.Count{Of: &infer.Generate{Tools: []infer.Tool{{Name: "f"}}}}
	for want, can := range map[string]infer.Abilities{
		"invalid request: count_only is not supported by this model": {Generate: true, Tools: true},
		"invalid request: tools is not supported by this model":      {Generate: true, Count: true},
	} {
		if err := can.Check(count); infer.CodeOf(err) != infer.Invalid || err.Error() != want {
			t.Errorf("a count: %v, want %s", err, want)
		}
	}
	if need := infer.Needs(count); !need.Count || !need.Tools || !need.Generate {
		t.Errorf("a count needs %+v", need)
	}
	for _, plain := range []infer.Task{&infer.Generate{Messages: user(&infer.TextPart{}, &infer.ThinkingPart{}), OneCall: true}, &infer.Embed{}, &infer.Rerank{}} {
		if err := (infer.Abilities{}).Check(plain); err != nil {
			t.Errorf("%T: %v", plain, err)
		}
	}
}

func TestAbilitiesDo(t *testing.T) {
	for task, can := range map[infer.Task]infer.Abilities{
		&infer.Generate{}: {Generate: true}, &infer.Embed{}: {Embed: true}, &infer.Rerank{}: {Rerank: true},
	} {
		if infer.Needs(task) != can || !can.Cover(can) || (infer.Abilities{}).Cover(can) {
			t.Errorf("%T needs %+v", task, infer.Needs(task))
		}
		if !can.Do(task) || !infer.AllAbilities().Do(task) || (infer.Abilities{}).Do(task) {
			t.Errorf("%T", task)
		}
	}
}

func TestAllAbilitiesAreAll(t *testing.T) {
	all := reflect.ValueOf(infer.AllAbilities())
	for i := range all.NumField() {
		if all.Field(i).Kind() != reflect.Bool { // not an ability that a request may need
			continue
		}
		if all.Field(i).IsZero() {
			t.Errorf("%s is missing", all.Type().Field(i).Name)
		}
		less := infer.AllAbilities()
		reflect.ValueOf(&less).Elem().Field(i).SetBool(false)
		if less.Cover(infer.AllAbilities()) || !infer.AllAbilities().Cover(less) {
			t.Errorf("Cover does not compare %s", all.Type().Field(i).Name)
		}
	}
}
