//go:build unix

package trust_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/inferd-go/inferd/internal/trust"
)

// place makes a folder of mode 0700 with a file of mode 0600; no usual umask changes these modes.
func place(t *testing.T) (dir, file string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "dir")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, file
}

func chmod(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func TestPath(t *testing.T) {
	t.Run("a file of ours", func(t *testing.T) {
		_, file := place(t)
		check(t, trust.Path(file), "")
	})
	t.Run("a writable file", func(t *testing.T) {
		_, file := place(t)
		chmod(t, file, 0o666)
		check(t, trust.Path(file), "file can be written to by every user")
	})
	t.Run("a file in a writable folder", func(t *testing.T) {
		dir, file := place(t)
		chmod(t, dir, 0o777)
		check(t, trust.Path(file), "folder "+dir+" can be written to by every user")
	})
	t.Run("a file in a sticky folder", func(t *testing.T) {
		dir, file := place(t)
		chmod(t, dir, 0o777|os.ModeSticky)
		check(t, trust.Path(file), "")
	})
	t.Run("a link in a writable folder", func(t *testing.T) {
		_, file := place(t)
		dir, _ := place(t)
		link := filepath.Join(dir, "link")
		if err := os.Symlink(file, link); err != nil {
			t.Fatal(err)
		}
		check(t, trust.Path(link), "")
		chmod(t, dir, 0o777)
		check(t, trust.Path(link), "folder "+dir)
	})
	t.Run("a link into a writable folder", func(t *testing.T) {
		dir, file := place(t)
		from, _ := place(t)
		link := filepath.Join(from, "link")
		if err := os.Symlink(file, link); err != nil {
			t.Fatal(err)
		}
		chmod(t, dir, 0o777)
		check(t, trust.Path(link), "folder "+dir)
	})
	t.Run("a link to itself", func(t *testing.T) {
		dir, _ := place(t)
		link := filepath.Join(dir, "link")
		if err := os.Symlink(link, link); err != nil {
			t.Fatal(err)
		}
		check(t, trust.Path(link), "too many links")
	})
	t.Run("nothing", func(t *testing.T) {
		dir, _ := place(t)
		if err := trust.Path(filepath.Join(dir, "nothing")); !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
	})
}

func TestFolder(t *testing.T) {
	dir, file := place(t)
	check(t, trust.Folder(dir), "")
	check(t, trust.Folder(file), "is not a folder")
	chmod(t, dir, 0o777|os.ModeSticky)
	check(t, trust.Folder(dir), "")
	chmod(t, dir, 0o777)
	check(t, trust.Folder(dir), "folder "+dir+" can be written to by every user")
	chmod(t, dir, 0o700)
	chmod(t, filepath.Dir(dir), 0o777)
	check(t, trust.Folder(dir), "folder "+filepath.Dir(dir)+" can be written to by every user")
}

// A file or folder of another user is refused. The test needs root to change owners.
func TestForeignOwner(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can give a file to another user")
	}
	dir, file := place(t)
	if err := os.Chown(dir, 65534, -1); err != nil {
		t.Fatal(err)
	}
	check(t, trust.Path(file), "folder "+dir+" belongs to another user (uid 65534, mode 0700): refused")
	check(t, trust.Folder(dir), "belongs to another user")
}

func TestOpenFile(t *testing.T) {
	const flags = os.O_RDWR | os.O_CREATE | os.O_APPEND
	for name, test := range map[string]struct {
		plant func(dir, name string) error
		want  string
	}{
		"nothing":         {func(string, string) error { return nil }, ""},
		"a file of ours":  {func(_, name string) error { return os.WriteFile(name, nil, 0o600) }, ""},
		"a link":          {func(dir, name string) error { return os.Symlink(filepath.Join(dir, "file"), name) }, "symbolic link: refused"},
		"a dangling link": {func(dir, name string) error { return os.Symlink(filepath.Join(dir, "none"), name) }, "symbolic link: refused"},
		"a named pipe":    {func(_, name string) error { return syscall.Mkfifo(name, 0o600) }, "is not a regular file"},
		"a writable file": {func(_, name string) error {
			return errors.Join(os.WriteFile(name, nil, 0o600), os.Chmod(name, 0o666))
		}, "can be written to by every user"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, file := place(t)
			name := filepath.Join(dir, "name")
			if err := test.plant(dir, name); err != nil {
				t.Fatal(err)
			}
			f, err := trust.OpenFile(name, flags, 0o600)
			check(t, err, test.want)
			if err == nil {
				f.Close()
			}
			if got, err := os.ReadFile(file); err != nil || string(got) != "content" {
				t.Errorf("the target holds %q, %v", got, err)
			}
			if _, err := os.Lstat(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the target was made: %v", err)
			}
		})
	}
}
