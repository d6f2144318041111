package store_test

import (
	"testing"

	"golang.org/x/sys/unix"
)

// A writer has been killed, and its parent has not waited for it: the kernel keeps its pid and its
// start time. Without locks the state alone names it, and it must not stop the next writer.
func TestUnreapedWriter(t *testing.T) {
	for name, lock := range locks {
		t.Run(name, func(t *testing.T) {
			t.Setenv(locksEnv, name)
			home := ramDir(t)
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
