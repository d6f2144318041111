package openai

import (
	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// constraint has the members that determine the form of an answer.
type constraint struct {
	ResponseFormat *responseFormat `json:"response_format"`

	// Members of llama.cpp's server.
	Grammar    string         `json:"grammar"`
	JSONSchema jsontext.Value `json:"json_schema"`
}

type responseFormat struct {
	Type       string `json:"type"`
	JSONSchema struct {
		Schema jsontext.Value `json:"schema"`
	} `json:"json_schema"`
	Schema jsontext.Value `json:"schema"` // of llama.cpp's server
}

// apply checks the members and copies them into gen.
func (m *constraint) apply(gen *infer.Generate) error {
	f := &gen.Format
	if m.ResponseFormat != nil {
		switch r := m.ResponseFormat; r.Type {
		case "text":
		case "json_object":
			f.JSONObject = !web.Present(r.Schema)
			f.Schema = web.Bytes(r.Schema)
		case "json_schema":
			schema := r.JSONSchema.Schema
			if !web.Present(schema) {
				schema = r.Schema
			}
			if schema.Kind() != jsontext.KindBeginObject {
				return web.Invalid("response_format", "response_format.json_schema.schema must be an object")
			}
			f.Schema = schema
		default:
			return web.Invalid("response_format", "response_format.type must be one of: text, json_object, json_schema")
		}
	}
	if web.Present(m.JSONSchema) {
		if m.JSONSchema.Kind() != jsontext.KindBeginObject {
			return web.Invalid("json_schema", "json_schema must be an object")
		}
		f.Schema, f.JSONObject = web.Bytes(m.JSONSchema), false
	}
	if m.Grammar == "" {
		return nil
	}
	if f.Schema != nil || f.JSONObject {
		return web.Invalid("grammar", "grammar and a response_format are mutually exclusive")
	}
	if err := wire.CheckGrammar(m.Grammar); err != nil {
		return web.Invalid("grammar", "%v", err)
	}
	f.Grammar = m.Grammar
	return nil
}
