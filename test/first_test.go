package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/shortdir"
)

// newHome makes a home folder without files of inferd, sets HOME to it, and returns it.
func newHome(t *testing.T) (home string) {
	t.Helper()
	home = shortdir.New(t)
	if os.Getenv("INFERD_ENGINE_LIB") == "" {
		t.Setenv("INFERD_ENGINE_LIB", engineLib)
	}
	t.Setenv("HOME", home)
	t.Setenv("INFERD_LOG_DIR", filepath.Join(home, "logs"))
	t.Setenv("INFERD_CONFIG", "")
	return home
}

// On a terminal the first start asks for a model, and writes a config file with it.
func TestFirstBootOnATerminal(t *testing.T) {
	home := newHome(t)
	file := filepath.Join(home, ".inferd", "config.json")
	s := onTerminal(t, exec.Command(filepath.Join(bin, "inferd"), "--uds", filepath.Join(home, "infer.sock")))
	says := func(want string) {
		t.Helper()
		eventually(t, "it says "+want, func() bool { return strings.Contains(s.out.String(), want) })
	}
	says("1) gemma-4-e4b")
	says("Model (empty: none): ")
	s.press("99\n")
	says("the list has no number 99")
	s.press("hf:../x\n")
	says("is not an owner or repository")
	if fileExists(file) {
		t.Error("a bad answer was written")
	}
	s.press("builtin:chain\n")
	says("Wrote " + file)
	d := &daemon{t: t, dir: home, stderr: s.out}
	d.waitReady()
	d.works()
	if text, err := os.ReadFile(file); err != nil || !strings.Contains(string(text), `"model": "builtin:chain"`) {
		t.Errorf("%s, %v", text, err)
	}
	// The config file exists now, so the next start does not ask.
	s.press("\x03")
	if code := s.exit(); code != 0 {
		t.Errorf("exit %d", code)
	}
	second := onTerminal(t, exec.Command(filepath.Join(bin, "inferd"), "--uds", filepath.Join(home, "infer.sock")))
	d.stderr = second.out
	d.waitReady()
	if strings.Contains(second.out.String(), "empty: none") {
		t.Error("it asked again")
	}
}

// Without an answer, or without a terminal, no config file is written.
func TestFirstBootWithoutAnswer(t *testing.T) {
	home := newHome(t)
	s := onTerminal(t, exec.Command(filepath.Join(bin, "inferd"), "--uds", filepath.Join(home, "infer.sock")))
	eventually(t, "it asks", func() bool { return strings.Contains(s.out.String(), "empty: none") })
	s.press("\n")
	if code := s.exit(); code != 1 || !strings.Contains(s.out.String(), "no model is configured") {
		t.Errorf("exit %d", code)
	}
	s = onTerminal(t, exec.Command(filepath.Join(bin, "inferd"), "--uds", filepath.Join(home, "infer.sock")))
	eventually(t, "it asks", func() bool { return strings.Contains(s.out.String(), "empty: none") })
	s.press("\x03")
	if code := s.exit(); code != 0 {
		t.Errorf("after Ctrl-C: exit %d", code)
	}
	cmd := exec.Command(filepath.Join(bin, "inferd"), "--uds", filepath.Join(home, "infer.sock"))
	cmd.WaitDelay = time.Second
	out, _ := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), "inferdctl pull NAME") || !strings.Contains(string(out), "inferdctl config init") || strings.Contains(string(out), "empty: none") {
		t.Errorf("exit %d: %s", cmd.ProcessState.ExitCode(), out)
	}
	if fileExists(filepath.Join(home, ".inferd")) {
		t.Error("a config was written")
	}
	// A config file that INFERD_CONFIG names is not written if it is missing.
	t.Setenv("INFERD_CONFIG", filepath.Join(home, "named.json"))
	s = onTerminal(t, exec.Command(filepath.Join(bin, "inferd"), "--uds", filepath.Join(home, "infer.sock")))
	if code := s.exit(); code != 1 || !strings.Contains(s.out.String(), "named.json does not exist") || fileExists(filepath.Join(home, "named.json")) {
		t.Errorf("exit %d", code)
	}
}
