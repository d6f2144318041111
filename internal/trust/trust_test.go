package trust_test

import (
	"io/fs"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/internal/trust"
)

func TestRule(t *testing.T) {
	const us, them, group, shared = 1000, 1001, 1000, 50
	j := trust.Rule{UID: us, PrimaryGroup: func(uid uint32) (uint32, bool) {
		gid, known := map[uint32]uint32{us: group, 0: 0}[uid]
		return gid, known
	}}
	const dir, sticky = fs.ModeDir, fs.ModeDir | fs.ModeSticky
	for name, test := range map[string]struct {
		facts        trust.Facts
		want, parent string // parts of the errors of Check and CheckParent; empty means no error
	}{
		"our file":                         {trust.Facts{Mode: 0o644, UID: us, GID: group}, "", ""},
		"our file with umask 002":          {trust.Facts{Mode: 0o664, UID: us, GID: group}, "", ""},
		"our file of another group":        {trust.Facts{Mode: 0o644, UID: us, GID: shared}, "", ""},
		"root's file":                      {trust.Facts{Mode: 0o644}, "", ""},
		"root's group can write":           {trust.Facts{Mode: 0o664}, "", ""},
		"our group can write root's":       {trust.Facts{Mode: 0o664, GID: group}, `"chmod g-w /x/y"`, "the group 1000"},
		"another group can write":          {trust.Facts{Mode: 0o664, UID: us, GID: shared}, `can be written to by the group 50, which is not its owner's primary group (uid 1000, mode 0664): refused; run "chmod g-w /x/y"`, "group 50"},
		"every user can write":             {trust.Facts{Mode: 0o666, UID: us, GID: group}, `/x/y can be written to by every user (uid 1000, mode 0666): refused; run "chmod o-w /x/y"`, "every user"},
		"every user can write root's":      {trust.Facts{Mode: dir | 0o777}, `folder /x/y can be written to by every user (uid 0, mode 0777): refused; run "chmod o-w /x/y"`, "every user"},
		"a sticky folder":                  {trust.Facts{Mode: sticky | 0o777}, "(uid 0, mode 1777)", ""},
		"a sticky folder of another group": {trust.Facts{Mode: sticky | 0o775, UID: us, GID: shared}, "group 50", ""},
		"another user's sticky folder":     {trust.Facts{Mode: sticky | 0o777, UID: them}, "belongs to another user", "belongs to another user"},
		"another user's file":              {trust.Facts{Mode: 0o600, UID: them}, `/x/y belongs to another user (uid 1001, mode 0600): refused; run "chown 1000 /x/y", or use another place`, "belongs"},
		"our link":                         {trust.Facts{Mode: fs.ModeSymlink | 0o777, UID: us}, "", ""},
		"another user's link":              {trust.Facts{Mode: fs.ModeSymlink | 0o777, UID: them}, "belongs to another user", "belongs"},
	} {
		t.Run(name, func(t *testing.T) {
			check(t, j.Check("/x/y", test.facts), test.want)
			check(t, j.CheckParent("/x/y", test.facts), test.parent)
		})
	}
}

// If the owner's primary group is unknown, no group may write.
func TestUnknownGroup(t *testing.T) {
	j := trust.Rule{PrimaryGroup: func(uint32) (uint32, bool) { return 0, false }}
	check(t, j.Check("/x", trust.Facts{Mode: 0o664}), "by the group 0")
}

// In a user namespace without root, root's files have another uid.
func TestNamespace(t *testing.T) {
	j := trust.Rule{UID: 1000, Root: 65534, PrimaryGroup: func(uint32) (uint32, bool) { return 0, false }}
	check(t, j.Check("/x", trust.Facts{Mode: 0o755, UID: 65534, GID: 65534}), "")
	check(t, j.CheckParent("/tmp", trust.Facts{Mode: fs.ModeDir | fs.ModeSticky | 0o777, UID: 65534}), "")
	check(t, j.Check("/x", trust.Facts{Mode: 0o775, UID: 65534, GID: 65534}), "by the group")
	check(t, j.Check("/x", trust.Facts{Mode: 0o755, UID: 1001}), "belongs to another user")
}

// The command in an error can be pasted into a shell.
func TestPathsAreQuoted(t *testing.T) {
	j := trust.Rule{}
	check(t, j.Check("/a b/it's", trust.Facts{Mode: 0o666}), `run "chmod o-w '/a b/it'\''s'"`)
}

func check(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("refused: %v", err)
	case want != "" && err == nil:
		t.Errorf("not refused, want %q", want)
	case want != "" && !strings.Contains(err.Error(), want):
		t.Errorf("%v, want %q", err, want)
	}
}
