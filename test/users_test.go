package test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// asUser is the environment variable with the socket for a test process that runs as another user.
const asUser = "INFERD_TEST_ASK"

// asRoot skips a test that needs several users.
func asRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can be two users")
	}
}

// TestAskAsUser is not a test but the main function of a [stranger]: it sends the requests on its
// stdin, one to a line, and prints the last message of each answer.
func TestAskAsUser(t *testing.T) {
	path := os.Getenv(asUser)
	if path == "" {
		t.Skip("started by other tests")
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		nc, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := nc.Write(append(lines.Bytes(), '\n')); err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(nc)
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				t.Fatalf("%q, %v", line, err)
			}
			if !strings.HasPrefix(line, `{"type":"token"`) && !strings.HasPrefix(line, `{"type":"frame"`) {
				if _, err := os.Stdout.WriteString(line); err != nil {
					return
				}
				break
			}
		}
		_ = nc.Close()
	}
}

// A stranger is a process of another user that sends requests to a socket.
type stranger struct {
	t   *testing.T
	in  io.Writer
	out *bufio.Reader
}

// stranger starts a process of another user. The test must run as root.
func (d *daemon) stranger(leaf string, uid uint32) *stranger {
	d.t.Helper()
	// Allow the other user to connect.
	for path, mode := range map[string]os.FileMode{d.dir: 0o755, d.socket(leaf): 0o666} {
		if err := os.Chmod(path, mode); err != nil {
			d.t.Fatal(err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		d.t.Fatal(err)
	}
	program := filepath.Join(d.dir, "stranger")
	if _, err := os.Stat(program); err != nil {
		copyFile(d.t, self, program)
		if err := os.Chmod(program, 0o755); err != nil {
			d.t.Fatal(err)
		}
	}
	cmd := exec.Command(program, "-test.run", "^TestAskAsUser$", "-test.timeout", "5m")
	cmd.Env = append(os.Environ(), asUser+"="+d.socket(leaf))
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	in, err := cmd.StdinPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	errs := &output{}
	cmd.Stderr = errs
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	s := &stranger{t: d.t, in: in, out: bufio.NewReader(out)}
	d.t.Cleanup(func() {
		_ = in.Close()
		_, _ = io.Copy(io.Discard, s.out)
		if err := cmd.Wait(); err != nil {
			d.t.Errorf("stranger: %v\n%s", err, errs)
		}
	})
	return s
}

func (s *stranger) send(line string) {
	s.t.Helper()
	if _, err := fmt.Fprintln(s.in, line); err != nil {
		s.t.Fatal(err)
	}
}

// terminal returns the last message of the next answer.
func (s *stranger) terminal() (m map[string]any) {
	s.t.Helper()
	line, err := s.out.ReadBytes('\n')
	if err != nil {
		s.t.Fatalf("stranger: %q, %v", line, err)
	}
	if err := json.Unmarshal(line, &m); err != nil {
		s.t.Fatalf("stranger: %q, %v", line, err)
	}
	return m
}

// Cached prompts of a user are used for later requests of the same user, and never for requests of
// other users.
func TestUsersDoNotShare(t *testing.T) {
	asRoot(t)
	d := serve(t, "--model-path", "builtin:tiny")
	ask := func(text string) string {
		return fmt.Sprintf(`{"id":"1","messages":[{"role":"user","content":[{"type":"text","text":%q}]}],"max_tokens":3,"temperature":1}`, text)
	}
	cached := func(m map[string]any) int {
		t.Helper()
		usage, ok := m["usage"].(map[string]any)
		if !ok {
			t.Fatalf("%v", m)
		}
		n, _ := usage["cached_tokens"].(float64)
		return int(n)
	}
	mine := d.peer("infer.v2.sock")
	own := func(text string) int {
		t.Helper()
		if _, err := mine.Write([]byte(ask(text) + "\n")); err != nil {
			t.Fatal(err)
		}
		m, err := mine.terminal()
		if err != nil {
			t.Fatal(err)
		}
		return cached(m)
	}
	one, two := d.stranger("infer.v2.sock", 65534), d.stranger("infer.v2.sock", 65533)
	for i := range 8 {
		// The text is new. One user sends it first, then the others. The template around it never
		// changes, so each user has the template cached after their own first request.
		text := fmt.Sprint(i, " is the number of this question, which is rather long")
		own(text)
		for who, s := range map[string]*stranger{"one": one, "two": two} {
			s.send(ask(text))
			if n := cached(s.terminal()); n > 0 && i == 0 || n > len(text)/2 {
				t.Errorf("%d: user %s has %d cached tokens", i, who, n)
			}
			s.send(ask(text))
			if n := cached(s.terminal()); n < len(text) {
				t.Errorf("%d: user %s has %d cached tokens of its own prompt", i, who, n)
			}
		}
		if n := own(text); n < len(text) {
			t.Errorf("%d: we were known for %d tokens", i, n)
		}
	}
}
