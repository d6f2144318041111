package page

import (
	"github.com/inferd-go/inferd/client/stats"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/status"
)

// owns reports whether a client is the daemon's own user. A client with a key is not, even if the
// key belongs to that user: it sees only the callers of the key.
func (p *Page) owns(peer infer.Peer) bool { return peer.Is(p.UID) }

// A view is the part of the daemon's load that one client may see.
type view struct {
	stats.Daemon

	Owner bool `json:"owner"` // the client is the daemon's user, and sees everything
	// Own is the caller to which the client belongs; nil if the caller has sent no request or is
	// unknown.
	Own *stats.Caller `json:"own,omitzero"`
}

// view returns the part of the load that peer may see. The daemon's user sees everything. Other
// clients see the totals, their own callers, and the backends without processes and without reasons
// of failures, which may contain paths. They see no listeners, and of the users of an engine only
// themselves.
func (p *Page) view(s *stats.Daemon, peer infer.Peer) view {
	v := view{Daemon: *s, Owner: p.owns(peer)}
	for i := range s.Callers {
		if c := &s.Callers[i]; mine(*c, peer) && c.Program == peer.Program {
			v.Own = c
		}
	}
	if v.Owner {
		return v
	}
	v.Listeners = nil
	v.Callers = []stats.Caller{}
	for _, c := range s.Callers {
		if mine(c, peer) {
			v.Callers = append(v.Callers, c)
		}
	}
	v.Backends = make([]stats.Backend, len(s.Backends))
	for i, b := range s.Backends {
		b.PID, b.Reason, b.LastKill, b.Inexact = 0, "", "", ""
		if b.Engine != nil {
			e := *b.Engine
			e.Users = nil
			for _, u := range b.Engine.Users {
				if u.User != "" && u.User == peer.Owner() && peer.Key == "" {
					e.Users = append(e.Users, u)
				}
			}
			b.Engine = &e
		}
		v.Backends[i] = b
	}
	return v
}

// mine reports whether a client may see a caller. A client with a key sees only the caller of that
// key; any other client sees all callers of its user.
func mine(c stats.Caller, peer infer.Peer) bool {
	if peer.Key != "" {
		return c.User == peer.User && c.Program == peer.Key
	}
	return peer.Owner() != "" && c.User == peer.Owner()
}

// public returns an event without paths and reasons, which only the daemon's user may see.
func public(ev status.Event) status.Event {
	switch ev := ev.(type) {
	case status.Loading:
		ev.Phase = publicPhase(ev.Phase)
		return ev
	case status.Restarting:
		ev.Phase = publicPhase(ev.Phase)
		return ev
	case status.Liveness:
		ev.Reason = ""
		return ev
	case status.Capabilities:
		ev.Inexact = ""
		return ev
	case status.Starting, status.Ready, status.Draining, status.BackendState:
	}
	return ev
}

func publicPhase(p status.Phase) status.Phase {
	switch p := p.(type) {
	case status.CheckingLocal:
		return status.CheckingLocal{}
	case status.Download:
		p.URL = ""
		return p
	case status.Verify:
		return status.Verify{}
	case status.Quarantine:
		return status.Quarantine{}
	case status.Mmap:
		p.Path = ""
		return p
	case status.Waiting:
		return status.Waiting{}
	case status.EngineExited:
		return status.EngineExited{}
	case status.GaveUp:
		return status.GaveUp{}
	case status.KVCache:
	}
	return p
}
