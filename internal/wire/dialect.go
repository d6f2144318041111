package wire

// Dialect is the name of a dialect in records. Its values are the constants below.
type Dialect string

// The dialects.
const (
	V1     Dialect = "v1"
	V2     Dialect = "v2"
	Embed  Dialect = "embed"
	Rerank Dialect = "rerank"

	// HTTP is the dialect in the record of a connection over HTTP. Each request on it has one of the
	// dialects below.
	HTTP      Dialect = "http"
	OpenAI    Dialect = "openai"
	Responses Dialect = "responses"
	Anthropic Dialect = "anthropic"
	Ollama    Dialect = "ollama"
	Llama     Dialect = "llama"
)

// OverHTTP reports whether requests in the dialect come over HTTP.
func (d Dialect) OverHTTP() bool {
	switch d {
	case HTTP, OpenAI, Responses, Anthropic, Ollama, Llama:
		return true
	case V1, V2, Embed, Rerank:
	}
	return false
}
