package bridge

import (
	"net/http"
	"strings"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/llama"
	"github.com/inferd-go/inferd/internal/wire/ollama"
	"github.com/inferd-go/inferd/internal/wire/openai"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// A dialect is the wire form of a route. It encodes errors, including those that occur before a
// request is decoded.
type dialect struct {
	name   wire.Dialect
	stream string // content type of a stream
	// failure returns the whole answer to a request that has failed with cause; id is the ID of the
	// request.
	failure func(cause error, id string) (status int, body []byte)
}

// eventStream is the content type of server-sent events.
const eventStream = "text/event-stream"

// openAI is the dialect of the paths of OpenAI's interface, of reranking, of /health, of the page,
// and of unknown paths outside /api.
var openAI = &dialect{wire.OpenAI, eventStream, openai.Failure}

// ollamaLines and llamaServer are the dialects of Ollama and of llama.cpp's server.
var (
	ollamaLines = &dialect{wire.Ollama, ollama.ContentType, ollama.Failure}
	llamaServer = &dialect{wire.Llama, eventStream, llama.Failure}
)

// A collector makes an answer in one piece.
type collector interface {
	// Collect takes an event. For an [infer.Done] it returns the body of the answer, otherwise nil. An
	// [infer.Error] means that the answer has failed.
	Collect(ev infer.Event) ([]byte, error)
}

// A streamer makes an answer as a stream.
type streamer interface {
	// Stream appends the bytes for an event to dst; there may be none. An [infer.Error] means that
	// the answer has failed.
	Stream(dst []byte, ev infer.Event) ([]byte, error)
	// KeepAlive appends bytes that keep a silent stream alive. They may be the first piece of the
	// stream.
	KeepAlive(dst []byte) []byte
	// Fail appends the end of a stream that has failed with cause.
	Fail(dst []byte, cause error) []byte
}

// An answer can be encoded in one piece and as a stream.
type answer interface {
	collector
	streamer
}

// A route answers the requests of a path.
type route struct {
	method  string // GET includes HEAD; empty means any
	dialect *dialect
	serve   func(*call)
	public  bool // needs no key
}

// routes are the paths of the bridge. Paths below /v1 are also served without that prefix.
var routes = map[string]route{
	"/v1/chat/completions": {method: http.MethodPost, dialect: openAI, serve: (*call).chat},
	"/v1/embeddings":       {method: http.MethodPost, dialect: openAI, serve: (*call).embeddings},
	"/v1/models":           {method: http.MethodGet, dialect: openAI, serve: (*call).models},
	"/v1/completions":      {method: http.MethodPost, dialect: openAI, serve: (*call).completions},
	"/v1/responses":        {method: http.MethodPost, dialect: responsesDialect, serve: (*call).responses},
	"/v1/rerank":           {method: http.MethodPost, dialect: openAI, serve: (*call).rerank},
	"/v2/rerank":           {method: http.MethodPost, dialect: openAI, serve: (*call).rerank},

	"/v1/messages":              {method: http.MethodPost, dialect: anthropicDialect, serve: (*call).messages},
	"/v1/messages/count_tokens": {method: http.MethodPost, dialect: anthropicDialect, serve: (*call).countTokens},

	"/":               {method: http.MethodGet, dialect: ollamaLines, serve: (*call).ollamaRoot},
	"/api/version":    {method: http.MethodGet, dialect: ollamaLines, serve: (*call).ollamaVersion},
	"/api/tags":       {method: http.MethodGet, dialect: ollamaLines, serve: (*call).ollamaTags},
	"/api/ps":         {method: http.MethodGet, dialect: ollamaLines, serve: (*call).ollamaProcesses},
	"/api/show":       {method: http.MethodPost, dialect: ollamaLines, serve: (*call).ollamaShow},
	"/api/chat":       {method: http.MethodPost, dialect: ollamaLines, serve: (*call).ollamaChat},
	"/api/generate":   {method: http.MethodPost, dialect: ollamaLines, serve: (*call).ollamaGenerate},
	"/api/embed":      {method: http.MethodPost, dialect: ollamaLines, serve: (*call).ollamaEmbed},
	"/api/embeddings": {method: http.MethodPost, dialect: ollamaLines, serve: (*call).ollamaEmbeddings},
	"/api/pull":       {method: http.MethodPost, dialect: ollamaLines, serve: (*call).ollamaPull},
	"/api/push":       {dialect: ollamaLines, serve: (*call).ollamaUnsupported},
	"/api/create":     {dialect: ollamaLines, serve: (*call).ollamaUnsupported},
	"/api/copy":       {dialect: ollamaLines, serve: (*call).ollamaUnsupported},
	"/api/delete":     {dialect: ollamaLines, serve: (*call).ollamaUnsupported},

	"/props":          {method: http.MethodGet, dialect: llamaServer, serve: (*call).llamaProps},
	"/slots":          {method: http.MethodGet, dialect: llamaServer, serve: (*call).llamaSlots},
	"/completion":     {method: http.MethodPost, dialect: llamaServer, serve: (*call).llamaCompletion},
	"/infill":         {method: http.MethodPost, dialect: llamaServer, serve: (*call).llamaInfill},
	"/tokenize":       {method: http.MethodPost, dialect: llamaServer, serve: (*call).llamaTokenize},
	"/detokenize":     {method: http.MethodPost, dialect: llamaServer, serve: (*call).llamaDetokenize},
	"/apply-template": {method: http.MethodPost, dialect: llamaServer, serve: (*call).llamaTemplate},

	"/health": {method: http.MethodGet, dialect: openAI, serve: (*call).health, public: true},
}

// trees are routes for all paths with a prefix; call.below is the rest of the path.
var trees = map[string]route{
	"/v1/models/":   {method: http.MethodGet, dialect: openAI, serve: (*call).model},
	"/v1/messages/": {dialect: anthropicDialect}, // all these paths are unknown
	"/api/blobs/":   {dialect: ollamaLines, serve: (*call).ollamaUnsupported},
}

// find returns the route of a request, and the part of the path below it. The route of an unknown
// path has only a dialect. Where OpenAI's and Anthropic's interfaces share a path, and for unknown
// paths, a header identifies Anthropic's clients.
func find(r *http.Request) (at route, below string) {
	path := r.URL.Path
	at, below, ok := lookUp(path)
	if !ok {
		at, below, ok = lookUp("/v1" + path)
	}
	switch {
	case !ok && strings.HasPrefix(path, "/api/"):
		at = route{dialect: ollamaLines}
	case !ok:
		at = route{dialect: openAI}
	}
	if at.dialect == openAI && at.method != http.MethodPost && r.Header.Get(versionHeader) != "" {
		at.dialect = anthropicDialect
	}
	return at, below
}

func lookUp(path string) (at route, below string, ok bool) {
	if at, ok := routes[path]; ok {
		return at, "", true
	}
	for prefix, at := range trees {
		if below, ok := strings.CutPrefix(path, prefix); ok && below != "" {
			return at, below, true
		}
	}
	return route{}, "", false
}

// route calls the handler of a request, or refuses a request with an unknown path or a wrong
// method. HEAD counts as GET.
func (c *call) route() {
	at, method := c.at, c.r.Method
	switch {
	case at.serve == nil:
		c.refuse(web.Refused(http.StatusNotFound, "unknown_url", "there is no %s %.64s", method, c.r.URL.Path))
	case at.method == "", method == at.method, method == http.MethodHead && at.method == http.MethodGet:
		at.serve(c)
	default:
		c.w.Header().Set("Allow", at.method)
		c.refuse(web.Refused(http.StatusMethodNotAllowed, "method_not_allowed", "%s needs the method %s", c.r.URL.Path, at.method))
	}
}
