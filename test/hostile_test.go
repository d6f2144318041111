package test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// peak returns the peak memory of the daemon in bytes.
func (d *daemon) peak() int {
	d.t.Helper()
	return d.memory("VmHWM:")
}

func (d *daemon) memory(key string) int {
	d.t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		d.t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			kb, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				d.t.Fatal(err)
			}
			return kb << 10
		}
	}
	d.t.Fatalf("no %s in %s", key, raw)
	return 0
}

// descriptors counts the daemon's open files. Only root may list them, because the daemon forbids
// dumps, but since Linux 6.2 their number is the size of the folder.
func (d *daemon) descriptors() int {
	d.t.Helper()
	folder := fmt.Sprintf("/proc/%d/fd", d.cmd.Process.Pid)
	info, err := os.Stat(folder)
	if err != nil {
		d.t.Fatal(err)
	}
	if info.Size() > 0 {
		return int(info.Size())
	}
	names, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrPermission) {
		d.t.Skip("this kernel lets only root count the descriptors of a process that forbids dumps")
	}
	if err != nil {
		d.t.Fatal(err)
	}
	return len(names)
}

func TestEndlessLine(t *testing.T) {
	d := serve(t, "--model-path", "builtin:chain")
	c := d.client()
	block := bytes.Repeat([]byte(" "), 1<<20)
	for range 65 {
		if _, err := c.Write(block); err != nil {
			if !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
				t.Fatal(err)
			}
			break // the error was complete
		}
	}
	if got := c.next(); got.Code != "frame_too_large" || got.ID != "" {
		t.Errorf("got %+v", got)
	}
	if got := c.next(); got.Type != "EOF" {
		t.Errorf("then %+v", got)
	}
	if got := d.peak(); got > 400<<20 {
		t.Errorf("the daemon took %d MiB", got>>20)
	}
	d.works()
}

// A line with exactly the greatest length is accepted.
func TestLargestLine(t *testing.T) {
	d := serve(t, "--model-path", "builtin:chain")
	c := d.client()
	line := prompt("q", "w", "")
	line += strings.Repeat(" ", 64<<20-len(line))
	c.send(line)
	if text, end := c.answer(); text != "xyz" || end.Type != "done" {
		t.Errorf("%q, %+v", text, end)
	}
	d.works()
}

func TestConnectAndClose(t *testing.T) {
	d := serve(t, "--model-path", "builtin:chain")
	before := d.descriptors()
	for range 200 {
		nc, err := net.Dial("unix", d.socket("infer.sock"))
		if err != nil {
			t.Fatal(err)
		}
		_ = nc.Close()
	}
	for _, leaf := range []string{"admin.sock", "control.sock"} {
		for range 50 {
			nc, err := net.Dial("unix", d.socket(leaf))
			if err != nil {
				t.Fatal(err)
			}
			_ = nc.Close()
		}
	}
	d.works()
	eventually(t, "no descriptor is left", func() bool { return d.descriptors() <= before })
}

func TestDeepAndDoubled(t *testing.T) {
	d := serve(t, "--model-path", "builtin:chain")
	for name, line := range map[string]string{
		"nested 10,000 deep":        `{"messages":` + strings.Repeat("[", 10_000),
		"deep and whole":            `{"x":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `,"messages":[]}`,
		"a member twice":            `{"id":"a","id":"b","messages":[]}`,
		"an unknown member twice":   `{"x":1,"x":2,"messages":[]}`,
		"a lone surrogate":          `{"id":"\ud800","messages":[]}`,
		"a name in another case":    `{"Messages":[{"role":"user","content":"w"}]}`,
		"null where it must not be": `{"messages":[{"role":"user","content":null}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			c := d.client()
			c.send(line)
			if got := c.next(); got.Code != "invalid_request" || got.ID != "" {
				t.Errorf("got %+v", got)
			}
			if got := c.next(); got.Type != "EOF" {
				t.Errorf("then %+v", got)
			}
		})
	}
	c := d.client()
	c.send(fmt.Sprintf(`{"id":%q,"messages":[{"role":"user","content":"w"}]}`, strings.Repeat("i", 1025)))
	if got := c.next(); got.Code != "invalid_request" || got.ID != "" {
		t.Errorf("a long id: %+v", got)
	}
	c.send(`{"id":null,"temperature":null,"top_k":null,"stream":null,"messages":[{"role":"user","content":"w"}]}`)
	if text, end := c.answer(); text != "xyz" || end.Type != "done" {
		t.Errorf("null where it may be: %q, %+v", text, end)
	}
	d.works()
}

// A client that never reads does not delay others, and is cut off.
func TestClientThatNeverReads(t *testing.T) {
	d := serve(t, "--model-path", "builtin:loop", "--n-slots", "2", "--n-ctx", "16384", "--write-timeout-secs", "1")
	nonReader := d.client()
	for i := range 200 { // more answers than the buffer of a socket holds
		nonReader.send(prompt(fmt.Sprint(i), "a", `,"max_tokens":2000`))
	}
	for range 5 {
		if text, end := d.ask("a", `,"max_tokens":3`); text != "bcd" || end.Type != "done" {
			t.Errorf("%q, %+v", text, end)
		}
	}
	eventually(t, "the client that does not read is cut off", func() bool {
		_, err := nonReader.Write([]byte("\n"))
		return err != nil
	})
	d.workOnLoop()
}

// unreadTokens is the length of an answer with long ids: 300 KB, which the buffers of a socket do not hold, even if
// each write has the messages of many tokens.
const unreadTokens = 2000

// longID returns an id of 120 bytes, which each message of an answer repeats.
func longID(i int) string { return fmt.Sprintf("%0120d", i) }

// unread requests a long answer on a new connection, and does not read it.
func (d *daemon) unread(id string, tokens int) *client {
	d.t.Helper()
	c := d.client()
	c.send(prompt(id, "a", fmt.Sprintf(`,"max_tokens":%d`, tokens)))
	return c
}

// Twice as many clients as there are slots never read. The next request of the same caller gets a
// slot, and so does a request of another user, although the write timeout is ten minutes. If the
// clients then read, their answers are complete.
func TestClientsThatNeverRead(t *testing.T) {
	const tokens = unreadTokens
	d := serve(t, "--model-path", "builtin:loop", "--n-ctx", "65536", "--write-timeout-secs", "600")
	var nonReaders []*client
	for i := range 8 {
		nonReaders = append(nonReaders, d.unread(longID(i), tokens))
	}
	d.workOnLoop()
	eventually(t, "all are stalled", func() bool {
		s := d.stats()
		return s.Stalled == 8 && s.Running == 0
	})
	if os.Geteuid() == 0 {
		other := d.stranger("infer.sock", 61234)
		other.send(prompt("o", "a", `,"max_tokens":3`))
		if end := other.terminal(); end["content"] != "bcd" {
			t.Errorf("another user got %v", end)
		}
	}
	var want strings.Builder
	for i := range tokens {
		want.WriteByte("bcdefghijklmnopqrstuvwxyza"[i%26])
	}
	for i, c := range nonReaders[1:] {
		if text, end := c.answer(); text != want.String() || end.Type != "done" || end.Usage.Completion != tokens {
			t.Errorf("%d: %d bytes, %+v", i, len(text), end)
		}
	}
	_ = nonReaders[0].Close()
	has(t, d.recorded("request_gone", 1), map[string]any{"req_id": longID(0), "stage": "unread"})
	eventually(t, "nothing is stalled", func() bool { return d.stats().Stalled == 0 })
}

// If more answers of a caller are unread than its queue depth allows, the excess answers are ended,
// and their slots become free.
func TestTooManyClientsThatNeverRead(t *testing.T) {
	d := serve(t, "--model-path", "builtin:loop", "--n-ctx", "65536", "--write-timeout-secs", "600", "--queue-depth", "2")
	var nonReaders []*client
	for i := range 4 {
		nonReaders = append(nonReaders, d.unread(longID(i), unreadTokens))
	}
	d.workOnLoop()
	eventually(t, "two are stalled and two have ended", func() bool {
		s := d.stats()
		return s.Stalled == 2 && s.Running == 0 && s.Waiting == 0 && s.Backends[0].Requests == 3 // with that of workOnLoop
	})
	full := 0
	for _, c := range nonReaders {
		switch _, end := c.answer(); {
		case end.Code == "queue_full":
			full++
		case end.Type != "done":
			t.Errorf("%+v", end)
		}
	}
	if full != 2 {
		t.Errorf("%d ended with queue_full", full)
	}
	d.workOnLoop()
}

// A client that never reads does not delay a drain.
func TestDrainWithAnUnreadAnswer(t *testing.T) {
	d := serve(t, "--model-path", "builtin:loop", "--drain-timeout-secs", "1")
	nonReader := d.client()
	for i := range 200 {
		nonReader.send(prompt(fmt.Sprint(i), "a", `,"max_tokens":2000`))
	}
	d.workOnLoop()
	begin := time.Now()
	d.signal(syscall.SIGTERM)
	if code := d.exit(); code != 0 {
		t.Errorf("exit %d", code)
	}
	if took := time.Since(begin); took > 30*time.Second { // less than the write timeout of 60 s
		t.Errorf("the drain took %s", took)
	}
}

func (d *daemon) workOnLoop() {
	d.t.Helper()
	if text, end := d.ask("a", `,"max_tokens":3`); text != "bcd" || end.Type != "done" {
		d.t.Errorf("%q, %+v\n%s", text, end, d.stderr)
	}
}

// Of fifty clients at once, twenty hang up during the answer. Each other answer has one terminal,
// and only its own text.
func TestManyClients(t *testing.T) {
	d := serve(t, "--model-path", "builtin:chain", "--queue-depth", "100")
	before := d.descriptors()
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			c := d.client()
			defer c.Close()
			for j := range 4 {
				letter := 'a' + rune((i+j)%20)
				c.send(prompt(fmt.Sprint(i, j), string(letter), ""))
				if i < 20 && j == 3 {
					return // does not wait for the answer
				}
				text, end := c.answer()
				want := "abcdefghijklmnopqrstuvwxyz"[letter-'a'+1:]
				if text != want || end.ID != fmt.Sprint(i, j) || end.Usage.Completion != len(want) {
					t.Errorf("client %d got %q, %+v; want %q", i, text, end, want)
				}
			}
		})
	}
	all.Wait()
	d.works()
	eventually(t, "no descriptor is left", func() bool { return d.descriptors() <= before })
}

// Clients of the admin socket that do not read, or send invalid input, do not affect others.
func TestHostileWatchers(t *testing.T) {
	d := serve(t, "--model-path", "builtin:chain")
	nonReader := d.watch()
	defer nonReader.Close()
	loud := d.watch()
	defer loud.Close()
	loud.until("ready", "")
	if _, err := loud.Write([]byte("{\"type\":\"shutdown\"}\n\x00\xff")); err != nil {
		t.Error(err)
	}
	kill(t, d.engine(), syscall.SIGKILL)
	loud.until("restarting", "")
	loud.until("ready", "")
	d.works()
}
