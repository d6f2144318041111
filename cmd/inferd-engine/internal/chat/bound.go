package chat

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"runtime/metrics"
	"strings"

	"github.com/inferd-go/inferd/internal/jinja"
)

// Bounds of one rendering. A conversation of thousands of messages takes some of each.
const (
	maxSteps  = 500_000 // through a loop or into a macro: under a second
	maxDepth  = 100     // of macros that call each other
	maxRange  = 100_000 // numbers that range makes at once
	maxMemory = 1 << 29 // bytes by which the process may grow meanwhile
)

// Names that the bounded template calls. No template of a model has them.
const (
	stepName  = "inferd_step"
	enterName = "inferd_enter"
	leaveName = "inferd_leave"
)

var (
	tag     = regexp.MustCompile(`(?s)^\{%-?\s*(for|macro|endmacro|raw|endraw)\b`)
	comment = regexp.MustCompile(`(?s)^\{#.*?#\}`)
	text    = regexp.MustCompile(`(?s)^(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")`)
)

// bounded puts a call of ours into every loop and macro of a template, for the engine that
// renders it knows no bounds: a template can go on for ever, and end the process by calling
// itself. The calls are expressions, which come out as nothing and leave the white space
// around them to the statements that they stand beside.
func bounded(source string) string {
	var out strings.Builder
	raw := false // what stands here is text, though it is made of tags
	for len(source) > 0 {
		at := strings.IndexByte(source, '{')
		if at < 0 {
			break
		}
		out.WriteString(source[:at])
		source = source[at:]
		kind := ""
		if m := tag.FindStringSubmatch(source); m != nil {
			kind = m[1]
		}
		n := 1
		switch {
		case strings.HasPrefix(source, "{#"):
			n = max(len(comment.FindString(source)), n)
		case strings.HasPrefix(source, "{%"), strings.HasPrefix(source, "{{"):
			n = endOfTag(source)
		}
		whole := source[:n]
		source = source[n:]
		switch {
		case kind == "raw", kind == "endraw":
			raw = kind == "raw"
		case raw:
		case kind == "for":
			whole += "{{" + stepName + "()}}"
		case kind == "macro":
			whole += "{{" + enterName + "()}}"
		case kind == "endmacro":
			whole = "{{" + leaveName + "()}}" + whole
		}
		out.WriteString(whole)
	}
	out.WriteString(source)
	return out.String()
}

// endOfTag returns the length of the tag that source begins with; all of it if it has no end.
func endOfTag(source string) int {
	end := map[byte]string{'%': "%}", '{': "}}"}[source[1]]
	for i := 2; i < len(source); i++ {
		if strings.HasPrefix(source[i:], end) {
			return i + len(end)
		}
		if quoted := text.FindString(source[i:]); quoted != "" {
			i += len(quoted) - 1
		}
	}
	return len(source)
}

// errEndless is what a rendering fails with that is over its bounds.
var errEndless = errors.New("it does not come to an end: too many steps, or too much memory")

// bounds returns what one rendering may call. They fail once it is over its bounds.
func bounds() map[string]jinja.Value {
	steps, depth := 0, 0
	begin := heap()
	step := func() error {
		if steps++; steps > maxSteps || depth > maxDepth || heap() > begin+maxMemory {
			return errEndless
		}
		return nil
	}
	call := func(f func() error) func([]jinja.Value, map[string]jinja.Value) (jinja.Value, error) {
		return func([]jinja.Value, map[string]jinja.Value) (jinja.Value, error) { return jinja.NewString(""), f() }
	}
	return map[string]jinja.Value{
		stepName:  jinja.NewCallable(stepName, call(step)),
		enterName: jinja.NewCallable(enterName, call(func() error { depth++; return step() })),
		leaveName: jinja.NewCallable(leaveName, call(func() error { depth--; return nil })),
		"range":   jinja.NewCallable("range", numbers),
	}
}

// heap is how many bytes of memory are in use.
func heap() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// numbers is Python's range, of which the template engine's own has no bounds.
func numbers(args []jinja.Value, _ map[string]jinja.Value) (jinja.Value, error) {
	first, last, step := int64(0), int64(0), int64(1)
	into := [][]*int64{nil, {&last}, {&first, &last}, {&first, &last, &step}}
	if len(args) == 0 || len(args) >= len(into) {
		return jinja.NewBool(false), fmt.Errorf("range of %d arguments", len(args))
	}
	for i, at := range into[len(args)] {
		switch v := args[i]; {
		case v.IsInt():
			*at = v.AsInt()
		case v.IsFloat() && math.Abs(v.AsFloat()) < math.MaxInt32:
			*at = int64(v.AsFloat())
		default:
			return jinja.NewBool(false), errors.New("range of what is no whole number")
		}
	}
	if step == 0 {
		return jinja.NewBool(false), errors.New("range in steps of 0")
	}
	var all []jinja.Value
	for n := first; step > 0 && n < last || step < 0 && n > last; n += step {
		if len(all) == maxRange {
			return jinja.NewBool(false), errEndless
		}
		all = append(all, jinja.NewInt(n))
	}
	return jinja.NewList(all), nil
}
