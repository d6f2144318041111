package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"

	"github.com/inferd-go/inferd/client"
)

// chat asks one question and streams the answer, or goes on and on with somebody at a
// terminal. If it is interrupted the connection closes, and the daemon, which sees that,
// stops answering.
func (c *command) chat(ctx context.Context, args []string) error {
	fs := c.flags("chat")
	var (
		req          = &client.Request{ID: "1"}
		text, system *string
		asJSON       bool
		patience     wait
	)
	fs.Func("m", "the question, as `text`; - reads it from stdin", func(s string) error { text = &s; return nil })
	fs.Func("system", "what the model is told first, as `text`", func(s string) error { system = &s; return nil })
	fs.Func("max-tokens", fmt.Sprintf("most `tokens` of the answer (default %d)", client.DefaultMaxTokens), func(s string) error {
		n, err := number(s)
		if err == nil && n == 0 {
			err = errors.New("it must be at least 1")
		}
		req.MaxTokens = int(n)
		return err
	})
	fs.Func("seed", "`number` that makes a random answer repeatable", func(s string) error {
		n, err := seed(s)
		req.Seed = &n
		return err
	})
	fs.Func("temperature", "how random the answer is: a `number`, 0 for not at all (default 1)", func(s string) error {
		x, err := strconv.ParseFloat(s, 64)
		req.Temperature = &x
		return errors.Unwrap(err)
	})
	fs.StringVar(&req.Model, "model", "", "`name` of the model; default: the daemon's choice")
	fs.BoolVar(&asJSON, "json", false, "print the daemon's frames as they come")
	fs.Var(&patience, "wait", "wait until the daemon is ready, or at most so long (--wait=30s)")
	_, err := c.parseVerb(fs, args)
	if extra, ok := errors.AsType[*extraArgumentError](err); ok {
		return fmt.Errorf("%w: a question follows -m, as in inferdctl chat -m %q", err, extra.value)
	}
	if err != nil {
		return err
	}
	if system != nil {
		req.Messages = append(req.Messages, client.Text(client.System, *system))
	}
	cl := c.client(patience)
	if asJSON {
		cl.Trace = func(line []byte) { _ = c.printLine(line) } // a reader that has gone ends us by SIGPIPE
	}
	if text == nil && isTerminal(c.stdin) {
		return c.converse(ctx, cl, req)
	}
	if text == nil || *text == "-" {
		all, err := io.ReadAll(c.stdin)
		if err != nil {
			return fmt.Errorf("read the question: %w", err)
		}
		if err := checkText(all); err != nil {
			return err
		}
		question := strings.TrimSuffix(string(all), "\n")
		if text == nil && question == "" {
			return errors.New("chat needs -m TEXT, or a question on stdin")
		}
		text = &question
	}
	req.Messages = append(req.Messages, client.Text(client.User, *text))
	_, err = c.answer(c.generate(ctx, cl, req), asJSON)
	if failed, ok := errors.AsType[*client.DialError](err); ok && failed.Status != "" && failed.Transient() && failed.Waited == 0 && failed.Status != "ready" {
		err = fmt.Errorf("%w; try again later, or with --wait", err)
	}
	return err
}

// seed reads one of 64 bits, with or without a sign.
func seed(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if errors.Is(err, strconv.ErrRange) {
		if bits, err := strconv.ParseUint(s, 10, 64); err == nil {
			return int64(bits), nil
		}
	}
	return n, errors.Unwrap(err) // without the name of a Go function
}

// number reads one of 32 bits.
func number(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), errors.Unwrap(err) // without the name of a Go function
}

// generate asks over the length-prefixed wire, or over v1 where the address says so.
func (c *command) generate(ctx context.Context, cl *client.Client, req *client.Request) iter.Seq2[client.Event, error] {
	if c.surface() == client.V1 {
		return cl.GenerateV1(ctx, req)
	}
	return cl.Generate(ctx, req)
}

// answer prints an answer as it comes, unless it is quiet, and returns its text: what had
// come of it, if it fails.
func (c *command) answer(events iter.Seq2[client.Event, error], quiet bool) (string, error) {
	out := &textWriter{w: c.stdout}
	if quiet {
		out.w = io.Discard
	}
	var text strings.Builder
	note := ""
	var failed error
	for ev, err := range events {
		if failed = err; failed == nil && ev.Text != "" {
			text.WriteString(ev.Text)
			failed = out.write(ev.Text)
		}
		if failed != nil {
			break
		}
		if ev.Done != nil {
			note = notes[ev.Done.StopReason]
		}
	}
	err := errors.Join(failed, out.end())
	if note != "" && !quiet {
		fmt.Fprintln(c.stderr, "note:", note)
	}
	return text.String(), err
}

// notes are told about an answer that is not whole.
var notes = map[client.StopReason]string{
	client.MaxTokens: "the answer was cut off: it reached --max-tokens, or the model's context was full",
	client.Cancelled: "the answer was cut off: the daemon is stopping",
}

// A textWriter writes an answer as it comes and ends it with a newline.
type textWriter struct {
	w       io.Writer
	midline bool
}

func (t *textWriter) write(text string) error {
	if _, err := io.WriteString(t.w, text); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	t.midline = !strings.HasSuffix(text, "\n")
	return nil
}

func (t *textWriter) end() error {
	if !t.midline {
		return nil
	}
	return t.write("\n")
}

var errInterrupted = errors.New("interrupted")

// converse asks what is typed, line by line, and remembers what was said. Ctrl-C ends an
// answer, or at the prompt the conversation, as the end of the input does.
func (c *command) converse(ctx context.Context, cl *client.Client, req *client.Request) error {
	ctx = context.WithoutCancel(ctx) // which ends at the first Ctrl-C
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt)
	defer signal.Stop(interrupts)
	lines := make(chan string)
	go func() { // ends with the input, or with the program: a read cannot be called off
		defer close(lines)
		for in := bufio.NewScanner(c.stdin); in.Scan(); {
			lines <- in.Text()
		}
	}()
	for {
		fmt.Fprint(c.stdout, "> ")
		var line string
		select {
		case l, ok := <-lines:
			if !ok {
				fmt.Fprintln(c.stdout)
				return nil
			}
			line = l
		case <-interrupts:
			fmt.Fprintln(c.stdout)
			return exit(exitInterrupted)
		}
		if strings.TrimSpace(line) == "" {
			continue
		}
		before := req.Messages
		req.Messages = append(req.Messages, client.Text(client.User, line))
		text, err := c.interruptible(ctx, interrupts, func(ctx context.Context) (string, error) {
			return c.answer(c.generate(ctx, cl, req), false)
		})
		if err != nil && !errors.Is(err, errInterrupted) {
			fmt.Fprintln(c.stderr, "error:", err)
			req.Messages = before // so that it can be asked again
			continue
		}
		req.Messages = append(req.Messages, client.Text(client.Assistant, text))
	}
}

// interruptible runs ask, whose context ends when somebody interrupts.
func (c *command) interruptible(ctx context.Context, interrupts <-chan os.Signal, ask func(context.Context) (string, error)) (string, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	var watcher sync.WaitGroup
	defer watcher.Wait()
	defer cancel(nil)
	watcher.Go(func() {
		select {
		case <-interrupts:
			cancel(errInterrupted)
		case <-ctx.Done():
		}
	})
	return ask(ctx)
}
