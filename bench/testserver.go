package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/inferd-go/inferd/bench/load"
)

// A testServer is a server in a comparison.
type testServer struct {
	name   string
	target load.Target
	stop   func()
	// running returns the number of running requests, as the server reports it.
	running func() (int, error)
	daemon  *daemon // nil unless it is an inferd
}

// inferdOptions are the settings of an inferd server.
type inferdOptions struct {
	backends   string // JSON; empty means one entry with the model
	model      string // file; empty means the model of the comparison
	slots      int    // 0 means peerSlots
	maxStall   int    // in ms; 0 means the default
	queueDepth int    // 0 means the default
}

// inferd starts a server of the present build, which is the first of p.builds.
func (p *peers) inferd(o inferdOptions) (*testServer, error) { return p.startBuild(p.builds[0], o) }

// startBuild starts a server of a build. Other users can connect to it.
func (p *peers) startBuild(b build, o inferdOptions) (*testServer, error) {
	if o.backends == "" {
		more := ""
		if o.maxStall > 0 {
			more = fmt.Sprintf(`,"max_stall_ms":%d`, o.maxStall)
		}
		if b.exact {
			more += `,"exact":true`
		}
		o.backends = fmt.Sprintf(`{"kind":"llamacpp","name":"gen","n_ctx":%d,"n_slots":%d,"threads":%d,"model":{"path":%q}%s}`,
			peerContext, orElse(o.slots, peerSlots), p.threads, orElse(o.model, p.model), more)
	}
	config := filepath.Join(p.bin, "config.json")
	if err := os.WriteFile(config, fmt.Appendf(nil, `{"backends":[%s],"http":{"open":%t}}`, o.backends, p.tcp), 0o600); err != nil {
		return nil, err
	}
	args := []string{"--config", config}
	address := ""
	if p.tcp {
		var err error
		if address, err = freeAddress(); err != nil {
			return nil, err
		}
		args = append(args, "--http", address)
	}
	if o.queueDepth > 0 {
		args = append(args, "--queue-depth", fmt.Sprint(o.queueDepth), "--queue-total", fmt.Sprint(4*o.queueDepth))
	}
	d, err := startFrom(b.dir, args...)
	if err != nil {
		return nil, err
	}
	s := &testServer{name: b.name, target: load.Target{Dialect: load.V2, Path: filepath.Join(d.dir, v2Leaf)}, stop: d.stop, daemon: d}
	if p.tcp {
		s.target = load.Target{Dialect: load.Chat, Path: address}
	}
	s.running = func() (int, error) {
		stats, err := d.stats()
		return stats.Running, err
	}
	p.servers = append(p.servers, s)
	if err := d.waitReady(); err != nil {
		return nil, err
	}
	for _, leaf := range []string{"", v1Leaf, v2Leaf, lpLeaf, httpLeaf} {
		if err := os.Chmod(filepath.Join(d.dir, leaf), 0o777); err != nil && leaf != httpLeaf { // older builds have no HTTP
			return nil, err
		}
	}
	return s, nil
}

// freeAddress returns an unused loopback TCP address.
func freeAddress() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return ln.Addr().String(), ln.Close()
}

// stop stops a server before the end of its row.
func (p *peers) stop(s *testServer) {
	s.stop()
	p.servers = slices.DeleteFunc(p.servers, func(o *testServer) bool { return o == s })
}

// daemonStats has stats from control.sock.
type daemonStats struct {
	Running, Waiting int
	Callers          []struct {
		User, Exe string
		counts
	}
	Backends []struct {
		Name string
		counts
	}
}

type counts struct {
	In  int64 `json:"input_tokens"`
	Out int64 `json:"output_tokens"`
}

func (d *daemon) stats() (s daemonStats, err error) {
	nc, err := d.dial("control.sock")
	if err != nil {
		return s, err
	}
	defer nc.Close()
	if _, err := io.WriteString(nc, `{"type":"stats"}`+"\n"); err != nil {
		return s, err
	}
	answer := struct{ Stats *daemonStats }{&s}
	return s, json.NewDecoder(nc).Decode(&answer)
}

// caller returns the process for a user and a program, both counted from 0. Without root all users
// are the same, and only the programs differ.
func (p *peers) caller(user, program int) (*load.Caller, error) {
	key := [2]int{user, program}
	if c := p.callers[key]; c != nil {
		return c, nil
	}
	path := p.program(user, program)
	if _, err := os.Stat(path); err != nil {
		// Callers differ by the inode of the program, so the program is copied and not linked.
		if err := copyFile(filepath.Join(p.bin, "bench"), path); err != nil {
			return nil, err
		}
	}
	uid := 0
	if p.root {
		uid = p.uid + user
	}
	c, err := startCaller(path, uid, p.errors)
	if err != nil {
		return nil, err
	}
	p.callers[key] = c
	return c, nil
}

// startCaller starts a copy of this program that sends requests as a user; uid 0 means this user.
func startCaller(path string, uid int, errs io.Writer) (*load.Caller, error) {
	cmd := exec.Command(path, "load")
	cmd.Dir, cmd.Stderr = "/", errs
	cmd.Env = []string{"GOMAXPROCS=1"} // leaves the cores to the engine
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if uid != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
	}
	return load.Start(cmd)
}

func (p *peers) program(user, program int) string {
	return filepath.Join(p.bin, fmt.Sprintf("program-%d-%d", user, program))
}
