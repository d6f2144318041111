package web

import (
	"net"
	"net/netip"
	"slices"
	"strings"
)

// IsLocal reports whether host, the value of the header Host, names this machine: localhost or a
// name below it, a loopback address, or one of the names in more. This stops DNS rebinding: the
// name of another site may resolve to 127.0.0.1, but the requests of its pages have that name in
// the header.
func IsLocal(host string, more []string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.ToLower(strings.Trim(name, "[]"))
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return true
	}
	if addr, err := netip.ParseAddr(name); err == nil && addr.Unmap().IsLoopback() {
		return true
	}
	return name != "" && slices.ContainsFunc(more, func(h string) bool { return strings.EqualFold(h, name) })
}
