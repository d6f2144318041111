// Package task runs a function in a goroutine with an owner: the owner can end it, wait for it, and
// is notified if it fails. The package does not depend on the purpose of the function.
package task

import "context"

// A Task is a running function. Its owner must call Stop.
type Task struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// Go starts fn. The context of fn carries the values of ctx but outlives it: only Stop ends
// it, so that the owner can first drain the parts that depend on fn. If fn fails before Stop,
// Go calls fail with the error.
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
