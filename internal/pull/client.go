package pull

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	maxRedirects   = 5
	connectTimeout = 30 * time.Second
	stallTimeout   = 30 * time.Second // the longest time without a byte
)

// A client sends requests and follows redirects itself, by these rules: https only; at most five
// redirects; never from a public address to a private one; a credential is sent only to its own
// origin, and is dropped for good by a redirect to another origin.
//
// Whether an address is public depends on the dialled IP, not on the name of the host. Proxies and
// configured endpoints are exempt.
type client struct {
	agent        string          // value of the User-Agent header
	hub          string          // origin of the hub
	endpoints    map[string]bool // configured origins
	endpointOnly bool            // only endpoints may be dialled
	isPublic     func(netip.Addr) bool
	proxy        func(*http.Request) (*url.URL, error)

	any    *http.Transport // dials every address
	public *http.Transport // dials public addresses and proxies

	mu      sync.Mutex      // guards the field below
	proxies map[string]bool // HOST:PORT of the proxies used so far
}

// A credential is the value of an Authorization header, for one origin.
type credential struct{ origin, value string }

// A dialer makes a connection, as net.Dialer does.
type dialer func(ctx context.Context, network, addr string) (net.Conn, error)

func newClient(agent string, hub *url.URL, endpoints []*url.URL, endpointOnly bool, roots *x509.CertPool,
	proxy func(*http.Request) (*url.URL, error), isPublic func(netip.Addr) bool, dial dialer,
) *client {
	c := &client{
		agent: agent, hub: originOf(hub), endpoints: make(map[string]bool), endpointOnly: endpointOnly,
		isPublic: isPublic, proxy: proxy, proxies: make(map[string]bool),
	}
	for _, e := range endpoints {
		c.endpoints[originOf(e)] = true
	}
	if dial == nil {
		dial = (&net.Dialer{Timeout: connectTimeout}).DialContext
	}
	c.any = c.transport(roots, dial)
	c.public = c.transport(roots, c.dialPublic)
	return c
}

// close closes the idle connections.
func (c *client) close() {
	c.any.CloseIdleConnections()
	c.public.CloseIdleConnections()
}

func (c *client) transport(roots *x509.CertPool, dial dialer) *http.Transport {
	return &http.Transport{
		Proxy:                 c.proxyOf,
		DialContext:           dial,
		TLSClientConfig:       &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:   connectTimeout,
		ResponseHeaderTimeout: stallTimeout,
		IdleConnTimeout:       90 * time.Second,
		MaxIdleConnsPerHost:   8,
		DisableCompression:    true,
		// HTTP/1.1: several requests for ranges gain nothing from sharing one connection.
		TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{},
	}
}

// proxyOf is the proxy function of the transports. It records the address of the proxy, so that
// dialPublic dials it.
func (c *client) proxyOf(r *http.Request) (*url.URL, error) {
	proxy, err := c.proxy(r)
	if err != nil || proxy == nil {
		return proxy, err
	}
	port := proxy.Port()
	if port == "" {
		port = map[string]string{"https": "443", "socks5": "1080", "socks5h": "1080"}[proxy.Scheme]
		if port == "" {
			port = "80"
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.proxies[net.JoinHostPort(proxy.Hostname(), port)] = true
	return proxy, nil
}

// An addressError means that a public address has redirected to a private one.
type addressError struct{ addr string }

func (e *addressError) Error() string {
	return fmt.Sprintf("a redirect from a public address to %s, which is not public, is refused", e.addr)
}

// dialPublic dials proxies and public addresses. It refuses any other address.
func (c *client) dialPublic(ctx context.Context, network, addr string) (net.Conn, error) {
	d := &net.Dialer{Timeout: connectTimeout}
	c.mu.Lock()
	proxy := c.proxies[addr]
	c.mu.Unlock()
	if !proxy {
		d.Control = func(_, dialled string, _ syscall.RawConn) error {
			ap, err := netip.ParseAddrPort(dialled)
			if err != nil || !c.isPublic(ap.Addr()) {
				return &addressError{dialled}
			}
			return nil
		}
	}
	return d.DialContext(ctx, network, addr)
}

// An answer is the response after all redirects. The caller must close its body.
type answer struct {
	*http.Response
	url        *url.URL    // of this response; may have a secret query
	cred       *credential // nil once a redirect has dropped it
	hops       []http.Header
	fromPublic bool // an address in the chain was public
}

// A target is the address to which a request is sent: the first of a chain of redirects, or the last,
// so that further requests for the same content skip the redirects.
type target struct {
	url        *url.URL
	cred       *credential
	fromPublic bool
}

// finalTarget returns the target of further requests for the same content.
func (a *answer) finalTarget() target { return target{a.url, a.cred, a.fromPublic} }

// headerInChain returns the first value of a header in the redirects and the response.
func (a *answer) headerInChain(name string) string {
	for _, h := range a.hops {
		if v := h.Get(name); v != "" {
			return v
		}
	}
	return a.Header.Get(name)
}

// do sends a request without a body, and follows redirects.
func (c *client) do(ctx context.Context, method string, t target, header http.Header) (*answer, error) {
	a := &answer{url: t.url, cred: t.cred, fromPublic: t.fromPublic}
	for n := 0; ; n++ {
		if err := c.allowed(a, n); err != nil {
			return nil, err
		}
		resp, err := c.once(ctx, method, a, header)
		if err != nil {
			return nil, err
		}
		next, err := redirect(resp, a.url)
		if err != nil || next == nil {
			if err != nil {
				return nil, errors.Join(err, resp.Body.Close())
			}
			a.Response = resp
			return a, nil
		}
		a.hops = append(a.hops, resp.Header)
		if err := resp.Body.Close(); err != nil {
			return nil, err
		}
		if a.cred != nil && originOf(next) != a.cred.origin {
			a.cred = nil
		}
		a.url = next
	}
}

// A refusedError means that the rules of client forbid a request.
type refusedError struct{ what string }

func (e *refusedError) Error() string { return e.what }

// allowed returns an error if the rules forbid the next request of a chain, after n redirects.
func (c *client) allowed(a *answer, n int) error {
	switch {
	case n > maxRedirects:
		return &refusedError{fmt.Sprintf("%s: more than %d redirects", display(a.url), maxRedirects)}
	case a.url.Scheme != "https" && n == 0:
		return &refusedError{fmt.Sprintf("model URL must be https:// (got %s)", display(a.url))}
	case a.url.Scheme != "https":
		return &refusedError{fmt.Sprintf("a redirect to %s is refused: only https:// is followed", display(a.url))}
	case a.url.User != nil:
		return &refusedError{fmt.Sprintf("a redirect to %s is refused: its address has a user name", display(a.url))}
	case c.endpointOnly && !c.endpoints[originOf(a.url)]:
		return &refusedError{fmt.Sprintf("%s is not at a configured endpoint (--endpoint-only)", display(a.url))}
	}
	if ip, err := netip.ParseAddr(a.url.Hostname()); err == nil && a.fromPublic && !c.endpoints[originOf(a.url)] && !c.isPublic(ip) {
		return &addressError{a.url.Host} // a proxy would connect to this address
	}
	return nil
}

// once sends one request of a chain, and records whether the address that answered was public.
func (c *client) once(ctx context.Context, method string, a *answer, header http.Header) (*http.Response, error) {
	var remote net.Addr
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { remote = info.Conn.RemoteAddr() }}
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, trace), method, a.url.String(), http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("%s: the address is not valid", display(a.url)) // err contains the query, which may be secret
	}
	maps.Copy(req.Header, header)
	req.Header.Set("User-Agent", c.agent)
	req.Header.Set("Accept-Encoding", "identity")
	if a.cred != nil && originOf(a.url) == a.cred.origin {
		req.Header.Set("Authorization", a.cred.value)
	}
	configured := c.endpoints[originOf(a.url)]
	transport := c.any
	if a.fromPublic && !configured {
		transport = c.public
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", display(a.url), err)
	}
	a.fromPublic = a.fromPublic || c.reachedPublic(req, remote)
	return resp, nil
}

// reachedPublic reports whether a request went to a public address. Behind a proxy every host counts as
// public, except for a private IP address.
func (c *client) reachedPublic(req *http.Request, remote net.Addr) bool {
	if proxy, err := c.proxy(req); err == nil && proxy != nil {
		ip, err := netip.ParseAddr(req.URL.Hostname())
		return err != nil || c.isPublic(ip)
	}
	tcp, ok := remote.(*net.TCPAddr)
	if !ok {
		return false
	}
	return c.isPublic(tcp.AddrPort().Addr())
}

// redirect returns the address to which a response redirects, or nil if it does not redirect.
func redirect(resp *http.Response, from *url.URL) (*url.URL, error) {
	switch resp.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
	default:
		return nil, nil // no redirect is no failure
	}
	location := resp.Header.Get("Location")
	next, err := from.Parse(location)
	if err != nil || location == "" || next.Host == "" {
		return nil, &refusedError{fmt.Sprintf("%s: its redirect has no valid address", display(from))}
	}
	next.Fragment = ""
	return next, nil
}

// originOf returns the scheme, host and port of a URL.
func originOf(u *url.URL) string {
	host, port := strings.ToLower(u.Hostname()), u.Port()
	if port == "" {
		port = map[string]string{"https": "443", "http": "80"}[u.Scheme]
	}
	return u.Scheme + "://" + net.JoinHostPort(host, port)
}

// display returns a URL without its query, for reports: the query of a signed link is a secret.
func display(u *url.URL) string {
	shown := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}
	return shown.String()
}

// notPublic lists networks that are not routed on the public internet, beyond netip's predicates.
var notPublic = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"), // shared by carriers
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"), // benchmarks
	netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("fec0::/10"), // site-local, deprecated
}

// embedding lists the IPv6 networks with addresses that contain an IPv4 address; at is the index of
// its first byte.
var embedding = []struct {
	prefix netip.Prefix
	at     int
}{
	{netip.MustParsePrefix("64:ff9b::/96"), 12}, // NAT64
	{netip.MustParsePrefix("2002::/16"), 2},     // 6to4
}

// isPublic reports whether an address belongs to the public internet.
func isPublic(addr netip.Addr) bool {
	addr = addr.Unmap()
	if !addr.IsGlobalUnicast() || addr.IsPrivate() {
		return false
	}
	for _, p := range notPublic {
		if p.Contains(addr) {
			return false
		}
	}
	for _, e := range embedding {
		if bytes := addr.As16(); addr.Is6() && e.prefix.Contains(addr) {
			return isPublic(netip.AddrFrom4([4]byte(bytes[e.at : e.at+4])))
		}
	}
	return true
}
