package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/go-json-experiment/json"

	"github.com/inferd-go/inferd/client"
)

// checkText returns an error if stdin is not UTF-8.
func checkText(stdin []byte) error {
	for at := 0; at < len(stdin); {
		r, size := utf8.DecodeRune(stdin[at:])
		if r == utf8.RuneError && size == 1 {
			return fmt.Errorf("stdin is not UTF-8 text (byte %d is 0x%02x): convert it first, for example with iconv -f latin1 -t utf-8", at+1, stdin[at])
		}
		at += size
	}
	return nil
}

// lines returns args or, if there are none, the non-empty lines of stdin.
func (c *command) lines(args []string) ([]string, error) {
	if len(args) > 0 {
		return args, nil
	}
	var all []string
	in := bufio.NewScanner(c.stdin)
	in.Buffer(nil, 16<<20)
	for n := 1; in.Scan(); n++ {
		if err := checkText(in.Bytes()); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if in.Text() != "" {
			all = append(all, in.Text())
		}
	}
	if err := in.Err(); err != nil {
		return nil, fmt.Errorf("read stdin: %w", err)
	}
	if len(all) == 0 {
		return nil, errors.New("no text: give arguments, or lines on stdin")
	}
	return all, nil
}

// embed prints a line of JSON for each text, with the text and its vector.
func (c *command) embed(ctx context.Context, args []string) error {
	fs := c.flags("embed")
	req := &client.EmbedRequest{ID: "1"}
	fs.StringVar(&req.Model, "model", "", "`name` of the model; default: the daemon's choice")
	fs.IntVar(&req.Dimensions, "dimensions", 0, "the `number` of values of each vector (default all)")
	fs.StringVar(&req.Task, "task", "", "`purpose` of the vectors, such as retrieval_query or similarity")
	var w wait
	fs.Var(&w, "wait", waitUsage)
	texts, err := c.parseVerb(fs, args, "TEXT...")
	if err != nil {
		return err
	}
	if req.Inputs, err = c.lines(texts); err != nil {
		return err
	}
	d, err := c.daemon(w, nil)
	if err != nil {
		return err
	}
	e, err := d.Embed(ctx, req)
	if err != nil {
		return err
	}
	for i, v := range e.Vectors {
		if err := c.printJSON(struct {
			Text      string    `json:"text"`
			Embedding []float32 `json:"embedding"`
		}{req.Inputs[i], v}); err != nil {
			return err
		}
	}
	return nil
}

// rerank prints a line of JSON for each document, the best one first.
func (c *command) rerank(ctx context.Context, args []string) error {
	fs := c.flags("rerank")
	req := &client.RerankRequest{ID: "1"}
	fs.StringVar(&req.Model, "model", "", "`name` of the model; default: the daemon's choice")
	fs.StringVar(&req.Query, "query", "", "the query, as `text`")
	fs.IntVar(&req.TopN, "top-n", 0, "the `number` of documents to print (default all)")
	var w wait
	fs.Var(&w, "wait", waitUsage)
	texts, err := c.parseVerb(fs, args, "DOC...")
	if err != nil {
		return err
	}
	if req.Query == "" {
		return errors.New("rerank needs --query TEXT")
	}
	if req.Documents, err = c.lines(texts); err != nil {
		return err
	}
	d, err := c.daemon(w, nil)
	if err != nil {
		return err
	}
	r, err := d.Rerank(ctx, req)
	if err != nil {
		return err
	}
	for _, x := range r.Results {
		if x.Index < 0 || x.Index >= len(req.Documents) {
			return fmt.Errorf("the daemon ranks document %d of %d", x.Index, len(req.Documents))
		}
		if err := c.printJSON(struct {
			Score float64 `json:"score"`
			Index int     `json:"index"`
			Text  string  `json:"text"`
		}{x.Score, x.Index, req.Documents[x.Index]}); err != nil {
			return err
		}
	}
	return nil
}

func (c *command) printJSON(v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	return c.printLine(line)
}
