package constraint

import (
	"crypto/sha256"

	"github.com/inferd-go/inferd/internal/automaton"
	"github.com/inferd-go/inferd/internal/gbnf"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/schema"
)

// Format is the [Source] of a response format alone: the whole answer must conform to the format.
type Format struct{ *infer.Format }

var _ Source = Format{}

// anyObject is the schema for the response format json_object.
const anyObject = `{"type":"object"}`

// Member implements [Source].
func (Format) Member() string { return "response_format" }

// Digest implements [Source]. A grammar and a schema never have the same digest.
func (f Format) Digest() [sha256.Size]byte {
	if f.Format.Grammar != "" {
		return sha256.Sum256([]byte("grammar\x00" + f.Format.Grammar))
	}
	return sha256.Sum256(append([]byte("schema\x00"), f.schema()...))
}

// Size implements [Source].
func (f Format) Size() int { return len(f.Format.Grammar) + len(f.schema()) }

// schema returns the schema of a format, or nil if it has none.
func (f Format) schema() []byte {
	if f.JSONObject {
		return []byte(anyObject)
	}
	return f.Schema
}

// Grammar implements [Source]. The error names the keyword of the schema and a JSON pointer to it,
// or line and column in the grammar.
func (f Format) Grammar(model Vocabulary, b *automaton.Budget) (*automaton.Grammar, error) {
	if f.Format.Grammar != "" {
		g, err := gbnf.Compile(f.Format.Grammar, model.ByName, b)
		if err != nil {
			return nil, infer.Refusef(f.Member(), "grammar: %w", err)
		}
		return g, nil
	}
	s, err := schema.Compile(f.schema(), b)
	if err != nil {
		return nil, infer.Refusef(f.Member(), "response_format: schema: %w", err)
	}
	return s.Grammar, nil
}
