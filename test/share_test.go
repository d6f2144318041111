package test

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A stream is a client that reads its answer in the background.
type stream struct {
	*client
	text output
}

func (d *daemon) stream(request string) *stream {
	d.t.Helper()
	s := &stream{client: d.client()}
	s.send(request)
	go func() { // runs until the connection is closed
		for dec := json.NewDecoder(s.UnixConn); ; {
			var r reply
			if dec.Decode(&r) != nil || r.Type != "token" {
				return
			}
			_, _ = s.text.Write([]byte(r.Content))
		}
	}()
	return s
}

// crowd takes both slots of a daemon with endless answers, and four places in its queue, all for
// one caller. It returns the streams in the order of their requests.
func crowd(d *daemon) (all []*stream) {
	d.t.Helper()
	for i := range 6 {
		all = append(all, d.stream(prompt("crowd", "a", `,"temperature":0,"max_tokens":1000000`)))
		eventually(d.t, "it is in", func() bool { s := d.stats(); return s.Running+s.Waiting == i+1 })
	}
	for _, s := range all[:2] {
		eventually(d.t, "it is answered", func() bool { return s.text.String() != "" })
	}
	return all
}

// One caller holds all slots, with endless answers, and has more requests waiting. A request of
// another program is answered at once. Then the preempted answer continues with the text that it
// would have without preemption.
func TestPreemption(t *testing.T) {
	d := serve(t, "--model-path", "builtin:loop", "--n-slots", "2", "--n-ctx", "32768")
	const alphabet = "bcdefghijklmnopqrstuvwxyza"
	if text, end := d.ask("a", `,"temperature":0,"max_tokens":100`); text != strings.Repeat(alphabet, 4)[:100] {
		t.Fatalf("undisturbed: %q, %+v", text, end)
	}
	all := crowd(d)
	if out, stderr, code := d.ctl("chat", "-m", "b", "--max-tokens", "5"); code != 0 || !strings.HasPrefix(out, "cdefg") {
		t.Fatalf("another caller: %q, %q, exit code %d", out, stderr, code)
	}
	if s := d.stats(); s.Running != 2 || s.Waiting != 4 {
		t.Fatalf("after the answer %d run and %d wait", s.Running, s.Waiting)
	}
	for i, s := range all[:2] {
		until := len(s.text.String()) + 300
		eventually(t, "it goes on", func() bool { return len(s.text.String()) >= until })
		if got := s.text.String(); got != strings.Repeat(alphabet, len(got)/len(alphabet)+1)[:len(got)] {
			t.Errorf("stream %d differs from the same stream alone: %q", i, got)
		}
	}
}

// If the client of a preempted request hangs up, the request is removed.
func TestHangUpWhilePreempted(t *testing.T) {
	d := serve(t, "--model-path", "builtin:loop", "--n-slots", "2", "--n-ctx", "32768")
	all := crowd(d)
	other := exec.Command(filepath.Join(bin, "inferdctl"), "--addr", d.socket("infer.sock"), "chat", "-m", "b", "--max-tokens", "1000000")
	out := &output{}
	other.Stdout, other.Stderr = out, out
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Wait() }()
	defer func() { _ = other.Process.Kill() }()
	eventually(t, "another caller is answered", func() bool { return out.String() != "" })
	if s := d.stats(); s.Running != 2 || s.Waiting != 5 {
		t.Errorf("beside the other caller %d run and %d wait\n%s", s.Running, s.Waiting, out)
	}
	_ = all[1].Close() // the request that was started last is the preempted one
	eventually(t, "it is out", func() bool { s := d.stats(); return s.Running == 2 && s.Waiting == 4 })
	_ = other.Process.Kill()
	eventually(t, "the next one is answered", func() bool { return all[2].text.String() != "" })
	for _, s := range all {
		_ = s.Close()
	}
	eventually(t, "no request is left", func() bool { s := d.stats(); return s.Running == 0 && s.Waiting == 0 })
	if _, end := d.ask("a", `,"max_tokens":5`); end.Type != "done" {
		t.Errorf("afterwards: %+v", end)
	}
}
