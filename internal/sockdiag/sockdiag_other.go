//go:build !linux

package sockdiag

import (
	"errors"
	"net/netip"
)

// kernel is empty: this system has no socket diagnostics that we know.
type kernel struct{}

func open() (*Resolver, error) { return nil, errors.ErrUnsupported }

func (*kernel) close() error { return nil }

func (*kernel) lookup(_, _ netip.AddrPort) (uint32, error) { return 0, errors.ErrUnsupported }

func (*kernel) lookupListener(netip.AddrPort) (uint32, error) { return 0, errors.ErrUnsupported }
