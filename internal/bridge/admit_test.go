package bridge

import (
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/inferd-go/inferd/internal/infer"
)

// Open and Blind admit only clients of this machine. A client with an unknown transport is treated
// like a TCP client.
func TestAdmitLocal(t *testing.T) {
	unknown := infer.Peer{Transport: infer.TCP}
	for name, test := range map[string]struct {
		access *Access
		peer   infer.Peer
		local  bool
		ok     bool
	}{
		"open, this machine":     {&Access{Open: true}, unknown, true, true},
		"open, another machine":  {&Access{Open: true}, unknown, false, false},
		"blind, this machine":    {&Access{Blind: true}, unknown, true, true},
		"blind, another machine": {&Access{Blind: true}, unknown, false, false},
		"a Unix socket":          {&Access{}, infer.Peer{Transport: infer.Unix}, true, true},
		"a pipe":                 {&Access{}, infer.Peer{Transport: infer.Pipe}, true, true},
		"no transport":           {&Access{}, infer.Peer{}, false, false},
	} {
		if _, err := test.access.admit(test.peer, test.local, http.Header{}); (err == nil) != test.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	for addr, want := range map[string]bool{"127.0.0.1": true, "::1": true, "::ffff:127.0.0.1": true, "192.168.1.2": false, "::ffff:10.0.0.1": false} {
		if got := loopback(&net.TCPAddr{IP: net.ParseIP(addr)}); got != want {
			t.Errorf("%s: %v", addr, got)
		}
	}
	if peer, local := connOf(httptest.NewRequest(http.MethodGet, "/", http.NoBody).Context()).client(); local || fileDecides(peer) {
		t.Errorf("a request without a connection: %+v, %v", peer, local)
	}
}
