package load

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
)

// events is an HTTP connection that sends requests and reads streams of events.
type events struct {
	client http.Client
	ctx    context.Context //nolint:containedctx // of the current request
	body   io.ReadCloser
	lines  *bufio.Reader
}

func overHTTP(t Target) events {
	return events{client: http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			network := "tcp"
			if filepath.IsAbs(t.Path) {
				network = "unix"
			}
			return new(net.Dialer).DialContext(ctx, network, t.Path)
		},
		DisableCompression: true,
	}}}
}

// errFull means that the queue of the server is full.
var errFull = errors.New("the server: 429")

// post sends a request. It returns errFull for the status 429.
func (c *events) post(ctx context.Context, path string, body []byte) error {
	c.ctx = ctx
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://localhost"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	// A server may close a connection after a number of requests. If a request meets such a close,
	// it is sent again on another connection. http.Transport does that only if this header is set;
	// it does not send a header without values.
	req.Header["X-Idempotency-Key"] = nil
	resp, err := c.client.Do(req) //nolint:bodyclose // closed by done
	if err != nil {
		return err
	}
	c.body, c.lines = resp.Body, bufio.NewReader(resp.Body)
	if resp.StatusCode == http.StatusTooManyRequests {
		return errFull
	}
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return fmt.Errorf("the server: %s: %s", resp.Status, text)
	}
	return nil
}

// data returns the data of the next event.
func (c *events) data() ([]byte, error) {
	for {
		line, err := c.lines.ReadBytes('\n')
		if err != nil {
			return nil, fmt.Errorf("in the middle of an answer: %w", err)
		}
		if text, is := bytes.CutPrefix(line, []byte("error: ")); is {
			return nil, fmt.Errorf("the server: %s", bytes.TrimSpace(text))
		}
		if data, is := bytes.CutPrefix(line, []byte("data: ")); is {
			return bytes.TrimSpace(data), nil
		}
	}
}

// end reads the end of a stream, so that the connection can be used again.
func (c *events) end() error {
	if _, err := io.Copy(io.Discard, c.lines); err != nil {
		return fmt.Errorf("behind the last event: %w", err)
	}
	return nil
}

func (c *events) done() bool {
	if c.body != nil {
		_ = c.body.Close()
		c.body = nil
	}
	return c.ctx.Err() == nil
}

func (c *events) rest() error { return c.Close() }

// Close hangs up. Closing the body of an unfinished answer closes the connection.
func (c *events) Close() error {
	var err error
	if c.body != nil {
		err = c.body.Close()
	}
	c.client.CloseIdleConnections()
	return errors.Join(err)
}
