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
	"github.com/inferd-go/inferd/internal/paths"
)

// chat asks one question and prints the answer while it arrives. On a terminal without -m it runs a
// conversation. An interrupt closes the connection, and the daemon stops the request.
func (c *command) chat(ctx context.Context, args []string) error {
	opts, err := c.chatOptions(args)
	if err != nil {
		return err
	}
	var trace func([]byte)
	if opts.asJSON {
		trace = func(line []byte) { _ = c.printLine(line) } // if stdout is closed, SIGPIPE ends the program
	}
	d, err := c.daemon(opts.wait, trace)
	if err != nil {
		return err
	}
	if opts.text == nil && isTerminal(c.stdin) {
		return c.converse(ctx, d, opts.req)
	}
	question, err := c.question(opts.text)
	if err != nil {
		return err
	}
	opts.req.Messages = append(opts.req.Messages, client.Text(client.User, question))
	_, err = c.answer(opts.req, d.Generate(ctx, opts.req), opts.asJSON)
	if failed, ok := errors.AsType[*client.DialError](err); ok && failed.Status != "" && failed.Transient() && failed.Waited == 0 && failed.Status != "ready" {
		err = fmt.Errorf("%w; try again later, or with --wait", err)
	}
	return err
}

// chatOptions are the values of the flags of chat.
type chatOptions struct {
	req    *client.Request
	text   *string // the question; nil without -m
	schema string  // file with the schema of the answer; empty if there is none
	tools  toolFlags
	asJSON bool
	wait   wait
}

func (c *command) chatOptions(args []string) (*chatOptions, error) {
	fs := c.flags("chat")
	opts := &chatOptions{req: &client.Request{ID: "1"}}
	var system *string
	fs.Func("m", "the question, as `text`; - reads it from stdin", func(s string) error { opts.text = &s; return nil })
	fs.Func("system", "the system message, as `text`", func(s string) error { system = &s; return nil })
	fs.Func("max-tokens", fmt.Sprintf("limit for the `tokens` of the answer (default %d)", client.DefaultMaxTokens), func(s string) error {
		n, err := parseUint32(s)
		if err == nil && n == 0 {
			err = errors.New("it must be at least 1")
		}
		opts.req.MaxTokens = int(n)
		return err
	})
	fs.Func("seed", "`number` that makes a random answer repeatable", func(s string) error {
		n, err := parseSeed(s)
		opts.req.Seed = &n
		return err
	})
	fs.Func("temperature", "randomness of the answer: a `number`, 0 for none (default 1)", func(s string) error {
		x, err := strconv.ParseFloat(s, 64)
		opts.req.Temperature = &x
		return errors.Unwrap(err)
	})
	fs.StringVar(&opts.schema, "schema", "", "`file` with a JSON Schema that the answer satisfies")
	opts.tools.add(fs)
	fs.StringVar(&opts.req.Model, "model", "", "`name` of the model; default: the daemon's choice")
	fs.BoolVar(&opts.asJSON, "json", false, "print the daemon's frames unchanged")
	fs.Var(&opts.wait, "wait", waitUsage)
	_, err := c.parseVerb(fs, args)
	if extra, ok := errors.AsType[*extraArgumentError](err); ok {
		return nil, fmt.Errorf("%w: a question follows -m, as in inferdctl chat -m %q", err, extra.value)
	}
	if err != nil {
		return nil, err
	}
	if system != nil {
		opts.req.Messages = append(opts.req.Messages, client.Text(client.System, *system))
	}
	if err := opts.tools.apply(c, opts.req); err != nil {
		return nil, err
	}
	return opts, c.addSchema(opts)
}

// addSchema reads the schema file, and adds the schema to the request.
func (c *command) addSchema(opts *chatOptions) error {
	switch {
	case opts.schema == "":
		return nil
	case opts.schema == "-":
		return errors.New("chat reads the question from stdin: --schema needs the name of a file")
	case c.http == "" && c.surface() == client.V1:
		return fmt.Errorf("--schema needs the length-prefixed socket %s: --addr names another one", paths.LPLeaf)
	}
	var err error
	opts.req.Format.JSONSchema, err = c.readSchema(opts.schema)
	return err
}

// question returns the value of -m, or the content of stdin if the flag is missing or "-".
func (c *command) question(text *string) (string, error) {
	if text != nil && *text != "-" {
		return *text, nil
	}
	all, err := io.ReadAll(c.stdin)
	if err != nil {
		return "", fmt.Errorf("read the question: %w", err)
	}
	if err := checkText(all); err != nil {
		return "", err
	}
	question := strings.TrimSuffix(string(all), "\n")
	if text == nil && question == "" {
		return "", errors.New("chat needs -m TEXT, or a question on stdin")
	}
	return question, nil
}

// parseSeed parses a seed of 64 bits, with or without a sign.
func parseSeed(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if errors.Is(err, strconv.ErrRange) {
		if bits, err := strconv.ParseUint(s, 10, 64); err == nil {
			return int64(bits), nil
		}
	}
	return n, errors.Unwrap(err) // drops the name of the Go function
}

// parseUint32 parses a number of 32 bits.
func parseUint32(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), errors.Unwrap(err) // drops the name of the Go function
}

// answer prints the answer to req while it arrives, unless quiet is set. It returns the text; after
// an error, the text that arrived before it.
func (c *command) answer(req *client.Request, events iter.Seq2[client.Event, error], quiet bool) (string, error) {
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
		if failed == nil && ev.Call != nil {
			failed = out.call(ev.Call)
		}
		if failed != nil {
			break
		}
		if ev.Done != nil {
			note = notes[ev.Done.StopReason]
			if ev.Done.StopReason == client.MaxTokens && req.Format.JSONSchema != nil {
				note = "" // an answer with a schema is complete even at its limit
			}
		}
	}
	err := errors.Join(failed, out.end())
	if note != "" && !quiet {
		fmt.Fprintln(c.stderr, "note:", note)
	}
	return text.String(), err
}

// notes are the texts that are printed after an incomplete answer.
var notes = map[client.StopReason]string{
	client.MaxTokens: "the answer was cut off: it reached --max-tokens, or the model's context was full",
	client.Cancelled: "the answer was cut off: the daemon is stopping",
}

// A textWriter writes an answer piece by piece, and ends it with a newline.
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

// converse runs a conversation: each line of input is a question, and each request has all earlier
// messages. Ctrl-C ends an answer. At the prompt, Ctrl-C or the end of the input ends the
// conversation.
func (c *command) converse(ctx context.Context, d daemon, req *client.Request) error {
	ctx = context.WithoutCancel(ctx) // ctx ends at the first Ctrl-C
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt)
	defer signal.Stop(interrupts)
	lines := make(chan string)
	go func() { // runs until the end of the input or the program: a read cannot be interrupted
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
			return c.answer(req, d.Generate(ctx, req), false)
		})
		if err != nil && !errors.Is(err, errInterrupted) {
			fmt.Fprintln(c.stderr, "error:", err)
			req.Messages = before // drops the question that failed
			continue
		}
		req.Messages = append(req.Messages, client.Text(client.Assistant, text))
	}
}

// interruptible calls ask with a context that ends at an interrupt.
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
