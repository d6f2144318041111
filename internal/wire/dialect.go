package wire

// Dialect is the name of a dialect in records. The set is closed.
type Dialect string

// Dialects.
const (
	V1     Dialect = "v1"
	V2     Dialect = "v2"
	Embed  Dialect = "embed"
	Rerank Dialect = "rerank"

	// HTTP is the dialect of a connection over HTTP, where each request has its own.
	HTTP   Dialect = "http"
	OpenAI Dialect = "openai"
)
