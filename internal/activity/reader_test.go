package activity

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// all returns the records up to io.EOF.
func all(t *testing.T, r *Reader) []*Record {
	t.Helper()
	var recs []*Record
	for {
		rec, err := r.Next()
		if errors.Is(err, io.EOF) {
			return recs
		}
		if err != nil {
			t.Fatal(err)
		}
		recs = append(recs, rec)
	}
}

func reader(t *testing.T, dir string) *Reader {
	t.Helper()
	r := &Reader{Dir: dir}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// at returns the line of a record with the number n.
func at(n int) string {
	return fmt.Sprintf(`{"level":"info","msg":"x","n":%d,"t":"2026-01-02T03:04:05.000000+00:00"}`, n) + "\n"
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// texts returns the lines of records.
func texts(recs []*Record) string {
	var b strings.Builder
	for _, rec := range recs {
		b.Write(rec.Line)
		b.WriteByte('\n')
	}
	return b.String()
}

// A reader returns every line once, in order, with random bursts of lines, and rotations, between
// its reads.
func TestReaderAcrossRotations(t *testing.T) {
	lives := uint64(10)
	if testing.Short() {
		lives = 2
	}
	for seed := range lives {
		random := rand.New(rand.NewPCG(seed, 1))
		dir := t.TempDir()
		l := opened(t, dir, 1000)
		log := slog.New(l.Handler("x"))
		r := reader(t, dir)
		logged, seen := 0, 0
		for range 60 {
			for range random.IntN(20) { // with some 130 bytes a line, fewer lines than three files hold
				log.Info("x", slog.Int("n", logged))
				logged++
			}
			l.Flush()
			for _, rec := range all(t, r) {
				if !strings.Contains(string(rec.Line), fmt.Sprintf(`"n":%d,`, seen)) {
					t.Fatalf("seed %d: want %d, got %s", seed, seen, rec.Line)
				}
				seen++
			}
			if seen != logged {
				t.Fatalf("seed %d: %d of %d", seed, seen, logged)
			}
		}
		if r.Torn() != 0 {
			t.Errorf("%d torn", r.Torn())
		}
		_ = l.Close()
	}
}

// A reader beside a writer also reads every line once, as long as the writer is not further ahead
// than the files hold.
func TestReaderBesideWriters(t *testing.T) {
	const ahead = 60
	lines := int64(8000)
	if testing.Short() {
		lines = 800
	}
	dir := t.TempDir()
	l := opened(t, dir, 4000)
	var seen atomic.Int64
	var writing sync.WaitGroup
	writing.Go(func() {
		log := slog.New(l.Handler("x"))
		for n := range lines {
			for n-seen.Load() > ahead {
				l.Flush()
			}
			log.Info("x", slog.Int64("n", n))
		}
		l.Flush()
	})
	defer writing.Wait()
	r := reader(t, dir)
	for seen.Load() < lines {
		rec, err := r.Next()
		if errors.Is(err, io.EOF) {
			continue
		}
		if err != nil || !strings.Contains(string(rec.Line), fmt.Sprintf(`"n":%d,`, seen.Load())) {
			t.Errorf("want %d, got %+v, %v", seen.Load(), rec, err)
			seen.Store(lines)
			return
		}
		seen.Add(1)
	}
	if r.Torn() != 0 || l.Lost() != 0 {
		t.Errorf("%d torn, %d lost", r.Torn(), l.Lost())
	}
}

// Lines that are not records are skipped and counted. A line without a newline is returned once the
// newline is there.
func TestReaderOfTornLines(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, File)
	appendTo(t, path+".2", at(1)+`{"msg":"torn by a kill`)
	appendTo(t, path+".1", at(2)+"{\"msg\":\"torn, and ended at the next start\n"+at(3)+"\n[]\n{}\n"+strings.Repeat("long", maxLine)+"\n"+at(4))
	appendTo(t, path, at(5)+at(6)[:20])
	r := reader(t, dir)
	if got, want := texts(all(t, r)), at(1)+at(2)+at(3)+at(4)+at(5); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	const before = 6 // one line in .2; in .1 a torn, an empty and a long line, and two lines of another shape
	if r.Torn() != before+1 {
		t.Errorf("%d torn", r.Torn())
	}
	appendTo(t, path, at(6)[20:]+at(7))
	if got, want := texts(all(t, r)), at(6)+at(7); got != want || r.Torn() != before {
		t.Errorf("then %s, %d torn", got, r.Torn())
	}
}

// The reader continues after a partial line is cut off, and after a file is truncated or removed.
func TestReaderOfFilesThatShrink(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	path := filepath.Join(dir, File)
	r := reader(t, dir)
	if got := all(t, r); len(got) != 0 || r.Found() {
		t.Errorf("without a folder: %s", texts(got))
	}
	step := func(what string, change func() error, want string) {
		t.Helper()
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if got := texts(all(t, r)); got != want {
			t.Errorf("%s: got %q, want %q", what, got, want)
		}
	}
	step("the first line", func() error {
		appendErr := os.Mkdir(dir, 0o700)
		appendTo(t, path, at(1)+at(2)[:30])
		return appendErr
	}, at(1))
	step("half a line taken back", func() error {
		err := os.Truncate(path, int64(len(at(1))))
		appendTo(t, path, at(3))
		return err
	}, at(3))
	step("emptied", func() error { return os.Truncate(path, 0) }, "")
	step("begun anew", func() error {
		appendTo(t, path, at(4))
		return nil
	}, at(4))
	step("taken away", func() error { return os.RemoveAll(dir) }, "")
	step("and back", func() error {
		err := os.Mkdir(dir, 0o700)
		appendTo(t, path, at(5))
		return err
	}, at(5))
	if r.Torn() != 0 {
		t.Errorf("%d torn", r.Torn())
	}
}

func TestReaderSince(t *testing.T) {
	dir := t.TempDir()
	line := func(hour int) string { return strings.ReplaceAll(at(hour), "T03:", fmt.Sprintf("T%02d:", hour)) }
	appendTo(t, filepath.Join(dir, File+".1"), line(1)+line(2))
	appendTo(t, filepath.Join(dir, File), line(3)+line(4))
	r := reader(t, dir)
	r.Since = time.Date(2026, 1, 2, 2, 4, 5, 0, time.UTC)
	if got, want := texts(all(t, r)), line(2)+line(3)+line(4); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestReaderMayNotRead(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, File), 0o700); err != nil {
		t.Fatal(err)
	}
	r := reader(t, dir)
	if rec, err := r.Next(); err == nil || errors.Is(err, io.EOF) || !strings.Contains(err.Error(), File) {
		t.Errorf("got %v, %v", rec, err)
	}
}

func TestRecords(t *testing.T) {
	const head = `"t":"2026-01-02T03:04:05.000000+00:00","component":"activity",`
	for name, test := range map[string]struct {
		line string
		bad  bool
		of   []string // names by which IsOf finds the client
	}{
		"done":           {`{"level":"info","msg":"v2_request_done","peer_uid":1000,"peer_pid":42,"peer_exe":"/usr/bin/ed"`, false, []string{"1000", "42", "/usr/bin/ed", "ed"}},
		"gone":           {`{"level":"info","msg":"embed_request_gone","peer_sid":"S-1-5","peer_exe":"C:\\ed.exe"`, true, []string{"S-1-5", "ed.exe"}},
		"refused":        {`{"level":"warn","msg":"request_refused","peer_uid":0`, true, []string{"0"}},
		"another's name": {`{"level":"error","msg":"backend","peer_pid":"none","model":7`, true, nil},
		"a daemon's":     {`{"level":"info","msg":"ready"`, false, nil},
	} {
		t.Run(name, func(t *testing.T) {
			rec := parse([]byte(test.line + "," + strings.TrimSuffix(head, ",") + "}"))
			if rec == nil || rec.Bad() != test.bad {
				t.Fatalf("%+v", rec)
			}
			of := 0
			for _, who := range []string{"", "0", "1000", "42", "/usr/bin/ed", "ed", "S-1-5", "ed.exe", ".", "/"} {
				if rec.IsOf(who) {
					of++
				}
			}
			for _, who := range test.of {
				if !rec.IsOf(who) {
					t.Errorf("not of %s", who)
				}
			}
			if of != len(test.of) {
				t.Errorf("of %d", of)
			}
		})
	}
}

func TestUsage(t *testing.T) {
	var u Usage
	if len(u.Sums()) != 0 {
		t.Error("sums of nothing")
	}
	for i, line := range []string{
		`"msg":"request_done","peer_uid":1,"peer_exe":"/a","entry":"gen","model":"m","prompt_tokens":10,"completion_tokens":20}`,
		`"msg":"v2_request_done","peer_uid":1,"peer_exe":"/a","entry":"gen","model":"m","input_tokens":1,"output_tokens":2}`,
		`"msg":"v2_request_gone","peer_uid":1,"peer_exe":"/a","entry":"gen","model":"m","input_tokens":3,"output_tokens":4}`,
		`"msg":"v2_request_refused","peer_uid":1,"peer_exe":"/a","code":"queue_full"}`,
		`"msg":"request_error_mid_stream","peer_uid":1,"peer_exe":"/a","entry":"gen","model":"m"}`,
		`"msg":"embed_request_done","entry":"emb","input_tokens":7}`,
		`"msg":"http_request_done","peer_uid":1,"key":"ci","entry":"gen","model":"m","input_tokens":5,"output_tokens":6}`,
		`"msg":"connection_accepted","peer_uid":1}`,
	} {
		u.Add(parse(fmt.Appendf(nil, `{"t":"2026-01-02T03:04:%02dZ","component":"activity",%s`, i, line)))
	}
	u.Add(parse([]byte(`{"t":"2026-01-02T03:05:00Z","component":"daemon","msg":"request_done","input_tokens":99}`)))
	want := "[{ emb  1 7 0 0 0} {1/ci gen m 1 5 6 0 0} {1/a   1 0 0 1 0} {1/a gen m 4 14 26 1 1}]"
	var got []string
	for _, s := range u.Sums() {
		got = append(got, fmt.Sprintf("{%s%s %s %s %d %d %d %d %d}", s.User, s.Exe+strings.Repeat("/", min(len(s.Key), 1))+s.Key, s.Entry, s.Model, s.Requests, s.In, s.Out, s.Errors, s.Gone))
	}
	if fmt.Sprint(got) != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if u.From.Second() != 0 || u.To.Second() != 6 {
		t.Errorf("from %s to %s", u.From, u.To)
	}
}

// FuzzReader checks that, whatever the files contain, exactly the lines that are records are
// returned.
func FuzzReader(f *testing.F) {
	f.Add([]byte(at(1)+at(2)), []byte(at(3)))
	f.Add([]byte(at(1)+"\n\n{"), []byte("}\n"+at(3)[:10]))
	f.Fuzz(func(t *testing.T, old, now []byte) {
		dir := t.TempDir()
		appendTo(t, filepath.Join(dir, File+".1"), string(old))
		appendTo(t, filepath.Join(dir, File), string(now))
		r := reader(t, dir)
		got := texts(all(t, r))
		want, bad := "", 0
		for _, file := range [][]byte{old, now} {
			for line := range strings.Lines(string(file)) {
				if text, whole := strings.CutSuffix(line, "\n"); whole && parse([]byte(text)) != nil {
					want += line
				} else {
					bad++
				}
			}
		}
		if got != want || r.Torn() != bad {
			t.Errorf("got %q, %d torn; want %q, %d", got, r.Torn(), want, bad)
		}
	})
}
