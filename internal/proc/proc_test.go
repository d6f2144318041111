//go:build unix

package proc_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/inferd-go/inferd/internal/proc"
)

const roleEnv = "PROC_TEST_ROLE"

// noPause keeps the race detector from waiting a second before a process exits.
const noPause = "GORACE=atexit_sleep_ms=0"

// roles are the programs that the test binary can act as, by the value of roleEnv. Each returns an
// exit code.
var roles = map[string]func(args []string) int{
	// echo returns its input over the connection, until the connection ends.
	"echo": func([]string) int {
		conn, err := proc.InheritedConn()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if _, err := io.Copy(conn, conn); err != nil {
			return 1
		}
		return 0
	},
	// say CODE TEXT… writes the texts to standard error and standard output in turn, and exits with CODE.
	"say": func(args []string) int {
		code, err := strconv.Atoi(args[0])
		if err != nil {
			return 99
		}
		for i, text := range args[1:] {
			io.WriteString([]io.Writer{os.Stderr, os.Stdout}[i%2], text)
		}
		return code
	},
	// die TEXT SIGNAL writes to standard error and sends itself a signal.
	"die": func(args []string) int {
		io.WriteString(os.Stderr, args[0])
		n, _ := strconv.Atoi(args[1])
		syscall.Kill(os.Getpid(), syscall.Signal(n))
		forever()
		return 0
	},
	"panic": func([]string) int { panic("on purpose") },
	// leave ends, but leaves a process behind that keeps its output open.
	"leave": func([]string) int {
		cmd := exec.Command("sleep", "600")
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			return 1
		}
		fmt.Fprintln(os.Stderr, "gone")
		return 0
	},
	// parent PID prints whether PID is no longer its parent.
	"parent": func(args []string) int {
		pid, _ := strconv.Atoi(args[0])
		fmt.Println(proc.ParentGone(pid))
		return 0
	},
	// env prints its variables, its working folder, and the result of a read from standard input.
	"env": func([]string) int {
		for _, line := range slices.Sorted(slices.Values(os.Environ())) {
			fmt.Println(line)
		}
		dir, err := os.Getwd()
		fmt.Println(dir, err)
		n, err := os.Stdin.Read(make([]byte, 1))
		fmt.Println(n, err)
		return 0
	},
	// stubborn ignores the end of its connection, and the SIGHUP that a stopped process gets when its
	// parent ends.
	"stubborn": func([]string) int {
		signal.Ignore(syscall.SIGHUP)
		io.WriteString(os.NewFile(3, "connection"), "ready\n")
		forever()
		return 0
	},
	// burn computes on threads that end after a moment, until it is killed.
	"burn": func([]string) int {
		for {
			var threads sync.WaitGroup
			for range 4 {
				threads.Go(func() {
					runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
					for begin := time.Now(); time.Since(begin) < 20*time.Millisecond; {
					}
				})
			}
			threads.Wait()
		}
	},
	// files prints the content of its files and which of its descriptors are open.
	"files": func(args []string) int {
		for i := range args {
			text, err := io.ReadAll(os.NewFile(uintptr(proc.FirstFile+i), "file"))
			fmt.Printf("%s %v\n", text, err)
		}
		for fd := range 1000 {
			if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
				fmt.Print(fd, " ")
			}
		}
		return 0
	},
	// private calls ForbidDumps, and prints the limit of core files and the dumpable flag afterwards.
	"private": func([]string) int {
		err := proc.ForbidDumps()
		var core unix.Rlimit
		fmt.Println(err, unix.Getrlimit(unix.RLIMIT_CORE, &core), core, dumpable())
		return 0
	},
	"middle": middle,
}

// middle ROLE starts a child in that role, prints the child's pid, and waits. At Ctrl-C it sends the
// child a line and prints the answer.
func middle(args []string) int {
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt)
	exe, err := os.Executable()
	if err != nil {
		return 1
	}
	c, err := proc.Start(proc.Command{Path: exe, Env: []string{roleEnv + "=" + args[0], noPause}})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	answers := bufio.NewReader(c.Conn())
	io.WriteString(c.Conn(), "ready\n")
	if _, err := answers.ReadString('\n'); err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(c.PID())
	<-interrupts
	io.WriteString(c.Conn(), "alive\n")
	answer, err := answers.ReadString('\n')
	fmt.Printf("%q %v\n", answer, err)
	forever()
	return 0
}

// forever never returns. It does not use an empty select, because the runtime of a program without cgo
// would take that for a deadlock, and end the process.
func forever() {
	for {
		time.Sleep(time.Hour)
	}
}

func TestMain(m *testing.M) {
	if role := os.Getenv(roleEnv); role != "" {
		os.Exit(roles[role](os.Args[1:]))
	}
	os.Exit(m.Run())
}

// command returns a command that runs the test binary in a role.
func command(t *testing.T, role string, args ...string) proc.Command {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return proc.Command{Path: exe, Args: args, Env: []string{roleEnv + "=" + role, noPause, "PATH=" + os.Getenv("PATH")}}
}

func start(t *testing.T, role string, args ...string) *proc.Child {
	t.Helper()
	c, err := proc.Start(command(t, role, args...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Kill()
		<-c.Done()
		c.Conn().Close()
	})
	return c
}

// wait returns the exit of c. It fails the test if c has not ended after 20 s.
func wait(t *testing.T, c *proc.Child) proc.Exit {
	t.Helper()
	select {
	case <-c.Done():
		return c.Exit()
	case <-time.After(20 * time.Second):
		t.Fatal("the process does not end")
		return proc.Exit{}
	}
}

// echo checks that a child in role echo returns text.
func echo(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != text {
		t.Fatalf("received %q, %v, want %q", got, err, text)
	}
}

func TestConnectionWorksBothWays(t *testing.T) {
	c := start(t, "echo")
	echo(t, c.Conn(), "hello")
	if err := c.Conn().SetReadDeadline(time.Unix(1, 0)); err != nil { // the connection must support deadlines
		t.Fatal(err)
	}
	if _, err := c.Conn().Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read: %v", err)
	}
	c.Conn().Close() // ends the child
	if got, want := wait(t, c).String(), "exit code 0"; got != want {
		t.Errorf("ended: %s, want %s", got, want)
	}
}

func TestEndOfTheChildIsEndOfStream(t *testing.T) {
	c := start(t, "echo")
	echo(t, c.Conn(), "hello")
	if _, err := io.WriteString(c.Conn(), "last words"); err != nil {
		t.Fatal(err)
	}
	if err := c.Conn().(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	wait(t, c)
	if got, err := io.ReadAll(c.Conn()); err != nil || string(got) != "last words" {
		t.Errorf("received %q, %v", got, err)
	}
}

func TestExit(t *testing.T) {
	long := strings.Repeat("é", 200)
	for name, test := range map[string]struct {
		role   string
		args   []string
		code   int
		signal string
		want   string // of String; with a final …, only its beginning
	}{
		"cleanly":                 {"say", []string{"0"}, 0, "", "exit code 0"},
		"cleanly, and talking":    {"say", []string{"0", "loading\n"}, 0, "", "exit code 0"},
		"silently":                {"say", []string{"7"}, 7, "", "exit code 7"},
		"with the reason":         {"say", []string{"1", "no model\n"}, 1, "", "exit code 1: no model"},
		"without a newline":       {"say", []string{"1", "no model"}, 1, "", "exit code 1: no model"},
		"with blank lines":        {"say", []string{"1", "no model\n \n\n"}, 1, "", "exit code 1: no model"},
		"after its log":           {"say", []string{"1", "failed to find rpc\n", "loading\n", "no model\n"}, 1, "", "exit code 1: no model"},
		"with unprintable things": {"say", []string{"1", "\x1b[31mno\tmodel\xff\r\n"}, 1, "", "exit code 1: [31mno model\uFFFD"},
		"with a long line":        {"say", []string{"1", long}, 1, "", "exit code 1: " + long[:256]},
		"by an assertion, before Go's own words": {
			"die",
			[]string{"load: ok\n/src/ggml.c:123: GGML_ASSERT(n > 0) failed\nlast\n", "6"},
			2, "", "exit code 2: /src/ggml.c:123: GGML_ASSERT(n > 0) failed",
		},
		"by an abort with words of its own": {
			"say",
			[]string{"2", "x\n/src/a/llama-vocab.cpp:7: fatal error\ngoodbye\n"},
			2, "", "exit code 2: /src/a/llama-vocab.cpp:7: fatal error",
		},
		"by a C++ exception": {
			"say",
			[]string{"2", "terminate called after throwing an instance of 'x'\n  what(): y\n"},
			2, "", "exit code 2: terminate called after throwing an instance of 'x'",
		},
		"by a segmentation fault": {"die", []string{"x\n", "11"}, 2, "", "exit code 2: SIGSEGV: segmentation violation…"},
		"by a panic":              {"panic", nil, 2, "", "exit code 2: panic: on purpose"},
		"killed":                  {"die", []string{"computing\n", "9"}, -1, "SIGKILL", "killed by SIGKILL"},
		"killed after an assertion": {
			"die",
			[]string{"ggml.c:1: GGML_ASSERT(x) failed", "9"},
			-1, "SIGKILL", "killed by SIGKILL: ggml.c:1: GGML_ASSERT(x) failed",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := wait(t, start(t, test.role, test.args...))
			if got.Code != test.code || got.Signal != test.signal {
				t.Errorf("code %d, signal %q, want %d, %q", got.Code, got.Signal, test.code, test.signal)
			}
			begin, open := strings.CutSuffix(test.want, "…")
			s := got.String()
			if open {
				s = s[:min(len(s), len(begin))]
			}
			if s != begin {
				t.Errorf("String = %q, want %q", s, test.want)
			}
		})
	}
}

func TestOutputKeepsItsEnd(t *testing.T) {
	line := strings.Repeat("x", 99) + "\n"
	reason := "panic: long ago\n"
	end := "the end €" // not cut
	got := wait(t, start(t, "say", "1", reason, strings.Repeat(line, 1000), end))
	all := reason + strings.Repeat(line, 1000) + end
	if want := all[len(all)-16<<10:]; got.Stderr != want {
		t.Errorf("Stderr has %d bytes, %q…%q, want %d", len(got.Stderr), got.Stderr[:20], got.Stderr[len(got.Stderr)-20:], len(want))
	}
	if got.Crash != strings.TrimSpace(reason) {
		t.Errorf("Crash = %q, want the first line, which the kept output no longer has", got.Crash)
	}
}

func TestOutputIsText(t *testing.T) {
	got := wait(t, start(t, "say", "1", "panic: \xff\x01\x07"+strings.Repeat("€", 200)))
	if !utf8.ValidString(got.Stderr) || len(got.Crash) > 256 ||
		strings.ContainsFunc(got.Crash, func(r rune) bool { return !unicode.IsPrint(r) }) {
		t.Errorf("Crash = %q (%d bytes)", got.Crash, len(got.Crash))
	}
}

func TestKill(t *testing.T) {
	for name, before := range map[string]func(c *proc.Child){
		"while it runs":       func(*proc.Child) {},
		"while it is stopped": func(c *proc.Child) { syscall.Kill(c.PID(), syscall.SIGSTOP) },
	} {
		t.Run(name, func(t *testing.T) {
			c := start(t, "echo")
			echo(t, c.Conn(), "x")
			before(c)
			var killers sync.WaitGroup
			for range 8 {
				killers.Go(c.Kill)
			}
			if got := wait(t, c).String(); got != "killed by SIGKILL" {
				t.Errorf("ended: %s", got)
			}
			killers.Wait()
			c.Kill() // reaches no process
			if err := syscall.Kill(c.PID(), 0); !errors.Is(err, syscall.ESRCH) {
				t.Errorf("a zombie is left: %v", err)
			}
			if _, err := c.Conn().Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Errorf("Read: %v, want EOF", err)
			}
		})
	}
}

func TestEnvironmentFolderAndInput(t *testing.T) {
	t.Setenv("PROC_TEST_OURS", "ours")
	cmd := command(t, "env")
	cmd.Env = []string{roleEnv + "=env", "PROC_TEST_GIVEN=given"}
	cmd.Dir = "/"
	c, err := proc.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Conn().Close()
	if got, want := wait(t, c).Stderr, "PROC_TEST_GIVEN=given\n"+roleEnv+"=env\n/ <nil>\n0 EOF\n"; got != want {
		t.Errorf("the child printed %q, want %q", got, want)
	}
}

// A child inherits its files, and no other open descriptor of its parent.
func TestFiles(t *testing.T) {
	cmd := command(t, "files", "a", "b")
	for _, text := range cmd.Args {
		path := filepath.Join(t.TempDir(), text)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close() //nolint:revive // until the function ends is right
		cmd.Files = append(cmd.Files, f)
	}
	left, err := unix.FcntlInt(cmd.Files[0].Fd(), unix.F_DUPFD, 500) // as if left open by the parent of this process
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(left)
	c, err := proc.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Conn().Close()
	got := wait(t, c).Stderr
	if want := "a <nil>\nb <nil>\n0 1 2 3 "; !strings.HasPrefix(got, want) {
		t.Errorf("the child printed %q, want %q", got, want)
	}
	if inherits := strings.Contains(got, " 500 "); inherits != inheritsAll {
		t.Errorf("it has %q: inherited %v, want %v", got, inherits, inheritsAll)
	}
	for _, f := range cmd.Files {
		if _, err := f.Stat(); err != nil {
			t.Errorf("the parent's own file: %v", err)
		}
	}
}

func TestForbidDumps(t *testing.T) {
	if got, want := wait(t, start(t, "private")).Stderr, "<nil> <nil> {0 0} "+dumpableAfter+"\n"; got != want {
		t.Errorf("the child printed %q, want %q", got, want)
	}
}

func TestStartFails(t *testing.T) {
	if _, err := proc.Start(proc.Command{Path: filepath.Join(t.TempDir(), "none")}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a program that is not there: %v", err)
	}
	if _, err := proc.Start(proc.Command{Path: "sh"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a program that is only on PATH: %v", err)
	}
}

// A process that the child leaves behind, and that keeps the child's output open, does not delay the
// report of the child's end.
func TestProcessThatLeavesAnotherBehind(t *testing.T) {
	c := start(t, "leave")
	got := wait(t, c)
	if err := syscall.Kill(-c.PID(), syscall.SIGKILL); err != nil { // it is in the child's group
		t.Errorf("no process was left behind: %v", err)
	}
	if got.Code != 0 || got.Stderr != "gone\n" {
		t.Errorf("ended: %v, %q", got, got.Stderr)
	}
}

func TestParentGone(t *testing.T) {
	for pid, want := range map[int]string{os.Getpid(): "false\n", 1 << 30: "true\n"} {
		if got := wait(t, start(t, "parent", strconv.Itoa(pid))).Stderr; got != want {
			t.Errorf("ParentGone(%d) = %q, want %q", pid, got, want)
		}
	}
}

func TestNothingIsInherited(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	file := func(conn interface{ File() (*os.File, error) }) *os.File {
		f, err := conn.File()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	unixLn, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer unixLn.Close()
	tcpLn, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcpLn.Close()
	tcp, err := net.Dial("tcp", tcpLn.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	datagrams, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	dgram := os.NewFile(uintptr(datagrams[0]), "")
	defer dgram.Close()
	defer unix.Close(datagrams[1])
	for name, f := range map[string]*os.File{
		"nothing": nil, "a pipe": r, "a listener": file(unixLn.(*net.UnixListener)), "TCP": file(tcp.(*net.TCPConn)), "datagrams": dgram,
	} {
		t.Run(name, func(t *testing.T) {
			plain := command(t, "echo")
			cmd := exec.CommandContext(t.Context(), plain.Path)
			cmd.Env = append(os.Environ(), plain.Env...)
			if f != nil {
				cmd.ExtraFiles = []*os.File{f}
			}
			out, err := cmd.CombinedOutput()
			want := "this program is started by inferd: there is no connection at its descriptor 3\n"
			if err == nil || string(out) != want {
				t.Errorf("%v, %q, want %q", err, out, want)
			}
		})
	}
}
