package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"
	"strings"

	"github.com/inferd-go/inferd/client"
	"github.com/inferd-go/inferd/cmd/inferdctl/internal/overhttp"
	"github.com/inferd-go/inferd/cmd/inferdctl/internal/setup"
)

// A daemon is a client over the sockets or over HTTP, with the requests that both support.
type daemon interface {
	Generate(context.Context, *client.Request) iter.Seq2[client.Event, error]
	Embed(context.Context, *client.EmbedRequest) (*client.Embeddings, error)
	Rerank(context.Context, *client.RerankRequest) (*client.Ranking, error)
	Stats(context.Context) (*client.Stats, error)
	Watch(context.Context) iter.Seq2[client.Status, error]
}

// A v1Client generates over the v1 socket.
type v1Client struct{ *client.Client }

// Generate sends the request over v1.
func (c v1Client) Generate(ctx context.Context, req *client.Request) iter.Seq2[client.Event, error] {
	return c.GenerateV1(ctx, req)
}

// daemon returns a client of the daemon that the flags name. trace, if not nil, receives the
// daemon's messages.
func (c *command) daemon(w wait, trace func([]byte)) (daemon, error) {
	if c.http == "" {
		cl := c.client(w)
		cl.Trace = trace
		if c.surface() == client.V1 {
			return v1Client{cl}, nil
		}
		return cl, nil
	}
	cl, err := overhttp.New(c.http)
	if err != nil {
		return nil, fmt.Errorf("--http: %w", err)
	}
	cl.Key, cl.Wait, cl.Trace = os.Getenv(setup.KeyVariable), w.limit, trace
	return cl, nil
}

// overHTTP lists the verbs that work over HTTP.
var overHTTP = []string{"chat", "embed", "rerank", "status", "stats", "top"}

// checkHTTP returns an error if --http is given, but the verb does not support it, or the address
// of a socket is given, too.
func (c *command) checkHTTP(verb string) error {
	switch {
	case c.http == "":
		return nil
	case !slices.Contains(overHTTP, verb):
		return fmt.Errorf("%s does not work over HTTP: only %s do", verb, strings.Join(overHTTP, ", "))
	case c.addr != "" || c.adminAddr != "" || c.controlAddr != "":
		return errors.New("--http and an address of a socket exclude each other")
	}
	return nil
}
