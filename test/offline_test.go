package test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/inferd-go/inferd/internal/shortdir"
)

// enter is a shell command that runs its arguments with the loopback device switched on, in a
// network namespace.
const enter = `PATH="$PATH:/usr/sbin:/sbin"; ip link set lo up && exec "$@"`

// startOffline starts a daemon with the given config in a network namespace that has only a
// loopback device. If the system does not allow that, it starts a daemon with the network.
func startOffline(t *testing.T, cfg string) *daemon {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "unshare", "-rn", "sh", "-c", enter, "sh", "true").CombinedOutput(); err != nil {
		t.Logf("the network is not cut off: %v %.200s", err, out)
		return startWith(t, cfg)
	}
	dir := shortdir.New(t)
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(cfg), 0o600); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "inferd")
	script := "#!/bin/sh\nexec unshare -rn sh -c '" + enter + "' sh " + filepath.Join(bin, "inferd") + ` "$@"` + "\n"
	if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	d := startProgram(t, program, dir)
	d.offline = true
	return d
}

// beside returns a command that runs in the daemon's network namespace, so that it reaches the
// daemon over TCP.
func (d *daemon) beside(ctx context.Context, program string, args ...string) *exec.Cmd {
	d.t.Helper()
	d.httpAddr() // once it listens, it is in the namespace
	if d.offline {
		args = append([]string{"--preserve-credentials", "-U", "-n", "-t", strconv.Itoa(d.cmd.Process.Pid), program}, args...)
		program = "nsenter"
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.WaitDelay = patience
	return cmd
}

// A program beside an offline daemon reaches the daemon, and no other address.
func TestOffline(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("no curl")
	}
	d := startOffline(t, `{"http":{"listen":["127.0.0.1:0"]},"backends":[{"kind":"mock","name":"gen"}]}`)
	d.waitReady()
	curl := func(url string) (string, error) {
		out, err := d.beside(t.Context(), "curl", "-s", "--max-time", "60", url).Output()
		return string(out), err
	}
	if out, err := curl("http://" + d.httpAddr() + "/health"); err != nil || out != `{"status":"ok"}` {
		t.Errorf("the daemon: %q, %v", out, err)
	}
	if !d.offline {
		t.Skip("the network is not cut off here")
	}
	if out, err := curl("http://192.0.2.1/"); err == nil {
		t.Errorf("the network is there: %q", out)
	}
}
