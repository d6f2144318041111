//go:build unix

package store_test

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/shortdir"
	"github.com/inferd-go/inferd/internal/store"
)

// roleEnv is the environment variable with the role that the test binary plays in another process,
// a key of roles.
const roleEnv = "STORE_TEST_ROLE"

// shortEnv is the environment variable that makes another process use the sizes of a short test.
const shortEnv = "STORE_TEST_SHORT"

// roles are the functions that another process may run on the store s. They print lines for the
// test. Some then wait for the end of the input.
var roles = map[string]func(s *store.Store) error{
	// write prints the number of bytes that are there, writes the missing chunks in order, and prints
	// the offset of each.
	"write": func(s *store.Store) error {
		in, err := s.Begin(killedWant())
		if err != nil {
			return err
		}
		fmt.Println(in.Done())
		data := random(killedSize, 20)
		for _, r := range gaps(in.Ranges(), int64(killedSize)) {
			for at := r.Start; at < r.End; at += chunk {
				end := min(at+chunk, r.End)
				if _, err := in.WriteAt(data[at:end], at); err != nil {
					return err
				}
				fmt.Println(at)
			}
		}
		fmt.Println("done")
		return waitForEnd()
	},
	"hold": func(s *store.Store) error {
		in, err := s.Begin(killedWant())
		if err != nil {
			return err
		}
		fmt.Println(in.Done())
		return waitForEnd()
	},
	"half": func(s *store.Store) error {
		in, err := s.Begin(store.Want{SHA256: sum("right"), Name: "m", Upstream: store.Upstream{Total: 5}})
		if err == nil {
			err = in.Reserve()
		}
		if err == nil {
			_, err = in.WriteAt([]byte("rig"), 0)
		}
		if err == nil {
			err = in.Close()
		}
		return err
	},
	"rest": func(s *store.Store) error {
		lock, err := s.LockName("m")
		if err != nil {
			return err
		}
		defer lock.Release()
		in, err := s.Begin(store.Want{SHA256: sum("right"), Name: "m"})
		if err != nil {
			return err
		}
		fmt.Println(in.Done())
		if _, err = in.WriteAt([]byte("ht"), 3); err != nil {
			return err
		}
		if _, err := in.Commit(context.Background()); err != nil {
			return err
		}
		if err := s.PutManifest(&store.Manifest{Name: "m", Blob: "sha256:" + sum("right"), Size: 5}, false); err != nil {
			return err
		}
		return in.Close()
	},
	"use": func(s *store.Store) error {
		m, err := s.Ensure(context.Background(), store.Ref{Name: "m"}, nil)
		if err != nil {
			return err
		}
		defer m.Close()
		text, err := io.ReadAll(m.Files[0])
		fmt.Println(string(text))
		return err
	},
	"remove": func(s *store.Store) error {
		_, err := s.Remove("m", false)
		return err
	},
	"list": func(s *store.Store) error {
		l, err := s.List()
		fmt.Println(names(l))
		return err
	},
	"serve": func(s *store.Store) error {
		m, err := s.Ensure(context.Background(), store.Ref{Name: "m"}, nil)
		if err != nil {
			return err
		}
		defer m.Close()
		fmt.Println("ready")
		return waitForEnd()
	},
	"show": func(s *store.Store) error {
		m, err := s.Ensure(context.Background(), store.Ref{Name: "m"}, nil)
		if err != nil {
			return err
		}
		defer m.Close()
		fmt.Println("ready")
		if err := waitForEnd(); err != nil {
			return err
		}
		text, err := io.ReadAll(m.Files[0])
		fmt.Printf("%q\n", text)
		return err
	},
	"get": func(s *store.Store) error { return get(s, contended(), false) },
	"lie": func(s *store.Store) error {
		lie := contended()
		lie[rand.IntN(len(lie))] ^= 1
		return get(s, lie, true)
	},
	"problems": func(s *store.Store) error {
		l, err := s.List()
		for _, p := range l.Problems {
			fmt.Println(p.Path)
		}
		return err
	},
	"collect": func(s *store.Store) error {
		removed, _, err := s.GC(context.Background(), store.GCOptions{Now: time.Now().Add(30 * 24 * time.Hour)})
		for _, r := range removed {
			fmt.Println(r.What)
		}
		return err
	},
}

func waitForEnd() error {
	_, _ = bufio.NewReader(os.Stdin).ReadByte()
	return nil
}

func TestMain(m *testing.M) {
	flag.Parse()
	if os.Getenv(shortEnv) != "" || testing.Short() {
		killedSize = 16 << 20
	}
	if role := os.Getenv(roleEnv); role != "" {
		syscall.Umask(0o022)
		s := &store.Store{Home: os.Getenv("STORE_TEST_HOME")}
		s.SetLocks(locks[os.Getenv(locksEnv)])
		if err := roles[role](s); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// process returns a command that runs the test binary exe with a role; an empty exe means the
// binary of this process.
func process(t *testing.T, exe, role, home string) *exec.Cmd {
	t.Helper()
	if exe == "" {
		var err error
		if exe, err = os.Executable(); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), roleEnv+"="+role, "STORE_TEST_HOME="+home)
	if testing.Short() {
		cmd.Env = append(cmd.Env, shortEnv+"=1")
	}
	return cmd
}

const chunk = 1 << 20

// killedSize is the size in bytes of the model in the tests that kill its writers. TestMain makes it
// smaller for a short test.
var killedSize = 48 << 20

func killedWant() store.Want {
	return store.Want{SHA256: killedDigest(), Name: "m", Upstream: store.Upstream{URL: "https://a/b", Total: int64(killedSize)}}
}

var killedDigest = sync.OnceValue(func() string { return digestOf(random(killedSize, 20)) })

// When a writer is killed, at most the bytes since its last checkpoint are lost, and the next
// writer continues at once.
func TestWriterIsKilled(t *testing.T) {
	home := shortdir.InMemory(t)
	written, most := int64(0), 12
	if testing.Short() {
		most = 20 // fewer kills
	}
	for n := 0; ; n++ {
		cmd := process(t, "", "write", home)
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
		lines := bufio.NewScanner(out)
		stop := rand.IntN(most)
		finished := false
		for first := true; lines.Scan(); first = false {
			line := lines.Text()
			if line == "done" {
				finished = true
				break
			}
			at, err := strconv.ParseInt(line, 10, 64)
			if err != nil {
				t.Fatal(line)
			}
			switch {
			case first && at < written-8<<20:
				t.Errorf("after kill %d: %d bytes are there, %d were written", n, at, written)
			case !first:
				written = at + chunk
			}
			if stop--; stop < 0 {
				break
			}
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if finished {
			break
		}
	}
	s := &store.Store{Home: home}
	defer s.Close()
	in := begin(t, s, killedWant())
	for _, gap := range gaps(in.Ranges(), int64(killedSize)) {
		if gap.End-gap.Start > 8<<20 {
			t.Errorf("missing: %+v", gap)
		}
		write1(t, in, random(killedSize, 20)[gap.Start:gap.End], int(gap.Start))
	}
	commit(t, in)
	if got := tree(t, home); len(got) != 1 {
		t.Errorf("%q", got)
	}
}

// Two users of a group share a store: each can resume the ingests of the other, and use and remove the
// models of the other. A user outside of the group can only use models.
func TestTwoUsers(t *testing.T) {
	const alice, bob, group = 61001, 61002, 61003
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	dir := shortdir.InMemory(t)
	home, exe := filepath.Join(dir, "models"), filepath.Join(dir, "test")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(exe, program, 0o755), os.Mkdir(home, 0o755), os.Chown(home, alice, group), os.Chmod(home, 0o775|os.ModeSetgid)); err != nil {
		t.Fatal(err)
	}
	as := func(uid uint32, role string) string {
		cmd := process(t, exe, role, home)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid, Groups: []uint32{group}}}
		cmd.Dir = "/"
		out, err := cmd.CombinedOutput()
		if errors.Is(err, os.ErrPermission) {
			t.Skip("cannot start a process of another user:", err)
		}
		return strings.TrimSpace(string(out))
	}
	for n, step := range []struct {
		uid        uint32
		role, want string
	}{
		{alice, "half", ""},
		{bob, "rest", "3"},
		{alice, "use", "right"},
		{alice, "list", "m ok"},
		{bob, "use", "right"},
		{alice, "remove", ""},
		{bob, "list", ""},
		{bob, "half", ""},
		{alice, "rest", "3"},
		{bob, "remove", ""},
	} {
		got := as(step.uid, step.role)
		if step.role == "list" {
			got = strings.ReplaceAll(got, "unverified", "ok") // this user has not hashed the blob
		}
		if got != step.want {
			t.Errorf("step %d: %d %s: %q, want %q", n, step.uid, step.role, got, step.want)
		}
	}
	if got := tree(t, home); len(got) != 0 {
		t.Errorf("%q", got)
	}
	err = filepath.WalkDir(home, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		want := os.FileMode(0o664)
		if e.IsDir() {
			want = os.ModeDir | os.ModeSetgid | 0o775
		}
		if info.Mode() != want {
			t.Errorf("%s has mode %v, want %v", path, info.Mode(), want)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	// A user outside of the group can use models, but can change nothing.
	as(alice, "half")
	as(bob, "rest")
	stranger := func(role string) string {
		cmd := process(t, exe, role, home)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 61004, Gid: 61004}}
		cmd.Dir = "/"
		out, _ := cmd.CombinedOutput()
		return strings.TrimSpace(string(out))
	}
	if got := stranger("use"); got != "right" {
		t.Errorf("use: %q", got)
	}
	for _, role := range []string{"hold", "remove"} {
		if got := stranger(role); !strings.Contains(got, "cannot be written to") || !strings.Contains(got, "models_home") {
			t.Errorf("%s: %q", role, got)
		}
	}
}

// A store in which every user can replace manifests is refused, and the error names the remedy.
func TestStoreThatEveryoneCanChange(t *testing.T) {
	s, home := open(t)
	put(t, s, "m", []byte("x"))
	if err := os.Chmod(filepath.Join(home, "manifests"), 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Ensure(t.Context(), store.Ref{Name: "m"}, nil); err == nil || !strings.Contains(err.Error(), "chmod o-w") {
		t.Errorf("by name: %v", err)
	}
	ensure(t, s, store.Ref{Name: "m", SHA256: sum("x")}) // this digest does not come from the manifest
	again := &store.Store{Home: home}
	defer again.Close()
	if _, err := again.LockName("m"); err == nil || !strings.Contains(err.Error(), "chmod o-w") {
		t.Errorf("for writing: %v", err)
	}
	if l := list(t, s); len(l.Problems) != 1 {
		t.Errorf("%+v", l.Problems)
	}
	// If every user can change the store's folder, they can replace the folder of manifests.
	if err := errors.Join(os.Chmod(filepath.Join(home, "manifests"), 0o755), os.Chmod(home, 0o777)); err != nil {
		t.Fatal(err)
	}
	if _, err := again.Ensure(t.Context(), store.Ref{Name: "m"}, nil); err == nil || !strings.Contains(err.Error(), "chmod o-w") {
		t.Errorf("in such a folder: %v", err)
	}
}

// A link that leads out of the store is refused, and the error says so.
func TestLinksOutOfTheStore(t *testing.T) {
	dir := t.TempDir()
	home, elsewhere := filepath.Join(dir, "models"), filepath.Join(dir, "elsewhere")
	if err := errors.Join(os.MkdirAll(home, 0o755), os.MkdirAll(elsewhere, 0o755), os.Symlink(elsewhere, filepath.Join(home, "blobs"))); err != nil {
		t.Fatal(err)
	}
	s := &store.Store{Home: home}
	defer s.Close()
	if _, err := s.Begin(store.Want{SHA256: sum("x")}); err == nil || !strings.Contains(err.Error(), "symbolic link to a place outside of it") {
		t.Errorf("%v", err)
	}
	if got := tree(t, elsewhere); len(got) != 0 {
		t.Errorf("%q", got)
	}
	// The folder of the store may itself be a link.
	s = &store.Store{Home: filepath.Join(dir, "link")}
	defer s.Close()
	if err := os.Symlink(elsewhere, s.Home); err != nil {
		t.Fatal(err)
	}
	put(t, s, "m", []byte("x"))
	// A symbolic link does not count as a blob.
	d := sum("y")
	blob := filepath.Join(elsewhere, "blobs", "sha256", d[:2], d)
	write(t, filepath.Join(dir, "y"), "y")
	if err := errors.Join(os.MkdirAll(blob, 0o755), os.Symlink("../../../../../y", filepath.Join(blob, "data"))); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Have(t.Context(), d, nil); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("%v", err)
	}
}
