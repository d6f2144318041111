package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/inferd-go/inferd/bench/load"
	"github.com/inferd-go/inferd/internal/builtin"
)

// llamaPrograms returns the folder of llama.cpp's programs, which it builds the first time.
func llamaPrograms() (string, error) {
	build := exec.Command("sh", "scripts/peers.sh")
	build.Stderr = os.Stderr
	dir, err := build.Output()
	if err != nil {
		return "", fmt.Errorf("build llama.cpp's programs: %w", err)
	}
	return strings.TrimSpace(string(dir)), nil
}

// ggufOf returns the file of a model. The big one is kept in the user's cache with each
// kind of weights.
func (p *peers) ggufOf(name string) (string, error) {
	switch name {
	case "tiny":
		return builtin.Ensure(p.bin, "tiny")
	case "big-q8_0", "big-q4_k_m":
	default:
		return "", fmt.Errorf("none is called %q", name)
	}
	big, err := bigModel()
	if err != nil || name == "big-q8_0" {
		return big, err
	}
	path := filepath.Join(filepath.Dir(big), name+".gguf")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	temp := filepath.Join(p.bin, "quantised.gguf")
	defer os.Remove(temp)
	if text, err := exec.Command(filepath.Join(p.llama, "llama-quantize"), "--allow-requantize", big, temp, "q4_k_m").CombinedOutput(); err != nil {
		return "", fmt.Errorf("llama-quantize: %w\n%s", err, text)
	}
	return path, moveFile(temp, path)
}

// moveFile moves a file, to another file system too. It appears under its name when it is
// complete.
func moveFile(from, to string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	half, err := os.CreateTemp(filepath.Dir(to), "half-")
	if err != nil {
		return err
	}
	defer os.Remove(half.Name())
	if _, err := io.Copy(half, f); err != nil {
		return err
	}
	if err := half.Close(); err != nil {
		return err
	}
	return os.Rename(half.Name(), to)
}

// batchedBench returns how many tokens a second llama-batched-bench decodes with so many
// sequences.
func (p *peers) batchedBench(tokens int, sequences []int) (map[int]float64, error) {
	out, err := p.tool("llama-batched-bench", "-m", p.model, "-c", fmt.Sprint(peerContext), "-npp", "32", "-ntg", fmt.Sprint(tokens),
		"-npl", strings.Trim(strings.ReplaceAll(fmt.Sprint(sequences), " ", ","), "[]"), "-kvu",
		"-t", fmt.Sprint(p.threads), "-tb", fmt.Sprint(p.threads), "--output-format", "jsonl")
	if err != nil {
		return nil, err
	}
	rates := make(map[int]float64)
	for _, o := range out {
		var r struct {
			PL    int
			Speed float64 `json:"speed_tg"`
		}
		if err := json.Unmarshal(o, &r); err != nil {
			return nil, fmt.Errorf("llama-batched-bench: %w", err)
		}
		rates[r.PL] = r.Speed
	}
	for _, n := range sequences {
		if rates[n] == 0 {
			return nil, fmt.Errorf("llama-batched-bench says nothing of %d sequences", n)
		}
	}
	return rates, nil
}

// llamaBench returns how many tokens of a prompt llama-bench reads a second.
func (p *peers) llamaBench(tokens, times int) (float64, error) {
	out, err := p.tool("llama-bench", "-m", p.model, "-p", fmt.Sprint(tokens), "-n", "0", "-r", fmt.Sprint(times),
		"-t", fmt.Sprint(p.threads), "-o", "jsonl")
	if err != nil {
		return 0, err
	}
	var r struct {
		Rate float64 `json:"avg_ts"`
	}
	if len(out) != 1 {
		return 0, fmt.Errorf("llama-bench printed %d results", len(out))
	}
	if err := json.Unmarshal(out[0], &r); err != nil || r.Rate <= 0 {
		return 0, fmt.Errorf("llama-bench printed %s", out[0])
	}
	return r.Rate, nil
}

// tool runs a program of llama.cpp and returns the objects that it prints, a line each.
func (p *peers) tool(name string, args ...string) ([]json.RawMessage, error) {
	cmd := exec.CommandContext(p.ctx, filepath.Join(p.llama, name), args...)
	text, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", name, err, tail(text))
	}
	var objects []json.RawMessage
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		if json.Valid(lines.Bytes()) && bytes.HasPrefix(lines.Bytes(), []byte("{")) {
			objects = append(objects, bytes.Clone(lines.Bytes()))
		}
	}
	return objects, nil
}

func tail(text []byte) []byte { return text[max(0, len(text)-1000):] }

// llamaServer starts llama-server with eight slots: each with its part of the context, or
// all with one.
func (p *peers) llamaServer(model string, unified bool) (*side, error) {
	dir, err := os.MkdirTemp("", "ls")
	if err != nil {
		return nil, err
	}
	name, kv := "llama-server", "-no-kvu"
	if unified {
		name, kv = "llama-server --kv-unified", "-kvu"
	}
	path := filepath.Join(dir, "s.sock")
	cmd := exec.Command(filepath.Join(p.llama, "llama-server"), "-m", model, "-c", fmt.Sprint(peerContext), "-np", fmt.Sprint(peerSlots), kv,
		"-t", fmt.Sprint(p.threads), "-tb", fmt.Sprint(p.threads), "--host", path, "--no-ui", "--slots")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var said bytes.Buffer // read only once it has ended
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	over := make(chan struct{})
	go func() { // ends with the program
		_ = cmd.Wait()
		close(over)
	}()
	s := &side{name: name, target: load.Target{Dialect: load.Llama, Path: path}}
	s.stop = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-over:
		case <-time.After(5 * time.Second):
			_ = cmd.Process.Kill()
			<-over
		}
		_ = os.RemoveAll(dir)
	}
	p.servers = append(p.servers, s)
	get := httpGet(path)
	s.running = func() (int, error) {
		var slots []struct {
			Busy bool `json:"is_processing"`
		}
		text, err := get(p.ctx, "/slots")
		if err != nil {
			return 0, err
		}
		if err := json.Unmarshal(text, &slots); err != nil {
			return 0, fmt.Errorf("llama-server's slots: %w", err)
		}
		n := 0
		for _, slot := range slots {
			if slot.Busy {
				n++
			}
		}
		return n, nil
	}
	for {
		if _, err := get(p.ctx, "/health"); err == nil {
			break
		}
		select {
		case <-over:
			return nil, fmt.Errorf("llama-server ended:\n%s", tail(said.Bytes()))
		case <-p.ctx.Done():
			return nil, errors.New("llama-server did not become ready")
		case <-time.After(20 * time.Millisecond):
		}
	}
	for path, mode := range map[string]os.FileMode{dir: 0o755, path: 0o777} { // so that other users come in
		if err := os.Chmod(path, mode); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// httpGet returns a function that gets what lies under a path of the server at a socket.
func httpGet(socket string) func(ctx context.Context, path string) ([]byte, error) {
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	return func(ctx context.Context, path string) ([]byte, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://llama"+path, http.NoBody)
		if err != nil {
			return nil, err
		}
		resp, err := client.Do(req)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s: %s", path, resp.Status)
		}
		return text, err
	}
}
