package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire/admin"
	v1 "github.com/inferd-go/inferd/internal/wire/v1"
)

// What the wire says of a value that is not given.
const (
	defaultTemperature = 1
	defaultTopP        = 0.95
	defaultTopK        = 64
	defaultMaxTokens   = 1000
)

// chat asks one question and streams the answer. If it is interrupted the connection
// closes, and the daemon, which sees that, stops answering.
func (c *command) chat(ctx context.Context, args []string) error {
	fs := c.flags("chat")
	var (
		question = &infer.Generate{
			MaxTokens: defaultMaxTokens,
			Sampling:  infer.Sampling{Temperature: defaultTemperature, TopK: defaultTopK, TopP: defaultTopP},
		}
		text, system *string
		asJSON       bool
		patience     wait
	)
	fs.Func("m", "the question, as `text`; - reads it from stdin", func(s string) error { text = &s; return nil })
	fs.Func("system", "what the model is told first, as `text`", func(s string) error { system = &s; return nil })
	fs.Func("max-tokens", fmt.Sprintf("most `tokens` of the answer (default %d)", defaultMaxTokens), func(s string) error {
		n, err := number(s)
		question.MaxTokens = int(n)
		return err
	})
	fs.Func("seed", "`number` that makes a random answer repeatable", func(s string) error {
		n, err := number(s)
		question.Sampling.Seed = &n
		return err
	})
	fs.Float64Var(&question.Sampling.Temperature, "temperature", defaultTemperature, "how random the answer is: a `number`, 0 for not at all (default 1)")
	fs.StringVar(&question.Model, "model", "", "`name` of the model; default: the daemon's choice")
	fs.BoolVar(&asJSON, "json", false, "print the daemon's frames as they come")
	fs.Var(&patience, "wait", "wait until the daemon is ready, or at most so long (--wait=30s)")
	if _, err := c.parseVerb(fs, args); err != nil {
		return err
	}
	if text == nil {
		return errors.New("chat needs -m TEXT")
	}
	if *text == "-" {
		all, err := io.ReadAll(c.stdin)
		if err != nil {
			return fmt.Errorf("read the question: %w", err)
		}
		*text = strings.TrimSuffix(string(all), "\n")
	}
	if system != nil {
		question.Messages = append(question.Messages, infer.TextMessage(infer.System, *system))
	}
	question.Messages = append(question.Messages, infer.TextMessage(infer.User, *text))

	nc, err := c.reach(ctx, &patience)
	if err != nil {
		return err
	}
	defer nc.Close()
	if asJSON {
		return ask(rawReader{nc, c.printLine}, nc, question, func(infer.Event) error { return nil })
	}
	out := &textWriter{w: c.stdout}
	note := ""
	err = ask(nc, nc, question, func(ev infer.Event) error {
		switch ev := ev.(type) {
		case *infer.Text:
			return out.write(ev.Delta)
		case *infer.Done:
			note = notes[ev.Reason]
		}
		return nil
	})
	err = errors.Join(err, out.end())
	if note != "" {
		fmt.Fprintln(c.stderr, "note:", note)
	}
	return err
}

// number reads one of 32 bits.
func number(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), errors.Unwrap(err) // without the name of a Go function
}

func ask(r frame.Reader, w io.Writer, question *infer.Generate, emit infer.Sink) error {
	err := v1.Ask(r, frame.Lines.NewWriter(w), &infer.Request{ID: "1", Task: question}, true, emit)
	if errors.Is(err, io.EOF) {
		return errors.New("the daemon went away before the end of the answer")
	}
	return err
}

// A rawReader shows each message before it is read.
type rawReader struct {
	frame.Reader
	show func(line []byte) error
}

// ReadFrame reads and shows the next message.
func (r rawReader) ReadFrame() (frame.Kind, []byte, error) {
	kind, line, err := r.Reader.ReadFrame()
	if err == nil {
		err = r.show(line)
	}
	return kind, line, err
}

// notes are told about an answer that is not whole.
var notes = map[infer.Reason]string{
	infer.Length:   "the answer was cut off: it reached --max-tokens, or the model's context was full",
	infer.Canceled: "the answer was cut off: the daemon is stopping",
}

// A textWriter writes an answer as it comes and ends it with a newline.
type textWriter struct {
	w       io.Writer
	midline bool
}

func (t *textWriter) write(p []byte) error {
	if _, err := t.w.Write(p); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	t.midline = p[len(p)-1] != '\n' // text is never empty
	return nil
}

func (t *textWriter) end() error {
	if !t.midline {
		return nil
	}
	return t.write([]byte("\n"))
}

// Times that reach allows.
const (
	toldWithin  = 2 * time.Second // for the daemon to say what state it is in
	boundWithin = time.Second     // between ready and a socket, which other releases bind after
)

// reach connects to the generation socket. That it is missing means "not ready": the
// admin socket then says more, and is where a patient client waits.
func (c *command) reach(ctx context.Context, patience *wait) (*conn, error) {
	at := c.locate()
	nc, err := dial(ctx, at.v1)
	absent, ok := errors.AsType[*absentError](err)
	if !ok {
		return nc, err
	}
	told, err := patience.dial(ctx, at.admin)
	if err != nil {
		if _, ok := errors.AsType[*absentError](err); ok {
			return nil, absent
		}
		return nil, err
	}
	defer told.Close()
	end := patience.end
	if !patience.on {
		end = time.Now().Add(toldWithin)
	}
	if err := told.SetReadDeadline(end); err != nil {
		return nil, fmt.Errorf("read status: %w", err)
	}
	state := "it does not say what it is doing"
	for {
		f, err := told.nextFrame()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && patience.on:
			return nil, fmt.Errorf("the daemon is not ready: %s (waited %s)", state, patience.limit)
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, fmt.Errorf("the daemon is not ready: %s", state)
		case err != nil:
			return nil, fmt.Errorf("the daemon went away before it was ready (%s): %w", state, err)
		case !f.Lifecycle():
			continue
		case f.Status == admin.Ready:
			nc, err := (&wait{on: true, end: time.Now().Add(boundWithin)}).dial(ctx, at.v1)
			if _, ok := errors.AsType[*absentError](err); ok {
				return nil, fmt.Errorf("the daemon is ready, but nobody answers at %s: is v1 switched off?", at.v1)
			}
			return nc, err
		}
		state = strings.TrimSpace(strings.Join([]string{f.Status, f.Phase, f.Backend}, " "))
		if !patience.on {
			return nil, fmt.Errorf("the daemon is not ready: %s; try again later, or with --wait", state)
		}
	}
}
