package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A daemon is a running inferd.
type daemon struct {
	cmd *exec.Cmd
	dir string
}

// start starts a daemon with the programs of newBench.
func (b *bench) start(args ...string) (*daemon, error) { return startFrom(b.bin, args...) }

// startFrom starts a daemon with the programs in bin.
func startFrom(bin string, args ...string) (*daemon, error) {
	dir, err := os.MkdirTemp("", "if")
	if err != nil {
		return nil, err
	}
	d := &daemon{dir: dir}
	d.cmd = exec.Command(filepath.Join(bin, "inferd"), append([]string{
		"--uds", filepath.Join(dir, "infer.sock"), "--config", filepath.Join(dir, "none.json"),
	}, args...)...)
	d.cmd.Env = append(os.Environ(), "INFERD_LOG=error", "INFERD_LOG_DIR="+filepath.Join(dir, "logs"))
	d.cmd.Stderr = os.Stderr
	return d, d.cmd.Start()
}

// stopLimit bounds the time in which a daemon stops: an older build may hang.
const stopLimit = 20 * time.Second

func (d *daemon) stop() {
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(stopLimit, func() { _ = d.cmd.Process.Kill() })
	_ = d.cmd.Wait()
	kill.Stop()
	_ = os.RemoveAll(d.dir)
}

// dial connects to a socket. If that fails, it tries again for a minute.
func (d *daemon) dial(leaf string) (net.Conn, error) {
	for deadline := time.Now().Add(time.Minute); ; {
		nc, err := net.Dial("unix", filepath.Join(d.dir, leaf))
		if err == nil || time.Now().After(deadline) {
			return nc, err
		}
		time.Sleep(200 * time.Microsecond)
	}
}

func (d *daemon) waitReady() error {
	nc, err := d.dial("admin.sock")
	if err != nil {
		return err
	}
	defer nc.Close()
	for lines := bufio.NewScanner(nc); lines.Scan(); {
		if strings.Contains(lines.Text(), `"status":"ready"`) {
			return nil
		}
	}
	return errors.New("the daemon ended before it was ready")
}

// memory returns the resident bytes of the daemon's process, without the engine.
func (d *daemon) memory() (int, error) { return d.sizeOf("VmRSS:") }

// peak returns the largest value of memory so far.
func (d *daemon) peak() (int, error) { return d.sizeOf("VmHWM:") }

func (d *daemon) sizeOf(key string) (int, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			kb, err := strconv.Atoi(strings.Fields(rest)[0])
			return kb << 10, err
		}
	}
	return 0, errors.New("no " + key)
}
