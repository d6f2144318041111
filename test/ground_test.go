package test

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/shortdir"
)

// Warnings about ignored settings are logged even if the start fails.
func TestWarningsOfAFailedStart(t *testing.T) {
	t.Setenv("INFERD_QUEUE_DETPH", "3")
	for name, test := range map[string]struct {
		config string // empty means no file
		want   []string
	}{
		"no file": {"", []string{
			"config.json does not exist: going on without a config file", "INFERD_QUEUE_DETPH is unknown and has no effect: did you mean INFERD_QUEUE_DEPTH?", "no model is configured",
		}},
		"an unknown key": {`{"backend":[]}`, []string{"config.json:1: unknown key backend", "no model is configured"}},
		"an array":       {`[]`, []string{"config.json:1: the file must hold a JSON object, this is an array"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := shortdir.New(t)
			if test.config != "" {
				write(t, filepath.Join(dir, "config.json"), test.config)
			}
			d := start(t, dir)
			if code := d.exit(); code != 1 {
				t.Errorf("exit %d", code)
			}
			for _, want := range test.want {
				if !strings.Contains(d.stderr.String(), want) {
					t.Errorf("the log has no %q", want)
				}
			}
		})
	}
}

// A pipe as the config file is refused at once, since reading it might never end.
func TestConfigIsAPipe(t *testing.T) {
	dir := shortdir.New(t)
	if err := syscall.Mkfifo(filepath.Join(dir, "config.json"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := start(t, dir)
	if code := d.exit(); code != 1 || !strings.Contains(d.stderr.String(), "config.json is not a regular file") {
		t.Errorf("exit %d", code)
	}
}

// SIGHUP drains the daemon like SIGTERM: a running answer is finished.
func TestHangUpOfTheTerminal(t *testing.T) {
	hangUps := make(chan os.Signal, 1) // if the test ignored SIGHUP, so would the daemon
	signal.Notify(hangUps, syscall.SIGHUP)
	defer signal.Stop(hangUps)
	d := mocked(t, `{"backends":[{"kind":"mock","name":"m","tokens":["x","y","z"],"token_delay_ms":100}]}`)
	c := d.client()
	c.send(prompt("q", "w", ""))
	if r := c.next(); r.Content != "x" {
		t.Fatalf("first %+v", r)
	}
	d.signal(syscall.SIGHUP)
	if text, end := c.answer(); text != "yz" || end.Type != "done" {
		t.Errorf("after SIGHUP: %q, %+v", text, end)
	}
	if code := d.exit(); code != 0 || !strings.Contains(d.stderr.String(), "shutdown complete") {
		t.Errorf("exit %d", code)
	}
}

// A daemon that was started with SIGHUP ignored, as nohup does it, continues after SIGHUP.
func TestHangUpIsIgnored(t *testing.T) {
	dir := shortdir.New(t)
	write(t, filepath.Join(dir, "config.json"), oneMock)
	program := filepath.Join(shortdir.New(t), "inferd")
	write(t, program, fmt.Sprintf("#!/bin/sh\ntrap '' HUP\nexec %s \"$@\"\n", filepath.Join(bin, "inferd")))
	if err := os.Chmod(program, 0o700); err != nil {
		t.Fatal(err)
	}
	d := startProgram(t, program, dir)
	d.waitReady()
	d.signal(syscall.SIGHUP)
	d.works()
	select {
	case <-d.exited:
		t.Errorf("the daemon exited with %d", d.code)
	case <-time.After(100 * time.Millisecond): // no event reports that it continues
	}
	d.works()
	d.signal(syscall.SIGTERM)
	if code := d.exit(); code != 0 {
		t.Errorf("exit %d", code)
	}
}

// On a CPU, capabilities report no GPU layers, whatever the config requests.
func TestLayersWithoutAGPU(t *testing.T) {
	d := mocked(t, `{"n_gpu_layers":-1,"backends":[
		{"kind":"llamacpp","name":"gen","model":{"builtin":"chain"}},
		{"kind":"llamacpp","name":"vec","n_gpu_layers":7,"embed":true,"embed_pooling":1,"model":{"builtin":"embed"}}]}`)
	d.works()
	w := d.watch()
	defer w.Close()
	seen := 0
	for _, frame := range w.until("ready", "") {
		if frame["status"] != "capabilities" {
			continue
		}
		seen++
		if frame["accelerator"] == "cpu" && frame["gpu_layers"] != 0.0 {
			t.Errorf("capabilities %v", frame)
		}
	}
	if seen != 2 {
		t.Errorf("%d capabilities", seen)
	}
	// The prefill worker depends on the device, not on the number in the config.
	if out := d.stderr.String(); strings.Contains(out, "prompts are not read beside streams") {
		t.Error(out)
	}
}

// On a terminal without cursor control, top prints the table once.
func TestTopOnADumbTerminal(t *testing.T) {
	d := mocked(t, oneMock)
	s := d.top("TERM=dumb")
	if code := s.exit(); code != 0 {
		t.Errorf("exit %d", code)
	}
	if out := s.out.String(); strings.Count(out, "ENTRY") != 1 || strings.Contains(out, "\x1b") {
		t.Errorf("the terminal got %q", out)
	}
}
