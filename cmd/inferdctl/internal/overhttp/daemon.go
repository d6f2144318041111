package overhttp

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/inferd-go/inferd/client"
	"github.com/inferd-go/inferd/client/stats"
)

// Stats returns the load of the daemon. A user other than the daemon's gets only the totals and
// their own callers.
func (c *Client) Stats(ctx context.Context) (*client.Stats, error) {
	var s stats.Daemon
	raw, err := c.fetch(ctx, "/inferd/stats", nil, &s)
	if err != nil {
		return nil, withPage(err)
	}
	return &client.Stats{Daemon: s, Raw: raw}, nil
}

// Watch yields the state of the daemon as [client.Client.Watch] does.
func (c *Client) Watch(ctx context.Context) iter.Seq2[client.Status, error] {
	return func(yield func(client.Status, error) bool) {
		res, err := c.send(ctx, "/inferd/events", nil)
		if err != nil {
			yield(client.Status{}, withPage(err))
			return
		}
		defer res.Body.Close()
		for text, err := range events(ctx, res.Body) {
			var s client.Status
			if err == nil {
				s, err = client.ParseStatus(text)
			}
			if !yield(s, err) || err != nil {
				return
			}
		}
		yield(client.Status{}, client.ErrGone)
	}
}

// withPage adds a hint to a refusal: the daemon serves its state over HTTP only with http.page.
func withPage(err error) error {
	if refused, ok := errors.AsType[*client.Error](err); ok && refused.Code == client.InvalidRequest {
		return fmt.Errorf("%w (the state of the daemon needs http.page in its config)", err)
	}
	return err
}
