package bridge

import (
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/inferd-go/inferd/internal/wire/web"
)

// checkHost returns an error if host is not a name of this machine; see [web.IsLocal].
func checkHost(host string, more []string) error {
	if web.IsLocal(host, more) {
		return nil
	}
	return web.Refused(http.StatusForbidden, "", "the host %.64q is not this machine: see http.hosts in the daemon's config", host)
}

// The header in which a browser describes how the page that sends a request is related to this
// server (fetch metadata), and two values of the header.
const (
	siteHeader = "Sec-Fetch-Site"
	crossSite  = "cross-site"
	sameSite   = "same-site" // another port or subdomain
)

// protection refuses requests from other origins with methods that may change state.
var protection http.CrossOriginProtection

// checkOrigin returns an error for a request from a page of another origin, unless the origin is
// listed or the request is a navigation to /. For a listed origin it returns the origin, so that
// the answer can allow the page to read it. Otherwise origin is empty.
func checkOrigin(r *http.Request, listed []string) (origin string, err error) {
	origin = r.Header.Get("Origin")
	if origin != "" && origin != "null" && slices.ContainsFunc(listed, func(p string) bool { return matchOrigin(p, origin) }) {
		return origin, nil
	}
	site := r.Header.Get(siteHeader)
	navigates := r.Method == http.MethodGet && r.URL.Path == "/" && r.Header.Get("Sec-Fetch-Mode") == "navigate"
	foreign := (site == crossSite || site == sameSite) && !navigates
	if preflight(r) && !sameHost(origin, r.Host) {
		foreign = true
	}
	if foreign || origin == "null" || protection.Check(r) != nil {
		return "", web.Refused(http.StatusForbidden, "", "the origin %.128q is not allowed: see http.origins in the daemon's config", origin)
	}
	return "", nil
}

// matchOrigin reports whether pattern equals origin, or is the scheme of origin followed by "://*".
func matchOrigin(pattern, origin string) bool {
	if scheme, ok := strings.CutSuffix(pattern, "://*"); ok {
		name, is := strings.CutPrefix(origin, scheme+"://")
		return is && name != "" && !strings.ContainsAny(name, "/?#@")
	}
	return pattern == origin
}

// sameHost reports whether an origin has the given host and port.
func sameHost(origin, host string) bool {
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && u.Host == host
}

// preflight reports whether a request is a preflight, which a browser sends to find out whether a
// page may send the actual request.
func preflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != ""
}

// maxAsked bounds the bytes of the header names in a preflight.
const maxAsked = 4 << 10

// allowOrigin sets the headers that allow a page of a listed origin to read the answer.
func allowOrigin(h http.Header, r *http.Request, origin string) {
	if origin == "" {
		return
	}
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Expose-Headers", "Request-Id, X-Request-Id, Retry-After, Inferd-Ignored")
	h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	if !preflight(r) {
		return
	}
	h.Set("Access-Control-Allow-Methods", "GET, POST, OPTIONS")
	h.Set("Access-Control-Max-Age", "600")
	if asked := r.Header.Get("Access-Control-Request-Headers"); asked != "" && len(asked) <= maxAsked {
		h.Set("Access-Control-Allow-Headers", asked)
	}
	if r.Header.Get("Access-Control-Request-Private-Network") == "true" {
		h.Set("Access-Control-Allow-Private-Network", "true")
	}
}

// fromBrowser reports whether a page in a browser has sent the request. Sec-Fetch-Mode is no sign
// of a browser, because Node also sends it.
func fromBrowser(r *http.Request) bool {
	return r.Header.Get("Origin") != "" || r.Header.Get(siteHeader) != ""
}

func isJSON(contentType string) bool {
	kind, _, err := mime.ParseMediaType(contentType)
	return err == nil && kind == "application/json"
}
