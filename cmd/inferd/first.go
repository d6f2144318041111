package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/inferd-go/inferd/internal/backend/llamacpp"
	"github.com/inferd-go/inferd/internal/config"
	"github.com/inferd-go/inferd/internal/modelname"
	"github.com/inferd-go/inferd/internal/models"
	"github.com/inferd-go/inferd/internal/paths"
)

// maxTries is the number of times that the operator is asked for a model.
const maxTries = 3

// askModel asks an operator which model to serve, and writes a config file with that model. After an
// empty answer, or maxTries wrong ones, it writes nothing and returns nil; the start of the daemon
// then fails.
func askModel(ctx context.Context, flags *config.Flags, env paths.Env, in io.Reader, out io.Writer) error {
	catalog, err := models.Catalog(env.Expand(flags.Catalog))
	if err != nil {
		return err
	}
	offers := offersOf(catalog)
	fmt.Fprint(out, "No model is configured. inferd can get one:\n\n")
	for i, e := range offers {
		fmt.Fprintf(out, "  %d) %-22s %6.1f GB  %s\n", i+1, e.Name, float64(e.SizeBytes)/1e9, e.License)
	}
	fmt.Fprint(out, "\nOr name another: hf:OWNER/REPO[:QUANT], ollama:NAME[:TAG], https://…, or the path of a GGUF file.\n")
	lines := readLines(in)
	for range maxTries {
		fmt.Fprint(out, "Model (empty: none): ")
		var line string
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case line = <-lines:
		}
		name, err := chosen(offers, strings.TrimSpace(line))
		if err != nil {
			fmt.Fprintln(out, err)
			continue
		}
		if name == "" {
			return nil
		}
		text, err := flags.First(catalog, name)
		if err != nil {
			return err
		}
		if err := config.Write(env.ConfigFile(), text); err != nil {
			return fmt.Errorf("write the config file: %w", err)
		}
		fmt.Fprintf(out, "Wrote %s.\n", env.ConfigFile())
		return nil
	}
	return nil
}

// offersOf returns the models of the catalog that generate and can be pulled.
func offersOf(catalog modelname.Catalog) (offers []modelname.Entry) {
	for _, e := range catalog {
		if e.Task == "generate" && len(e.Sources) > 0 {
			offers = append(offers, e)
		}
	}
	return offers
}

// chosen returns the name of the model that an answer chooses: by a number in the list, by a name,
// or by a path, which it makes absolute. It returns "" for an empty answer.
func chosen(offers []modelname.Entry, answer string) (name string, err error) {
	if n, err := strconv.Atoi(answer); err == nil {
		if n < 1 || n > len(offers) {
			return "", fmt.Errorf("the list has no number %d", n)
		}
		return offers[n-1].Name, nil
	}
	if answer == "" {
		return "", nil
	}
	m, err := llamacpp.ParseModel(answer)
	if err == nil && m.Path != "" { // absolute, because the daemon may run in another working folder
		return filepath.Abs(m.Path)
	}
	return answer, err
}

// readLines reads up to maxTries lines in a goroutine, because a read of a terminal cannot be
// canceled. The goroutine ends after maxTries lines, at the end of the input, or with the process.
func readLines(in io.Reader) <-chan string {
	lines := make(chan string, maxTries)
	go func() {
		defer close(lines)
		s := bufio.NewScanner(in)
		for range maxTries {
			if !s.Scan() {
				return
			}
			lines <- s.Text()
		}
	}()
	return lines
}
