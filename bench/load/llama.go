package load

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

// A completion is a connection to llama-server. It renders the prompt like the template of the
// built-in models, so that both servers get the same tokens.
type completion struct {
	client http.Client
	ctx    context.Context //nolint:containedctx // of the current request
	body   io.ReadCloser
	lines  *bufio.Reader
}

func dialCompletions(t Target) *completion {
	return &completion{client: http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", t.Path)
		},
		DisableCompression: true,
	}}}
}

// chatML renders the conversation for the built-in models.
func chatML(turns []string) string {
	var b strings.Builder
	for i, turn := range turns {
		b.WriteString("<|im_start|>" + [...]string{"user", "assistant"}[i%2] + "\n" + turn + "<|im_end|>\n")
	}
	b.WriteString("<|im_start|>assistant\n")
	return b.String()
}

func (c *completion) ask(ctx context.Context, r *Request) error {
	c.ctx = ctx
	text, err := json.Marshal(map[string]any{
		"prompt": chatML(r.Turns), "n_predict": r.MaxTokens, "temperature": r.Temperature, "stream": true, "grammar": r.Grammar,
	})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://llama/completion", bytes.NewReader(text))
	if err != nil {
		return err
	}
	// The server closes a connection after a number of requests. A request that meets such a
	// close is sent again on another connection; http.Transport does that only if this header is
	// present, and does not send it.
	req.Header["X-Idempotency-Key"] = nil
	resp, err := c.client.Do(req) //nolint:bodyclose // closed by done
	if err != nil {
		return err
	}
	c.body, c.lines = resp.Body, bufio.NewReader(resp.Body)
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return fmt.Errorf("llama-server: %s: %s", resp.Status, text)
	}
	return nil
}

func (c *completion) next() (event, error) {
	for {
		line, err := c.lines.ReadBytes('\n')
		if err != nil {
			return event{}, fmt.Errorf("in the middle of an answer: %w", err)
		}
		if text, is := bytes.CutPrefix(line, []byte("error: ")); is {
			return event{}, fmt.Errorf("llama-server: %s", bytes.TrimSpace(text))
		}
		data, is := bytes.CutPrefix(line, []byte("data: "))
		if !is {
			continue
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
			return event{}, fmt.Errorf("an event that is none: %w", err)
		}
		if f.Error != nil {
			return event{}, fmt.Errorf("llama-server: %s", f.Error)
		}
		ev := event{text: f.Content, last: f.Stop}
		if f.Stop {
			ev.in, ev.out, ev.cached = f.Evaluated, f.Predicted, f.Timings.Cached
			// The end of the stream must be read so that the connection can be reused.
			if _, err := io.Copy(io.Discard, c.lines); err != nil {
				return event{}, fmt.Errorf("behind the last event: %w", err)
			}
		}
		return ev, nil
	}
}

func (c *completion) done() bool {
	if c.body != nil {
		_ = c.body.Close()
		c.body = nil
	}
	return c.ctx.Err() == nil
}

func (c *completion) rest() error { return c.Close() }

// Close hangs up: closing the body of an unfinished answer closes its connection.
func (c *completion) Close() error {
	var err error
	if c.body != nil {
		err = c.body.Close()
	}
	c.client.CloseIdleConnections()
	return errors.Join(err)
}
