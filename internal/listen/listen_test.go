//go:build unix

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
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/inferd-go/inferd/internal/listen"
	"github.com/inferd-go/inferd/internal/shortdir"
)

// The test binary is also the program of the processes that the tests start. According to its role,
// such a process listens, or connects and sends a line. Then it prints "ready" and waits.
const (
	roleEnv = "LISTEN_TEST_ROLE"
	pathEnv = "LISTEN_TEST_PATH"
)

func TestMain(m *testing.M) {
	var err error
	path := os.Getenv(pathEnv)
	switch os.Getenv(roleEnv) {
	case "":
		os.Exit(m.Run())
	case "listen":
		_, err = listen.Local(path, listen.Options{})
	case "dial":
		var nc net.Conn
		if nc, err = listen.Dial(context.Background(), path); err == nil {
			_, err = io.WriteString(nc, "a request\n")
		}
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("ready")
	bufio.NewReader(os.Stdin).ReadByte() // ends with the test
	os.Exit(0)
}

// start runs a process with that role and returns once the process is ready.
func start(t *testing.T, role, path string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), roleEnv+"="+role, pathEnv+"="+path)
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
		t.Fatalf("process printed %q, %v", line, err)
	}
	return cmd
}

func kill(cmd *exec.Cmd) {
	cmd.Process.Kill()
	cmd.Wait()
}

func local(t *testing.T, path string, opt listen.Options) net.Listener {
	t.Helper()
	ln, err := listen.Local(path, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// connect returns both ends of a connection to ln.
func connect(t *testing.T, ln net.Listener) (server, client *net.UnixConn) {
	t.Helper()
	c, err := listen.Dial(t.Context(), ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s.(*net.UnixConn), c.(*net.UnixConn)
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func mode(t *testing.T, name string) fs.FileMode {
	t.Helper()
	info, err := os.Lstat(name)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode()
}

func TestSocketAndFolderHaveTheirModes(t *testing.T) {
	for name, test := range map[string]struct {
		opt  listen.Options
		want fs.FileMode
	}{
		"by default for this user only": {listen.Options{}, 0o600},
		"with a mode":                   {listen.Options{Mode: 0o660}, 0o660},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(shortdir.New(t), "a", "b")
			path := filepath.Join(dir, "infer.sock")
			ln := local(t, path, test.opt)
			if got := mode(t, path); got != fs.ModeSocket|test.want {
				t.Errorf("socket has mode %v, want %v", got, fs.ModeSocket|test.want)
			}
			for _, folder := range []string{dir, filepath.Dir(dir)} {
				if got := mode(t, folder); got != fs.ModeDir|0o700 {
					t.Errorf("folder has mode %v, want %v", got, fs.ModeDir|0o700)
				}
			}
			if got := names(t, dir); !slices.Equal(got, []string{"infer.sock"}) {
				t.Errorf("folder holds %q", got)
			}
			server, client := connect(t, ln)
			if _, err := io.WriteString(client, "x"); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(server, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			if err := ln.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
			if got := names(t, dir); len(got) != 0 {
				t.Errorf("after Close the folder holds %q", got)
			}
			if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Accept after Close: %v", err)
			}
		})
	}
}

// someGroup returns a group to which this process may give files, if possible not its primary
// group.
func someGroup(t *testing.T) *user.Group {
	t.Helper()
	gids, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 {
		gids = append(gids, 1, 2, 3)
	}
	gids = append(gids, os.Getgid())
	slices.SortStableFunc(gids, func(a, _ int) int {
		if a == os.Getgid() {
			return 1
		}
		return 0
	})
	for _, gid := range gids {
		if g, err := user.LookupGroupId(strconv.Itoa(gid)); err == nil {
			return g
		}
	}
	t.Fatalf("none of our groups %v has a name", gids)
	return nil
}

func gidOf(t *testing.T, name string) string {
	t.Helper()
	info, err := os.Lstat(name)
	if err != nil {
		t.Fatal(err)
	}
	return strconv.FormatUint(uint64(info.Sys().(*syscall.Stat_t).Gid), 10)
}

func TestGroup(t *testing.T) {
	group := someGroup(t)
	dir := filepath.Join(shortdir.New(t), "inferd")
	path := filepath.Join(dir, "infer.sock")
	local(t, path, listen.Options{Mode: 0o660, Group: group.Name})
	for name, want := range map[string]fs.FileMode{dir: fs.ModeDir | 0o750, path: fs.ModeSocket | 0o660} {
		if got := mode(t, name); got != want {
			t.Errorf("%s has mode %v, want %v", name, got, want)
		}
		if got := gidOf(t, name); got != group.Gid {
			t.Errorf("%s has group %s, want %s (%s)", name, got, group.Gid, group.Name)
		}
	}
}

func TestFolder(t *testing.T) {
	group := someGroup(t)
	dir := filepath.Join(shortdir.New(t), "inferd")
	if err := listen.Folder(dir, group.Name); err != nil {
		t.Fatal(err)
	}
	if got := mode(t, dir); got != fs.ModeDir|0o750 || gidOf(t, dir) != group.Gid {
		t.Errorf("folder has mode %v and group %s", got, gidOf(t, dir))
	}
	if err := listen.Folder(dir, ""); err != nil {
		t.Fatal(err)
	}
	if got := mode(t, dir); got != fs.ModeDir|0o750 {
		t.Errorf("a folder that exists was changed to %v", got)
	}
}

func TestUnknownGroup(t *testing.T) {
	dir := filepath.Join(shortdir.New(t), "inferd")
	_, err := listen.Local(filepath.Join(dir, "infer.sock"), listen.Options{Group: "no such group"})
	if err == nil || err.Error() != "group not found: no such group" {
		t.Errorf("Local: %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder was made: %v", err)
	}
}

func TestExistingFolderIsLeftAsItIs(t *testing.T) {
	dir := shortdir.New(t)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	local(t, filepath.Join(dir, "infer.sock"), listen.Options{Group: someGroup(t).Name})
	if got := mode(t, dir); got != fs.ModeDir|0o755 {
		t.Errorf("folder has mode %v, want %v", got, fs.ModeDir|0o755)
	}
}

func TestFolderOfAnotherUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can give a folder to another user")
	}
	top := shortdir.New(t)
	// The folder is named like the default below /tmp, so that Dial checks it, too.
	dir := filepath.Join(top, "inferd-"+strconv.Itoa(os.Getuid()))
	path := filepath.Join(dir, "infer.sock")
	local(t, path, listen.Options{})
	if nc, err := listen.Dial(t.Context(), path); err != nil {
		t.Error(err)
	} else {
		nc.Close()
	}
	if err := os.Chown(dir, 12345, -1); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(top, "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	// A link of another user is refused like a folder of that user, who can change its target.
	ours := filepath.Join(top, "ours")
	if err := os.Mkdir(ours, 0o700); err != nil {
		t.Fatal(err)
	}
	his := filepath.Join(top, "his")
	if err := os.Symlink(ours, his); err != nil {
		t.Fatal(err)
	}
	if err := os.Lchown(his, 12345, -1); err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{dir, link, his} {
		want := folder + " belongs to another user (uid 12345, mode "
		if _, err := listen.Local(filepath.Join(folder, "v.sock"), listen.Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Local: %v, want %q", err, want)
		}
		if err := listen.Folder(folder, ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Folder: %v, want %q", err, want)
		}
	}
	if _, err := listen.Dial(t.Context(), path); err == nil || !strings.Contains(err.Error(), "uid 12345") {
		t.Errorf("Dial: %v", err)
	}
}

// Local refuses a folder if other users can write to it or to its parent, because they could replace
// our sockets or the folder. In a sticky folder they cannot, so that is accepted.
func TestFolderThatOthersCanWrite(t *testing.T) {
	top := shortdir.New(t)
	dir := filepath.Join(top, "run")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		top, dir os.FileMode
		want     string
	}{
		"the folder":      {0o700, 0o777, "folder " + dir + " can be written to by every user"},
		"its parent":      {0o777, 0o700, "folder " + top + " can be written to by every user"},
		"both are sticky": {0o777 | os.ModeSticky, 0o777 | os.ModeSticky, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if err := errors.Join(os.Chmod(top, test.top), os.Chmod(dir, test.dir)); err != nil {
				t.Fatal(err)
			}
			ln, err := listen.Local(filepath.Join(dir, "s.sock"), listen.Options{Mode: 0o600})
			if err == nil {
				ln.Close()
			}
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("Local: %v, want %q", err, test.want)
			}
		})
	}
}

func TestFolderIsAFile(t *testing.T) {
	name := filepath.Join(shortdir.New(t), "file")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listen.Local(filepath.Join(name, "infer.sock"), listen.Options{}); err == nil || !strings.Contains(err.Error(), name+" is not a folder") {
		t.Errorf("Local: %v", err)
	}
}

func TestFileAtThePath(t *testing.T) {
	for name, test := range map[string]struct {
		make func(path string) error
		want string // error; empty if it is replaced
	}{
		"a file is replaced": {func(path string) error { return os.WriteFile(path, []byte("x"), 0o600) }, ""},
		"a stale socket is replaced": {func(path string) error {
			ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
			if err != nil {
				return err
			}
			ln.SetUnlinkOnClose(false)
			return ln.Close()
		}, ""},
		"a named pipe is replaced": {func(path string) error { return unix.Mkfifo(path, 0o600) }, ""},
		"a link is refused": {func(path string) error {
			if err := os.WriteFile(path+".target", []byte("target"), 0o600); err != nil {
				return err
			}
			return os.Symlink(path+".target", path)
		}, "uds path is a symlink (refused): "},
		"a link to nothing is refused": {
			func(path string) error { return os.Symlink(path+".nothing", path) },
			"uds path is a symlink (refused): ",
		},
		"a folder is refused": {func(path string) error { return os.Mkdir(path, 0o700) }, "uds path is a folder: "},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(shortdir.New(t), "infer.sock")
			if err := test.make(path); err != nil {
				t.Fatal(err)
			}
			before := names(t, filepath.Dir(path))
			ln, err := listen.Local(path, listen.Options{})
			if test.want != "" {
				if err == nil || err.Error() != test.want+path {
					t.Errorf("Local: %v, want %q", err, test.want+path)
				}
				if got, err := os.ReadFile(path + ".target"); err == nil && string(got) != "target" {
					t.Errorf("the target holds %q", got)
				}
				if after := names(t, filepath.Dir(path)); !slices.Equal(after, before) {
					t.Errorf("the folder held %q, and holds %q", before, after)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			connect(t, ln)
		})
	}
}

func TestLengthOfThePath(t *testing.T) {
	limit := len(unix.RawSockaddrUnix{}.Path) - 1
	dir := shortdir.New(t)
	leaf := strings.Repeat("x", limit-len(dir)-1)
	connect(t, local(t, filepath.Join(dir, leaf), listen.Options{}))

	path := filepath.Join(dir, leaf+"y")
	want := fmt.Sprintf("uds path has %d bytes, but the system allows %d: %s", limit+1, limit, path)
	if _, err := listen.Local(path, listen.Options{}); err == nil || err.Error() != want {
		t.Errorf("Local: %v, want %q", err, want)
	}
	if _, err := listen.Dial(t.Context(), path); err == nil || err.Error() != want {
		t.Errorf("Dial: %v, want %q", err, want)
	}
	for _, f := range []func() error{
		func() error { _, err := listen.Local("", listen.Options{}); return err },
		func() error { _, err := listen.Dial(t.Context(), ""); return err },
	} {
		if err := f(); err == nil || err.Error() != "uds path is empty" {
			t.Errorf("an empty path: %v", err)
		}
	}
}

func TestNameThatLooksAbstract(t *testing.T) {
	t.Chdir(shortdir.New(t))
	connect(t, local(t, "@infer.sock", listen.Options{}))
	if got := mode(t, "@infer.sock"); got != fs.ModeSocket|0o600 {
		t.Errorf("mode %v", got)
	}
}

// While a daemon replaces a socket, the path always holds the old one or the finished new one.
func TestSocketAppearsFinished(t *testing.T) {
	path := filepath.Join(shortdir.New(t), "infer.sock")
	serve := func() {
		ln := local(t, path, listen.Options{Mode: 0o660})
		go func() { // until the test closes ln; else its queue fills up
			for {
				nc, err := ln.Accept()
				if err != nil {
					return
				}
				nc.Close()
			}
		}()
	}
	serve()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var client sync.WaitGroup
	looks, started := 0, make(chan struct{})
	client.Go(func() {
		for ; ctx.Err() == nil; looks++ {
			if looks == 1 {
				close(started)
			}
			if info, err := os.Lstat(path); err != nil || info.Mode() != fs.ModeSocket|0o660 {
				t.Errorf("Lstat: %v, %v", info, err)
				return
			}
			nc, err := net.Dial("unix", path)
			if errors.Is(err, syscall.EAGAIN) { // its queue is full: nothing accepts fast enough
				continue
			}
			if err != nil {
				t.Error(err)
				return
			}
			nc.Close()
		}
	})
	<-started
	for range 100 {
		serve()
	}
	cancel()
	client.Wait()
	t.Logf("looked %d times", looks)
}

func TestCloseLeavesTheSocketOfASuccessor(t *testing.T) {
	path := filepath.Join(shortdir.New(t), "infer.sock")
	first := local(t, path, listen.Options{})
	second := local(t, path, listen.Options{})
	for range 2 { // the second Close does nothing
		first.Close()
		connect(t, second)
	}
}

func TestManyListenersInOneFolder(t *testing.T) {
	dir := shortdir.New(t)
	var all sync.WaitGroup
	want := make([]string, 16)
	for i := range want {
		want[i] = fmt.Sprintf("%02d.sock", i)
		all.Go(func() {
			ln, err := listen.Local(filepath.Join(dir, want[i]), listen.Options{})
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { ln.Close() })
		})
	}
	all.Wait()
	if got := names(t, dir); !slices.Equal(got, want) {
		t.Errorf("the folder holds %q", got)
	}
}

func TestWhatIsSwept(t *testing.T) {
	dir := shortdir.New(t)
	room := func(name string) string {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := os.Mkdir(name, 0o700); err != nil {
			t.Fatal(err)
		}
		return name
	}
	bind := func(name string) {
		t.Helper()
		ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		ln.SetUnlinkOnClose(false)
		ln.Close()
	}
	write := func(name string) {
		t.Helper()
		if err := os.WriteFile(name, []byte("keep"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	bind(filepath.Join(room(".infdead"), "s")) // killed before the rename
	room(".infnone")                           // killed before the bind
	write(filepath.Join(room(".infuser"), "s"))
	write(filepath.Join(dir, ".inffile"))
	room(".inference")
	busy, err := os.Open(room(".infbusy")) // in use
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	if err := unix.Flock(int(busy.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	local(t, filepath.Join(dir, "infer.sock"), listen.Options{})
	want := []string{".infbusy", ".inference", ".inffile", ".infuser", "infer.sock"}
	if got := names(t, dir); !slices.Equal(got, want) {
		t.Errorf("the folder holds %q, want %q", got, want)
	}
}

func TestAfterTheDaemonWasKilled(t *testing.T) {
	path := filepath.Join(shortdir.New(t), "infer.sock")
	daemon := start(t, "listen", path)
	kill(daemon)
	if got := mode(t, path); got&fs.ModeSocket == 0 {
		t.Fatalf("there is no stale socket: %v", got)
	}
	if _, err := listen.Dial(t.Context(), path); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("Dial: %v", err)
	}
	connect(t, local(t, path, listen.Options{}))
}

func TestDial(t *testing.T) {
	path := filepath.Join(shortdir.New(t), "infer.sock")
	if _, err := listen.Dial(t.Context(), path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a socket: %v", err)
	}
	local(t, path, listen.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := listen.Dial(ctx, path); err == nil {
		t.Error("Dial did not mind that its context had ended")
	}
}
