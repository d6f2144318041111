package pull

import (
	"context"
	"net"
	"net/netip"
	"time"
)

// Hooks replace delays, addresses and sizes in tests. A zero field keeps the real one.
type Hooks struct {
	Sleep    func(context.Context, time.Duration) error
	IsPublic func(netip.Addr) bool
	Stall    time.Duration
	Ranges   int64 // bytes of a request
	Several  int64 // least size of a file that is fetched by several requests at once
	Dial     func(ctx context.Context, network, addr string) (net.Conn, error)
	Follow   func() // called before each check of the progress of another process; may be nil
}

// SetHooks replaces the hooks of a Puller.
func (p *Puller) SetHooks(h Hooks) {
	p.test = testHooks{sleep: h.Sleep, isPublic: h.IsPublic, stall: h.Stall, ranges: h.Ranges, several: h.Several, dial: h.Dial, followPause: 5 * time.Millisecond, beforeFollow: h.Follow}
}

// Pure functions, for the tests.
var (
	IsPublic     = isPublic
	Pause        = pause
	RetryAfter   = retryAfter
	ContentRange = contentRange
	Gaps         = gaps
	Strong       = strong
)
