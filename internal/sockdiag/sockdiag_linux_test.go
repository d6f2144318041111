package sockdiag_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/inferd-go/inferd/internal/sockdiag"
)

// The test binary is also the program that the tests run as another user: it connects or listens, and
// waits.
func TestMain(m *testing.M) {
	if addr := os.Getenv("SOCKDIAG_DIAL"); addr != "" {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			os.Exit(1)
		}
		_, _ = io.Copy(io.Discard, nc) // until the server closes
		os.Exit(0)
	}
	if addr := os.Getenv("SOCKDIAG_LISTEN"); addr != "" {
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			os.Exit(1)
		}
		fmt.Fprintln(os.Stdout, ln.Addr())
		_, _ = io.Copy(io.Discard, os.Stdin) // until the test ends
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func open(tb testing.TB) *sockdiag.Resolver {
	tb.Helper()
	r, err := sockdiag.Open()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = r.Close() })
	return r
}

// pair returns both ends of a connection. It skips the test if this machine has no address listenAt.
func pair(tb testing.TB, listenAt, dialAt string) (server, client *net.TCPConn) {
	tb.Helper()
	ln, err := net.Listen("tcp", listenAt)
	if err != nil {
		tb.Skip("no such address here: ", err)
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	out, err := net.Dial("tcp", net.JoinHostPort(dialAt, port))
	if err != nil {
		tb.Skip("no such address here: ", err)
	}
	in, err := ln.Accept()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = errors.Join(in.Close(), out.Close()) })
	return in.(*net.TCPConn), out.(*net.TCPConn)
}

func TestOwnUser(t *testing.T) {
	r := open(t)
	for name, at := range map[string]struct{ listen, dial string }{
		"IPv4":       {"127.0.0.1:0", "127.0.0.1"},
		"IPv6":       {"[::1]:0", "::1"},
		"dual stack": {"[::]:0", "127.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			server, client := pair(t, at.listen, at.dial)
			check := func(what string) {
				t.Helper()
				if uid, err := r.UserOf(server); err != nil || int(uid) != os.Getuid() {
					t.Errorf("%s: %d, %v; want %d", what, uid, err, os.Getuid())
				}
			}
			check("open")
			if err := client.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			check("half-closed")
		})
	}
}

// The user of a client that has closed is unknown, and is not reported as root.
func TestClosedClient(t *testing.T) {
	r := open(t)
	server, client := pair(t, "127.0.0.1:0", "127.0.0.1")
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, server); err != nil {
		t.Fatal(err)
	}
	if uid, err := r.UserOf(server); !errors.Is(err, sockdiag.ErrUnknown) {
		t.Errorf("got %d, %v", uid, err)
	}
	if r.Unknown() != 1 {
		t.Errorf("%d unknown", r.Unknown())
	}
}

func TestClosedResolver(t *testing.T) {
	r := open(t)
	server, _ := pair(t, "127.0.0.1:0", "127.0.0.1")
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if uid, err := r.UserOf(server); err == nil {
		t.Errorf("a closed resolver knows %d", uid)
	}
}

// Each of many concurrent lookups gets its own answer.
func TestTogether(t *testing.T) {
	r := open(t)
	var all sync.WaitGroup
	defer all.Wait()
	for range 20 {
		server, _ := pair(t, "127.0.0.1:0", "127.0.0.1")
		all.Go(func() {
			for range 100 {
				if uid, err := r.UserOf(server); err != nil || int(uid) != os.Getuid() {
					t.Errorf("got %d, %v", uid, err)
					return
				}
			}
		})
	}
}

// UserOf identifies clients of other users. The uid 65534, which stands for users without a uid in our
// user namespace, is unknown. The test needs root.
func TestOtherUsers(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can run a client of another user")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	copied := copyFor(t, exe)
	r := open(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for _, uid := range []uint32{61234, 61235, 65534} {
		cmd := exec.Command(copied)
		cmd.Env = []string{"SOCKDIAG_DIAL=" + ln.Addr().String()}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		if err := cmd.Start(); err != nil {
			t.Skip("cannot run a client of another user: ", err)
		}
		server, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		got, err := r.UserOf(server.(*net.TCPConn))
		switch {
		case uid == 65534 && !errors.Is(err, sockdiag.ErrUnknown):
			t.Errorf("nobody is %d, %v", got, err)
		case uid != 65534 && (err != nil || got != uid):
			t.Errorf("got %d, %v; want %d", got, err, uid)
		}
		_ = server.Close()
		_ = cmd.Wait()
	}
}

// copyFor copies the test binary to a folder that every user can read.
func copyFor(t *testing.T, exe string) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "sockdiag")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	data, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	path := dir + "/client" + strconv.Itoa(os.Getpid())
	if err := errors.Join(os.WriteFile(path, data, 0o600), os.Chmod(path, 0o755), os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	return path
}

func BenchmarkUserOf(b *testing.B) {
	r := open(b)
	server, _ := pair(b, "127.0.0.1:0", "127.0.0.1")
	for b.Loop() {
		if _, err := r.UserOf(server); err != nil {
			b.Fatal(err)
		}
	}
}

// ListenerOf finds a socket that listens at the address, and one that listens at every address.
func TestListenerOf(t *testing.T) {
	r := open(t)
	for name, at := range map[string]struct{ listen, dial string }{
		"IPv4":          {"127.0.0.1:0", "127.0.0.1"},
		"IPv6":          {"[::1]:0", "::1"},
		"every address": {"0.0.0.0:0", "127.0.0.1"},
		"dual stack":    {"[::]:0", "127.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			ln, err := net.Listen("tcp", at.listen)
			if err != nil {
				t.Skip("no such address here: ", err)
			}
			addr := netip.AddrPortFrom(netip.MustParseAddr(at.dial), ln.Addr().(*net.TCPAddr).AddrPort().Port())
			if uid, err := r.ListenerOf(addr); err != nil || int(uid) != os.Getuid() {
				t.Errorf("ListenerOf = %d, %v; want %d", uid, err, os.Getuid())
			}
			nc, err := net.Dial("tcp", addr.String())
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			if uid, err := r.ListenerOf(nc.RemoteAddr().(*net.TCPAddr).AddrPort()); err != nil || int(uid) != os.Getuid() {
				t.Errorf("with a connection: %d, %v", uid, err)
			}
			_ = ln.Close()
			if uid, err := r.ListenerOf(addr); !errors.Is(err, sockdiag.ErrUnknown) {
				t.Errorf("once closed: %d, %v", uid, err)
			}
		})
	}
}

// ListenerOf returns the uid of the other user for a listener that is not ours.
func TestListenerOfAnotherUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	const other = 61234
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(copyFor(t, exe))
	cmd.Env = []string{"SOCKDIAG_LISTEN=127.0.0.1:0"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: other, Gid: other}}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skip("the test binary cannot be run by another user: ", err)
	}
	defer func() { _ = errors.Join(in.Close(), cmd.Wait()) }()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if uid, err := open(t).ListenerOf(netip.MustParseAddrPort(strings.TrimSpace(line))); err != nil || uid != other {
		t.Errorf("ListenerOf = %d, %v; want %d", uid, err, other)
	}
}
