package test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// installTime bounds the installation of one client.
const installTime = 15 * time.Minute

// tryPython returns an interpreter with the packages in testdata/pins/NAME.txt. They are installed
// once and kept. It reports false if the installation fails, and logs why.
func tryPython(t *testing.T, name string) (program string, ok bool) {
	t.Helper()
	pins := filepath.Join("testdata", "pins", name+".txt")
	venv, ok := install(t, "python", name, pins, func(ctx context.Context, venv string) error {
		if err := runQuietly(ctx, "python3", "-m", "venv", "--clear", venv); err != nil {
			return err
		}
		return runQuietly(ctx, filepath.Join(venv, "bin", "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile", "-r", pins)
	})
	return filepath.Join(venv, "bin", "python"), ok
}

// tryNode returns a folder with the npm packages in testdata/pins/NAME. They are installed once and
// kept. It reports false if the installation fails, and logs why.
func tryNode(t *testing.T, name string) (folder string, ok bool) {
	t.Helper()
	from := filepath.Join("testdata", "pins", name)
	lock := filepath.Join(from, "package-lock.json")
	return install(t, "npm", name, lock, func(ctx context.Context, folder string) error {
		if err := os.RemoveAll(folder); err != nil {
			return err
		}
		if err := os.CopyFS(folder, os.DirFS(from)); err != nil {
			return err
		}
		return runQuietly(ctx, "npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", folder)
	})
}

// install returns the folder of an installation. begin makes it, and makes it again when the file
// pins has changed. If that fails, install logs why, and reports false.
func install(t *testing.T, kind, name, pins string, begin func(ctx context.Context, folder string) error) (folder string, ok bool) {
	t.Helper()
	text, err := os.ReadFile(pins)
	if err != nil {
		t.Fatal(err)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		t.Logf("%s is not run: %v", name, err)
		return "", false
	}
	folder = filepath.Join(home, ".cache", "inferd-test", kind+"-"+name)
	done := filepath.Join(folder, ".pins")
	if installed, err := os.ReadFile(done); err == nil && bytes.Equal(installed, text) {
		return folder, true
	}
	ctx, cancel := context.WithTimeout(t.Context(), installTime)
	defer cancel()
	err = begin(ctx, folder)
	if err == nil {
		err = os.WriteFile(done, text, 0o600)
	}
	if err != nil {
		_ = os.RemoveAll(folder)
		t.Logf("%s is not run: it does not install: %v", name, err)
	}
	return folder, err == nil
}

// runQuietly runs a program. If it fails, the error has the beginning of its output, on one line.
func runQuietly(ctx context.Context, program string, args ...string) error {
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %.300s", program, err, strings.Join(strings.Fields(string(out)), " "))
	}
	return nil
}
