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

// Pull brings a model into the model store, by a name as Ollama's clients spell it. It returns the
// name in the store, and reports the phases. The end of ctx ends it; the bytes so far are kept.
type Pull func(ctx context.Context, name string, report func(status.Phase)) (stored string, err error)

// ollamaPull answers POST /api/pull: a model that is there needs nothing, and only the daemon's user
// brings others.
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

// pull brings a model into the store while its client is there, and the daemon serves.
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

// A progress answers a pull: with a line for each phase, or in one piece. The first line decides the
// status. Clients that wait for one piece get its headers after a while, see patience, and then a
// blank line after each time of silence.
type progress struct {
	call   *call
	stream bool
	leave  context.CancelCauseFunc // ends the pull

	quiet        // its mutex guards the fields below; once it is over, no line of progress follows
	line  []byte // the last one; it is sent again after silence
	begun bool   // the headers have been sent
}

// begin begins to look for silence, until stop.
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

// report sends the line of a phase.
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

// writeLocked sends the headers, once, and a line. If the client takes none, the pull ends.
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

// headLocked sends the headers, once.
func (p *progress) headLocked() {
	if p.begun {
		return
	}
	p.begun = true
	p.call.header(typePlace, "Content-Type", lines(p.stream))
	p.call.w.Header()["Cache-Control"] = noCache
	p.call.w.WriteHeader(http.StatusOK)
}

// end sends the last line. A client that has gone needs none.
func (p *progress) end(line []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.headLocked()
	_, _ = p.call.w.Write(line)
}

// fail answers with a failure: by its status before the first line, else as the last line.
func (p *progress) fail(err error) {
	if _, classed := errors.AsType[*infer.Error](err); !classed { // the text of a pull's failure is for its user
		err = &web.Error{Code: infer.Invalid, Status: http.StatusBadGateway, Message: err.Error()}
	}
	switch {
	case !p.begun:
		p.call.refuse(err)
	case p.stream:
		_, body := ollama.Failure(err, "")
		p.end(append(body, '\n'))
	default:
		abort() // the answer cannot report it any more
	}
}
