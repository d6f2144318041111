package test

import (
	"io"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/shortdir"
)

// tcpAddr waits for the address of a surface in the daemon's log, and returns it: the tests let the
// system choose a port.
func (d *daemon) tcpAddr(surface string) string {
	d.t.Helper()
	bound := regexp.MustCompile(`surface=` + surface + ` path=(127\.0\.0\.1:\d+)`)
	var m []string
	eventually(d.t, surface+" listens on TCP", func() bool { // the line may be logged after the daemon is ready
		m = bound.FindStringSubmatch(d.stderr.String())
		return m != nil
	})
	return m[1]
}

// overTCP sends text to a surface, closes the sending half, and returns the whole answer.
func (d *daemon) overTCP(surface, text string) string {
	d.t.Helper()
	nc, err := net.Dial("tcp", d.tcpAddr(surface))
	if err != nil {
		d.t.Fatal(err)
	}
	defer nc.Close()
	if err := nc.SetDeadline(time.Now().Add(patience)); err != nil {
		d.t.Fatal(err)
	}
	if _, err := io.WriteString(nc, text); err != nil {
		d.t.Fatal(err)
	}
	if err := nc.(*net.TCPConn).CloseWrite(); err != nil {
		d.t.Fatal(err)
	}
	said, err := io.ReadAll(nc)
	if err != nil {
		d.t.Errorf("%s: %v after %q", surface, err, said)
	}
	return string(said)
}

// overTCP maps the surfaces over TCP to the sockets with the same dialects.
var overTCP = map[string]string{"v1": "infer.sock", "v2": "infer.v2.sock", "embed": "infer.embed.sock"}

var tcpFlags = []string{"--tcp", "127.0.0.1:0", "--v2-tcp", "127.0.0.1:0", "--embed-tcp", "127.0.0.1:0"}

// Over TCP the key is the first line. A client without it gets no answer. Unix sockets need no key.
func TestTCP(t *testing.T) {
	const key = "correct horse"
	t.Setenv("INFERD_API_KEY", key)
	d := mocked(t, oneMock, tcpFlags...)
	before := d.resources()
	for surface, leaf := range overTCP {
		request := validRequests[leaf] + "\n"
		last := regexp.MustCompile(`"type":"(done|embeddings)"[^\n]*\n$`)
		answer := d.overTCP(surface, `{"type":"auth","key":"`+key+`"}`+"\n"+request)
		if !last.MatchString(answer) || !strings.HasPrefix(answer, `{"type":"`) {
			t.Errorf("%s: %q", surface, answer)
		}
		timings := regexp.MustCompile(`,"timings":{[^}]*}`)
		answer = timings.ReplaceAllString(answer, "")
		if twice := d.overTCP(surface, `{"type":"auth","key":"`+key+`"}`+"\n"+request+request); timings.ReplaceAllString(twice, "") != answer+answer {
			t.Errorf("%s, two requests: %q", surface, twice)
		}
		for _, wrong := range []string{`{"type":"auth","key":"wrong horse"}` + "\n" + request, request, "nonsense\n", ""} {
			if said := d.overTCP(surface, wrong); said != "" {
				t.Errorf("%s: a client that sends %q gets %q", surface, wrong, said)
			}
		}
		event := "tcp_auth_rejected"
		if surface != "v1" {
			event = surface + "_" + event
		}
		eventually(t, "four refusals are in the log", func() bool {
			return strings.Count(d.stderr.String(), "msg="+event+" peer=127.0.0.1:") == 4
		})
		d.served(leaf)
	}
	if strings.Contains(d.stderr.String(), "horse") {
		t.Errorf("the log has keys:\n%s", d.stderr)
	}
	d.recovers(before)
}

// The key opens the TCP surface, and the engine does not get it.
func TestEngineHasNoKey(t *testing.T) {
	t.Setenv("INFERD_API_KEY", "correct horse")
	t.Setenv("MY_KEY", "battery staple")
	t.Setenv("LC_ALL", "battery staple") // engines get this variable, unless it holds a key
	engine, seen := recordingEngine(t, "")
	d := mocked(t, `{"listen":{"tcp":"127.0.0.1:0","api_key_env":"LC_ALL"},"backends":[{"kind":"llamacpp","name":"gen","model":{"builtin":"chain"}}]}`, "--engine", engine)
	if env := seen("environ"); strings.Contains(env, "horse") || strings.Contains(env, "staple") || strings.Contains(env, "LC_ALL") {
		t.Errorf("the engine's environment has the key:\n%s", env)
	}
	if said := d.overTCP("v1", `{"type":"auth","key":"correct horse"}`+"\n"+validRequests["infer.sock"]+"\n"); !strings.Contains(said, `"type":"done"`) {
		t.Errorf("%q", said)
	}
}

// TCP without a key needs an explicit setting, and the daemon logs a warning. It refuses an address
// that is not loopback or is in use.
func TestTCPWithoutKey(t *testing.T) {
	d := mocked(t, oneMock, append([]string{"--tcp-no-auth"}, tcpFlags...)...)
	for surface, leaf := range overTCP {
		if said := d.overTCP(surface, validRequests[leaf]+"\n"); !strings.HasPrefix(said, `{"type":"`) || strings.Contains(said, `"type":"error"`) {
			t.Errorf("%s: %q", surface, said)
		}
	}
	if said := d.overTCP("v1", `{"type":"auth","key":"x"}`+"\n"); !strings.Contains(said, `"id":""`) || !strings.Contains(said, "invalid_request") {
		t.Errorf("an auth line where none is expected: %q", said)
	}
	if !strings.Contains(d.stderr.String(), "every user of this machine is accepted") {
		t.Errorf("no warning:\n%s", d.stderr)
	}
	for name, test := range map[string]struct {
		args []string
		says string
	}{
		"no key":        {[]string{"--tcp", "127.0.0.1:0"}, "TCP requires a key"},
		"not loopback":  {[]string{"--tcp", "0.0.0.0:0", "--api-key", "k"}, "is not a loopback address"},
		"a port in use": {[]string{"--tcp", d.tcpAddr("v1"), "--api-key", "k"}, "v1 over TCP: listen tcp"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := shortdir.New(t)
			write(t, filepath.Join(dir, "config.json"), oneMock)
			d := start(t, dir, test.args...)
			if code := d.exit(); code != 1 || !strings.Contains(d.stderr.String(), test.says) {
				t.Errorf("exit %d, want %q:\n%s", code, test.says, d.stderr)
			}
		})
	}
}
