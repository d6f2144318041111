package engine

import (
	"context"
	"errors"
	"time"

	"github.com/inferd-go/inferd/internal/backend"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/link"
)

// WaitReady waits until an engine is ready. It returns the cause of ctx if that ends first, and
// [infer.Unavailable] if the engine is given up.
func (s *Supervisor) WaitReady(ctx context.Context) error {
	_, err := s.await(ctx, nil, nil)
	return err
}

// Handle answers req with the engine. While the engine is being replaced, the request waits up to
// LoadTimeout. The request fails with [infer.Unavailable] after that, if the engine is given up, or
// if it dies during the answer. If the watchdog killed the engine, Handle sends the request to the
// next engine, once, provided that the request is not suspected as the cause and that no event of
// its answer was emitted.
func (s *Supervisor) Handle(ctx context.Context, req *infer.Request, emit infer.Sink) error {
	var client *link.Client
	for resent := false; ; {
		var err error
		if client, err = s.ready(ctx, client); err != nil {
			return err
		}
		err = client.Handle(ctx, req, emit)
		gone, isGone := errors.AsType[*link.GoneError](err)
		switch {
		case errors.Is(err, link.ErrClosed): // the engine never got the request
			continue
		case isGone && !resent && s.spares(client, gone):
			resent = true
			continue
		case errors.Is(err, link.ErrGone):
			return infer.Errorf(infer.Unavailable, "backend ended stream without terminal frame: the engine of %q stopped", s.Name)
		}
		return err
	}
}

// ready returns the client of a ready engine other than dead, which is the client of a stopped engine
// or nil. It waits up to loadTimeout, and starts a timer only if it has to wait.
func (s *Supervisor) ready(ctx context.Context, dead *link.Client) (*link.Client, error) {
	s.mu.Lock()
	client := s.client
	s.mu.Unlock()
	if client != nil && client != dead {
		return client, nil
	}
	timer := time.NewTimer(s.loadTimeout())
	defer timer.Stop()
	return s.await(ctx, dead, timer.C)
}

// await is like ready, but takes a channel for the timeout; a nil channel means no time limit.
func (s *Supervisor) await(ctx context.Context, dead *link.Client, timeout <-chan time.Time) (*link.Client, error) {
	for {
		s.mu.Lock()
		state, client, reason := s.state, s.client, s.reason
		if s.changed == nil {
			s.changed = make(chan struct{})
		}
		changed := s.changed
		s.mu.Unlock()
		switch {
		case state == backend.Ready && client != dead:
			return client, nil
		case state == backend.Down:
			return nil, infer.Errorf(infer.Unavailable, "backend %q was given up: %s", s.Name, reason)
		}
		select {
		case <-changed:
		case <-timeout:
			return nil, infer.Errorf(infer.Unavailable, "backend not ready")
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
