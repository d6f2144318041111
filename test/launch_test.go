package test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/inferd-go/inferd/internal/shortdir"
)

// recordingEngine returns a program in place of the engine, and a function that returns one of its records,
// "environ" or "cwd". The program records its environment and working folder, runs a line of shell,
// and becomes the real engine. Unlike the files in /proc, the records are readable for every user.
func recordingEngine(t *testing.T, line string) (engine string, seen func(what string) string) {
	t.Helper()
	dir := shortdir.New(t)
	engine = filepath.Join(dir, "engine")
	script := fmt.Sprintf(`#!/bin/sh
tr '\0' '\n' </proc/$$/environ >%[1]s/environ
readlink /proc/$$/cwd >%[1]s/cwd
%[2]s
exec %[3]s "$@"
`, dir, line, filepath.Join(bin, "inferd-engine"))
	if err := os.WriteFile(engine, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return engine, func(what string) string {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(dir, what))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
}

// An engine gets only the environment variables that it needs: none that load code, and no secrets.
// Its working folder is /, where only root can put a library.
func TestEnvironmentOfAnEngine(t *testing.T) {
	for name, value := range map[string]string{
		"LD_PRELOAD": "/nonexistent/evil.so", "LD_LIBRARY_PATH": "/nonexistent", "LD_AUDIT": "/nonexistent/evil.so",
		"GGML_BACKEND_PATH": "/nonexistent/evil.so", "GGML_VK_VISIBLE_DEVICES": "0", "LLAMA_LOG_VERBOSITY": "9",
		"GODEBUG": "madvdontneed=1", "GOTRACEBACK": "all", "INFERD_API_KEY": "correct horse", "SOME_TOKEN": "battery staple",
		"INFERD_ENGINE_OTHER": "x", "NOTIFY_SOCKET": "/nonexistent", "CUDA_VISIBLE_DEVICES": "", "ROCR_VISIBLE_DEVICES": "1",
		"LANG": "C.UTF-8", "LC_ALL": "C", "TZ": "UTC", "INFERD_ENGINE_WEDGE": "/nonexistent/wedge", "SSH_AUTH_SOCK": "/nonexistent",
	} {
		t.Setenv(name, value)
	}
	engine, seen := recordingEngine(t, "")
	d := serve(t, "--model-path", "builtin:chain", "--engine", engine)
	d.works()
	var got []string
	for line := range strings.Lines(seen("environ")) {
		got = append(got, strings.TrimSuffix(line, "\n"))
	}
	slices.Sort(got)
	want := []string{
		"CUDA_VISIBLE_DEVICES=", "GGML_NO_BACKTRACE=1", "GGML_VK_VISIBLE_DEVICES=0", "INFERD_ENGINE_WEDGE=/nonexistent/wedge",
		"LANG=C.UTF-8", "LC_ALL=C", "ROCR_VISIBLE_DEVICES=1", "TZ=UTC",
	}
	if _, err := os.Stat(filepath.Join(engineLib, "libffi.so.8")); err == nil {
		want = slices.Insert(want, 6, "LD_LIBRARY_PATH="+engineLib)
	}
	if !slices.Equal(got, want) {
		t.Errorf("the engine has\n%q, want\n%q", got, want)
	}
	if cwd := strings.TrimSpace(seen("cwd")); cwd != "/" {
		t.Errorf("the engine works in %s", cwd)
	}
}

// Neither the daemon nor an engine writes core files, or lets other processes of its user read its
// memory.
func TestNoDumps(t *testing.T) {
	d := serve(t, "--model-path", "builtin:chain")
	for name, pid := range map[string]int{"inferd": d.cmd.Process.Pid, "the engine": d.engine()} {
		limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
		if err != nil {
			t.Fatal(err)
		}
		_, core, ok := strings.Cut(string(limits), "Max core file size")
		if fields := strings.Fields(core); !ok || fields[0] != "0" || fields[1] != "0" {
			t.Errorf("%s may write core files:\n%s", name, limits)
		}
	}
	if os.Geteuid() != 0 {
		for name, pid := range map[string]int{"inferd": d.cmd.Process.Pid, "the engine": d.engine()} {
			if _, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)); !os.IsPermission(err) {
				t.Errorf("the environment of %s can be read: %v", name, err)
			}
		}
	}
}

// The engine loads no library from the daemon's working folder. Relative paths in the config are
// resolved against that folder.
func TestRelativePaths(t *testing.T) {
	_, content := modelFile(t)
	dir := shortdir.New(t)
	for leaf, text := range map[string][]byte{"m.gguf": content, "libstdc++.so.6": []byte("no library"), "libggml-base.so": []byte("no library")} {
		if err := os.WriteFile(filepath.Join(dir, leaf), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(engineLib, filepath.Join(dir, "lib")); err != nil {
		t.Fatal(err)
	}
	// There are two engines, so the compute lock is used. It is in the folder of the daemon's lock.
	const config = `{"engine":{"lib_dir":"lib"},"backends":[
		{"kind":"llamacpp","name":"a","model":{"path":"m.gguf"}},
		{"kind":"llamacpp","name":"b","model":{"path":"./m.gguf"}}]}`
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	d := startIn(t, dir, "--lock", "run.lock")
	d.waitReady()
	d.works()
	d.signal(syscall.SIGTERM)
	if code := d.exit(); code != 0 {
		t.Errorf("exit %d", code)
	}
	if _, err := os.Stat(filepath.Join(dir, "compute.lock")); !os.IsNotExist(err) {
		t.Errorf("the compute lock is left: %v", err)
	}
}

// startIn starts a daemon with dir as its working folder and as the folder of its sockets.
func startIn(t *testing.T, dir string, args ...string) *daemon {
	t.Helper()
	program := filepath.Join(dir, "start")
	script := fmt.Sprintf("#!/bin/sh\ncd %s && exec %s \"$@\"\n", dir, filepath.Join(bin, "inferd"))
	if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("INFERD_ENGINE_LIB", "")
	if err := os.Unsetenv("INFERD_ENGINE_LIB"); err != nil { // t.Setenv restores it
		t.Fatal(err)
	}
	return startProgram(t, program, dir, args...)
}

// The engine loads the verified file, even if another file has taken its path.
func TestModelIsReplacedBeforeItIsLoaded(t *testing.T) {
	path, content := modelFile(t)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(content)
	// The program replaces the file after the daemon's check and before the engine's load.
	engine, _ := recordingEngine(t, fmt.Sprintf("echo another >%[1]s.new && mv %[1]s.new %[1]s", path))
	d := start(t, "", "--model-path", path, "--model-sha256", hex.EncodeToString(sum[:]), "--engine", engine)
	var mapped bool
	for _, frame := range d.waitStatus("ready", "") {
		mapped = mapped || frame["phase"] == "mmap" && frame["path"] == path
	}
	if !mapped {
		t.Error("no phase names the model's path")
	}
	if now, err := os.ReadFile(path); err != nil || string(now) != "another\n" {
		t.Fatalf("the file was not replaced: %q, %v", now, err)
	}
	d.works()

	w := d.watch()
	defer w.Close()
	w.until("ready", "")
	kill(t, d.engine(), syscall.SIGKILL)
	frames := w.until("restarting", "gave_up")
	if reason := fmt.Sprint(frames[len(frames)-1]["reason"]); !strings.Contains(reason, path+" has SHA-256") {
		t.Errorf("gave up with %q", reason)
	}
}

// A named pipe in place of a model is refused. The start does not wait for a writer.
func TestModelIsAPipe(t *testing.T) {
	path := filepath.Join(shortdir.New(t), "model.gguf")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	d := start(t, "", "--model-path", path)
	if code := d.exit(); code != 1 || !strings.Contains(d.stderr.String(), path+" is not a regular file") {
		t.Errorf("exit %d, stderr %s", code, d.stderr)
	}
}

// A split model is loaded from its parts, which may be links, as they are in caches of models.
func TestSplitModel(t *testing.T) {
	_, content := modelFile(t)
	dir := shortdir.New(t)
	first, second := split(t, content)
	name := func(part int) string { return filepath.Join(dir, fmt.Sprintf("chain-%05d-of-00002.gguf", part)) }
	for i, part := range [][]byte{first, second} {
		blob := filepath.Join(dir, fmt.Sprintf("blob%d", i))
		if err := os.WriteFile(blob, part, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(blob, name(i+1)); err != nil {
			t.Fatal(err)
		}
	}
	sum := sha256.Sum256(first)
	d := serve(t, "--model-path", name(1), "--model-sha256", hex.EncodeToString(sum[:]))
	d.works()
	d.signal(syscall.SIGTERM)
	d.exit()

	nothing := func() error { return nil }
	for _, test := range []struct { // in this order: each case damages the second part further
		what    string
		file    string
		spoil   func() error
		message []string
	}{
		{"the second part is named", name(2), nothing, []string{name(2), "split"}},
		{"the second part is broken", name(1), func() error { return os.WriteFile(name(2), first, 0o600) }, []string{name(1), "part 2"}},
		{"the second part is missing", name(1), func() error { return os.Remove(name(2)) }, []string{"part 2 of 2", name(2), "no such file"}},
	} {
		t.Run(test.what, func(t *testing.T) {
			if err := test.spoil(); err != nil {
				t.Fatal(err)
			}
			d := start(t, "", "--model-path", test.file)
			if code := d.exit(); code != 1 {
				t.Errorf("exit %d", code)
			}
			for _, want := range test.message {
				if !strings.Contains(d.stderr.String(), want) {
					t.Errorf("no %q in %s", want, d.stderr)
				}
			}
		})
	}
}

// split divides a GGUF file as llama.cpp's tool does: the first part has the metadata, the second
// the tensors.
func split(t *testing.T, file []byte) (first, second []byte) {
	t.Helper()
	le := binary.LittleEndian
	tensors, keys := le.Uint64(file[8:]), le.Uint64(file[16:])
	const head = 24
	at := uint64(head)
	text := func() { at += 8 + le.Uint64(file[at:]) }
	var value func(kind uint32)
	value = func(kind uint32) {
		switch kind {
		case 4, 5, 6: // values of 32 bits
			at += 4
		case 7: // booleans
			at++
		case 8:
			text()
		case 9:
			kind, n := le.Uint32(file[at:]), le.Uint64(file[at+4:])
			at += 12
			for range n {
				value(kind)
			}
		default:
			t.Fatalf("a value of type %d", kind)
		}
	}
	for range keys {
		text()
		at += 4
		value(le.Uint32(file[at-4:]))
	}
	meta := file[head:at]
	begin := at
	for range tensors {
		text()
		at += 4 + 8*uint64(le.Uint32(file[at:])) + 4 + 8
	}
	infos, data := file[begin:at], file[(at+31)/32*32:]

	part := func(no uint16, tensors, keys uint64, meta, infos, data []byte) []byte {
		var b bytes.Buffer
		b.Write(file[:8])
		key := func(name string, kind uint32, value ...byte) {
			_ = binary.Write(&b, le, uint64(len(name))) // writing to a buffer does not fail
			b.WriteString(name)
			_ = binary.Write(&b, le, kind)
			b.Write(value)
		}
		_ = binary.Write(&b, le, tensors)
		_ = binary.Write(&b, le, keys+3)
		b.Write(meta)
		key("split.no", 2, le.AppendUint16(nil, no)...)
		key("split.count", 2, le.AppendUint16(nil, 2)...)
		key("split.tensors.count", 5, le.AppendUint32(nil, uint32(le.Uint64(file[8:])))...)
		b.Write(infos)
		b.Write(make([]byte, (32-b.Len()%32)%32))
		b.Write(data)
		return b.Bytes()
	}
	return part(0, 0, keys, meta, nil, nil), part(1, tensors, 0, nil, infos, data)
}

// A daemon that does not run as root supervises its engine although the engine forbids dumps: the
// files in /proc that the watchdog reads are open to every user.
func TestDaemonWithoutRoot(t *testing.T) {
	asRoot(t) // the test gives up root
	const user = 65534
	if _, err := exec.LookPath("setpriv"); err != nil {
		t.Skip("there is no setpriv")
	}
	dir, programs := shortdir.New(t), shortdir.New(t)
	for _, name := range []string{"inferd", "inferd-engine"} {
		copyFile(t, filepath.Join(bin, name), filepath.Join(programs, name))
	}
	lib := filepath.Join(programs, "lib") // the real libraries may be in root's home
	if err := os.CopyFS(lib, os.DirFS(libraryFiles(t))); err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf("#!/bin/sh\nHOME=%s INFERD_LOG_DIR= XDG_CACHE_HOME= exec setpriv --reuid %d --regid %[2]d --clear-groups %s/inferd \"$@\"\n", dir, user, programs)
	program := filepath.Join(programs, "start")
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{programs, filepath.Join(programs, "inferd"), filepath.Join(programs, "inferd-engine")} {
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(dir, user, user); err != nil {
		t.Fatal(err)
	}
	d := startProgram(t, program, dir, "--model-path", "builtin:chain", "--engine-lib", lib)
	d.waitReady()
	d.works()
	for name, pid := range map[string]int{"inferd": d.cmd.Process.Pid, "the engine": d.engine()} {
		if uid := ownerOf(t, fmt.Sprintf("/proc/%d/stat", pid)); uid != 0 {
			t.Errorf("user %d may look into %s", uid, name)
		}
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil || !strings.Contains(string(raw), fmt.Sprintf("\nUid:\t%d\t", user)) {
			t.Errorf("%s runs as another user: %v\n%s", name, err, raw)
		}
	}

	w := d.watch()
	defer w.Close()
	w.until("ready", "")
	kill(t, d.engine(), syscall.SIGKILL)
	w.until("restarting", "")
	w.until("ready", "")
	d.works()
	pid := d.engine()
	kill(t, pid, syscall.SIGSTOP)
	eventually(t, "the engine is stopped", func() bool {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		return err == nil && strings.Contains(string(raw), "\nState:\tT")
	})
	d.works() // the watchdog notices that the engine is stopped
	if !strings.Contains(d.stderr.String(), "sending SIGCONT") {
		t.Errorf("the watchdog did nothing:\n%s", d.stderr)
	}
}

// libraryFiles returns the folder of the libraries, with links resolved.
func libraryFiles(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(engineLib)
	if err != nil {
		t.Fatalf("%v: run \"make engine\"", err)
	}
	return dir
}

func ownerOf(t *testing.T, path string) uint32 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		t.Fatalf("%s: no owner", path)
	}
	return stat.Uid
}
