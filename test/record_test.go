package test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/shortdir"
)

// A sum has the counts of a caller or an entry, from the daemon's stats or from the activity log.
type sum struct {
	Requests int
	In       int `json:"input_tokens"`
	Out      int `json:"output_tokens"`
}

func (s sum) plus(other sum) sum {
	return sum{s.Requests + other.Requests, s.In + other.In, s.Out + other.Out}
}

// counted returns the daemon's counts, by caller (the name of the executable) and entry. busy
// reports whether a request runs or waits.
func (d *daemon) counted() (all map[string]sum, busy bool) {
	d.t.Helper()
	out, errs, code := d.ctl("stats")
	var stats struct {
		Running, Waiting int
		Callers          []struct {
			User, Exe string
			sum
		}
		Backends []struct {
			Name string
			sum
		}
	}
	if err := json.Unmarshal([]byte(out), &stats); err != nil || code != 0 {
		d.t.Fatalf("stats: %v, exit %d, %s%s", err, code, out, errs)
	}
	all = make(map[string]sum)
	for _, c := range stats.Callers {
		name := "caller " + c.User + filepath.Base(c.Exe)
		all[name] = all[name].plus(c.sum)
	}
	for _, b := range stats.Backends {
		all["entry "+b.Name] = b.sum
	}
	return all, stats.Running+stats.Waiting > 0
}

// recordedUsage returns the same counts from inferdctl usage. errors is the number of requests that
// failed, gone that of requests with a client that hung up, and withoutEntry that of requests without
// an entry.
func (d *daemon) recordedUsage() (all map[string]sum, errors, gone, withoutEntry int) {
	d.t.Helper()
	out, errs, code := d.ctl("--log-dir", d.logDir(), "usage", "--since", "2h")
	var usage struct {
		Usage []struct {
			User, Exe, Entry, Model string
			Errors, Gone            int
			sum
		}
	}
	if err := json.Unmarshal([]byte(out), &usage); err != nil || code != 0 || errs != "" {
		d.t.Fatalf("usage: %v, exit %d, %s%s", err, code, out, errs)
	}
	all = make(map[string]sum)
	for _, u := range usage.Usage {
		errors, gone = errors+u.Errors, gone+u.Gone
		if u.Entry == "" {
			withoutEntry += u.Requests
			if u.In+u.Out > 0 {
				d.t.Errorf("tokens of no entry: %+v", u)
			}
			continue
		}
		if u.Model == "" {
			d.t.Errorf("no model: %+v", u)
		}
		for _, name := range []string{"caller " + u.User + filepath.Base(u.Exe), "entry " + u.Entry} {
			all[name] = all[name].plus(u.sum)
		}
	}
	return all, errors, gone, withoutEntry
}

// The sums of the activity log equal the daemon's counts exactly, for all outcomes of requests:
// answered, refused, and ended in the queue, during prefill or during decode.
func TestUsageEqualsTheCounts(t *testing.T) {
	d := mocked(t, threeModels, "--queue-depth", "3")
	requests := map[string][]string{
		"infer.sock": {
			`{"id":"%d","messages":[{"role":"user","content":"a"}]}`, `{"id":"%d","messages":[{"role":"user","content":"w"}],"max_tokens":2}`,
			`{"id":"%d","messages":[{"role":"user","content":"w"}],"model":"nobody"}`,
		},
		"infer.v2.sock":     {`{"id":"%d","messages":[{"role":"user","content":[{"type":"text","text":"abc"}]}]}`, `{"id":"%d","messages":[]}`},
		"inferd.sock":       {`{"id":"%d","wire_version":1,"messages":[{"role":"user","content":[{"type":"text","text":"m"}]}]}`},
		"infer.embed.sock":  {`{"id":"%d","input":["a red apple","b"]}`, `{"id":"%d","input":["x"],"dimensions":100000}`},
		"infer.rerank.sock": {`{"id":"%d","query":"red","documents":["a red apple","a fast car"],"top_n":1}`},
	}
	var n, hungUp atomic.Int64
	var all sync.WaitGroup
	for worker := range uint64(8) {
		all.Go(func() {
			random := rand.New(rand.NewPCG(worker, 7))
			for range 30 {
				leaf := leaves[random.IntN(len(leaves))]
				p := d.peer(leaf)
				kind := requests[leaf][random.IntN(len(requests[leaf]))]
				if _, err := p.Write(p.framed(fmt.Sprintf(kind, n.Add(1)))); err != nil {
					t.Error(err)
					return
				}
				hangsUp := random.IntN(3) == 0
				for read := random.IntN(4); !hangsUp || read > 0; read-- {
					if m, err := p.next(); err != nil || m["type"] != "token" && m["type"] != "frame" {
						break
					}
				}
				if hangsUp {
					hungUp.Add(1)
				}
				_ = p.Close()
			}
		})
	}
	all.Wait()
	if out, errs, code := d.ctl("chat", "-m", "w"); code != 0 {
		t.Fatalf("chat: exit %d, %s%s", code, out, errs)
	}
	want := make(map[string]sum)
	eventually(t, "the daemon is at rest", func() bool {
		var busy bool
		want, busy = d.counted()
		return !busy
	})
	var got map[string]sum
	var failed, gone, withoutEntry int
	total := func() int {
		return got["entry gen"].Requests + got["entry emb"].Requests + got["entry rank"].Requests + withoutEntry
	}
	eventually(t, "all requests are recorded", func() bool {
		got, failed, gone, withoutEntry = d.recordedUsage()
		return total() > int(n.Load())
	})
	if !maps.Equal(got, want) {
		t.Errorf("recorded %v\n counted %v", got, want)
	}
	for name, s := range want {
		if s.In == 0 || s.Requests == 0 {
			t.Errorf("%s has had nothing: %v", name, s)
		}
	}
	if total() != int(n.Load())+1 || failed == 0 || gone == 0 || withoutEntry == 0 || gone > int(hungUp.Load()) {
		t.Errorf("%d of %d requests: %d failed, %d gone of %d, %d nowhere", total(), n.Load()+1, failed, gone, hungUp.Load(), withoutEntry)
	}
	if len(want) != 5 { // two programs and three entries
		t.Errorf("%v", want)
	}
}

// The log has one line for each connection and each request, and none for tokens.
func TestLogHasNoLinePerToken(t *testing.T) {
	tokens := strings.TrimSuffix(strings.Repeat(`"x",`, 1000), ",")
	d := mocked(t, `{"backends":[{"kind":"mock","name":"m","tokens":[`+tokens+`]}]}`)
	c := d.client()
	for range 3 {
		c.send(prompt("q", "w", ""))
		if text, end := c.answer(); len(text) != 1000 || end.Type != "done" {
			t.Fatalf("%d tokens, %+v", len(text), end)
		}
	}
	d.recorded("request_done", 3)
	raw, err := os.ReadFile(filepath.Join(d.logDir(), "inferd.ndjson"))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(string(raw), `"component":"activity"`); got != 1+3 { // one connection and three requests
		t.Errorf("%d lines of what callers did:\n%s", got, raw)
	}
	if got := strings.Count(string(raw), "\n"); got > 50 {
		t.Errorf("%d lines in all", got)
	}
}

// fill writes a log that is room bytes short of its rotation, for a daemon that is started later.
func fill(t *testing.T, dir string, room int) {
	t.Helper()
	if err := os.Mkdir(dir+".logs", 0o700); err != nil {
		t.Fatal(err)
	}
	const line = `{"component":"daemon","level":"info","msg":"old","t":"2026-01-02T03:04:05.000000+00:00"}` + "\n"
	write(t, filepath.Join(dir+".logs", "inferd.ndjson"), strings.Repeat(line, (16<<20-room)/len(line)))
}

// inferdctl log -f prints every request once and in order, although the daemon rotates the log.
func TestLogIsFollowed(t *testing.T) {
	dir := shortdir.New(t)
	write(t, filepath.Join(dir, "config.json"), oneMock)
	fill(t, dir, 100_000)
	d := start(t, dir)
	d.waitReady()
	cmd := exec.Command(filepath.Join(bin, "inferdctl"), "log", "-f", "--log-dir", d.logDir(), "--since", "2h", "--caller", fmt.Sprint(os.Getpid()))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer watchdog.Stop()
	const requests = 800 // of some 300 bytes each
	var asking sync.WaitGroup
	asking.Go(func() {
		c := d.client()
		for i := range requests {
			c.send(prompt(fmt.Sprint("r", i), "w", ""))
			if _, end := c.answer(); end.Type != "done" {
				t.Errorf("%d: %+v", i, end)
				return
			}
		}
	})
	in := bufio.NewScanner(out)
	for next := 0; next < requests && in.Scan(); {
		var m struct {
			Msg string
			ID  string `json:"req_id"`
		}
		if err := json.Unmarshal(in.Bytes(), &m); err != nil {
			t.Fatalf("%v: %s", err, in.Text())
		}
		if m.Msg != "request_done" {
			continue
		}
		if m.ID != fmt.Sprint("r", next) {
			t.Errorf("%s comes, want r%d", m.ID, next)
			break
		}
		next++
	}
	asking.Wait()
	_ = cmd.Process.Signal(os.Interrupt)
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 130 || stderr.Len() > 0 {
		t.Errorf("exit %d, %s", code, &stderr)
	}
	if _, err := os.Stat(filepath.Join(d.logDir(), "inferd.ndjson.1")); err != nil {
		t.Errorf("the log was not rotated: %v", err)
	}
}

// A daemon that is killed while it writes leaves at most one torn line. The next daemon ends the
// line, and the reader skips it. The test kills real daemons under load.
func TestKilledWhileItWrites(t *testing.T) {
	dir := shortdir.New(t)
	write(t, filepath.Join(dir, "config.json"), oneMock)
	const kills = 6
	for kill := range kills {
		d := start(t, dir)
		d.waitReady()
		var asking sync.WaitGroup
		var answered atomic.Int64
		for range 8 {
			c := d.client()
			asking.Go(func() {
				for {
					if _, err := c.Write([]byte(prompt("k", "w", "") + "\n")); err != nil {
						return
					}
					if _, end := c.answer(); end.Type != "done" {
						return
					}
					answered.Add(1)
				}
			})
		}
		eventually(t, "there is load", func() bool { return answered.Load() > int64(200+kill*37) })
		d.signal(syscall.SIGKILL)
		<-d.exited
		asking.Wait()
		out, errs, code := d.ctl("--log-dir", d.logDir(), "log")
		if code != 0 || errs != "" && !strings.Contains(errs, "torn lines left out: ") {
			t.Fatalf("log: exit %d, %s", code, errs)
		}
		raw, err := os.ReadFile(filepath.Join(d.logDir(), "inferd.ndjson"))
		if err != nil {
			t.Fatal(err)
		}
		torn := 0
		for line := range strings.Lines(string(raw)) {
			if !json.Valid([]byte(line)) || !strings.HasSuffix(line, "\n") {
				torn++
			} else if !strings.Contains(out, line) {
				t.Fatalf("inferdctl log leaves out %s", line)
			}
		}
		if torn > kill+1 || torn > 0 && !strings.Contains(errs, fmt.Sprintf("left out: %d ", torn)) {
			t.Errorf("%d torn lines after %d kills; inferdctl: %s", torn, kill+1, errs)
		}
	}
}

// A full disk fails no request, and doctor reports the lost lines. Once the disk has room, the log is
// written again.
func TestLogOnAFullDisk(t *testing.T) {
	dir := shortdir.New(t)
	write(t, filepath.Join(dir, "config.json"), oneMock)
	program, free := withFullDisk(t, dir+".logs")
	d := startProgram(t, program, dir)
	d.waitReady()
	d.serves()
	eventually(t, "lines are counted as lost", func() bool { return d.stats().LogLost >= 10 })
	out, _, code := d.ctl("--config", filepath.Join(dir, "config.json"), "--log-dir", d.logDir(), "doctor")
	if code != 1 || !strings.Contains(out, "[FAIL] activity log: the daemon has lost ") || !strings.Contains(out, "[ ok ] activity log: "+d.logDir()+" can be written to") {
		t.Errorf("doctor: exit %d\n%s", code, out)
	}
	free()
	lost := -1
	eventually(t, "the log is written again", func() bool {
		before := lost
		d.serves()
		lost = d.stats().LogLost
		return lost == before
	})
}

// withFullDisk returns a program that runs inferd with a full disk at logs, which other programs do
// not see. It also returns a function that makes room on the disk.
func withFullDisk(t *testing.T, logs string) (program string, free func()) {
	t.Helper()
	dir := shortdir.New(t)
	if err := os.MkdirAll(logs, 0o700); err != nil {
		t.Fatal(err)
	}
	namespace := "unshare -m"
	if os.Getuid() != 0 {
		namespace = "unshare -rm"
	}
	mount := namespace + ` sh -c 'mount -t tmpfs -o size=64k,mode=700 tmpfs "$0" && shift 0`
	if out, err := exec.Command("sh", "-c", mount+`' `+logs).CombinedOutput(); err != nil {
		t.Skipf("no mount of our own: %v: %s", err, out)
	}
	script := filepath.Join(dir, "full")
	write(t, script, "#!/bin/sh\nexec "+mount+`
		dd if=/dev/zero of="$0/filler" bs=4k 2>/dev/null
		(while [ -d `+dir+` ] && [ ! -e `+dir+`/free ]; do sleep 0.05; done; rm -f "$0/filler") </dev/null >/dev/null 2>&1 &
		exec `+filepath.Join(bin, "inferd")+` "$@"' `+logs+` "$@"
`)
	if err := os.Chmod(script, 0o700); err != nil {
		t.Fatal(err)
	}
	return script, func() { write(t, filepath.Join(dir, "free"), "") }
}

// No secret, in any spelling, appears in the daemon's log, on its stderr or in a file of its
// folders. The secrets come in IDs that are cut within them, in model names, and in malformed
// input.
func TestNoSecretIsLeft(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("..", "internal", "redact", "testdata", "secrets.txt"))
	if err != nil {
		t.Fatal(err)
	}
	spellings := strings.Split(strings.TrimSpace(string(raw)), "\n")
	tmp := shortdir.New(t)
	for _, format := range []string{"text", "json"} {
		t.Setenv("TMPDIR", tmp)
		t.Setenv("INFERD_LOG", "debug")
		t.Setenv("INFERD_LOG_FORMAT", format)
		d := mocked(t, `{"backends":[{"kind":"mock","name":"m","aliases":["password=swordfish"],"tokens":["x"],"embed":true,"rerank":true}]}`)
		var parts []string
		asked := 0
		ask := func(leaf, msg string) {
			t.Helper()
			p := d.peer(leaf)
			defer p.Close()
			if _, err := p.Write(p.framed(msg)); err != nil {
				t.Fatal(err)
			}
			if m, err := p.terminal(); err != nil {
				t.Fatalf("%s: %v, %v", msg, m, err)
			}
			asked++
		}
		for i, marked := range spellings {
			text := strings.NewReplacer("«", "", "»", "").Replace(marked)
			for piece := range strings.SplitSeq(marked, "«") {
				if part, _, ok := strings.Cut(piece, "»"); ok && len(part) > 4 {
					parts = append(parts, part[1:])
				}
			}
			q := func(s string) string {
				b, err := json.Marshal(s)
				if err != nil {
					t.Fatal(err)
				}
				return string(b)
			}
			before := max(0, 128-i*7%(len(text)+1)) // so that the ID is cut within the secret
			id := q(strings.Repeat("-", before) + text)
			leaf := leaves[i%len(leaves)]
			ask(leaf, strings.Replace(validRequests[leaf], `"g"`, id, 1))
			ask("infer.sock", `{"id":`+q(q(text))+`,"client":"c","messages":[{"role":"user","content":"w"}],"model":`+q(text)+`}`)
			ask("infer.v2.sock", `{"id":`+q("x\n"+text)+`,"messages":[{"role":"user","content":[{"type":"text","text":`+q(text)+`}]}],"`+"unheard\":"+q(text)+`}`)
			ask("infer.sock", `{"id":`+id+`,"messages":[{"role":`+q(text)+`,"content":"w"}]}`)
			ask("infer.sock", text)
		}
		eventually(t, "all is recorded", func() bool {
			return len(d.records("request_done"))+len(d.records("v2_request_done"))+len(d.records("embed_request_done"))+len(d.records("rerank_request_done"))+
				len(d.records("request_refused"))+len(d.records("v2_request_refused"))+len(d.records("embed_request_refused"))+len(d.records("rerank_request_refused")) >= asked
		})
		d.signal(syscall.SIGTERM)
		d.exit()
		found := map[string]string{"stderr": d.stderr.String()}
		for _, root := range []string{d.logDir(), tmp} {
			err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
				if err != nil || !entry.Type().IsRegular() || entry.Name() == "config.json" {
					return err
				}
				content, err := os.ReadFile(path)
				found[path] = string(content)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if len(found) < 2 || found[filepath.Join(d.logDir(), "inferd.ndjson")] == "" {
			t.Errorf("nothing to search: %q", slices.Collect(maps.Keys(found)))
		}
		for where, content := range found {
			for _, part := range append(parts, "wordfish") {
				if at := strings.Index(content, part); at >= 0 {
					t.Errorf("%s log: %q is in %s: %.200q", format, part, where, content[max(0, at-60):])
				}
			}
		}
		for line := range strings.Lines(d.stderr.String()) {
			if json.Valid([]byte(line)) != (format == "json") {
				t.Errorf("a %s log says %s", format, line)
			}
		}
	}
}
