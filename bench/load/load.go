// Package load sends requests to inferd and other servers as programs do, and records the times of
// the answers. A [Shot] is one request that is due at a certain time, an [Outcome] is its result.
// An [Asker] sends shots from this process, a [Caller] from another process, which may belong to
// another user and another program. The package does not evaluate the figures, but it checks the
// protocol: a frame that belongs to another request, or comes after the last frame, is a fault.
//
// Shots do not wait for each other: each has a connection of its own while it runs, and is measured
// from the time at which it was due. So if a server hangs for a while, the statistics have the
// delays of all requests that became due meanwhile.
package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// A Dialect is the protocol of a server.
type Dialect string

// The dialects.
const (
	V1    Dialect = "v1"    // inferd, lines of JSON
	V2    Dialect = "v2"    // inferd, lines of JSON
	LP    Dialect = "lp"    // inferd, length-prefixed v2
	Llama Dialect = "llama" // llama-server, HTTP with events
	Chat  Dialect = "chat"  // chat completions of any server, HTTP with events
)

// A Target is the address of a server and its dialect.
type Target struct {
	Dialect Dialect
	Path    string // path of a socket; for Chat it may also be HOST:PORT
}

// A Request is a request to generate. For the built-in models each byte of its text is one token.
type Request struct {
	Turns       []string // turns of the user and the assistant, alternately; the first is the user's
	MaxTokens   int
	Temperature float64
	Model       string // name of an entry of inferd; empty means the first entry
	Grammar     string // GBNF
	Schema      string // JSON Schema, for v2; empty if there is none
	Tools       string // tools in v2's form, not for v1; empty if there are none
}

// A Shot is a request with the time at which it is due, the time of a hang-up, and what to record.
type Shot struct {
	Target  Target
	Request Request
	Due     Stamp // 0 means now

	LeaveAfter  int           // hang up after this number of frames; 0 means never
	LeaveWithin time.Duration // hang up this long after Due; 0 means never

	Trace bool // record the time of each frame
	Keep  bool // record the text
}

// A Stamp is a time in nanoseconds since 1970. Stamps of several processes can be compared; within
// a process they are monotonic.
type Stamp int64

// began has the wall clock and the monotonic clock at the start of the process.
var began = time.Now()

// Now returns the time.
func Now() Stamp { return Stamp(began.UnixNano() + int64(time.Since(began))) }

// After returns t plus d.
func (s Stamp) After(d time.Duration) Stamp { return s + Stamp(d) }

// Sub returns s minus t.
func (s Stamp) Sub(t Stamp) time.Duration { return time.Duration(s - t) }

// An Outcome is the result of a shot.
type Outcome struct {
	Due, First, End Stamp   // First: of the first text, or 0; End: of the last frame or the hang-up
	Arrivals        []Stamp // times of the frames with text; only with Trace
	Frames          int     // number of frames with text
	Text            string  // text of the answer; only with Keep
	In, Out, Cached int     // numbers of tokens, as the server counts them
	Code            string  // error code of the server; empty if there was none
	Gone            bool    // the client hung up before the end
	Fault           string  // violation of the protocol, or error of the client
}

// Err returns an error unless the request was answered completely.
func (o *Outcome) Err() error {
	switch {
	case o.Fault != "":
		return errors.New(o.Fault)
	case o.Code != "":
		return fmt.Errorf("the server answered %s", o.Code)
	case o.Gone:
		return errors.New("the client hung up before the end")
	}
	return nil
}

// TTFT returns the time from Due to the first text.
func (o *Outcome) TTFT() time.Duration { return o.First.Sub(o.Due) }

// A Doer sends shots. If first is not nil, it is called at the first text. If ctx ends, the Doer
// hangs up.
type Doer interface {
	Ask(ctx context.Context, s Shot, first func()) Outcome
}

// An Asker sends shots from this process. The zero value can be used. It uses a connection again
// after an answer.
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
	// done detaches the connection from ctx. It reports false if ctx has ended before.
	done() bool
	// rest closes the connection. It returns an error if a socket of inferd has sent a byte after
	// the end of an answer.
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

// Ask sends s, and returns its outcome.
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

// failed completes the outcome of a shot that ended with an error. If ctx has ended, it counts as a
// hang-up.
func (o *Outcome) failed(ctx context.Context, err error) Outcome {
	o.End = Now()
	if ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) { // dialling may report the deadline before ctx does
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

// session returns an idle connection to t, or a new one.
func (a *Asker) session(ctx context.Context, t Target) (session, error) {
	a.mu.Lock()
	if idle := a.idle[t]; len(idle) > 0 {
		c := idle[len(idle)-1]
		a.idle[t] = idle[:len(idle)-1]
		a.mu.Unlock()
		return c, nil
	}
	a.mu.Unlock()
	switch t.Dialect {
	case Llama:
		return dialCompletions(t), nil
	case Chat:
		return dialChat(t), nil
	case V1, V2, LP:
	}
	return dialInferd(ctx, t)
}

// keep keeps a connection for the next shot.
func (a *Asker) keep(t Target, c session) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.idle == nil {
		a.idle = make(map[Target][]session)
	}
	a.idle[t] = append(a.idle[t], c)
}

// Close closes all connections. It returns an error if a socket of inferd has sent a byte after the
// end of an answer.
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
