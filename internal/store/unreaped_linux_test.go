package store_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/inferd-go/inferd/internal/shortdir"
)

// A killed writer does not block the next writer, even before its parent has waited for it. Until
// then the kernel still reports its pid and its start time, and the state names it as the writer.
func TestUnreapedWriter(t *testing.T) {
	for name, lock := range locks {
		t.Run(name, func(t *testing.T) {
			t.Setenv(locksEnv, name)
			home := shortdir.InMemory(t)
			cmd, _, _ := started(t, "hold", home, "0")
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
				t.Fatal(err)
			}
			begin(t, other(t, home, lock), killedWant())
			_ = cmd.Wait()
		})
	}
}
