//go:build unix

package config_test

import (
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/inferd-go/inferd/internal/config"
)

// A named pipe or a device is refused at once, because its content might never end.
func TestPipesAndDevicesAreRefused(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, "/dev/zero", "/dev/null"} {
		f, err := config.ParseFlags([]string{"--config", path}, environment(nil), kinds, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := config.Load(&f, environment(nil)); err == nil || !strings.Contains(err.Error(), path+" is not a regular file") {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// A config file that another user can change is refused: that user could run programs as the
// daemon's user.
func TestFilesThatOthersCanChange(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "conf")
	path := filepath.Join(dir, "config.json")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(`{"backends":[{"kind":"mock","name":"m"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	load := func() error {
		f, err := config.ParseFlags([]string{"--config", path}, environment(nil), kinds, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		_, err = config.Load(&f, environment(nil))
		return err
	}
	if err := load(); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		do, undo func() error
		root     bool
		want     string
	}{
		"the file": {
			func() error { return os.Chmod(path, 0o666) }, func() error { return os.Chmod(path, 0o600) }, false,
			path + " can be written to by every user (uid " + strconv.Itoa(os.Getuid()) + ", mode 0666): refused; run \"chmod o-w " + path,
		},
		"the folder": {
			func() error { return os.Chmod(dir, 0o777) }, func() error { return os.Chmod(dir, 0o700) }, false,
			"folder " + dir + " can be written to by every user",
		},
		"another user's folder": {
			func() error { return os.Chown(dir, 12345, -1) }, func() error { return os.Chown(dir, 0, -1) }, true,
			"folder " + dir + " belongs to another user (uid 12345, mode 0700): refused",
		},
		"another user's file": {
			func() error { return os.Chown(path, 12345, -1) }, func() error { return os.Chown(path, 0, -1) }, true,
			path + " belongs to another user (uid 12345, mode 0600): refused",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if test.root && os.Getuid() != 0 {
				t.Skip("only root can give files to another user")
			}
			if err := test.do(); err != nil {
				t.Fatal(err)
			}
			if err := load(); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Load: %v, want %q", err, test.want)
			}
			if err := test.undo(); err != nil {
				t.Fatal(err)
			}
		})
	}
}
