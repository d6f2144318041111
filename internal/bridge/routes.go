package bridge

import (
	"net/http"
	"strings"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
	"github.com/inferd-go/inferd/internal/wire/openai"
	"github.com/inferd-go/inferd/internal/wire/web"
)

// A dialect has the words for what may happen to every request, of any route.
type dialect struct {
	name   wire.Dialect
	stream string // content type of streams
	// failure returns the whole answer to a request that has failed; id is that of the request.
	failure func(cause error, id string) (status int, body []byte)
}

// eventStream is the content type of server-sent events.
const eventStream = "text/event-stream"

// openAI is also the dialect of unknown paths.
var openAI = &dialect{wire.OpenAI, eventStream, openai.Failure}

// A collector makes an answer in one piece.
type collector interface {
	// Collect takes an event. For the Done it returns the body of the answer, else nil. An
	// [infer.Error] means that the answer has failed.
	Collect(ev infer.Event) ([]byte, error)
}

// A streamer makes a stream.
type streamer interface {
	// Stream appends the bytes of an event, which may be none. An [infer.Error] means that the
	// answer has failed.
	Stream(dst []byte, ev infer.Event) ([]byte, error)
	// KeepAlive appends what a stream sends after a time of silence. It may be its beginning.
	KeepAlive(dst []byte) []byte
	// Fail appends the end of a stream that has failed.
	Fail(dst []byte, cause error) []byte
}

// An answer is what a client asks for: in one piece or as a stream.
type answer interface {
	collector
	streamer
}

// A route answers the requests of a path.
type route struct {
	method  string // GET includes HEAD
	dialect *dialect
	serve   func(*call)
	public  bool // needs no key
}

// routes are the paths of the bridge. Those below /v1 are served without it, too.
var routes = map[string]route{
	"/v1/chat/completions": {method: http.MethodPost, dialect: openAI, serve: (*call).chat},
	"/v1/embeddings":       {method: http.MethodPost, dialect: openAI, serve: (*call).embeddings},
	"/v1/models":           {method: http.MethodGet, dialect: openAI, serve: (*call).models},
	"/health":              {method: http.MethodGet, dialect: openAI, serve: (*call).health, public: true},
}

// trees are the paths that have all paths below them: call.below is the rest.
var trees = map[string]route{
	"/v1/models/": {method: http.MethodGet, dialect: openAI, serve: (*call).model},
}

// find returns the route of a path, and the part of the path below it. The route of an unknown
// path has a dialect only.
func find(path string) (at route, below string) {
	if at, below, ok := lookUp(path); ok {
		return at, below
	}
	if at, below, ok := lookUp("/v1" + path); ok {
		return at, below
	}
	return route{dialect: openAI}, ""
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

// route calls the handler of a request; HEAD is GET without a body.
func (c *call) route() {
	at, method := c.at, c.r.Method
	switch {
	case at.serve == nil:
		c.refuse(web.Refused(http.StatusNotFound, "unknown_url", "there is no %s %.64s", method, c.r.URL.Path))
	case method == at.method, method == http.MethodHead && at.method == http.MethodGet:
		at.serve(c)
	default:
		c.w.Header().Set("Allow", at.method)
		c.refuse(web.Refused(http.StatusMethodNotAllowed, "method_not_allowed", "%s needs the method %s", c.r.URL.Path, at.method))
	}
}
