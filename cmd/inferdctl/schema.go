package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/automaton"
	"github.com/inferd-go/inferd/internal/schema"
)

// maxSchema bounds a schema file, in bytes.
const maxSchema = 16 << 20

// A schemaReport is the output of schema check with --json.
type schemaReport struct {
	Enforced    bool             `json:"enforced"`
	States      int              `json:"states"` // states that the shortest value needs; others are made when needed
	Bytes       int              `json:"bytes"`  // size of the grammar and of those states
	CompileMS   float64          `json:"compile_ms"`
	Refused     []schema.Refusal `json:"refused"`
	Annotations []string         `json:"annotations"`
}

// schema checks whether a JSON Schema can be enforced. It needs no daemon.
func (c *command) schema(_ context.Context, args []string) error {
	fs := c.flags("schema")
	asJSON := fs.Bool("json", false, "print the report as one line of JSON")
	values, err := c.parseVerb(fs, args, "check", "FILE")
	if err != nil {
		return err
	}
	if values[0] != "check" {
		return fmt.Errorf("%q is not a command of schema: try schema check FILE", values[0])
	}
	source, err := c.readSchema(values[1])
	if err != nil {
		return err
	}
	report, shortest, err := checkSchema(source)
	if err != nil {
		return fmt.Errorf("%s: not a JSON Schema: %w", values[1], err)
	}
	if *asJSON {
		if err := json.MarshalWrite(c.stdout, report, jsontext.EscapeForHTML(false)); err != nil {
			return err
		}
		fmt.Fprintln(c.stdout)
	} else {
		report.print(c.stdout, shortest)
	}
	if !report.Enforced {
		return exit(exitNo)
	}
	return nil
}

// readSchema reads a file, or stdin if name is "-".
func (c *command) readSchema(name string) ([]byte, error) {
	in := c.stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	source, err := io.ReadAll(io.LimitReader(in, maxSchema+1))
	if err == nil && len(source) > maxSchema {
		err = fmt.Errorf("%s: larger than %d bytes", name, maxSchema)
	}
	return source, err
}

// checkSchema compiles a schema. It returns a report and, if the schema can be enforced, the
// shortest value that satisfies it. It returns an error if source is not a schema.
func checkSchema(source []byte) (r schemaReport, shortest string, err error) {
	begin := time.Now()
	s, err := schema.Compile(source, nil)
	r = schemaReport{CompileMS: float64(time.Since(begin).Microseconds()) / 1000, Refused: []schema.Refusal{}, Annotations: []string{}}
	if refused, ok := errors.AsType[schema.RefusedError](err); ok {
		r.Refused = refused
		return r, "", nil
	}
	if err != nil {
		return r, "", err
	}
	r.Enforced = true
	r.Annotations = append(r.Annotations, s.Annotations...)
	a := automaton.New(s.Grammar)
	text, _ := a.Open().Shortest(maxSchema)
	for _, symbol := range text {
		shortest += string([]byte{byte(symbol)})
	}
	r.States = a.States()
	r.Bytes = s.Grammar.Size() + a.Bytes()
	return r, shortest, nil
}

// print prints the report as text.
func (r *schemaReport) print(w io.Writer, shortest string) {
	if r.Enforced {
		fmt.Fprintf(w, "enforced: compiled in %.1f ms, %d KiB\n", r.CompileMS, (r.Bytes+1023)/1024)
		if len(shortest) <= 200 {
			fmt.Fprintf(w, "shortest value: %s\n", shortest)
		}
	} else {
		fmt.Fprintln(w, "not enforced:")
	}
	for _, f := range r.Refused {
		at := f.Pointer
		if at == "" {
			at = "the schema"
		}
		fmt.Fprintf(w, "  %s: %s\n", at, f.Why)
	}
	for _, pointer := range r.Annotations {
		fmt.Fprintf(w, "  %s: has no effect\n", pointer)
	}
}
