package chat

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/dialect"
	"github.com/inferd-go/inferd/internal/jinja"
)

// Context returns the variables that a template gets for a conversation, as JSON, and the text to put behind the
// rendered prompt. If described is set, a system message describes the tools, as for a template that refuses them. The
// texts have marks if the template has special tokens.
func (t *Template) Context(c *Conversation, described bool) (context []byte, tail string, err error) {
	turns, err := pairResults(c.Messages)
	if err != nil {
		return nil, "", err
	}
	values, tail, err := t.values(&writer{Template: t, nonce: newNonce()}, c, turns, described)
	if err != nil {
		return nil, "", err
	}
	object := jinja.NewDict()
	for name, v := range values {
		object.AsDict().Set(name, v)
	}
	var b strings.Builder
	encode(&b, object)
	return []byte(b.String()), tail, nil
}

func encode(b *strings.Builder, v jinja.Value) {
	plain := func(v any) {
		text, _ := json.Marshal(v)
		b.Write(text)
	}
	switch {
	case v.IsBool():
		plain(v.AsBool())
	case v.IsInt():
		plain(v.AsInt())
	case v.IsFloat():
		number := strconv.FormatFloat(v.AsFloat(), 'g', -1, 64)
		if !strings.ContainsAny(number, ".e") {
			number += ".0"
		}
		b.WriteString(number)
	case v.IsString():
		plain(v.AsString())
	case v.IsList():
		for i, item := range v.AsList().Items {
			b.WriteString([]string{"[", ","}[min(i, 1)])
			encode(b, item)
		}
		if v.AsList().Len() == 0 {
			b.WriteString("[")
		}
		b.WriteString("]")
	case v.IsDict():
		b.WriteString("{")
		for i, key := range v.AsDict().Keys {
			if i > 0 {
				b.WriteString(",")
			}
			plain(key)
			b.WriteString(":")
			item, _ := v.AsDict().Get(key)
			encode(b, item)
		}
		b.WriteString("}")
	default:
		b.WriteString("null")
	}
}

// ProbeSteps returns the number of interpreter steps that reading the dialect of a template takes; source is the
// template.
func (t *Template) ProbeSteps(source string) (steps int) {
	dialect.Read(func(p *dialect.Probe) (text string, err error) {
		text, n, err := t.compiled.RenderWithin(t.probeValues(p), probeSteps)
		steps += n + probeSteps/1000
		return text, err
	}, source)
	return steps
}

// MaxProbeSteps is the bound on the steps of all probes of a template.
const MaxProbeSteps = probeSteps
