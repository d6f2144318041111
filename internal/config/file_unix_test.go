//go:build unix

package config_test

import (
	"io"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/inferd-go/inferd/internal/config"
)

// A config that might never end is refused at once.
func TestPipesAndDevicesAreRefused(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, "/dev/zero", "/dev/null"} {
		f, err := config.ParseFlags([]string{"--config", path}, environment(nil), io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := config.Load(&f, environment(nil)); err == nil || !strings.Contains(err.Error(), path+" is not a regular file") {
			t.Errorf("%s: %v", path, err)
		}
	}
}
