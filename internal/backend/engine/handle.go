package engine

import (
	"context"
	"errors"
	"time"

	"github.com/inferd-go/inferd/internal/backend"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/link"
)

// WaitReady returns nil once an engine is ready, or the cause of ctx.
func (s *Supervisor) WaitReady(ctx context.Context) error {
	_, err := s.await(ctx, nil, nil)
	return err
}

// Handle answers req with the engine. While the engine is being replaced, the request waits up to
// LoadTimeout; after that, or if the engine dies during the answer, it fails with
// [infer.Unavailable]. If the watchdog killed the engine, a request that is not suspected as the
// cause and has no event so far is sent to the next engine, once.
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
		case errors.Is(err, link.ErrClosed): // the engine never got it
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

// ready returns a client other than dead, the client of an engine that has stopped, or nil. It
// starts a timer only if it has to wait.
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
