package load

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync"
)

// An order is a command to the process of a [Caller]: send a shot, or hang up on one.
type order struct {
	Call  int
	Shot  *Shot `json:",omitempty"`
	Leave bool  `json:",omitempty"`
}

// A report is what the process of a [Caller] sends about a shot: its first text or its outcome.
type report struct {
	Call    int
	First   bool     `json:",omitempty"`
	Outcome *Outcome `json:",omitempty"`
}

// Serve reads orders from in, sends their shots, and writes reports to out. It returns when in has
// ended and all shots are over. It is the main function of the process of a [Caller].
func Serve(in io.Reader, out io.Writer) error {
	var (
		asker  Asker
		all    sync.WaitGroup
		mu     sync.Mutex // guards the fields below, and serialises writes to out
		leave  = make(map[int]context.CancelFunc)
		enc    = json.NewEncoder(out)
		failed error
	)
	tell := func(n report) {
		mu.Lock()
		defer mu.Unlock()
		if n.Outcome != nil {
			delete(leave, n.Call)
		}
		failed = errors.Join(failed, enc.Encode(n))
	}
	for dec := json.NewDecoder(bufio.NewReader(in)); ; {
		var o order
		if err := dec.Decode(&o); err != nil {
			all.Wait()
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return errors.Join(err, failed, asker.Close())
		}
		if o.Leave {
			mu.Lock()
			cancel := leave[o.Call]
			mu.Unlock()
			if cancel != nil {
				cancel()
			}
			continue
		}
		ctx, cancel := context.WithCancel(context.Background())
		mu.Lock()
		leave[o.Call] = cancel
		mu.Unlock()
		all.Go(func() {
			defer cancel()
			outcome := asker.Ask(ctx, *o.Shot, func() { tell(report{Call: o.Call, First: true}) })
			tell(report{Call: o.Call, Outcome: &outcome})
		})
	}
}

// A Caller sends shots from another process, which runs [Serve] on its standard input and output.
type Caller struct {
	cmd  *exec.Cmd
	over chan struct{} // closed when the output of the process ends

	mu    sync.Mutex // guards the fields below, and serialises writes to the process's input
	in    io.WriteCloser
	enc   *json.Encoder
	next  int
	calls map[int]*call
	err   error // why the process sends no more reports
}

var _ Doer = (*Caller)(nil)

type call struct {
	first func()
	done  chan Outcome // buffered
}

// Start starts cmd, which must run [Serve]. The standard input and output of cmd must be nil.
func Start(cmd *exec.Cmd) (*Caller, error) {
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a caller: %w", err)
	}
	c := &Caller{cmd: cmd, over: make(chan struct{}), in: in, enc: json.NewEncoder(in), calls: make(map[int]*call)}
	go c.listen(out) // runs until the process ends
	return c, nil
}

func (c *Caller) listen(out io.Reader) {
	defer close(c.over)
	for dec := json.NewDecoder(bufio.NewReader(out)); ; {
		var n report
		if err := dec.Decode(&n); err != nil {
			c.fail(fmt.Errorf("the caller's process: %w", err))
			return
		}
		c.mu.Lock()
		one := c.calls[n.Call]
		if n.Outcome != nil {
			delete(c.calls, n.Call)
		}
		c.mu.Unlock()
		switch {
		case n.Outcome != nil:
			one.done <- *n.Outcome
		case one.first != nil:
			one.first()
		}
	}
}

// fail ends all running shots with err.
func (c *Caller) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
	for _, one := range c.calls {
		one.done <- Outcome{Fault: err.Error()}
	}
	c.calls = nil
}

// Ask sends s from the process, and returns its outcome. It is safe for concurrent use.
func (c *Caller) Ask(ctx context.Context, s Shot, first func()) Outcome {
	one := &call{first: first, done: make(chan Outcome, 1)}
	c.mu.Lock()
	n := c.next
	c.next++
	err := c.err
	if err == nil {
		c.calls[n] = one
		err = c.enc.Encode(order{Call: n, Shot: &s})
	}
	c.mu.Unlock()
	if err != nil {
		return Outcome{Fault: err.Error()}
	}
	select {
	case o := <-one.done:
		return o
	case <-ctx.Done():
	}
	c.mu.Lock()
	_ = c.enc.Encode(order{Call: n, Leave: true}) // if that fails, the process has ended, and listen reports it
	c.mu.Unlock()
	return <-one.done
}

// Close ends the process, and waits for its end. It also returns an error if a server has sent a
// byte after the end of an answer.
func (c *Caller) Close() error {
	c.mu.Lock()
	err := c.in.Close()
	c.mu.Unlock()
	<-c.over
	return errors.Join(err, c.cmd.Wait())
}
