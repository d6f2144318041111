package test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/inferd-go/inferd/internal/builtin"
)

// servedFile starts a daemon with a copy of builtin:loop. It returns the path of the copy, and a
// client with a running request. It skips the test if the file system grants no leases.
func servedFile(t *testing.T) (d *daemon, path string, running *client) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "loop.gguf")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := builtin.Write("loop", f); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	probe, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = unix.FcntlInt(probe.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
	_ = probe.Close()
	if err != nil {
		t.Skipf("this file system grants no lease (F_SETLEASE): %v", err)
	}
	d = serve(t, "--model-path", path)
	running = d.client()
	running.send(prompt("r", "a", `,"max_tokens":1000000`))
	if r := running.next(); r.Type != "token" {
		t.Fatalf("first %+v", r)
	}
	return d, path, running
}

// A process that opens the file of a served model for writing has to wait until the engine has
// stopped. If the file is unchanged, it is served again. The end of the engine does not count as a
// crash.
func TestModelIsOpenedForWriting(t *testing.T) {
	d, path, running := servedFile(t)
	first := d.engine()
	w := d.watch()
	defer w.Close()
	w.until("ready", "")
	begun := time.Now()
	f, err := os.OpenFile(path, os.O_RDWR, 0) // waits for the engine
	if err != nil {
		t.Fatal(err)
	}
	held := time.Since(begun)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(first, 0); err == nil {
		t.Error("the engine was there when the writer got the file")
	}
	if _, end := running.answer(); end.Type != "error" || end.Code != "backend_unavailable" {
		t.Errorf("the running request ended with %+v", end)
	}
	frames := w.until("ready", "")
	said := false
	for _, frame := range frames {
		reason, _ := frame["reason"].(string)
		said = said || frame["status"] == "restarting" && frame["phase"] == "engine_exited" && strings.Contains(reason, path+" was opened for writing")
		if frame["phase"] == "gave_up" || strings.Contains(reason, "SIGBUS") {
			t.Errorf("frame %v", frame)
		}
	}
	if !said {
		t.Errorf("no frame names the cause: %v", frames)
	}
	if text, end := d.ask("a", `,"max_tokens":3`); text != "bcd" || end.Type != "done" {
		t.Errorf("the next engine answered %q, %+v", text, end)
	}
	t.Logf("the writer was held for %v", held)
}

// If the file of a served model is truncated, the entry is given up with the path of the file, and no
// engine ends by SIGBUS.
func TestModelIsTruncated(t *testing.T) {
	d, path, running := servedFile(t)
	if err := os.Truncate(path, 5000); err != nil {
		t.Fatal(err)
	}
	if _, end := running.answer(); end.Type != "error" || end.Code != "backend_unavailable" {
		t.Errorf("the running request ended with %+v", end)
	}
	frames := d.waitStatus("restarting", "gave_up")
	if reason, _ := frames[len(frames)-1]["reason"].(string); !strings.Contains(reason, path) || strings.Contains(reason, "SIGBUS") {
		t.Errorf("reason %q", reason)
	}
	if _, end := d.ask("a", ""); end.Type != "error" || end.Code != "backend_unavailable" {
		t.Errorf("a request got %+v", end)
	}
	if out := d.stderr.String(); strings.Contains(out, "SIGBUS") || !strings.Contains(out, "was opened for writing while the engine had it loaded") {
		t.Errorf("the log lacks the cause")
	}
	// Once the right file is in its place, an operator's retry serves the model again.
	repaired := path + ".new"
	f, err := os.Create(repaired)
	if err != nil {
		t.Fatal(err)
	}
	if err := builtin.Write("loop", f); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(repaired, path); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := d.ctl("retry", "llamacpp"); code != 0 {
		t.Fatalf("retry: %d, %s", code, errs)
	}
	d.waitReady()
	d.workOnLoop()
}

// If the file is open for writing from the beginning, there is no lease, and truncating the file
// ends the engine by SIGBUS. The daemon reports the cause.
func TestModelIsTruncatedWithoutLease(t *testing.T) {
	if testing.Short() {
		t.Skip("waits some seconds for the writer")
	}
	path := filepath.Join(t.TempDir(), "loop.gguf")
	writer, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	if err := builtin.Write("loop", writer); err != nil {
		t.Fatal(err)
	}
	d := serve(t, "--model-path", path)
	running := d.client()
	running.send(prompt("r", "a", `,"max_tokens":1000000`))
	if r := running.next(); r.Type != "token" {
		t.Fatalf("first %+v", r)
	}
	w := d.watch()
	defer w.Close()
	w.until("ready", "")
	if err := writer.Truncate(5000); err != nil {
		t.Fatal(err)
	}
	if _, end := running.answer(); end.Type != "error" || end.Code != "backend_unavailable" {
		t.Errorf("the running request ended with %+v", end)
	}
	frames := w.until("restarting", "engine_exited")
	if reason, _ := frames[len(frames)-1]["reason"].(string); !strings.Contains(reason, path+" was changed while the engine had it loaded") {
		t.Errorf("reason %q", reason)
	}
}
