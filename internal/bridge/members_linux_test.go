package bridge

import (
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/inferd-go/inferd/internal/infer"
)

// A user that belongs to the group only by the group's member list needs no key. Root needs one
// even if it is in the list.
func TestSupplementaryGroup(t *testing.T) {
	member, err := user.Lookup("daemon")
	if err != nil {
		t.Skip("there is no user daemon: ", err)
	}
	groups, err := os.ReadFile("/etc/group")
	if err != nil {
		t.Skip(err)
	}
	file := filepath.Join(t.TempDir(), "group")
	if err := os.WriteFile(file, append(groups, "\ninferd-test:x:61235:daemon,root\n"...), 0o644); err != nil {
		t.Fatal(err)
	}
	mounted := make(chan error)
	allowed := make(map[string]bool)
	go func() {
		runtime.LockOSThread() // the thread, which alone has the changed mount, ends with the goroutine
		err := mountPrivately(file, "/etc/group")
		if err == nil {
			a := &Access{UID: -1, Group: "inferd-test"}
			for _, uid := range []string{member.Uid, "0", "61234"} {
				_, refusal := a.admit(infer.Peer{Transport: infer.TCP, User: uid}, true, http.Header{})
				allowed[uid] = refusal == nil
			}
		}
		mounted <- err
	}()
	if err := <-mounted; err != nil {
		t.Skip("cannot mount: ", err)
	}
	if !allowed[member.Uid] || allowed["0"] || allowed["61234"] {
		t.Errorf("allowed: %v", allowed)
	}
}

// mountPrivately replaces the file at path, for the calling thread only.
func mountPrivately(file, path string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	return unix.Mount(file, path, "", unix.MS_BIND, "")
}
