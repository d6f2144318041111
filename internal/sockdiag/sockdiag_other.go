//go:build !linux

package sockdiag

import (
	"errors"
	"net/netip"
)

// kernel is empty: the package does not support the socket diagnostics of this system.
type kernel struct{}

func open() (*Resolver, error) { return nil, errors.ErrUnsupported }

func (*kernel) close() error { return nil }

func (*kernel) lookup(_, _ netip.AddrPort) (uint32, error) { return 0, errors.ErrUnsupported }

func (*kernel) lookupListener(netip.AddrPort) (uint32, error) { return 0, errors.ErrUnsupported }
