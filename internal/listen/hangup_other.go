//go:build !linux && !windows

package listen

import (
	"context"
	"errors"
	"net"
)

// On the Mac poll reports a hang-up for a half-close too when it is asked about
// reading. A way to ask that tells them apart has not been proved on a real one, and a
// mistake would cut off answers that somebody waits for.
func awaitHangUp(context.Context, net.Conn) error { return errors.ErrUnsupported }
