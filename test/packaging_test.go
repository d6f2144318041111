package test

import (
	"encoding/xml"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/shortdir"
)

// The service manager gets STATUS while the daemon loads, READY once every socket accepts, and
// STOPPING when the daemon drains.
func TestServiceManager(t *testing.T) {
	dir := shortdir.New(t)
	address := &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"}
	manager, err := net.ListenUnixgram("unixgram", address)
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	t.Setenv("NOTIFY_SOCKET", address.Name)
	write(t, filepath.Join(dir, "config.json"), `{"backends":[{"kind":"mock","name":"m","ready_after_ms":300}]}`)
	d := start(t, dir)
	expect := func(want string) {
		t.Helper()
		got := make([]byte, 1000)
		if err := manager.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		n, err := manager.Read(got)
		if err != nil || string(got[:n]) != want {
			t.Fatalf("the service manager got %q, %v, want %q", got[:n], err, want)
		}
	}
	expect("STATUS=loading")
	if _, err := os.Stat(d.socket("infer.sock")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the daemon is loading, and there is a socket: %v", err)
	}
	expect("READY=1\nSTATUS=ready")
	for _, leaf := range []string{"infer.sock", "infer.v2.sock", "inferd.sock", "infer.embed.sock", "infer.rerank.sock"} {
		nc, err := net.Dial("unix", d.socket(leaf))
		if err != nil {
			t.Errorf("the daemon is ready, but %v", err)
			continue
		}
		nc.Close()
	}
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	expect("STOPPING=1\nSTATUS=draining")
	if code := d.exit(); code != 0 {
		t.Errorf("exit %d", code)
	}
}

// inferd has the flags and the environment variables that the service files name.
func TestServiceFiles(t *testing.T) {
	help, err := exec.Command(filepath.Join(bin, "inferd"), "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	variables := []string{"INFERD_LOG", "INFERD_LOG_DIR"}
	flags := regexp.MustCompile(`(?m)^  (--[a-z0-9-]+) `).FindAllStringSubmatch(string(help), -1)
	if len(flags) < 20 {
		t.Fatalf("the help has %d flags", len(flags))
	}
	known := func(flag string) bool {
		return slices.ContainsFunc(flags, func(f []string) bool { return f[1] == flag })
	}
	for _, f := range flags {
		variables = append(variables, "INFERD_"+strings.ToUpper(strings.ReplaceAll(f[1][2:], "-", "_")))
	}
	for _, name := range []string{"systemd/inferd.service", "launchd/inferd.plist", "windows/autostart.ps1"} {
		text := packaged(t, name)
		for _, variable := range regexp.MustCompile(`INFERD_[A-Z_]+`).FindAllString(text, -1) {
			if !slices.Contains(variables, variable) {
				t.Errorf("%s sets %s, which inferd does not know", name, variable)
			}
		}
		for _, flag := range regexp.MustCompile(`--[a-z][a-z0-9-]+`).FindAllString(text, -1) {
			if !known(flag) {
				t.Errorf("%s names %s, which inferd does not know", name, flag)
			}
		}
	}
}

func packaged(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../packaging", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// systemd-analyze verify prints nothing about the unit. Its exit code is not enough: it is 0 even
// for settings that systemd-analyze ignores.
func TestSystemdUnit(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("there is no systemd-analyze on this machine")
	}
	home := shortdir.New(t)
	program := filepath.Join(home, ".local/bin/inferd")
	if err := os.MkdirAll(filepath.Dir(program), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(bin, "inferd"), program); err != nil {
		t.Fatal(err)
	}
	unit, err := filepath.Abs("../packaging/systemd/inferd.service")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(analyze, "verify", "--user", "--man=no", unit)
	cmd.Env = append(os.Environ(), "HOME="+home, "XDG_RUNTIME_DIR="+home)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

// The unit allows the families of sockets that the daemon needs: those of its surfaces, and netlink, by
// which it identifies the users of TCP connections.
func TestSystemdUnitAllowsSockets(t *testing.T) {
	unit, err := os.ReadFile("../packaging/systemd/inferd.service")
	if err != nil {
		t.Fatal(err)
	}
	var allowed []string
	for line := range strings.Lines(string(unit)) {
		if families, ok := strings.CutPrefix(line, "RestrictAddressFamilies="); ok {
			allowed = append(allowed, strings.Fields(families)...)
		}
	}
	for _, family := range []string{"AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK"} {
		if !slices.Contains(allowed, family) {
			t.Errorf("the unit does not allow %s: %q", family, allowed)
		}
	}
}

// The launchd file, with its placeholders replaced, is a property list with exactly the expected
// keys.
func TestLaunchdFile(t *testing.T) {
	text := packaged(t, "launchd/inferd.plist")
	text = strings.NewReplacer("@HOME@", "/Users/u", "@TMPDIR@", "/var/folders/ab/T/").Replace(text) // as its README says
	if strings.Contains(text, "@") {
		t.Errorf("something is not filled in:\n%s", text)
	}
	var list struct {
		XMLName xml.Name `xml:"plist"`
		Dict    dict     `xml:"dict"`
	}
	if err := xml.Unmarshal([]byte(text), &list); err != nil {
		t.Fatal(err)
	}
	known := []string{
		"Label", "ProgramArguments", "EnvironmentVariables", "StandardErrorPath", "RunAtLoad", "KeepAlive",
		"ThrottleInterval", "ExitTimeOut",
	}
	if keys := list.Dict.keys(t); !slices.Equal(keys, known) {
		t.Errorf("the keys are %q, known are %q", keys, known)
	}
}

// A dict has the elements of a dictionary in a property list, in order.
type dict struct {
	Elements []struct {
		XMLName xml.Name
		Text    string `xml:",chardata"`
	} `xml:",any"`
}

func (d dict) keys(t *testing.T) (keys []string) {
	t.Helper()
	for i, e := range d.Elements {
		if isKey := e.XMLName.Local == "key"; isKey != (i%2 == 0) {
			t.Fatalf("<%s> is the element %d", e.XMLName.Local, i)
		} else if isKey {
			keys = append(keys, e.Text)
		}
	}
	if len(d.Elements)%2 != 0 {
		t.Error("the last key has no value")
	}
	return keys
}
