package sdk

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/anthropics/anthropic-sdk-go/v2"
	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/responses"
)

// withText returns the schema of an object with one string.
func withText(name string) map[string]any {
	return map[string]any{
		"type": "object", "properties": map[string]any{name: map[string]any{"type": "string"}}, "required": []string{name}, "additionalProperties": false,
	}
}

// inOslo reports whether arguments are those of a call by the model "loop".
func inOslo(arguments string) bool {
	var m map[string]string
	return json.Unmarshal([]byte(arguments), &m) == nil && len(m) == 1 && m["place"] == "Oslo"
}

// Tool calls and their results go back and forth: the model "loop" calls the tool until it has a
// result.
func TestToolRoundTrip(t *testing.T) {
	t.Run("chat", func(t *testing.T) {
		c, params := ofOpenAI(t), chat("loop")
		params.Tools = []openai.ChatCompletionToolUnionParam{openai.ChatCompletionFunctionTool(openai.FunctionDefinitionParam{Name: "look", Parameters: withText("place")})}
		answer, err := c.Chat.Completions.New(t.Context(), params)
		if err != nil || answer.Choices[0].FinishReason != "tool_calls" || len(answer.Choices[0].Message.ToolCalls) != 1 {
			t.Fatalf("%+v, %v", answer, err)
		}
		call := answer.Choices[0].Message.ToolCalls[0]
		if call.ID == "" || call.Function.Name != "look" || !inOslo(call.Function.Arguments) {
			t.Errorf("%+v", call)
		}
		params.Messages = append(params.Messages, answer.Choices[0].Message.ToParam(), openai.ToolMessage("a cat", call.ID))
		answer, err = c.Chat.Completions.New(t.Context(), params)
		if err != nil || answer.Choices[0].Message.Content != "a cat" || answer.Choices[0].FinishReason != "stop" {
			t.Errorf("%+v, %v", answer, err)
		}
	})
	t.Run("responses", func(t *testing.T) {
		c, params := ofOpenAI(t), response("loop")
		params.Tools = []responses.ToolUnionParam{responses.ToolParamOfFunction("look", withText("place"), true)}
		answer, err := c.Responses.New(t.Context(), params)
		if err != nil || len(answer.Output) != 1 || answer.Output[0].Type != "function_call" {
			t.Fatalf("%+v, %v", answer, err)
		}
		call := answer.Output[0].AsFunctionCall()
		if call.CallID == "" || call.Name != "look" || !inOslo(call.Arguments) {
			t.Errorf("%+v", call)
		}
		result := responses.ResponseInputItemParamOfFunctionCallOutput("a cat")
		result.OfFunctionCallOutput.CallID = openai.String(call.CallID)
		params.Input = responses.ResponseNewParamsInputUnion{OfInputItemList: responses.ResponseInputParam{
			responses.ResponseInputItemParamOfMessage("hi", responses.EasyInputMessageRoleUser),
			responses.ResponseInputItemParamOfFunctionCall(call.Arguments, call.CallID, call.Name), result,
		}}
		answer, err = c.Responses.New(t.Context(), params)
		if err != nil || answer.OutputText() != "a cat" || answer.Status != "completed" {
			t.Errorf("%+v, %v", answer, err)
		}
	})
	t.Run("messages", func(t *testing.T) {
		c, params := ofAnthropic(t), message("loop")
		params.Tools = []anthropic.ToolUnionParam{anthropic.ToolUnionParamOfTool(anthropic.ToolInputSchemaParam{Properties: withText("place")["properties"]}, "look")}
		answer, err := c.Messages.New(t.Context(), params)
		if err != nil || len(answer.Content) != 1 || answer.Content[0].Type != "tool_use" || answer.StopReason != "tool_use" {
			t.Fatalf("%+v, %v", answer, err)
		}
		call := answer.Content[0].AsToolUse()
		if call.ID == "" || call.Name != "look" || !inOslo(string(call.Input)) {
			t.Errorf("%+v", call)
		}
		params.Messages = append(params.Messages, answer.ToParam(), anthropic.NewUserMessage(anthropic.NewToolResultBlock(call.ID, "a cat", false)))
		answer, err = c.Messages.New(t.Context(), params)
		if err != nil || len(answer.Content) != 1 || answer.Content[0].Text != "a cat" || answer.StopReason != "end_turn" {
			t.Errorf("%+v, %v", answer, err)
		}
	})
}

// The answer to a request with a schema satisfies the schema.
func TestStructuredOutput(t *testing.T) {
	const want = `{"city":"Oslo"}`
	city := withText("city")
	of := ofOpenAI(t)
	params := chat("json")
	params.ResponseFormat.OfJSONSchema = &openai.ResponseFormatJSONSchemaParam{
		JSONSchema: openai.ResponseFormatJSONSchemaJSONSchemaParam{Name: "place", Strict: openai.Bool(true), Schema: city},
	}
	if answer, err := of.Chat.Completions.New(t.Context(), params); err != nil || answer.Choices[0].Message.Content != want {
		t.Errorf("chat: %+v, %v", answer, err)
	}
	asked := response("json")
	asked.Text.Format = responses.ResponseFormatTextConfigParamOfJSONSchema("place", city)
	if answer, err := of.Responses.New(t.Context(), asked); err != nil || answer.OutputText() != want {
		t.Errorf("responses: %+v, %v", answer, err)
	}
	m := message("json")
	m.OutputConfig.Format.Schema = city
	messages := ofAnthropic(t)
	if answer, err := messages.Messages.New(t.Context(), m); err != nil || len(answer.Content) != 1 || answer.Content[0].Text != want {
		t.Errorf("messages: %+v, %v", answer, err)
	}
}

// Both encodings of a vector have the same numbers. The SDK decodes only one of them.
func TestEmbeddingsInBothEncodings(t *testing.T) {
	c := ofOpenAI(t)
	params := openai.EmbeddingNewParams{
		Model: "vec", Input: openai.EmbeddingNewParamsInputUnion{OfArrayOfStrings: []string{"a", "bcd"}}, EncodingFormat: openai.EmbeddingNewParamsEncodingFormatFloat,
	}
	floats, err := c.Embeddings.New(t.Context(), params)
	if err != nil || len(floats.Data) != 2 {
		t.Fatalf("%+v, %v", floats, err)
	}
	params.EncodingFormat = openai.EmbeddingNewParamsEncodingFormatBase64
	coded, err := c.Embeddings.New(t.Context(), params)
	if err != nil || len(coded.Data) != 2 {
		t.Fatalf("%+v, %v", coded, err)
	}
	for i, one := range coded.Data {
		var text string
		if err := json.Unmarshal([]byte(one.JSON.Embedding.Raw()), &text); err != nil {
			t.Fatalf("%v: %s", err, one.RawJSON())
		}
		raw, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(raw)%4 != 0 {
			t.Fatalf("%v: %q", err, text)
		}
		var got []float64
		for number := range slices.Chunk(raw, 4) {
			got = append(got, float64(math.Float32frombits(binary.LittleEndian.Uint32(number))))
		}
		if want := floats.Data[i].Embedding; len(want) != 2 || !slices.Equal(got, want) {
			t.Errorf("%v as base64, %v as numbers", got, want)
		}
	}
}

// An aborted request frees its slot. The model "slow" has one, and its answer takes minutes; a second
// request has text long before that.
func TestAbortFreesTheSlot(t *testing.T) {
	of, messages := ofOpenAI(t), ofAnthropic(t)
	long := message("slow")
	long.MaxTokens = 1000
	// whole requests an answer in one piece; text reads a stream until it has text.
	for name, test := range map[string]struct {
		whole func(ctx context.Context) error
		text  func(ctx context.Context) error
	}{
		"chat": {
			func(ctx context.Context) error { _, err := of.Chat.Completions.New(ctx, chat("slow")); return err },
			func(ctx context.Context) error {
				stream := of.Chat.Completions.NewStreaming(ctx, chat("slow"))
				defer stream.Close()
				for stream.Next() {
					if stream.Current().Choices[0].Delta.Content != "" {
						return nil
					}
				}
				return stream.Err()
			},
		},
		"responses": {
			func(ctx context.Context) error { _, err := of.Responses.New(ctx, response("slow")); return err },
			func(ctx context.Context) error {
				stream := of.Responses.NewStreaming(ctx, response("slow"))
				defer stream.Close()
				for stream.Next() {
					if stream.Current().Type == "response.output_text.delta" {
						return nil
					}
				}
				return stream.Err()
			},
		},
		"messages": {
			func(ctx context.Context) error { _, err := messages.Messages.New(ctx, long); return err },
			func(ctx context.Context) error {
				stream := messages.Messages.NewStreaming(ctx, long)
				defer stream.Close()
				for stream.Next() {
					if stream.Current().Type == "content_block_delta" {
						return nil
					}
				}
				return stream.Err()
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			short, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			if err := test.whole(short); err == nil || short.Err() == nil {
				t.Fatalf("an answer in one piece: %v", err)
			}
			patient, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			for range 2 { // the first stream is left, too
				if err := test.text(patient); err != nil || patient.Err() != nil {
					t.Fatalf("behind a request that was left: %v, %v", err, patient.Err())
				}
			}
		})
	}
}
