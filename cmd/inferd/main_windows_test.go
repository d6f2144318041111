package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/windows"

	"github.com/inferd-go/inferd/client"
)

// daemonEnv is the variable that makes the test binary run as the daemon.
const daemonEnv = "INFERD_TEST_DAEMON"

func TestMain(m *testing.M) {
	if os.Getenv(daemonEnv) != "" {
		main()
	}
	os.Exit(m.Run())
}

// patience bounds the wait for an event that must happen.
const patience = time.Minute

// prepare returns the command of a daemon, which is not started. The names of its pipes begin with
// base; its folders are in home.
func prepare(t *testing.T, home, base, config string) *exec.Cmd {
	t.Helper()
	file := filepath.Join(home, "config.json")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "--config", file, "--pipe", base)
	cmd.Env = append(os.Environ(), daemonEnv+"=1", "LOCALAPPDATA="+home, "USERPROFILE="+home)
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: windows.CREATE_NEW_PROCESS_GROUP}
	return cmd
}

// A daemon with named pipes answers, identifies its callers, holds its lock, notices hang-ups and
// stops.
func TestDaemonBehindPipes(t *testing.T) {
	home, err := os.MkdirTemp("", "inferd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(home) }) // fails in wine 8, which lacks a call
	base := fmt.Sprintf(`\\.\pipe\inferd-test-%d`, os.Getpid())
	const config = `{"backends":[
		{"kind":"mock","name":"quick","tokens":["one"," two"]},
		{"kind":"mock","name":"slow","tokens":["never"],"token_delay_ms":3600000}]}`
	cmd := prepare(t, home, base, config)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	var logged sync.WaitGroup
	logged.Go(func() {
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			log.WriteString(lines.Text() + "\n")
		}
	})
	ended := false
	defer func() {
		if !ended {
			_ = cmd.Process.Kill()
			logged.Wait()
			_ = cmd.Wait()
		}
		if t.Failed() {
			t.Logf("the daemon said\n%s", &log)
		}
	}()

	c := &client.Client{Dir: base, Wait: patience}
	for name, generate := range map[string]func() (*client.Answer, error){
		"length-prefixed": func() (*client.Answer, error) {
			return client.Collect(c.Generate(t.Context(), client.Ask("hello")))
		},
		"v1": func() (*client.Answer, error) {
			return client.Collect(c.GenerateV1(t.Context(), client.Ask("hello")))
		},
	} {
		if got, err := generate(); err != nil || got.Text != "one two" {
			t.Fatalf("%s: got %+v, %v", name, got, err)
		}
	}
	stats, err := c.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	us, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		t.Fatal(err)
	}
	if len(stats.Callers) != 1 || stats.Callers[0].User != us.User.Sid.String() || !strings.EqualFold(stats.Callers[0].Exe, cmd.Path) {
		t.Errorf("the callers are %+v, want %s of %s", stats.Callers, cmd.Path, us.User.Sid)
	}

	second, err := prepare(t, home, base, config).CombinedOutput()
	if err == nil || !strings.Contains(string(second), "already holds the lock at "+filepath.Join(home, "inferd")) {
		t.Errorf("a second daemon: %v, %s", err, second)
	}

	// A hang-up before the first token ends the request.
	conn, err := c.Dial(t.Context(), client.V2)
	if err != nil {
		t.Fatal(err)
	}
	ask := client.Ask("wait")
	ask.Model = "slow"
	var asking sync.WaitGroup
	asking.Go(func() {
		for _, err := range conn.Generate(t.Context(), ask) {
			if err == nil {
				t.Error("the slow one answered")
			}
		}
	})
	running := func(n int) {
		t.Helper()
		for deadline := time.Now().Add(patience); ; {
			stats, err := c.Stats(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if stats.Running == n {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%d requests run, want %d", stats.Running, n)
			}
		}
	}
	running(1)
	_ = conn.Close()
	running(0)
	asking.Wait()

	t.Run("Ctrl-Break stops it", func(t *testing.T) {
		if err := windows.GenerateConsoleCtrlEvent(windows.CTRL_BREAK_EVENT, uint32(cmd.Process.Pid)); err != nil {
			t.Skipf("it cannot be sent without a console: %v", err)
		}
		logged.Wait()
		ended = true
		if err := cmd.Wait(); err != nil || !strings.Contains(log.String(), "shutdown complete") {
			t.Errorf("its end: %v", err)
		}
	})
}
