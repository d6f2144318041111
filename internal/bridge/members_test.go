package bridge

import (
	"net/http"
	"os/user"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inferd-go/inferd/internal/infer"
)

// A member of the group needs no key; here the group is the primary group of the member. Root does
// not count as a member, because programs that pass on requests of other users often run as root.
func TestGroupMembers(t *testing.T) {
	member, err := user.Lookup("daemon")
	if err != nil {
		t.Skip("there is no user daemon: ", err)
	}
	group, err := user.LookupGroupId(member.Gid)
	if err != nil {
		t.Skip("its group has no name: ", err)
	}
	const stranger = "61234"
	for name, test := range map[string]struct {
		group, uid string
		ok         bool
	}{
		"a member":              {group.Name, member.Uid, true},
		"no member":             {group.Name, stranger, false},
		"a group without users": {"no-such-group", member.Uid, false},
		"no group":              {"", member.Uid, false},
		"root":                  {"root", "0", false},
		"an unknown user":       {group.Name, "", false},
	} {
		a := &Access{UID: -1, Group: test.group}
		peer := infer.Peer{Transport: infer.TCP, User: test.uid}
		if _, err := a.admit(peer, true, http.Header{}); (err == nil) != test.ok {
			t.Errorf("%s: %v", name, err)
		}
		peer.Relayed = true
		if _, err := a.admit(peer, true, http.Header{"Via": {"1.1 x"}}); err == nil {
			t.Errorf("%s, as a proxy: admitted", name)
		}
	}
}

// A membership is cached for a minute, and the number of cached memberships is bounded.
func TestMembershipsAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memberships{user: map[string]membership{"61234": {true, time.Now().Add(rememberMember)}}}
		time.Sleep(rememberMember - 1)
		if !m.has("61234", "no-such-group") {
			t.Error("it is looked up again within a minute")
		}
		time.Sleep(time.Nanosecond)
		if m.has("61234", "no-such-group") {
			t.Error("it is kept for longer than a minute")
		}
	})
	m := new(memberships)
	for i := range 2*maxMembers + 10 {
		m.has(time.Duration(i).String(), "no-such-group")
		if len(m.user) > maxMembers {
			t.Fatalf("%d memberships are kept", len(m.user))
		}
	}
}
