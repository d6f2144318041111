// Package load asks inferd and its peers the way programs do, and says when what came.
// A [Shot] is one request that is due at some moment, an [Outcome] is what became of it.
// An [Asker] fires shots from this process, a [Caller] from a process of its own, which
// may be another user's and another program's. What a server is for, and whether it did
// well, the package does not know; it takes nothing for granted either: frames of a
// stranger's answer, or after the last one, are a fault.
//
// No shot waits for another: each has a connection of its own while it runs, and is
// measured from the moment at which it was due. So a server that stalls delays the requests
// that come in the meantime on its own account, and not out of the statistics.
package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// A Dialect is how a server is spoken to.
type Dialect string

// Dialects.
const (
	V1    Dialect = "v1"    // inferd, lines of JSON
	V2    Dialect = "v2"    // inferd, lines of JSON
	LP    Dialect = "lp"    // inferd, length-prefixed v2
	Llama Dialect = "llama" // llama-server, HTTP with events
)

// A Target is a Unix socket and what is spoken there.
type Target struct {
	Dialect Dialect
	Path    string
}

// A Request is what is asked for. Its text is one token a byte for the built-in models.
type Request struct {
	Turns       []string // of user and assistant in turns; at least one, of the user
	MaxTokens   int
	Temperature float64
	Model       string // name of an entry of inferd; empty is the first
	Grammar     string // GBNF
}

// A Shot is a request with all that makes it an experiment.
type Shot struct {
	Target  Target
	Request Request
	Due     Stamp // 0 is now

	LeaveAfter  int           // frames; 0 is never
	LeaveWithin time.Duration // of when it was due; 0 is never

	Trace bool // keep when each frame came
	Keep  bool // keep the text
}

// A Stamp is a moment in nanoseconds since 1970, so that the stamps of several processes
// can be compared; within a process they never go back.
type Stamp int64

// began is what stamps count from.
var began = time.Now()

// Now returns the present moment.
func Now() Stamp { return Stamp(began.UnixNano() + int64(time.Since(began))) }

// After returns the stamp of d later.
func (s Stamp) After(d time.Duration) Stamp { return s + Stamp(d) }

// Sub returns how long after t it was.
func (s Stamp) Sub(t Stamp) time.Duration { return time.Duration(s - t) }

// An Outcome is what became of a shot.
type Outcome struct {
	Due, First, End Stamp   // First is that of the first text, 0 if none came; End that of the last frame, or of leaving
	Arrivals        []Stamp // of frames with text, if the shot said Trace
	Frames          int     // with text
	Text            string  // if the shot said Keep
	In, Out, Cached int     // tokens, as the server counts them
	Code            string  // of a refusal or failure that the server told
	Gone            bool    // we left before the end
	Fault           string  // what no server may do, or what kept us from asking
}

// Err returns an error unless the request was answered to its end.
func (o *Outcome) Err() error {
	switch {
	case o.Fault != "":
		return errors.New(o.Fault)
	case o.Code != "":
		return fmt.Errorf("the server answered %s", o.Code)
	case o.Gone:
		return errors.New("left before the end")
	}
	return nil
}

// TTFT is how long after it was due the first text came.
func (o *Outcome) TTFT() time.Duration { return o.First.Sub(o.Due) }

// A Doer fires shots. It calls first, if not nil, when the first text has come. When ctx
// ends, the request is left by hanging up.
type Doer interface {
	Ask(ctx context.Context, s Shot, first func()) Outcome
}

// An Asker fires shots from this process. The zero value works. It keeps connections that
// have been answered for the shots to come.
type Asker struct {
	mu   sync.Mutex // guards the fields below
	idle map[Target][]session
}

var _ Doer = (*Asker)(nil)

// A session is a connection in a dialect.
type session interface {
	// ask sends a request. If ctx ends before done is called, the connection is closed.
	ask(ctx context.Context, r *Request) error
	// next returns the next frame of the answer.
	next() (event, error)
	// done reports whether ctx has not ended.
	done() bool
	// rest returns an error unless the server has nothing to say any more. It closes.
	rest() error
	io.Closer
}

// An event is a frame of an answer.
type event struct {
	text            string
	last            bool
	in, out, cached int
	code            string
}

// Ask fires s and waits for what becomes of it.
func (a *Asker) Ask(ctx context.Context, s Shot, first func()) Outcome {
	o := Outcome{Due: s.Due}
	if o.Due == 0 {
		o.Due = Now()
	}
	if !sleep(ctx, o.Due.Sub(Now())) {
		o.Gone, o.End = true, Now()
		return o
	}
	if s.LeaveWithin > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.Due.After(s.LeaveWithin).Sub(Now()))
		defer cancel()
	}
	c, err := a.session(ctx, s.Target)
	if err != nil {
		return o.failed(ctx, err)
	}
	over := false
	defer func() {
		if c.done() && over {
			a.keep(s.Target, c)
		} else {
			_ = c.Close()
		}
	}()
	if err := c.ask(ctx, &s.Request); err != nil {
		return o.failed(ctx, err)
	}
	for {
		ev, err := c.next()
		if err != nil {
			return o.failed(ctx, err)
		}
		o.End = Now()
		if ev.text != "" {
			if o.Frames++; o.Frames == 1 {
				o.First = o.End
				if first != nil {
					first()
				}
			}
			if s.Trace {
				o.Arrivals = append(o.Arrivals, o.End)
			}
			if s.Keep {
				o.Text += ev.text
			}
		}
		if ev.last {
			o.In, o.Out, o.Cached, o.Code = ev.in, ev.out, ev.cached, ev.code
			over = true
			return o
		}
		if s.LeaveAfter > 0 && o.Frames >= s.LeaveAfter {
			o.Gone = true
			return o
		}
	}
}

// failed completes an outcome that an error has ended, which is our doing if ctx is over.
func (o *Outcome) failed(ctx context.Context, err error) Outcome {
	o.End = Now()
	if ctx.Err() != nil {
		o.Gone = true
	} else {
		o.Fault = err.Error()
	}
	return *o
}

func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// session returns a connection that nobody uses.
func (a *Asker) session(ctx context.Context, t Target) (session, error) {
	a.mu.Lock()
	if idle := a.idle[t]; len(idle) > 0 {
		c := idle[len(idle)-1]
		a.idle[t] = idle[:len(idle)-1]
		a.mu.Unlock()
		return c, nil
	}
	a.mu.Unlock()
	if t.Dialect == Llama {
		return dialCompletions(t), nil
	}
	return dialInferd(ctx, t)
}

// keep puts a connection by for the next shot.
func (a *Asker) keep(t Target, c session) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.idle == nil {
		a.idle = make(map[Target][]session)
	}
	a.idle[t] = append(a.idle[t], c)
}

// Close closes all connections. Its error is that of a server that said something after
// the end of an answer.
func (a *Asker) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var errs []error
	for _, idle := range a.idle {
		for _, c := range idle {
			errs = append(errs, c.rest())
		}
	}
	a.idle = nil
	return errors.Join(errs...)
}
