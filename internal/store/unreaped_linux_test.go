package store_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/inferd-go/inferd/internal/shortdir"
)

// A writer was killed, and its parent has not waited for it: the kernel still keeps its pid and its
// start time. Without locks only the state names the writer, and it must not stop the next one.
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
