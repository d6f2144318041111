package sdk

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/anthropics/anthropic-sdk-go/v2"
	claude "github.com/anthropics/anthropic-sdk-go/v2/option"
	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/responses"
)

// address returns the URL of the daemon.
func address(t *testing.T) string {
	t.Helper()
	url := os.Getenv("INFERD_TEST_URL")
	if url == "" {
		t.Skip("run by TestStockGoClients in the folder above")
	}
	return url
}

func ofOpenAI(t *testing.T) openai.Client {
	t.Helper()
	return openai.NewClient(option.WithBaseURL(address(t)+"/v1"), option.WithAPIKey("unused"), option.WithMaxRetries(0))
}

func ofAnthropic(t *testing.T) anthropic.Client {
	t.Helper()
	return anthropic.NewClient(claude.WithBaseURL(address(t)), claude.WithAPIKey("unused"), claude.WithMaxRetries(0))
}

func chat(model string) openai.ChatCompletionNewParams {
	return openai.ChatCompletionNewParams{Model: model, Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("hi")}}
}

func response(model string) responses.ResponseNewParams {
	return responses.ResponseNewParams{Model: model, Input: responses.ResponseNewParamsInputUnion{OfString: openai.String("hi")}}
}

func message(model string) anthropic.MessageNewParams {
	return anthropic.MessageNewParams{
		Model: anthropic.Model(model), MaxTokens: 9, Messages: []anthropic.MessageParam{anthropic.NewUserMessage(anthropic.NewTextBlock("hi"))},
	}
}

func TestChat(t *testing.T) {
	c := ofOpenAI(t)
	answer, err := c.Chat.Completions.New(t.Context(), chat("gen"))
	if err != nil || answer.Choices[0].Message.Content != "Hello" || answer.Choices[0].FinishReason != "stop" || answer.Usage.TotalTokens != 9 {
		t.Errorf("%+v, %v", answer, err)
	}
	for _, model := range []string{"gen", "slow-start"} { // the second sends comments first
		stream := c.Chat.Completions.NewStreaming(t.Context(), chat(model))
		var all openai.ChatCompletionAccumulator
		for stream.Next() {
			if !all.AddChunk(stream.Current()) {
				t.Errorf("chunk %+v", stream.Current())
			}
		}
		if text := all.Choices[0].Message.Content; stream.Err() != nil || text != "Hello" && text != "a" {
			t.Errorf("%s: %q, %v", model, text, stream.Err())
		}
	}
	stream := c.Chat.Completions.NewStreaming(t.Context(), chat("tool"))
	var all openai.ChatCompletionAccumulator
	for stream.Next() {
		all.AddChunk(stream.Current())
	}
	if calls := all.Choices[0].Message.ToolCalls; stream.Err() != nil || len(calls) != 1 || calls[0].ID != "mock-call-1" || calls[0].Function.Name != "look" {
		t.Errorf("%+v, %v", calls, stream.Err())
	}
}

func TestEmbeddings(t *testing.T) {
	c := ofOpenAI(t)
	answer, err := c.Embeddings.New(t.Context(), openai.EmbeddingNewParams{Model: "vec", Input: openai.EmbeddingNewParamsInputUnion{OfArrayOfStrings: []string{"a"}}})
	if err != nil || len(answer.Data) != 1 || answer.Data[0].Embedding[1] != 1 {
		t.Errorf("%+v, %v", answer, err)
	}
}

func TestResponses(t *testing.T) {
	c := ofOpenAI(t)
	answer, err := c.Responses.New(t.Context(), response("gen"))
	if err != nil || answer.OutputText() != "Hello" || answer.Status != "completed" || answer.Usage.TotalTokens != 9 {
		t.Errorf("%+v, %v", answer, err)
	}
	for model, want := range map[string]string{"gen": "Hello", "slow-start": "a"} {
		stream := c.Responses.NewStreaming(t.Context(), response(model))
		text, last := "", ""
		for n := int64(0); stream.Next(); n++ {
			ev := stream.Current()
			if last = ev.Type; ev.SequenceNumber != n {
				t.Errorf("event %d has the number %d", n, ev.SequenceNumber)
			}
			if last == "response.output_text.delta" {
				text += ev.Delta
			}
		}
		if stream.Err() != nil || text != want || last != "response.completed" {
			t.Errorf("%s: %q, %s, %v", model, text, last, stream.Err())
		}
	}
	called, err := c.Responses.New(t.Context(), response("tool"))
	if err != nil || len(called.Output) != 1 || called.Output[0].Type != "function_call" || called.Output[0].Name != "look" || called.Output[0].CallID != "mock-call-1" {
		t.Errorf("%+v, %v", called, err)
	}
}

func TestErrors(t *testing.T) {
	c := ofOpenAI(t)
	_, err := c.Responses.New(t.Context(), response("gpt-9"))
	if e, ok := errors.AsType[*openai.Error](err); !ok || e.StatusCode != 404 || e.Code != "model_not_found" {
		t.Errorf("%v", err)
	}
	stream := c.Chat.Completions.NewStreaming(t.Context(), chat("drop"))
	for stream.Next() {
	}
	if stream.Err() == nil || !strings.Contains(stream.Err().Error(), "terminal") {
		t.Errorf("a chat that breaks off: %v", stream.Err())
	}
	a := ofAnthropic(t)
	_, err = a.Messages.New(t.Context(), message("claude-9"))
	if e, ok := errors.AsType[*anthropic.Error](err); !ok || e.StatusCode != 404 || !strings.HasPrefix(e.RequestID, "req_") {
		t.Errorf("%v", err)
	}
	_, err = a.Messages.New(t.Context(), message("down"))
	if e, ok := errors.AsType[*anthropic.Error](err); !ok || e.StatusCode != 529 {
		t.Errorf("%v", err)
	}
	broken := a.Messages.NewStreaming(t.Context(), message("drop"))
	for broken.Next() {
	}
	if broken.Err() == nil || !strings.Contains(broken.Err().Error(), "terminal") {
		t.Errorf("a message that breaks off: %v", broken.Err())
	}
}

func TestMessages(t *testing.T) {
	c := ofAnthropic(t)
	answer, err := c.Messages.New(t.Context(), message("gen"))
	if err != nil || len(answer.Content) != 1 || answer.Content[0].Text != "Hello" || answer.StopReason != "end_turn" || answer.Usage.InputTokens != 7 {
		t.Errorf("%+v, %v", answer, err)
	}
	for model, want := range map[string]string{"gen": "text Hello", "slow-start": "text a", "tool": "tool_use look", "thinks": "thinking hm, so"} {
		params := message(model)
		if model == "thinks" {
			params.Thinking = anthropic.ThinkingConfigParamOfEnabled(1024)
		}
		stream := c.Messages.NewStreaming(t.Context(), params)
		var whole anthropic.Message
		for stream.Next() {
			if err := whole.Accumulate(stream.Current()); err != nil {
				t.Error(err)
			}
		}
		if stream.Err() != nil || len(whole.Content) == 0 {
			t.Errorf("%s: %+v, %v", model, whole, stream.Err())
			continue
		}
		if b := whole.Content[0]; b.Type+" "+b.Text+b.Name+b.Thinking != want || b.Type == "thinking" && (b.Signature == "" || whole.Content[1].Text != "Hello") {
			t.Errorf("%s: %+v", model, whole)
		}
	}
	count, err := c.Messages.CountTokens(t.Context(), anthropic.MessageCountTokensParams{Model: "gen", Messages: message("gen").Messages})
	if err != nil || count.InputTokens != 7 {
		t.Errorf("%+v, %v", count, err)
	}
	page, err := c.Models.List(t.Context(), anthropic.ModelListParams{})
	if err != nil || len(page.Data) == 0 || page.Data[0].DisplayName == "" {
		t.Errorf("%+v, %v", page, err)
	}
}
