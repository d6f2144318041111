package web

import (
	"net"
	"net/netip"
	"slices"
	"strings"
)

// IsLocal reports whether the header Host names this machine: localhost, a loopback address, or one
// of the names in more. A page of another site may have a name that resolves to 127.0.0.1; the
// header of its requests has that name.
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
