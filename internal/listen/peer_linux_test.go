package listen_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/listen"
	"github.com/inferd-go/inferd/internal/shortdir"
)

// public returns a listener on a socket to which all users may connect, and the folder of the
// socket.
func public(t *testing.T) (dir string, ln net.Listener) {
	t.Helper()
	dir = shortdir.New(t)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir, local(t, filepath.Join(dir, "s"), listen.Options{Mode: 0o666})
}

// copyOf copies the executable of this test to a path.
func copyOf(t *testing.T, to string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	from, err := os.Open(self)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	file, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(file, from); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	return to
}

// visit starts a process with that executable and user, which connects to ln. It returns the peer as
// PeerOf reports it. If dead is set, the process ends before PeerOf is called.
func visit(t *testing.T, ln net.Listener, exe string, uid int, dead bool) (infer.Peer, *exec.Cmd) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), roleEnv+"=dial", pathEnv+"="+ln.Addr().String())
	if uid != os.Getuid() {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	}
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
	t.Cleanup(func() { kill(cmd) })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the process printed %q, %v", line, err)
	}
	nc, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if dead {
		kill(cmd)
	}
	return listen.PeerOf(nc), cmd
}

func TestPeerIsTheProcessThatConnected(t *testing.T) {
	dir, ln := public(t)
	server, _ := connect(t, ln)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	me := listen.PeerOf(server)
	want := infer.Peer{
		Transport: infer.Unix, User: strconv.Itoa(os.Getuid()), Group: strconv.Itoa(os.Getgid()), PID: os.Getpid(), Exe: self,
		Program: me.Program,
	}
	if me != want || me.Program == "" {
		t.Errorf("this process is %+v, want %+v", me, want)
	}

	same, cmd := visit(t, ln, self, os.Getuid(), false)
	if same.PID != cmd.Process.Pid || same.Caller() != me.Caller() {
		t.Errorf("another process of this program is %+v, this is %+v", same, me)
	}
	other, _ := visit(t, ln, copyOf(t, filepath.Join(dir, "copy")), os.Getuid(), false)
	if other.User != me.User || other.Program == me.Program || other.Program == "" || other.Exe != filepath.Join(dir, "copy") {
		t.Errorf("a copy of this program is %+v, this is %+v", other, me)
	}
	dead, cmd := visit(t, ln, self, os.Getuid(), true)
	if dead.User != me.User || dead.PID != cmd.Process.Pid || dead.Program != "" || dead.Exe != "" {
		t.Errorf("a process that has ended is %+v", dead)
	}
	uids := []int{os.Getuid()}
	if os.Getuid() == 0 { // only root can become another user
		uids = append(uids, 65534)
	}
	for _, uid := range uids {
		p, _ := visit(t, ln, filepath.Join(dir, "copy"), uid, false)
		if p.User != strconv.Itoa(uid) || p.Group != strconv.Itoa(uid) && uid != os.Getuid() {
			t.Errorf("uid %d is %+v", uid, p)
		}
	}
}

func TestPeerOverOtherConnections(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if got, want := listen.PeerOf(server), (infer.Peer{Transport: infer.TCP, Program: "tcp"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	p, q := net.Pipe()
	defer q.Close()
	if got := listen.PeerOf(p); got != (infer.Peer{}) {
		t.Errorf("of a pipe: %+v", got)
	}
	closed, _ := connect(t, local(t, filepath.Join(shortdir.New(t), "s"), listen.Options{}))
	closed.Close()
	if got, want := listen.PeerOf(closed), (infer.Peer{Transport: infer.Unix}); got != want {
		t.Errorf("of a closed one: %+v", got)
	}
}

func TestPeerOfLeavesNothingOpen(t *testing.T) {
	_, ln := public(t)
	server, _ := connect(t, ln)
	count := func() int {
		names, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	before := count()
	for range 1000 {
		listen.PeerOf(server)
	}
	if after := count(); after > before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

func BenchmarkPeerOf(b *testing.B) {
	dir := shortdir.New(b)
	ln, err := listen.Local(filepath.Join(dir, "s"), listen.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	client, err := listen.Dial(b.Context(), ln.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	server, err := ln.Accept()
	if err != nil {
		b.Fatal(err)
	}
	defer server.Close()
	for b.Loop() {
		if p := listen.PeerOf(server); p.Program == "" {
			b.Fatal(fmt.Errorf("%+v", p))
		}
	}
}
