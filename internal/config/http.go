package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/inferd-go/inferd/internal/settings"
)

// HTTP holds the settings of the HTTP surface.
type HTTP struct {
	Sock     bool // listen on a socket
	Listen   []HTTPAddr
	Keys     []HTTPKey
	Open     bool     // accept every user of this machine over TCP, without a key
	AnyModel bool     // send requests with an unknown model to the default entry
	Page     bool     // serve the page for browsers
	Hosts    []string // names of this machine for the header Host, besides localhost
	Origins  []string // origins of the web pages that may use HTTP
}

// An HTTPAddr is a TCP address of the HTTP surface.
type HTTPAddr struct {
	netip.AddrPort

	// Optional means that the address need not exist on this machine, such as [::1] without IPv6.
	Optional bool
}

// An HTTPKey names the source of a client's key: the variable Env, or the file File.
type HTTPKey struct{ Name, Env, File string }

// httpFlags holds the settings of HTTP as the flags and the config file spell them.
type httpFlags struct {
	Listen               settings.Words
	Sock                 bool
	Open, AnyModel, Page bool
	Hosts, Origins       settings.Words
}

// readHTTPKeys reads the keys of the config file.
func readHTTPKeys(o *settings.Object) (all []HTTPKey) {
	for _, one := range o.Children("keys") {
		var k HTTPKey
		one.Text("name", &k.Name)
		one.Text("key_env", &k.Env)
		one.Text("key_file", &k.File)
		switch {
		case k.Name == "":
			one.Failf("name", "must not be empty")
		case (k.Env == "") == (k.File == ""):
			one.Failf("", ": one of key_env and key_file is needed")
		}
		for _, other := range all {
			if other.Name == k.Name {
				one.Failf("name", "%q is the name of an earlier key", k.Name)
			}
		}
		all = append(all, k)
	}
	return all
}

// http checks the settings of f and sets c.HTTP. The keys in c.HTTP must have been read before.
func (c *Config) http(f *Flags) error {
	h := &c.HTTP
	h.Sock, h.Open, h.AnyModel, h.Page, h.Hosts, h.Origins = f.HTTP.Sock, f.HTTP.Open, f.HTTP.AnyModel, f.HTTP.Page, f.HTTP.Hosts, f.HTTP.Origins
	name := "http.listen"
	if f.IsSet("http") {
		name = "--http"
	}
	for _, word := range f.HTTP.Listen {
		switch word {
		case "false":
			h.Listen = nil
			continue
		case settings.Bare:
			h.Listen = append(h.Listen, HTTPAddr{AddrPort: netip.MustParseAddrPort("127.0.0.1:8080")},
				HTTPAddr{AddrPort: netip.MustParseAddrPort("[::1]:8080"), Optional: true})
			continue
		}
		addr, err := netip.ParseAddrPort(strings.Replace(word, "localhost:", "127.0.0.1:", 1))
		switch {
		case err != nil:
			return fmt.Errorf("%s %q: want an address and a port, such as 127.0.0.1:8080", name, word)
		case !addr.Addr().Unmap().IsLoopback() && (len(h.Keys) == 0 || len(h.Hosts) == 0):
			return fmt.Errorf("%s %s is not a loopback address: clients of other machines need http.keys, and their names for this machine http.hosts", name, word)
		case !addr.Addr().Unmap().IsLoopback() && h.Open:
			return fmt.Errorf("%s %s is not a loopback address: http.open is for loopback addresses only", name, word)
		case !addr.Addr().Unmap().IsLoopback():
			c.Warnings = append(c.Warnings, name+" "+word+": keys and prompts can be read on the network: there is no TLS")
		}
		h.Listen = append(h.Listen, HTTPAddr{AddrPort: addr})
	}
	for _, o := range h.Origins {
		scheme, host, ok := strings.Cut(o, "://")
		switch {
		case !ok || strings.HasSuffix(o, "/"):
			return fmt.Errorf("http.origins: %.128q is not an origin: want a scheme and a host, such as https://app.example", o)
		case strings.Contains(o, "*") && (host != "*" || scheme == "http" || scheme == "https" || strings.Contains(scheme, "*")):
			return fmt.Errorf("http.origins: %.128q: a * stands only for the whole host of an application, such as vscode-webview://*", o)
		}
	}
	for _, host := range h.Hosts {
		if _, _, err := net.SplitHostPort(host); err == nil {
			return fmt.Errorf("http.hosts: %.128q has a port: want the name alone, every port is allowed", host)
		}
	}
	if h.Open && len(h.Listen) > 0 {
		c.Warnings = append(c.Warnings, "http.open: every user of this machine is accepted over TCP")
	}
	if !h.Sock && len(h.Listen) == 0 && len(h.Keys) > 0 {
		return errors.New("http.keys: HTTP is switched off")
	}
	return nil
}

// Secrets returns the names of the variables that hold keys.
func (c *Config) Secrets() []string {
	all := c.TCP.KeyVariables
	for _, k := range c.HTTP.Keys {
		if k.Env != "" {
			all = append(all, k.Env)
		}
	}
	return all
}
