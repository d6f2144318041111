package load

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/inferd-go/inferd/internal/frame"
)

// An inferdConn is a connection to a generation socket of inferd. It reads and writes frames with
// package frame, but implements their content from spec/, without inferd's codecs.
type inferdConn struct {
	dialect Dialect
	nc      *net.UnixConn
	r       frame.Reader
	w       frame.Writer
	id      string // ID of the current request
	stop    func() bool
}

// ids numbers all requests of this process, so that an answer to another request is noticed.
var ids atomic.Int64

func dialInferd(ctx context.Context, t Target) (*inferdConn, error) {
	framing := frame.Lines
	switch t.Dialect {
	case V1, V2:
	case LP:
		framing = frame.Prefixed
	case Llama, Chat:
		fallthrough
	default:
		return nil, fmt.Errorf("no socket of inferd speaks %q", t.Dialect)
	}
	nc, err := new(net.Dialer).DialContext(ctx, "unix", t.Path)
	if err != nil {
		return nil, err
	}
	uc := nc.(*net.UnixConn) //nolint:errcheck // it is, for the network "unix"
	return &inferdConn{dialect: t.Dialect, nc: uc, r: framing.NewReader(nc, frame.Limit), w: framing.NewWriter(nc)}, nil
}

// A question is a request of v1 or v2.
type question struct {
	ID          string          `json:"id"`
	WireVersion int             `json:"wire_version,omitempty"`
	Messages    []message       `json:"messages"`
	MaxTokens   int             `json:"max_tokens"`
	Temperature float64         `json:"temperature"`
	Model       string          `json:"model,omitempty"`
	Grammar     string          `json:"grammar,omitempty"`         // v1
	Format      map[string]any  `json:"response_format,omitempty"` // v2
	Tools       json.RawMessage `json:"tools,omitempty"`           // v2
}

type message struct {
	Role    string `json:"role"`
	Content any    `json:"content"`
}

type textBlock struct {
	Type string `json:"type"`
	Text string `json:"text"`
}

func (c *inferdConn) ask(ctx context.Context, r *Request) error {
	c.id = strconv.FormatInt(ids.Add(1), 36)
	text, err := newQuestion(c.dialect, c.id, r)
	if err != nil {
		return err
	}
	c.stop = context.AfterFunc(ctx, func() { _ = c.nc.Close() })
	return c.w.WriteFrame(text)
}

// newQuestion returns a request as JSON.
func newQuestion(d Dialect, id string, r *Request) ([]byte, error) {
	q := question{ID: id, MaxTokens: r.MaxTokens, Temperature: r.Temperature, Model: r.Model}
	if d == V1 {
		q.Grammar = r.Grammar
	} else if r.Grammar != "" {
		q.Format = map[string]any{"type": "grammar", "grammar": r.Grammar}
	} else if r.Schema != "" {
		q.Format = map[string]any{"type": "json_schema", "schema": json.RawMessage(r.Schema)}
	}
	if d != V1 {
		q.Tools = json.RawMessage(r.Tools)
	}
	if d == LP {
		q.WireVersion = 1
	}
	for i, turn := range r.Turns {
		m := message{Role: [...]string{"user", "assistant"}[i%2], Content: turn}
		if d != V1 {
			m.Content = []textBlock{{"text", turn}}
		}
		q.Messages = append(q.Messages, m)
	}
	return json.Marshal(q)
}

func (c *inferdConn) next() (event, error) {
	_, raw, err := c.r.ReadFrame()
	if err != nil {
		return event{}, fmt.Errorf("in the middle of an answer: %w", err)
	}
	var f struct {
		Type, ID, Content, Code, Message string
		Block                            struct{ Type, Delta string }
		Usage                            struct {
			Prompt     int `json:"prompt_tokens"`
			Completion int `json:"completion_tokens"`
			Input      int `json:"input_tokens"`
			Output     int `json:"output_tokens"`
			Cached     int `json:"cached_tokens"`
		}
	}
	if err := json.Unmarshal(raw, &f); err != nil {
		return event{}, fmt.Errorf("a frame that is not JSON: %w", err)
	}
	// If there are too many connections, the server refuses a client before it reads the request;
	// that error has no ID.
	if f.ID != c.id && (f.Type != "error" || f.ID != "") {
		return event{}, fmt.Errorf("a frame of %q in the answer to %q", f.ID, c.id)
	}
	switch f.Type {
	case "token":
		return event{text: f.Content}, nil
	case "frame":
		return event{text: f.Block.Delta}, nil
	case "done":
		u := f.Usage
		return event{last: true, in: u.Prompt + u.Input, out: u.Completion + u.Output, cached: u.Cached}, nil
	case "error":
		if f.Code == "" {
			return event{}, fmt.Errorf("an error without a code: %q", f.Message)
		}
		return event{last: true, code: f.Code}, nil
	}
	return event{}, fmt.Errorf("a frame of type %q", f.Type)
}

func (c *inferdConn) done() bool { return c.stop() }

// rest closes the connection. It returns an error if there is any byte after the last answer.
func (c *inferdConn) rest() error {
	defer c.nc.Close()
	if err := c.nc.CloseWrite(); err != nil {
		return nil // the server has closed the connection
	}
	if err := c.nc.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	switch _, raw, err := c.r.ReadFrame(); {
	case err == nil:
		return fmt.Errorf("after the end of the answer to %q: %.100q", c.id, raw)
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed):
		return nil
	default:
		return fmt.Errorf("after the end of the answer to %q: %w", c.id, err)
	}
}

func (c *inferdConn) Close() error { return c.nc.Close() }
