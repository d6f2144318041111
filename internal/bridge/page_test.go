package bridge_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/internal/bridge"
	"github.com/inferd-go/inferd/internal/infer"
)

// An echoPage is a Page that answers with the method, the user and the key of the request.
type echoPage struct{}

func (echoPage) Takes(r *http.Request) bool {
	return strings.HasPrefix(r.URL.Path, "/inferd/") || r.URL.Path == "/" && r.Header.Get("Accept") == "text/html"
}

func (echoPage) Public(path string) bool { return path == "/" || path == "/inferd/file" }

func (echoPage) Serve(w http.ResponseWriter, r *http.Request, peer infer.Peer) {
	_, _ = io.WriteString(w, r.Method+" "+peer.User+"/"+peer.Key)
}

const asksHTML = "Accept: text/html"

// The files of the page need no key, but its paths with live data do. The host and the origin are
// checked for both.
func TestPage(t *testing.T) {
	const own, other = 1000, 1001
	right := "Authorization: Bearer " + secret
	for name, test := range map[string]struct {
		uid     int
		request string
		status  int
		body    string
	}{
		"the page":                           {own, request("GET", "/", "", asksHTML), 200, "GET 1000/"},
		"its files, to anyone":               {other, request("GET", "/inferd/file", ""), 200, "GET 1001/"},
		"the page, to anyone":                {other, request("GET", "/", "", asksHTML), 200, "GET 1001/"},
		"the page, with a wrong key":         {own, request("GET", "/", "", asksHTML, "X-Api-Key: no-such-key-here"), 200, "GET 1000/"},
		"a live path":                        {own, request("GET", "/inferd/stats", ""), 200, "GET 1000/"},
		"a live path, to another user":       {other, request("GET", "/inferd/stats", ""), 403, ""},
		"a live path, with a key":            {other, request("GET", "/inferd/stats", "", right), 200, "GET 1001/ci"},
		"a live path, through a proxy":       {own, request("GET", "/inferd/stats", "", "Via: x"), 403, ""},
		"a program at /":                     {own, request("GET", "/", "", "Accept: */*"), 200, "Ollama is running"},
		"another host":                       {own, request("GET", "/", "", asksHTML, "Host: evil.example"), 403, ""},
		"another site's request":             {own, request("GET", "/inferd/stats", "", "Sec-Fetch-Site: cross-site"), 403, ""},
		"another site's picture":             {own, request("GET", "/inferd/file", "", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"), 403, ""},
		"a link of another site":             {own, request("GET", "/", "", asksHTML, "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"), 200, "GET 1000/"},
		"a link of another site, live paths": {own, request("GET", "/inferd/stats", "", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"), 403, ""},
		"another method":                     {own, request("POST", "/inferd/stats", ""), 200, "POST 1000/"},
	} {
		t.Run(name, func(t *testing.T) {
			h := open(t, words("a"), func(b *bridge.Bridge) {
				b.Page = echoPage{}
				b.Access.UID, b.Access.Keys = own, []*bridge.Key{key(t, "ci", secret)}
				b.UserOf = func(*net.TCPConn) (uint32, error) { return uint32(test.uid), nil }
			})
			got := h.once(test.request)
			if got.status != test.status || test.body != "" && got.body != test.body {
				t.Errorf("got %+v", got)
			}
			if got.header.Get("X-Content-Type-Options") != "nosniff" || got.header.Get("Cross-Origin-Resource-Policy") != "same-origin" {
				t.Errorf("headers %v", got.header)
			}
		})
	}
}

// The page is served before the models are known. If the bridge has no Page, its paths do not
// exist.
func TestPageIsEarly(t *testing.T) {
	h := build(t, words("a"), func(b *bridge.Bridge) {
		b.Page = echoPage{}
		b.UserOf = func(*net.TCPConn) (uint32, error) { return 0, errors.New("unknown") }
	}).serve()
	if got := h.once(request("GET", "/", "", asksHTML)); got.status != 200 || got.body != "GET /" {
		t.Errorf("got %+v", got)
	}
	none := open(t, words("a"), nil)
	for _, path := range []string{"/inferd/", "/inferd/stats", "/inferd/page/main.js"} {
		if got := none.once(request("GET", path, "")); got.status != 404 {
			t.Errorf("%s: %+v", path, got)
		}
	}
}
