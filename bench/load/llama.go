package load

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
)

// A completion is a connection to llama-server. It renders the prompt with the template of the
// built-in models, so that both servers get the same tokens.
type completion struct{ events }

func dialCompletions(t Target) *completion { return &completion{overHTTP(t)} }

// chatML renders a conversation for the built-in models.
func chatML(turns []string) string {
	var b strings.Builder
	for i, turn := range turns {
		b.WriteString("<|im_start|>" + [...]string{"user", "assistant"}[i%2] + "\n" + turn + "<|im_end|>\n")
	}
	b.WriteString("<|im_start|>assistant\n")
	return b.String()
}

func (c *completion) ask(ctx context.Context, r *Request) error {
	text, err := json.Marshal(map[string]any{
		"prompt": chatML(r.Turns), "n_predict": r.MaxTokens, "temperature": r.Temperature, "stream": true, "grammar": r.Grammar,
	})
	if err != nil {
		return err
	}
	return c.post(ctx, "/completion", text)
}

func (c *completion) next() (event, error) {
	data, err := c.data()
	if err != nil {
		return event{}, err
	}
	var f struct {
		Content   string
		Stop      bool
		Predicted int             `json:"tokens_predicted"`
		Evaluated int             `json:"tokens_evaluated"`
		Error     json.RawMessage `json:"error"`
		Timings   struct {
			Cached int `json:"cache_n"`
		}
	}
	if err := json.Unmarshal(data, &f); err != nil {
		return event{}, fmt.Errorf("an event that is not JSON: %w", err)
	}
	if f.Error != nil {
		return event{}, fmt.Errorf("llama-server: %s", f.Error)
	}
	ev := event{text: f.Content, last: f.Stop}
	if f.Stop {
		ev.in, ev.out, ev.cached = f.Evaluated, f.Predicted, f.Timings.Cached
		err = c.end()
	}
	return ev, err
}
