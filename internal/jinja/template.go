// Copied from github.com/ardanlabs/jinja v1.5.0 and changed; README.md names the changes.

package jinja

import (
	"fmt"
	"strings"
)

// Template is a compiled Jinja template ready for rendering.
type Template struct {
	nodes []node
	src   string
}

// Compile parses a Jinja template source string and returns a compiled
// template that can be rendered multiple times with different data.
func Compile(source string) (t *Template, err error) {
	defer catch(&err)
	if len(source) > maxSource {
		return nil, bound(fmt.Sprintf("it is longer than %d bytes", maxSource))
	}
	segs, err := scan(source)
	if err != nil {
		return nil, fmt.Errorf("jinja scan: %w", err)
	}

	nodes, err := parseTemplate(segs)
	if err != nil {
		return nil, fmt.Errorf("jinja parse: %w", err)
	}

	return &Template{nodes: nodes, src: source}, nil
}

// Render executes the template with the provided data and returns the
// rendered string. Each call creates an isolated scope so templates are
// safe to render concurrently after compilation.
func (t *Template) Render(data map[string]any) (string, error) {
	// Convert Go data to Value types.
	vals := make(map[string]Value, len(data))
	for k, v := range data {
		vals[k] = FromGoValue(v)
	}

	text, _, err := render(t.nodes, vals, maxSteps)
	return text, err
}

// RenderValues is like Render but accepts pre-converted Value data.
func (t *Template) RenderValues(data map[string]Value) (string, error) {
	text, _, err := render(t.nodes, data, maxSteps)
	return text, err
}

// RenderWithin is RenderValues with a bound of most steps; the bound of the package applies, too.
// It also returns the number of steps taken.
func (t *Template) RenderWithin(data map[string]Value, most int) (text string, steps int, err error) {
	return render(t.nodes, data, most)
}

// =============================================================================

// render executes the AST with the given data. It returns the text and the number of steps taken.
func render(nodes []node, data map[string]Value, most int) (text string, steps int, err error) {
	m := &meter{most: min(most, maxSteps)}
	defer func() { steps = m.steps }()
	defer catch(&err)
	e := evaluator{
		output: strings.Builder{},
		m:      m,
	}

	// Use the cached builtins scope directly. The scope is initialized
	// once at package init and is only read after that (lookupFilter,
	// chained get() through parent links, passed to nested evaluators).
	// No code path writes to e.builtins, so sharing the cached scope
	// across renders is safe and avoids cloning ~20 entries per render.
	e.builtins = cachedBuiltins

	// Create user data scope on top of builtins.
	e.scope = newScope(e.builtins)
	for k, v := range data {
		e.scope.set(k, v)
	}

	if err := e.execNodes(nodes); err != nil {
		return "", 0, err
	}

	return e.output.String(), 0, nil
}
