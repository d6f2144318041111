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

// A lockedLog collects the lines of a log; several goroutines may write it.
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

// guarded returns a listener that requires the key, and its log.
func guarded(t *testing.T) (net.Listener, *lockedLog) {
	t.Helper()
	return guardedFrom(t, new(PendingAuth))
}

func guardedFrom(t *testing.T, pendingAuth *PendingAuth) (net.Listener, *lockedLog) {
	t.Helper()
	log := new(lockedLog)
	ln, err := Loopback(anyPort, testKey, pendingAuth, func(peer string) { fmt.Fprintf(log, "refused %s\n", peer) })
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
			if got, err := io.ReadAll(nc); err != nil || len(got) != 0 {
				t.Errorf("%s: it received %q, %v", name, got, err)
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
		"a long line":         strings.Repeat("x", 3*maxAuthLine) + "\n",
		"spaces":              strings.Repeat(" ", maxAuthLine) + `{"type":"auth","key":"a secret key"}` + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			nc := call(t, ln)
			if _, err := io.WriteString(nc, line); err != nil {
				t.Fatal(err)
			}
			if err := nc.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(nc); err != nil || len(got) != 0 {
				t.Errorf("it received %q, %v, want a clean end", got, err)
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

// Beyond the bound of PendingAuth, which two listeners share, new connections are closed at once. A
// pending client that sends the key is accepted. Close closes the connections that are still pending.
func TestStrangers(t *testing.T) {
	var pendingAuth PendingAuth
	ln, _ := guardedFrom(t, &pendingAuth)
	other, _ := guardedFrom(t, &pendingAuth)
	all := []net.Conn{call(t, ln)}
	for len(all) < maxPending {
		all = append(all, call(t, []net.Listener{ln, other}[len(all)%2]))
	}
	for pendingAuth.n.Load() < maxPending {
		time.Sleep(time.Millisecond)
	}
	for _, ln := range []net.Listener{ln, other} {
		if got, err := io.ReadAll(call(t, ln)); err != nil || len(got) != 0 {
			t.Errorf("one too many received %q, %v", got, err)
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
	if n := pendingAuth.n.Load(); n != 0 {
		t.Errorf("%d pending connections are left", n)
	}
	if got, err := io.ReadAll(all[1]); len(got) != 0 {
		t.Errorf("a waiting client received %q, %v", got, err)
	}
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept after the end: %v", err)
	}
	if err := ln.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("close again: %v", err)
	}
}

// A client that does not send the key is closed after ten seconds, even if it sends all the time.
func TestSlowStranger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &authListener{pendingAuth: new(PendingAuth), refused: func(string) {}, accepted: make(chan acceptResult), closed: make(chan struct{}), pending: make(map[net.Conn]struct{})}
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
		g.authenticate(half{there})
		if took := time.Since(begin); took < authTimeout || took > authTimeout+2*lingerTime {
			t.Errorf("closed after %s", took)
		}
	})
}

type half struct{ net.Conn }

func (half) CloseWrite() error { return nil }

func TestNotLoopback(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", "[::]:0", "192.0.2.1:0", "[::ffff:0.0.0.0]:0"} {
		if ln, err := Loopback(netip.MustParseAddrPort(addr), testKey, new(PendingAuth), func(string) {}); err == nil {
			_ = ln.Close()
			t.Errorf("listens on %s", addr)
		}
	}
}

// FuzzAuthLine checks, for any first line, that no byte after it is read and that only the key is
// accepted.
func FuzzAuthLine(f *testing.F) {
	f.Add([]byte(`{"type":"auth","key":"a secret key"}` + "\nrequest\n"))
	f.Add([]byte(`{"key":"\u0061 secret key","x":[{}],"type":"auth"}` + "\r\n"))
	f.Add([]byte("\n"))
	g := &authListener{key: sha256.Sum256([]byte(testKey))}
	f.Fuzz(func(t *testing.T, sent []byte) {
		r := bytes.NewReader(sent)
		line, err := readLine(r)
		first, _, whole := bytes.Cut(sent[:min(len(sent), maxAuthLine)], []byte("\n"))
		if (err == nil) != whole || err == nil && (!bytes.Equal(line, first) || r.Len() != len(sent)-len(first)-1) {
			t.Fatalf("read %q, %v; %d bytes are left", line, err, r.Len())
		}
		if err != nil || !g.validKey(line) {
			return
		}
		var m map[string]any
		if err := json.Unmarshal(line, &m); err != nil || m["type"] != "auth" || m["key"] != testKey {
			t.Errorf("%q opens: %v", line, err)
		}
	})
}
