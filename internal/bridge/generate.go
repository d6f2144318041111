package bridge

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// ignoredHeader is the header that lists the members of a request that have no effect.
const ignoredHeader = "Inferd-Ignored"

// read reads the body of a request, and waits until the bridge is open. It reports false if the
// request was answered with an error.
func (c *call) read() ([]byte, bool) {
	body, ok := c.readBody()
	if !ok {
		return nil, false
	}
	return body, c.ready()
}

// decode reads the body of a request, and decodes it with read. ok is false if the request was
// answered with an error.
func decode[T any](c *call, read func(body []byte) (T, error)) (value T, ok bool) {
	body, ok := c.read()
	if !ok {
		return value, false
	}
	value, err := read(body)
	if err != nil {
		c.refuse(err)
		return value, false
	}
	return value, true
}

// resolve calls [Bridge.resolve]. ok is false if the request was answered with an error.
func (c *call) resolve(name string, task infer.Task) (entry Entry, routed string, ok bool) {
	entry, routed, err := c.bridge.resolve(name, task)
	if err != nil {
		c.refuse(err)
		return Entry{}, "", false
	}
	return entry, routed, true
}

// ready waits until the bridge is open. If that takes too long, it answers the request with an
// error and reports false.
func (c *call) ready() bool {
	if c.bridge.isOpen() {
		return true
	}
	err := c.whilePresent(c.bridge.await)
	switch {
	case err == nil:
		return true
	case c.r.Context().Err() != nil, errors.Is(err, errLeft):
		abort()
	}
	c.refuse(err)
	return false
}

// prepare finds the model of a request to generate, and adapts the request to it. model is the model
// name to give in the answer. ok is false if the request was answered with an error.
func (c *call) prepare(ask *web.Ask) (model string, ok bool) {
	entry, routed, ok := c.resolve(ask.Model, ask.Generate)
	if !ok {
		return "", false
	}
	ask.Generate.Model = routed
	if entry.Name != "" {
		ask.Offer(entry.Can)
	}
	if entry.Name == "" || entry.Can.Vision { // otherwise the router refuses the request
		if err := c.decodeImages(ask); err != nil {
			c.refuse(err)
			return "", false
		}
	}
	c.ignored(ask.Ignored)
	return nameOf(ask.Model, entry), true
}

// generate answers a request to generate, as a stream or in one piece.
func (c *call) generate(ask *web.Ask, a answer) {
	if ask.Stream {
		c.reply.stream = a
	}
	c.exchange(a, ask.Generate, ask.CacheSalt)
}

// decoding is full while a request decodes its images: only one may do so at a time.
var decoding = make(chan struct{}, 1)

// decodeImages decodes the images of a request. The memory for them counts against the caller's
// quota.
func (c *call) decodeImages(ask *web.Ask) error {
	memory := ask.Images()
	if memory == 0 {
		return nil
	}
	err := c.whilePresent(func(ctx context.Context) error {
		if err := c.hold(ctx, memory); err != nil {
			return err
		}
		select {
		case decoding <- struct{}{}:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	if c.r.Context().Err() != nil || errors.Is(err, errLeft) {
		abort()
	}
	if err != nil {
		return err
	}
	defer func() { <-decoding }()
	return ask.Decode()
}

// nameOf returns the model's name for an answer: as the client spelled it, or else the name of the
// entry.
func nameOf(asked string, entry Entry) string {
	if asked == "" {
		return entry.Name
	}
	return asked
}

func (c *call) ignored(names []string) {
	if len(names) > 0 {
		c.w.Header().Set(ignoredHeader, strings.Join(names, ", "))
	}
}

// exchange runs a task, and answers as a stream if c.reply.stream is set, otherwise with collect.
// If there is a conn, which watches the client itself, the task does not end with the context of
// net/http.
func (c *call) exchange(collect collector, task infer.Task, salt string) {
	localOnly, err := web.LocalOnly(c.r.Header)
	if err != nil {
		c.refuse(err)
		return
	}
	ctx := c.r.Context()
	if c.conn != nil {
		ctx = context.WithoutCancel(ctx)
	}
	c.request = infer.Request{
		ID: c.requestID(), Peer: c.peer, Task: task, CacheSalt: salt, LocalOnly: localOnly, Traceparent: web.Traceparent(c.r.Header),
	}
	r := &c.reply
	r.call, r.collect, r.task, r.latest = c, collect, task, time.Now()
	err = c.bridge.Runner.Run(ctx, c.at.dialect.name, &c.request, r)
	r.stop()
	if err != nil {
		abort()
	}
}
