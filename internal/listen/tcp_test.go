package listen

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const testKey = "a secret key"

var anyPort = netip.MustParseAddrPort("127.0.0.1:0")

// A lockedLog is where a log is written to.
type lockedLog struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// guarded returns a listener that wants the key, and its log.
func guarded(t *testing.T) (net.Listener, *lockedLog) {
	t.Helper()
	return guardedFrom(t, new(Strangers))
}

func guardedFrom(t *testing.T, strangers *Strangers) (net.Listener, *lockedLog) {
	t.Helper()
	log := new(lockedLog)
	ln, err := Loopback(anyPort, testKey, strangers, func(peer string) { fmt.Fprintf(log, "refused %s\n", peer) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return ln, log
}

func call(t *testing.T, ln net.Listener) net.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	if err := nc.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return nc
}

func TestKeyOpens(t *testing.T) {
	ln, log := guarded(t)
	for name, line := range map[string]string{
		"plain":             `{"type":"auth","key":"a secret key"}`,
		"more members":      `{"key":"a secret key","x":[1,{"y":2}],"type":"auth"}`,
		"escaped":           `{"type":"auth","key":"\u0061 secret key"}`,
		"a carriage return": "{\"type\":\"auth\",\"key\":\"a secret key\"}\r",
	} {
		for _, step := range []int{1, 1000} {
			nc := call(t, ln)
			sent := line + "\nrequest\n"
			for i := 0; i < len(sent); i += step {
				if _, err := io.WriteString(nc, sent[i:min(i+step, len(sent))]); err != nil {
					t.Fatal(err)
				}
			}
			in, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := in.(*net.TCPConn); !ok {
				t.Errorf("%s: it is a %T", name, in)
			}
			rest := make([]byte, len("request\n"))
			if _, err := io.ReadFull(in, rest); err != nil || string(rest) != "request\n" {
				t.Errorf("%s: after the line comes %q, %v", name, rest, err)
			}
			_ = in.Close()
			if said, err := io.ReadAll(nc); err != nil || len(said) != 0 {
				t.Errorf("%s: it was told %q, %v", name, said, err)
			}
		}
	}
	if log.String() != "" {
		t.Errorf("log: %s", log)
	}
}

func TestWithoutKey(t *testing.T) {
	ln, log := guarded(t)
	for name, line := range map[string]string{
		"a wrong key":         `{"type":"auth","key":"a secret kez"}` + "\n",
		"part of it":          `{"type":"auth","key":"a secret"}` + "\n",
		"an empty key":        `{"type":"auth","key":""}` + "\n",
		"no key":              `{"type":"auth"}` + "\n",
		"another type":        `{"type":"Auth","key":"a secret key"}` + "\n",
		"no type":             `{"key":"a secret key"}` + "\n",
		"the name in capital": `{"type":"auth","KEY":"a secret key"}` + "\n",
		"the key twice":       `{"type":"auth","key":"x","key":"a secret key"}` + "\n",
		"a number":            `{"type":"auth","key":5}` + "\n",
		"a request":           `{"id":"1","messages":[]}` + "\n",
		"garbage":             "\x00\xff\n\n",
		"nothing":             "",
		"an empty line":       "\n",
		"no end":              `{"type":"auth","key":"a secret key"}`,
		"a long line":         strings.Repeat("x", 3*greetBytes) + "\n",
		"spaces":              strings.Repeat(" ", greetBytes) + `{"type":"auth","key":"a secret key"}` + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			nc := call(t, ln)
			if _, err := io.WriteString(nc, line); err != nil {
				t.Fatal(err)
			}
			if err := nc.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if said, err := io.ReadAll(nc); err != nil || len(said) != 0 {
				t.Errorf("it was told %q, %v, want a clean end", said, err)
			}
			if !strings.Contains(log.String(), nc.LocalAddr().String()) {
				t.Errorf("the log does not name %s: %s", nc.LocalAddr(), log)
			}
		})
	}
	for _, secret := range []string{"secret", "kez"} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("the log has keys: %s", log)
		}
	}
	if strings.Count(log.String(), "refused 127.0.0.1:") != strings.Count(log.String(), "\n") {
		t.Errorf("log: %s", log)
	}
}

// So many may stand before the door; the next one is closed, and whoever has the key comes
// in once there is room.
func TestStrangers(t *testing.T) {
	var strangers Strangers
	ln, _ := guardedFrom(t, &strangers)
	other, _ := guardedFrom(t, &strangers)
	all := []net.Conn{call(t, ln)}
	for len(all) < maxStrangers {
		all = append(all, call(t, []net.Listener{ln, other}[len(all)%2]))
	}
	for strangers.n.Load() < maxStrangers {
		time.Sleep(time.Millisecond)
	}
	for _, ln := range []net.Listener{ln, other} {
		if said, err := io.ReadAll(call(t, ln)); err != nil || len(said) != 0 {
			t.Errorf("one too many was told %q, %v", said, err)
		}
	}
	if _, err := io.WriteString(all[0], `{"type":"auth","key":"a secret key"}`+"\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := ln.Accept(); err != nil {
		t.Error(err)
	}
	if err := ln.Close(); err != nil {
		t.Error(err)
	}
	if err := other.Close(); err != nil {
		t.Error(err)
	}
	if n := strangers.n.Load(); n != 0 {
		t.Errorf("%d strangers are left", n)
	}
	if said, err := io.ReadAll(all[1]); len(said) != 0 {
		t.Errorf("one who waited was told %q, %v", said, err)
	}
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept after the end: %v", err)
	}
	if err := ln.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("close again: %v", err)
	}
}

// A stranger has ten seconds, however busy they are.
func TestSlowStranger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &guard{strangers: new(Strangers), refused: func(string) {}, in: make(chan accepted), closed: make(chan struct{}), greeting: make(map[net.Conn]struct{})}
		here, there := net.Pipe()
		begin := time.Now()
		var writer sync.WaitGroup
		defer writer.Wait()
		writer.Go(func() {
			for {
				time.Sleep(time.Second)
				if _, err := here.Write([]byte(" ")); err != nil {
					return
				}
			}
		})
		g.greet(half{there})
		if took := time.Since(begin); took < greetWithin || took > greetWithin+2*lingerTime {
			t.Errorf("closed after %s", took)
		}
	})
}

type half struct{ net.Conn }

func (half) CloseWrite() error { return nil }

func TestNotLoopback(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", "[::]:0", "192.0.2.1:0", "[::ffff:0.0.0.0]:0"} {
		if ln, err := Loopback(netip.MustParseAddrPort(addr), testKey, new(Strangers), func(string) {}); err == nil {
			_ = ln.Close()
			t.Errorf("listens on %s", addr)
		}
	}
}

// FuzzGreeting shows any bytes as the first line: not one more is read, and only the key
// opens.
func FuzzGreeting(f *testing.F) {
	f.Add([]byte(`{"type":"auth","key":"a secret key"}` + "\nrequest\n"))
	f.Add([]byte(`{"key":"\u0061 secret key","x":[{}],"type":"auth"}` + "\r\n"))
	f.Add([]byte("\n"))
	g := &guard{key: sha256.Sum256([]byte(testKey))}
	f.Fuzz(func(t *testing.T, sent []byte) {
		r := bytes.NewReader(sent)
		line, err := readLine(r)
		first, _, whole := bytes.Cut(sent[:min(len(sent), greetBytes)], []byte("\n"))
		if (err == nil) != whole || err == nil && (!bytes.Equal(line, first) || r.Len() != len(sent)-len(first)-1) {
			t.Fatalf("read %q, %v; %d bytes are left", line, err, r.Len())
		}
		if err != nil || !g.opens(line) {
			return
		}
		var m map[string]any
		if err := json.Unmarshal(line, &m); err != nil || m["type"] != "auth" || m["key"] != testKey {
			t.Errorf("%q opens: %v", line, err)
		}
	})
}
