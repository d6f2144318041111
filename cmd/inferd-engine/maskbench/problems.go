package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/inferd-go/inferd/internal/schema"
)

// A problem is a schema with instances that are known to be valid or invalid.
type problem struct {
	suite     bool // it comes from the JSON Schema test suite, otherwise from MaskBench
	name      string
	schema    json.RawMessage
	instances []instance
}

// An instance is a JSON value. Its text has no white space between tokens, and keeps the order of
// members; see also add.
type instance struct {
	text  string
	valid bool
	name  string
}

// readMaskBench reads a folder of files with one schema each.
func readMaskBench(dir string) ([]*problem, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("%s: no *.json in it: want the folder maskbench/data", dir)
	}
	slices.Sort(files)
	var all []*problem
	for _, file := range files {
		var content struct {
			Schema json.RawMessage `json:"schema"`
			Tests  []test          `json:"tests"`
		}
		if err := readJSON(file, &content); err != nil {
			return nil, err
		}
		p := &problem{name: filepath.Base(file), schema: content.Schema}
		p.add(content.Tests)
		all = append(all, p)
	}
	return all, nil
}

// A test is an instance in the JSON format of both collections.
type test struct {
	Description string          `json:"description"`
	Valid       bool            `json:"valid"`
	Data        json.RawMessage `json:"data"`
}

// add appends instances. Data that is not valid Unicode, such as half a surrogate pair, is kept as
// it is written; every grammar refuses it.
func (p *problem) add(tests []test) {
	for _, t := range tests {
		text, err := schema.Compact(t.Data)
		if err != nil {
			text = string(t.Data)
		}
		p.instances = append(p.instances, instance{text: text, valid: t.Valid, name: t.Description})
	}
}

// readSuite reads the tests of draft 2020-12 and of its formats, one problem for each schema.
func readSuite(dir string) ([]*problem, error) {
	var all []*problem
	for _, pattern := range []string{"draft2020-12/*.json", "draft2020-12/optional/format/*.json"} {
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil || len(files) == 0 {
			return nil, fmt.Errorf("%s: no %s in it: want the folder tests of the suite", dir, pattern)
		}
		slices.Sort(files)
		for _, file := range files {
			var groups []struct {
				Description string          `json:"description"`
				Schema      json.RawMessage `json:"schema"`
				Tests       []test          `json:"tests"`
			}
			if err := readJSON(file, &groups); err != nil {
				return nil, err
			}
			for _, g := range groups {
				p := &problem{suite: true, name: filepath.Base(file) + ": " + g.Description, schema: g.Schema}
				p.add(g.Tests)
				all = append(all, p)
			}
		}
	}
	return all, nil
}

func readJSON(file string, to any) error {
	data, err := os.ReadFile(file) //nolint:gosec // G703: the folder is the caller's
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, to); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}
