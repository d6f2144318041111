package listen_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/windows"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/listen"
)

// If the environment variable pathEnv names a pipe, the test binary is a client: it connects, sends a
// line, prints "ready" and waits until its standard input ends.
const pathEnv = "LISTEN_TEST_PATH"

func TestMain(m *testing.M) {
	path := os.Getenv(pathEnv)
	if path == "" {
		os.Exit(m.Run())
	}
	nc, err := listen.Dial(context.Background(), path)
	if err == nil {
		_, err = io.WriteString(nc, "a request\n")
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("ready")
	bufio.NewReader(os.Stdin).ReadByte() // ends with the test
	os.Exit(0)
}

// patience bounds the wait for an event that must happen.
const patience = 30 * time.Second

// underWine reports whether this is wine, not Windows.
func underWine() bool {
	return windows.NewLazySystemDLL("ntdll.dll").NewProc("wine_get_version").Find() == nil
}

func pipeName(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf(`\\.\pipe\inferd-test-%d-%s`, os.Getpid(), strings.ReplaceAll(t.Name(), "/", "-"))
}

func local(t *testing.T, opt listen.Options) net.Listener {
	t.Helper()
	ln, err := listen.Local(pipeName(t), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// connect returns both ends of a connection to ln.
func connect(t *testing.T, ln net.Listener) (server, client net.Conn) {
	t.Helper()
	client, err := listen.Dial(t.Context(), ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	server, err = ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	for _, nc := range []net.Conn{client, server} {
		nc.SetDeadline(time.Now().Add(patience))
	}
	return server, client
}

func TestPipe(t *testing.T) {
	ln := local(t, listen.Options{Mode: 0o660})
	server, client := connect(t, ln)
	for _, way := range []struct{ from, to net.Conn }{{client, server}, {server, client}} {
		big := strings.Repeat("0123456789abcdef", 20<<10) // more than the pipe holds
		var written sync.WaitGroup
		written.Go(func() {
			if _, err := io.WriteString(way.from, big); err != nil {
				t.Error(err)
			}
		})
		got := make([]byte, len(big))
		if _, err := io.ReadFull(way.to, got); err != nil || string(got) != big {
			t.Errorf("the bytes received are not those sent: %v", err)
		}
		written.Wait()
	}
	if got := server.RemoteAddr(); got.Network() != "pipe" || got.String() != ln.Addr().String() {
		t.Errorf("RemoteAddr = %s %s", got.Network(), got)
	}

	client.SetReadDeadline(time.Unix(1, 0))
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read past the deadline: %v", err)
	}
	client.SetReadDeadline(time.Now().Add(patience))

	// The last bytes arrive although the pipe is closed immediately after them.
	if _, err := io.WriteString(server, "the end"); err != nil {
		t.Error(err)
	}
	server.Close()
	if got, err := io.ReadAll(client); err != nil || string(got) != "the end" {
		t.Errorf("read %q, %v", got, err)
	}
	if _, err := client.Write([]byte("x")); err == nil {
		t.Error("a pipe that is closed at the other end takes bytes")
	}
}

func TestCloseEndsRead(t *testing.T) {
	_, client := connect(t, local(t, listen.Options{}))
	ended := make(chan error)
	go func() {
		_, err := client.Read(make([]byte, 1))
		ended <- err
	}()
	client.Close()
	if err := <-ended; !errors.Is(err, os.ErrClosed) {
		t.Errorf("Read: %v", err)
	}
}

func TestCloseEndsAccept(t *testing.T) {
	ln := local(t, listen.Options{})
	ended := make(chan error)
	go func() {
		_, err := ln.Accept()
		ended <- err
	}()
	if err := ln.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept: %v", err)
	}
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close: %v", err)
	}
	if err := ln.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("second Close: %v", err)
	}
	if _, err := listen.Dial(t.Context(), pipeName(t)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Dial: %v", err)
	}
	local(t, listen.Options{}) // the name is free again
}

// All clients that connect at the same time are accepted, even if they close at once.
func TestManyClients(t *testing.T) {
	ln := local(t, listen.Options{})
	var served sync.WaitGroup
	served.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					t.Errorf("Accept: %v", err)
				}
				return
			}
			served.Go(func() {
				defer nc.Close()
				_, _ = io.CopyN(nc, nc, 1)
			})
		}
	})
	var clients sync.WaitGroup
	for i := range 40 {
		clients.Go(func() {
			nc, err := listen.Dial(t.Context(), pipeName(t))
			for errors.Is(err, syscall.EAGAIN) { // the pipe stays busy on a slow machine
				nc, err = listen.Dial(t.Context(), pipeName(t))
			}
			if err != nil {
				t.Error(err)
				return
			}
			defer nc.Close()
			if i%2 == 0 {
				return
			}
			nc.SetDeadline(time.Now().Add(patience))
			if _, err := nc.Write([]byte{byte(i)}); err != nil {
				t.Error(err)
			}
			b := make([]byte, 1)
			if _, err := io.ReadFull(nc, b); err != nil || b[0] != byte(i) {
				t.Errorf("got %d, %v, want %d", b, err, i)
			}
		})
	}
	clients.Wait()
	ln.Close()
	served.Wait()
}

func TestBusy(t *testing.T) {
	ln := local(t, listen.Options{})
	waiting, err := listen.Dial(t.Context(), pipeName(t)) // takes the only free instance
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	if _, err := listen.Dial(t.Context(), pipeName(t)); !errors.Is(err, syscall.EAGAIN) || !errors.Is(err, windows.ERROR_PIPE_BUSY) {
		t.Errorf("Dial: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	cancel(why)
	if _, err := listen.Dial(ctx, pipeName(t)); !errors.Is(err, why) {
		t.Errorf("Dial: %v", err)
	}
	nc, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	nc.Close()
	server, _ := connect(t, ln)
	server.Close()
}

func TestPipeInUse(t *testing.T) {
	if underWine() {
		t.Skip("wine 8 ignores FILE_FLAG_FIRST_PIPE_INSTANCE")
	}
	ln := local(t, listen.Options{})
	if second, err := listen.Local(pipeName(t), listen.Options{}); err == nil {
		second.Close()
		t.Error("two listeners have one pipe")
	}
	server, _ := connect(t, ln)
	ln.Close()
	if second, err := listen.Local(pipeName(t), listen.Options{}); err == nil {
		second.Close()
		t.Error("a listener took a pipe that still has a connection")
	}
	server.Close()
}

func TestOnlyThisUserMayConnect(t *testing.T) {
	_, client := connect(t, local(t, listen.Options{}))
	raw, err := client.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var sd *windows.SECURITY_DESCRIPTOR
	raw.Control(func(fd uintptr) {
		sd, err = windows.GetSecurityInfo(windows.Handle(fd), windows.SE_KERNEL_OBJECT, windows.OWNER_SECURITY_INFORMATION|windows.DACL_SECURITY_INFORMATION)
	})
	if err != nil {
		t.Fatal(err)
	}
	us := self(t)
	owner, _, err := sd.Owner()
	if err != nil || owner.String() != us {
		t.Errorf("the owner is %v, %v, want %s", owner, err, us)
	}
	if control, _, err := sd.Control(); err != nil || control&windows.SE_DACL_PROTECTED == 0 {
		t.Errorf("the DACL is not protected: %v, %v", control, err)
	}
	dacl, _, err := sd.DACL()
	if err != nil {
		t.Fatal(err)
	}
	if dacl.AceCount != 1 || !strings.HasSuffix(sd.String(), ";;;"+us+")") {
		t.Errorf("the DACL is %s", sd)
	}
}

func self(t *testing.T) string {
	t.Helper()
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		t.Fatal(err)
	}
	return user.User.Sid.String()
}

func TestRefusedNames(t *testing.T) {
	for _, name := range []string{"", "inferd", `\\.\pipe\`, `C:\inferd.sock`, `\\server\pipe\inferd`, `\\.\pipe\a\b`} {
		if _, err := listen.Local(name, listen.Options{}); err == nil || !strings.Contains(err.Error(), "not the name of a pipe") {
			t.Errorf("Local(%q): %v", name, err)
		}
		if _, err := listen.Dial(t.Context(), name); err == nil || !strings.Contains(err.Error(), "not the name of a pipe") {
			t.Errorf("Dial(%q): %v", name, err)
		}
	}
	if _, err := listen.Local(pipeName(t), listen.Options{Group: "g"}); err == nil || !strings.Contains(err.Error(), "group g") {
		t.Errorf("a group: %v", err)
	}
}

// process starts a process that connects to ln. It returns the process and the server's end of the
// connection.
func process(t *testing.T, ln net.Listener) (*exec.Cmd, net.Conn) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), pathEnv+"="+ln.Addr().String())
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the client printed %q, %v", line, err)
	}
	nc, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return cmd, nc
}

func TestPeerOfPipe(t *testing.T) {
	cmd, nc := process(t, local(t, listen.Options{}))
	got := listen.PeerOf(nc)
	if got.Transport != infer.Pipe || got.User != self(t) || got.PID != cmd.Process.Pid || !strings.EqualFold(got.Exe, cmd.Path) || got.Program == "" {
		t.Errorf("PeerOf = %+v, want pid %d of %s", got, cmd.Process.Pid, cmd.Path)
	}

	// After its client has ended, a connection still has the pid, but no user and no executable:
	// they could be those of a new process with that pid.
	cmd.Process.Kill()
	cmd.Wait()
	if err := listen.AwaitHangUp(t.Context(), nc); err != nil {
		t.Fatal(err)
	}
	got = listen.PeerOf(nc)
	if got.Transport != infer.Pipe || got.User+got.Exe+got.Program != "" {
		t.Errorf("of a client that has gone PeerOf = %+v", got)
	}
	nc.Close()
	if got := listen.PeerOf(nc); got != (infer.Peer{Transport: infer.Pipe}) {
		t.Errorf("of a pipe that is closed PeerOf = %+v", got)
	}
}

func TestAwaitHangUpOnPipe(t *testing.T) {
	t.Run("killed, with a request unread", func(t *testing.T) {
		cmd, nc := process(t, local(t, listen.Options{}))
		result := make(chan error)
		go func() { result <- listen.AwaitHangUp(t.Context(), nc) }()
		cmd.Process.Kill()
		if err := <-result; err != nil {
			t.Errorf("AwaitHangUp: %v", err)
		}
		nc.SetDeadline(time.Now().Add(patience))
		if got, err := io.ReadAll(nc); err != nil || string(got) != "a request\n" {
			t.Errorf("unread: %q, %v", got, err)
		}
	})
	t.Run("the context ends first", func(t *testing.T) {
		server, client := connect(t, local(t, listen.Options{}))
		ctx, cancel := context.WithCancelCause(t.Context())
		result := make(chan error)
		go func() { result <- listen.AwaitHangUp(ctx, server) }()
		why := errors.New("enough")
		cancel(why)
		if err := <-result; !errors.Is(err, why) {
			t.Errorf("AwaitHangUp: %v", err)
		}
		io.WriteString(client, "x")
		if _, err := io.ReadFull(server, make([]byte, 1)); err != nil {
			t.Errorf("it cannot be read: %v", err)
		}
	})
	t.Run("closed on our side", func(t *testing.T) {
		server, _ := connect(t, local(t, listen.Options{}))
		server.Close()
		if err := listen.AwaitHangUp(t.Context(), server); !errors.Is(err, net.ErrClosed) {
			t.Errorf("AwaitHangUp: %v", err)
		}
	})
}
