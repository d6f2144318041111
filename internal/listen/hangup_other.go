//go:build !linux && !windows

package listen

import (
	"context"
	"errors"
	"net"
)

// awaitHangUp is not supported. On macOS, poll reports a hang-up after a half-close, too, if the
// events include reading. No query that distinguishes the two has been tested on a real Mac, and a
// mistake would cut off answers to clients that still wait.
func awaitHangUp(context.Context, net.Conn) error { return errors.ErrUnsupported }

func sendingEnded(net.Conn) (bool, error) { return false, errors.ErrUnsupported }
