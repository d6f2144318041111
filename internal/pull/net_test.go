package pull_test

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/internal/hubtest"
	"github.com/inferd-go/inferd/internal/modelname"
	"github.com/inferd-go/inferd/internal/pull"
)

// The hub's token is sent to the hub's origin, and to no other.
func TestTokenStaysAtItsOrigin(t *testing.T) {
	b := newBench(t)
	c := content(3*rangeOf, 20)
	b.repo(c)
	b.hub.Token = "hf_secret"
	b.fails("O/R", "no access, or there is no such model: "+b.hub.URL()+"/api/models/O/R/revision/main: http status 401 Unauthorized: gated: accept the licence on its page, and set HF_TOKEN")
	b.Token = "hf_secret"
	b.pull("O/R", pull.Options{})
	b.holds("m-q4_k_m", c)
	for _, r := range b.hub.Requests() {
		if got := r.Header.Get("Authorization"); (got != "") != (r.Origin == hubtest.Hub) && got != "" {
			t.Errorf("%s %s got %q", r.Origin, r.Path, got)
		}
	}
	// A request for a link to another origin has no token.
	b.hub.Forget()
	b.pull(b.hub.AddFile("x.gguf", &hubtest.File{Content: c}), pull.Options{})
	for _, r := range b.hub.Requests() {
		if r.Header.Get("Authorization") != "" {
			t.Errorf("%s %s got a token", r.Origin, r.Path)
		}
	}
	for _, path := range b.files() {
		if text := readFile(t, b.Store.Home, path); strings.Contains(text, "hf_secret") || strings.Contains(text, "hunter2") {
			t.Errorf("%s has a secret", path)
		}
	}
	if strings.Contains(b.log.String(), "hf_secret") {
		t.Error("the log has the token")
	}
}

// The token survives a redirect of the hub to itself. A redirect by way of another origin drops it.
func TestTokenIsDroppedForGood(t *testing.T) {
	b := newBench(t)
	b.repo(content(rangeOf, 21))
	b.hub.Token, b.Token = "hf_secret", "hf_secret"
	target := b.hub.URL() + "/api/models/O/R/revision/" + commit
	for name, test := range map[string]struct {
		to   string
		want string
	}{
		"a relative redirect": {"/api/models/O/R/revision/" + commit, ""},
		"by way of another":   {b.hub.CDNURL() + "/files/back", "http status 401"},
	} {
		b.hub.Script = func(r hubtest.Request) *hubtest.Fault {
			switch {
			case strings.HasSuffix(r.Path, "/revision/main"):
				return &hubtest.Fault{Status: 302, Header: http.Header{"Location": {test.to}}}
			case r.Path == "/files/back":
				return &hubtest.Fault{Status: 307, Header: http.Header{"Location": {target}}}
			}
			return nil
		}
		_, err := b.Pull(t.Context(), "O/R", pull.Options{Update: true}, nil)
		if got := fmt.Sprint(err); err == nil && test.want != "" || err != nil && (test.want == "" || !strings.Contains(got, test.want)) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}
}

// The registry's anonymous token goes to the registry only.
func TestOllama(t *testing.T) {
	b := newBench(t)
	c := content(3*rangeOf, 22)
	b.hub.AddImage("q:0.6b", &hubtest.File{Content: c}, &hubtest.File{Content: content(100, 23)})
	b.hub.AddImage("cloudy:latest", &hubtest.File{Content: c, Digest: "x"}, nil)
	for _, token := range []string{"", "anonymous"} {
		b.hub.RegistryToken = token
		b.hub.Forget()
		r, _ := b.pull("ollama:q:0.6b", pull.Options{Update: true})
		b.holds("q-0.6b", c)
		if r.Name != "q-0.6b" {
			t.Errorf("%+v", r)
		}
		for _, r := range b.hub.Requests() {
			if got := r.Header.Get("Authorization"); got != "" && r.Origin != hubtest.Hub {
				t.Errorf("%s %s got %q", r.Origin, r.Path, got)
			}
		}
	}
	if n := len(b.contentRequests()); n != 0 {
		t.Errorf("the second pull sent %d requests for content", n)
	}
	b.fails("ollama:none", "there is no such model or revision")
	b.fails("ollama:cloudy", "a model layer without a valid digest and size")
}

func TestOllamaManifestsThatLie(t *testing.T) {
	layer := func(kind, digest string, size int) string {
		return fmt.Sprintf(`{"mediaType":"application/vnd.ollama.image.%s","digest":%q,"size":%d}`, kind, digest, size)
	}
	digest := "sha256:" + strings.Repeat("0", 64)
	for name, test := range map[string]struct{ body, want string }{
		"not JSON":            {"<html>", "the answer is not the expected JSON"},
		"no layers":           {"{}", "no model layer"},
		"no model":            {`{"layers":[` + layer("template", digest, 1) + `]}`, "no model layer"},
		"two models":          {`{"layers":[` + layer("model", digest, 1) + "," + layer("model", digest, 1) + `]}`, "2 model layers"},
		"no size":             {`{"layers":[` + layer("model", digest, 0) + `]}`, "without a valid digest and size"},
		"a digest with a '/'": {`{"layers":[` + layer("model", "sha256:../../etc/passwd", 1) + `]}`, "without a valid digest and size"},
		"an endless one":      {strings.Repeat(" ", 9<<20), "more than 8388608 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.hub.Script = func(hubtest.Request) *hubtest.Fault { return &hubtest.Fault{Status: 200, Body: test.body} }
			b.fails("ollama:a", test.want)
		})
	}
}

// If a public registry names a private address for its tokens, the pull fails.
func TestTokenFromPrivateAddress(t *testing.T) {
	b := newBench(t)
	ln, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Skip("no second loopback address:", err)
	}
	_ = ln.Close()
	for name, test := range map[string]struct{ registry, realm, want string }{
		"to a private address":   {b.hub.Serve("127.0.0.2"), b.hub.CDNURL(), "a redirect from a public address to 127.0.0.1"},
		"between private ones":   {b.hub.CDNURL(), b.hub.Serve("127.0.0.1"), "no model layer"},
		"from private to public": {b.hub.CDNURL(), b.hub.Serve("127.0.0.2"), "no model layer"},
	} {
		t.Run(name, func(t *testing.T) {
			p := b.puller(t.TempDir())
			p.SetHooks(pull.Hooks{Sleep: b.sleep, IsPublic: func(a netip.Addr) bool { return a == netip.MustParseAddr("127.0.0.2") }})
			p.OllamaEndpoint = test.registry
			b.hub.Forget()
			b.hub.Script = func(r hubtest.Request) *hubtest.Fault {
				switch {
				case r.Path == "/token":
					return &hubtest.Fault{Status: 200, Body: `{"token":"x"}`}
				case r.Header.Get("Authorization") != "":
					return &hubtest.Fault{Status: 200, Body: "{}"}
				}
				return &hubtest.Fault{Status: 401, Header: http.Header{"Www-Authenticate": {fmt.Sprintf("Bearer realm=%q", test.realm+"/token")}}}
			}
			_, err := p.Pull(t.Context(), "ollama:a", pull.Options{}, nil)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			asked := slices.ContainsFunc(b.hub.Requests(), func(r hubtest.Request) bool { return r.Path == "/token" })
			if refused := strings.Contains(test.want, "a redirect"); asked == refused {
				t.Errorf("the token was asked for: %t", asked)
			}
		})
	}
}

// Requests to the mirror, and to the addresses to which the mirror redirects, all go through the
// proxy.
func TestMirrorAndProxy(t *testing.T) {
	b := newBench(t)
	c := content(5*rangeOf, 24)
	b.repo(c)
	hub, cdn := strings.TrimPrefix(b.hub.URL(), "https://"), strings.TrimPrefix(b.hub.CDNURL(), "https://")
	proxy := hubtest.NewProxy(t, map[string]string{"mirror.hub.test:443": hub, cdn: cdn})
	hooks := pull.Hooks{Sleep: b.sleep, IsPublic: func(netip.Addr) bool { return true }} // including loopback addresses
	b.SetHooks(hooks)
	b.HubEndpoint = "https://mirror.hub.test/"
	b.Proxy = func(*http.Request) (*url.URL, error) { return proxy.URL, nil }
	b.hub.PageSize = 1 // the listing's pages name the hub itself
	b.pull("O/R", pull.Options{})
	b.holds("m-q4_k_m", c)
	dials := proxy.Dials()
	slices.Sort(dials)
	if got := slices.Compact(dials); !slices.Equal(got, []string{cdn, "mirror.hub.test:443"}) && !slices.Equal(got, []string{"mirror.hub.test:443", cdn}) {
		t.Errorf("dials: %v", got)
	}
	// An address of the hub in the catalog is rewritten to the mirror.
	b.Catalog = modelname.Catalog{{
		Name: "mine", File: "M-Q4_K_M.gguf", SizeBytes: int64(len(c)), SHA256: hubtest.Sum(c),
		Sources: []string{"https://huggingface.co/O/R/resolve/" + commit + "/M-Q4_K_M.gguf"},
	}}
	b.Puller = func() *pull.Puller {
		p := b.puller(t.TempDir())
		p.SetHooks(hooks)
		p.HubEndpoint, p.Proxy, p.Catalog = b.HubEndpoint, b.Proxy, b.Catalog
		return p
	}()
	before := len(proxy.Dials())
	b.pull("mine", pull.Options{})
	b.holds("mine", c)
	for _, d := range proxy.Dials()[before:] {
		if d != cdn && d != "mirror.hub.test:443" {
			t.Errorf("dialled %s", d)
		}
	}
	// With EndpointOnly a redirect to another host is refused before it is dialled.
	only := b.puller(t.TempDir())
	only.HubEndpoint, only.Proxy, only.EndpointOnly = b.HubEndpoint, b.Proxy, true
	before = len(proxy.Dials())
	_, err := only.Pull(t.Context(), "O/R", pull.Options{}, nil)
	if err == nil || !strings.Contains(err.Error(), "is not at a configured endpoint (--endpoint-only)") {
		t.Errorf("got %v", err)
	}
	if got := proxy.Dials()[before:]; slices.Contains(got, cdn) {
		t.Errorf("dials: %v", got)
	}
}

// A redirect from a public address to a private one is refused, unless it is a configured endpoint.
func TestRedirectToPrivateAddress(t *testing.T) {
	b := newBench(t)
	ln, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Skip("no second loopback address:", err)
	}
	_ = ln.Close()
	c := content(rangeOf, 25)
	name := strings.TrimPrefix(b.hub.AddFile("m.gguf", &hubtest.File{Content: c}), b.hub.CDNURL())
	public := b.hub.Serve("127.0.0.2")
	port := b.hub.CDNURL()[strings.LastIndex(b.hub.CDNURL(), ":"):]
	hooks := pull.Hooks{Sleep: b.sleep, IsPublic: func(a netip.Addr) bool { return a == netip.MustParseAddr("127.0.0.2") }}
	for what, test := range map[string]struct{ from, to, want string }{
		"by number":              {public, b.hub.CDNURL() + name, "a redirect from a public address to 127.0.0.1"},
		"by name":                {public, "https://localhost" + port + name, "a redirect from a public address to "},
		"between private ones":   {b.hub.CDNURL(), "https://localhost" + port + name, ""},
		"from private to public": {b.hub.CDNURL(), public + name, ""},
	} {
		t.Run(what, func(t *testing.T) {
			p := b.puller(t.TempDir())
			p.SetHooks(hooks)
			b.hub.Script = func(r hubtest.Request) *hubtest.Fault {
				if r.Path == "/start/m.gguf" {
					return &hubtest.Fault{Status: 302, Header: http.Header{"Location": {test.to}}}
				}
				return nil
			}
			_, err := p.Pull(t.Context(), test.from+"/start/m.gguf", pull.Options{}, nil)
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			// A proxy gets no request for a private address by number. A name cannot be checked, since the
			// proxy resolves it.
			if what == "by number" {
				host := strings.TrimPrefix(public, "https://")
				proxy := hubtest.NewProxy(t, map[string]string{host: host})
				p.Proxy = func(*http.Request) (*url.URL, error) { return proxy.URL, nil }
				if _, err := p.Pull(t.Context(), test.from+"/start/m.gguf", pull.Options{}, nil); err == nil || len(proxy.Dials()) != 1 {
					t.Errorf("by a proxy: %v, dials %v", err, proxy.Dials())
				}
			}
		})
	}
	b.hub.Script = func(r hubtest.Request) *hubtest.Fault {
		if r.Path == "/start/m.gguf" {
			return &hubtest.Fault{Status: 302, Header: http.Header{"Location": {b.hub.CDNURL() + name}}}
		}
		return nil
	}
	p := b.puller(t.TempDir())
	p.SetHooks(hooks)
	p.HubEndpoint = b.hub.CDNURL()
	if _, err := p.Pull(t.Context(), public+"/start/m.gguf", pull.Options{}, nil); err != nil {
		t.Errorf("to an endpoint: %v", err)
	}
}

func TestRedirects(t *testing.T) {
	for name, test := range map[string]struct {
		hops int
		to   string
		want string
	}{
		"five":                 {5, "", ""},
		"six":                  {6, "", "more than 5 redirects"},
		"to http":              {1, "http://127.0.0.1/m.gguf", "only https:// is followed"},
		"with a user":          {1, "https://u:p@127.0.0.1/m.gguf", "its address has a user name"},
		"to nowhere":           {1, "https:///", "its redirect has no valid address"},
		"to another protocol":  {1, "ftp://127.0.0.1/m.gguf", "only https:// is followed"},
		"to something invalid": {1, "https://%zz", "its redirect has no valid address"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			c := content(rangeOf, 26)
			link := b.hub.AddFile("m.gguf", &hubtest.File{Content: c})
			b.hub.Script = func(r hubtest.Request) *hubtest.Fault {
				n := 0
				if _, err := fmt.Sscanf(r.Path, "/hop/%d/m.gguf", &n); err != nil {
					return nil
				}
				to := test.to
				switch {
				case to == "" && n > 1:
					to = fmt.Sprintf("/hop/%d/m.gguf", n-1)
				case to == "":
					to = link
				}
				return &hubtest.Fault{Status: 308, Header: http.Header{"Location": {to}}}
			}
			start := fmt.Sprintf("%s/hop/%d/m.gguf", b.hub.CDNURL(), test.hops)
			if test.want != "" {
				b.fails(start, test.want)
				return
			}
			b.pull(start, pull.Options{})
			b.holds("m", c)
		})
	}
}

func TestIsPublic(t *testing.T) {
	for addr, want := range map[string]bool{
		"1.1.1.1": true, "93.184.216.34": true, "2606:4700::1111": true, "::ffff:1.1.1.1": true, "64:ff9b::101:101": true, "2002:101:101::": true,
		"127.0.0.1": false, "::1": false, "0.0.0.0": false, "0.1.2.3": false, "10.1.2.3": false, "172.16.0.1": false, "192.168.1.1": false,
		"169.254.169.254": false, "100.64.0.1": false, "192.0.0.8": false, "198.18.0.1": false, "224.0.0.1": false, "240.0.0.1": false, "255.255.255.255": false,
		"fe80::1": false, "fc00::1": false, "ff02::1": false, "fec0::1": false, "::": false,
		"::ffff:10.0.0.1": false, "::ffff:127.0.0.1": false, "64:ff9b::a00:1": false, "64:ff9b::7f00:1": false, "2002:a00:1::": false, "2002:c0a8:101::1": false,
	} {
		if got := pull.IsPublic(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: got %t", addr, got)
		}
	}
}

func TestStrong(t *testing.T) {
	for etag, want := range map[string]string{`"a"`: `"a"`, `W/"a"`: "", "": "", `"`: "", "a": "", `""`: `""`} {
		if got := pull.Strong(etag); got != want {
			t.Errorf("%s: got %s", etag, got)
		}
	}
}

// A certificate of an unknown authority ends the pull at once, without eight tries.
func TestUnknownAuthority(t *testing.T) {
	b := newBench(t)
	b.repo(content(rangeOf, 27))
	other := hubtest.New(t)
	b.Roots = other.Roots()
	b.fails("O/R", "SSL_CERT_FILE")
	b.fails(b.hub.AddFile("m.gguf", &hubtest.File{Content: content(rangeOf, 27)}), "SSL_CERT_FILE")
	b.paused(0)
}

func TestEndpointsAreChecked(t *testing.T) {
	b := newBench(t)
	for _, e := range []string{"http://h", "h", "https://", "https://u@h", "https://h?x", "://"} {
		b.HubEndpoint, b.OllamaEndpoint = e, ""
		b.fails("O/R", "the endpoint of the hub must be an https:// address")
		b.HubEndpoint, b.OllamaEndpoint = "", e
		b.fails("O/R", "the endpoint of the registry of Ollama must be an https:// address")
	}
}
