// Package task runs a function in a goroutine that has an owner. It knows nothing
// of what the function does; it only makes sure that whoever started it can end it
// and wait for it, and learns when it fails by itself.
package task

import "context"

// A Task is a running function. Its owner must call Stop.
type Task struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// Go starts fn. The context of fn carries the values of ctx but outlives it:
// only Stop ends it, so that an owner can drain what stands on fn first.
// If fn fails before that, fail is called with its error.
func Go(ctx context.Context, fail context.CancelCauseFunc, fn func(context.Context) error) *Task {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	t := &Task{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(t.done)
		if err := fn(ctx); err != nil && ctx.Err() == nil {
			fail(err)
		}
	}()
	return t
}

// Stop ends the task and waits for it. It may be called more than once.
func (t *Task) Stop() {
	t.cancel()
	<-t.done
}
