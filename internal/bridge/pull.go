package bridge

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/status"
	"github.com/inferd-go/inferd/internal/wire/ollama"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// Pull brings a model into the model store. name is in the form that Ollama's clients send; stored
// is the model's name in the store. Pull calls report for each phase. It ends with ctx, and keeps
// the bytes that have arrived.
type Pull func(ctx context.Context, name string, report func(status.Phase)) (stored string, err error)

// ollamaPull answers POST /api/pull. For a model of an entry, it succeeds at once. Only the
// daemon's user may pull other models.
func (c *call) ollamaPull() {
	asked, ok := decode(c, ollama.ReadPull)
	if !ok {
		return
	}
	_, _, known := c.bridge.ollamaEntry(asked.Name)
	switch {
	case known:
		c.send(http.StatusOK, lines(asked.Stream), []byte(ollama.Success))
	case c.bridge.Pull == nil:
		c.refuse(ollama.Unsupported(c.r.URL.Path))
	case !c.peer.Is(c.bridge.Access.UID):
		c.refuse(web.Refused(http.StatusForbidden, "", "only the daemon's user pulls models"))
	default:
		c.pull(asked)
	}
}

// pull brings a model into the store. It stops when the client hangs up or the runner stops.
func (c *call) pull(asked ollama.Pull) {
	b, log, ctx := c.bridge, c.bridge.Runner.Log, c.r.Context()
	p := &progress{call: c, stream: asked.Stream, line: ollama.Progress(status.CheckingLocal{})}
	var name string
	err := c.whilePresent(func(ctx context.Context) (err error) {
		ctx, p.leave = context.WithCancelCause(ctx)
		var drain sync.WaitGroup
		defer drain.Wait()
		defer p.leave(nil)
		drain.Go(func() {
			select {
			case <-b.Runner.Closed():
				p.leave(errDraining)
			case <-ctx.Done():
			}
		})
		p.begin()
		defer p.stop()
		if name, err = b.Pull(ctx, asked.Name, p.report); err != nil && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	})
	switch {
	case err == nil:
		log.LogAttrs(ctx, slog.LevelInfo, "a model was pulled for a client", slog.String("name", name), slog.String("user", c.peer.User))
		p.end([]byte(ollama.Success))
	case ctx.Err() != nil, errors.Is(err, errLeft):
		log.LogAttrs(ctx, slog.LevelInfo, "a pull has ended with its client", slog.String("user", c.peer.User))
		abort()
	default:
		log.LogAttrs(ctx, slog.LevelWarn, "a pull for a client has failed", slog.String("user", c.peer.User), slog.Any("err", err))
		p.fail(err)
	}
}

// A progress answers a request to pull, with a line for each phase or in one piece. The status is
// sent with the first line. An answer in one piece sends its headers and a blank line after
// patience at the latest, and then a further blank line after each silence.
type progress struct {
	call   *call
	stream bool
	leave  context.CancelCauseFunc // ends the pull

	silenceTimer        // its mutex guards the fields below; when over is set, report and the timer send nothing
	line         []byte // the latest line, which is repeated after silence
	begun        bool   // the headers have been sent
}

// begin starts the timer for silence, which runs until stop.
func (p *progress) begin() {
	p.latest = time.Now()
	wait := patience
	if p.stream {
		wait = silence
	}
	p.listen(wait, func() time.Duration {
		if p.stream {
			p.writeLocked(p.line)
		} else {
			p.writeLocked(blank)
		}
		return silence
	})
}

// report sends the line of a phase, if it has one and the answer is a stream.
func (p *progress) report(phase status.Phase) {
	line := ollama.Progress(phase)
	if line == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.line = line
	if p.stream {
		p.writeLocked(line)
	}
}

// writeLocked sends the headers, unless they were sent, and a line. If the client no longer reads,
// the pull ends.
func (p *progress) writeLocked(line []byte) {
	if p.over {
		return
	}
	p.headLocked()
	p.latest = time.Now()
	_, err := p.call.w.Write(line)
	if err == nil {
		err = http.NewResponseController(p.call.w).Flush()
	}
	if err != nil {
		p.leave(errLeft)
	}
}

// headLocked sends the headers, unless they were sent.
func (p *progress) headLocked() {
	if p.begun {
		return
	}
	p.begun = true
	p.call.header(typePlace, "Content-Type", lines(p.stream))
	p.call.w.Header()["Cache-Control"] = noCache
	p.call.w.WriteHeader(http.StatusOK)
}

// end sends the last line. It ignores a client that has hung up.
func (p *progress) end(line []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.headLocked()
	_, _ = p.call.w.Write(line)
}

// fail answers with an error: as a status if the headers were not sent, as the last line of a
// stream, or by closing the connection.
func (p *progress) fail(err error) {
	if _, classed := errors.AsType[*infer.Error](err); !classed { // an error of the pull itself: the user may see its text
		err = &web.Error{Code: infer.Invalid, Status: http.StatusBadGateway, Message: err.Error()}
	}
	switch {
	case !p.begun:
		p.call.refuse(err)
	case p.stream:
		_, body := ollama.Failure(err, "")
		p.end(append(body, '\n'))
	default:
		abort() // the status 200 was sent, so the answer must not look complete
	}
}
