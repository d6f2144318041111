package activity

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inferd-go/inferd/internal/exchange"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
)

// opened opens a log in dir, which is closed when the test ends.
func opened(t *testing.T, dir string, limit int64) *Log {
	t.Helper()
	l, err := open(dir, limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// lines returns the lines of all files, oldest first.
func lines(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	for _, name := range []string{File + ".3", File + ".2", File + ".1", File} {
		raw, err := os.ReadFile(filepath.Join(dir, name))
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(raw)) {
			all = append(all, line)
		}
	}
	return all
}

func TestRecord(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "logs")
	l := opened(t, dir, Limit)
	log := slog.New(l.Handler("activity")).With(slog.Int("z", 1)).WithGroup("g")
	log.Debug("not this")
	log.Warn("request_done", slog.String("req_id", "a\"é\x00\xff"), slog.Duration("queue_ms", 1500*time.Microsecond), slog.Bool("b", true),
		slog.Any("err", fmt.Errorf("no: password=hunter2")), slog.Uint64("prompt_tokens", 12345), slog.Float64("f", 0.5))
	l.Flush()
	all := lines(t, dir)
	if len(all) != 1 {
		t.Fatalf("%q", all)
	}
	var m map[string]any
	if err := json.Unmarshal([]byte(all[0]), &m); err != nil {
		t.Fatal(err)
	}
	when, err := time.Parse(time.RFC3339, m["t"].(string))
	if err != nil || time.Since(when) > time.Hour || !strings.HasSuffix(m["t"].(string), "+00:00") {
		t.Errorf("t is %v, %v", m["t"], err)
	}
	delete(m, "t")
	want := `map[component:activity g.b:true g.err:no: password=[REDACTED:secret-kv] g.f:0.5 g.prompt_tokens:12345 g.queue_ms:1.5 g.req_id:a"é` + "\x00\ufffd" + ` level:warn msg:request_done z:1]`
	if got := fmt.Sprint(m); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if !strings.HasPrefix(all[0], `{"component":"activity","g.b":true,"g.err":`) {
		t.Errorf("not sorted: %s", all[0])
	}
	info, err := os.Stat(filepath.Join(dir, File))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// With eight writers and many rotations, no line of the kept files is lost or torn, and the lines of
// each writer are in order.
func TestRotation(t *testing.T) {
	dir := t.TempDir()
	l := opened(t, dir, 10_000)
	const writers, each = 8, 500
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			log := slog.New(l.Handler("activity"))
			for i := range each {
				log.Info("x", slog.Int("writer", w), slog.Int("n", i))
			}
		})
	}
	all.Wait()
	l.Flush()
	if l.Lost() != 0 {
		t.Errorf("%d lost", l.Lost())
	}
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(names) != 4 {
		t.Errorf("%d files: %q", len(names), names)
	}
	for _, name := range names {
		if info, err := os.Stat(name); err != nil || info.Size() > 10_000 || info.Size() == 0 {
			t.Errorf("%s: %d bytes, %v", name, info.Size(), err)
		}
	}
	next := make(map[int]int)
	for i, line := range slices.Backward(lines(t, dir)) {
		var m struct{ Writer, N int }
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("line %d: %v: %q", i, err, line)
		}
		if want, seen := next[m.Writer]; seen && m.N != want {
			t.Fatalf("writer %d: %d, want %d", m.Writer, m.N, want)
		} else if !seen && m.N != each-1 {
			t.Fatalf("writer %d: the last one is %d", m.Writer, m.N)
		}
		next[m.Writer] = m.N - 1
	}
}

// The size of an existing file counts towards its limit, and a line that a crash has torn is
// followed by a newline.
func TestReopened(t *testing.T) {
	dir := t.TempDir()
	for range 20 {
		l := opened(t, dir, 50)
		slog.New(l.Handler("x")).Info("a line of more than fifty bytes")
		_ = l.Close()
	}
	if all := lines(t, dir); len(all) != 4 {
		t.Errorf("%d lines: %q", len(all), all)
	}
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, File), []byte("{\"a\":1}\n{\"b\":"), 0o600); err != nil {
		t.Fatal(err)
	}
	l := opened(t, dir, Limit)
	slog.New(l.Handler("x")).Info("new")
	l.Flush()
	all := lines(t, dir)
	if len(all) != 3 || all[1] != "{\"b\":\n" || !strings.Contains(all[2], `"new"`) {
		t.Errorf("%q", all)
	}
}

// The log creates its folder and its file again after they were removed or renamed. Lines that
// cannot be written are counted as lost.
func TestFolderIsTakenAway(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	l := opened(t, dir, Limit)
	log := slog.New(l.Handler("x"))
	log.Info("one")
	l.Flush()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	log.Info("two")
	l.Flush()
	if all := lines(t, dir); len(all) != 1 || !strings.Contains(all[0], "two") {
		t.Errorf("%q", all)
	}
	if err := os.Rename(filepath.Join(dir, File), filepath.Join(dir, "away")); err != nil {
		t.Fatal(err)
	}
	log.Info("three")
	l.Flush()
	if all := lines(t, dir); len(all) != 1 || !strings.Contains(all[0], "three") {
		t.Errorf("%q", all)
	}
	// Replace the folder by a file.
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	log.Info("four")
	log.Info("five")
	l.Flush()
	if l.Lost() != 2 {
		t.Errorf("%d lost", l.Lost())
	}
	if _, err := Open(dir); err == nil {
		t.Error("a log opens in a file")
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	log.Info("six")
	l.Flush()
	if all := lines(t, dir); len(all) != 1 || !strings.Contains(all[0], "six") {
		t.Errorf("%q", all)
	}
}

// If a full disk takes only a part of a line, that part is removed.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a small disk")
	}
	dir := t.TempDir()
	if err := mountSmall(dir); err != nil {
		t.Skipf("mount: %v", err)
	}
	defer func() { _ = unmount(dir) }()
	l := opened(t, dir, Limit)
	log := slog.New(l.Handler("x"))
	for l.Lost() == 0 {
		log.Info("fill", slog.String("x", strings.Repeat("y", 1000)))
		l.Flush()
	}
	full := lines(t, dir)
	if err := os.Truncate(filepath.Join(dir, File), int64(len(full[0]))); err != nil {
		t.Fatal(err)
	}
	l.size = int64(len(full[0])) // no write is under way
	log.Info("room again")
	l.Flush()
	for i, line := range lines(t, dir) {
		if !json.Valid([]byte(line)) || !bytes.HasSuffix([]byte(line), []byte("\n")) {
			t.Errorf("line %d is torn: %q", i, line)
		}
	}
	for i, line := range full {
		if !json.Valid([]byte(line)) {
			t.Errorf("on the full disk line %d is torn: %q", i, line)
		}
	}
	if all := lines(t, dir); !strings.Contains(all[len(all)-1], "room again") {
		t.Errorf("%q", all)
	}
}

// Lines that are logged while the folder is read-only are lost; later ones are written. Root can
// write to any folder, so for root the file system is made read-only instead.
func TestReadOnly(t *testing.T) {
	dir := t.TempDir()
	shut, open := func() error { return os.Chmod(dir, 0o500) }, func() error { return os.Chmod(dir, 0o700) }
	if os.Geteuid() == 0 {
		if err := mountSmall(dir); err != nil {
			t.Skipf("mount: %v", err)
		}
		defer func() { _ = unmount(dir) }()
		shut, open = func() error { return mountReadOnly(dir) }, func() error {
			if err := unmount(dir); err != nil {
				return err
			}
			return mountSmall(dir)
		}
	}
	l := opened(t, dir, 1) // a file for each line
	log := slog.New(l.Handler("x"))
	log.Info("before")
	l.Flush()
	_ = l.file.Close() // a file system with a file open for writing cannot become read-only; no write is under way
	if err := shut(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(filepath.Join(dir, "below")); err == nil {
		t.Error("a log opens below a folder that may only be read")
	}
	log.Info("one")
	log.Info("two")
	l.Flush()
	if l.Lost() != 2 {
		t.Errorf("%d lost", l.Lost())
	}
	if err := open(); err != nil {
		t.Fatal(err)
	}
	log.Info("after")
	l.Flush()
	if all := lines(t, dir); l.Lost() != 2 || !strings.Contains(all[len(all)-1], "after") {
		t.Errorf("%q, %d lost", all, l.Lost())
	}
}

// On a device that stays full every write fails: all lines are counted as lost, and Flush still
// returns.
func TestFullDevice(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, File)
	l := opened(t, dir, Limit)
	l.Flush()
	if err := redirect(l.file, "/dev/full"); err != nil { // the writing goroutine is idle
		t.Skipf("redirect: %v", err)
	}
	log := slog.New(l.Handler("x"))
	for range 100 {
		log.Info("x")
	}
	l.Flush()
	if l.Lost() != 100 {
		t.Errorf("%d lost", l.Lost())
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	log.Info("room again")
	l.Flush()
	if all := lines(t, dir); len(all) != 1 || l.Lost() != 100 {
		t.Errorf("%q, %d lost", all, l.Lost())
	}
}

// Records that are logged before Close are written; later ones are lost.
func TestClose(t *testing.T) {
	dir := t.TempDir()
	l := opened(t, dir, Limit)
	log := slog.New(l.Handler("x"))
	for range 3000 {
		log.Info("before")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if n := len(lines(t, dir)); n != 3000 || l.Lost() != 0 {
		t.Errorf("%d lines, %d lost", n, l.Lost())
	}
	log.Info("after")
	l.Flush()
	if n := len(lines(t, dir)); n != 3000 || l.Lost() != 1 {
		t.Errorf("then %d lines, %d lost", n, l.Lost())
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

// A record is written within coalesce. A warning and the records before it are written at once, and
// so are many queued records.
func TestRecordsAreGathered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		l := opened(t, dir, Limit)
		defer l.Close() // inside the synctest bubble
		log := slog.New(l.Handler("x"))
		time.Sleep(time.Minute)
		want := func(when string, n int) {
			t.Helper()
			synctest.Wait()
			if got := len(lines(t, dir)); got != n || l.Lost() != 0 {
				t.Errorf("%s: %d lines, want %d; %d lost", when, got, n, l.Lost())
			}
		}
		for i := range 3 {
			log.Info("first")
			time.Sleep(coalesce / 2)
			log.Info("second")
			time.Sleep(coalesce/2 - time.Nanosecond)
			want("before", 2*i)
			time.Sleep(time.Nanosecond)
			want("then", 2*i+2)
			time.Sleep(time.Duration(i) * coalesce)
		}
		log.Info("before")
		want("nothing bad", 6)
		log.Warn("bad")
		want("a warning", 8)
		for range many {
			log.Info("one of many")
		}
		want("many", 8+many)
		log.Info("last")
		time.Sleep(coalesce)
		want("the last", 9+many)
	})
}

// If the disk hangs, only one call waits, for maxQueueWait; the records that find the queue full are
// counted as lost.
func TestDiskHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &Log{queue: make(chan entry, 2), due: time.NewTimer(coalesce), closed: make(chan struct{}), ended: make(chan struct{})}
		log := slog.New(l.Handler("x"))
		begin := time.Now()
		for range 10 {
			log.Info("x")
		}
		if took := time.Since(begin); took != maxQueueWait || l.Lost() != 8 {
			t.Errorf("it took %s, and %d are lost", took, l.Lost())
		}
	})
}

// BenchmarkRequest measures the logging of a request, with and without a secret in its id.
func BenchmarkRequest(b *testing.B) {
	for name, id := range map[string]string{"plain": "5f2b8a", "secret": "5f2b8a token=swordfish"} {
		b.Run(name, func(b *testing.B) {
			l, err := Open(b.TempDir())
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			b.ReportAllocs()
			for b.Loop() {
				l.Request(&exchange.Record{
					Peer: infer.Peer{User: "1000", PID: 4242, Exe: "/usr/bin/python3.11"}, Dialect: wire.V1, Outcome: exchange.Done,
					ID: id, Task: exchange.Generate, Admitted: true, Admission: infer.Admitted{Entry: "gen", Backend: "llamacpp"},
					Started: true, Timings: infer.Timings{Prefill: 5e6, Decode: 7e6},
					Answered: true, Usage: infer.Done{Reason: infer.EndOfTurn, In: 12, Out: 34},
				})
			}
		})
	}
}
