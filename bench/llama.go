package main

import (
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
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/inferd-go/inferd/bench/load"
	"github.com/inferd-go/inferd/internal/builtin"
	"github.com/inferd-go/inferd/internal/paths"
)

// buildLlama returns the folder of llama.cpp's programs, which it builds if they are missing. kind
// is empty for a build with all CPU variants, or "native".
func buildLlama(kind string) (string, error) {
	build := exec.Command("sh", "scripts/peers.sh", kind)
	build.Stderr = os.Stderr
	dir, err := build.Output()
	if err != nil {
		return "", fmt.Errorf("build llama.cpp's programs: %w", err)
	}
	return strings.TrimSpace(string(dir)), nil
}

// A variant is a folder with llama.cpp's programs that may run on this machine.
type variant struct {
	name string
	get  func() (dir string, err error)
}

// workingLlama returns a folder with llama.cpp's programs that run on this machine, and prints its
// name. The programs in built may end with an illegal instruction, depending on the compiler and
// the CPU variant that they choose.
func (p *peers) workingLlama(built string) (string, error) {
	return firstWorking(p.out, []variant{
		{"its own CPU variants", func() (string, error) { return built, nil }},
		{"the CPU variants that inferd-engine loads", func() (string, error) {
			dir := filepath.Join(p.bin, "llama")
			return dir, joinLlama(dir, built, paths.Default().EngineDir())
		}},
		{"a native build", func() (string, error) { return buildLlama("native") }},
	}, p.tryLlama)
}

// firstWorking returns the folder of the first variant that try accepts. It prints the name of that
// variant, and the errors of the variants before it.
func firstWorking(out io.Writer, variants []variant, try func(dir string) error) (string, error) {
	var errs []error
	for _, v := range variants {
		dir, err := v.get()
		if err == nil {
			err = try(dir)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", v.name, err))
			continue
		}
		why := ""
		if errs != nil {
			why = "; " + strings.ReplaceAll(errors.Join(errs...).Error(), "\n", "; ")
		}
		fmt.Fprintf(out, "llama.cpp's programs run with %s%s\n", v.name, why)
		return dir, nil
	}
	return "", fmt.Errorf("llama.cpp's programs do not run here; --peers=false measures without them: %w", errors.Join(errs...))
}

// tryLlama runs a short prefill and decode with the programs in dir, with two models: each type of
// weights has code of its own, so the measured model is needed as well as builtin:tiny.
func (p *peers) tryLlama(dir string) error {
	tiny, err := builtin.Ensure(p.bin, "tiny")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(p.ctx, 5*time.Minute)
	defer cancel()
	for _, model := range []string{tiny, p.model} {
		cmd := exec.CommandContext(ctx, filepath.Join(dir, "llama-batched-bench"), "-m", model, "-c", "1024", "-npp", "64", "-ntg", "4", "-npl", "1,4", "-t", fmt.Sprint(p.threads))
		cmd.Dir = dir
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s of %s: %w", filepath.Base(cmd.Path), filepath.Base(model), err)
		}
	}
	return nil
}

// joinLlama makes a folder with the programs in built and the CPU variants in libraries. It copies
// the programs, because they look for the variants in their real folder, even if they are started
// through a link.
func joinLlama(dir, built, libraries string) error {
	variants, err := filepath.Glob(filepath.Join(libraries, "libggml-cpu-*.so"))
	if err != nil {
		return err
	}
	if len(variants) == 0 {
		return fmt.Errorf("there are no CPU variants in %s", libraries)
	}
	all, err := filepath.Glob(filepath.Join(built, "*"))
	if err != nil {
		return err
	}
	own := func(file string) bool { return strings.HasPrefix(filepath.Base(file), "libggml-cpu") }
	all = append(slices.DeleteFunc(all, own), variants...)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for _, file := range all {
		to := filepath.Join(dir, filepath.Base(file))
		if !strings.HasPrefix(filepath.Base(file), "llama-") {
			err = os.Symlink(file, to)
		} else {
			err = copyFile(file, to)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// copyFile copies a program.
func copyFile(from, to string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, text, 0o755) // other users run the programs
}

// ggufOf returns the file of a model. The big model is cached for each type of weights;
// llama-quantize in the folder built converts it.
func (p *peers) ggufOf(name, built string) (string, error) {
	switch name {
	case "tiny":
		return builtin.Ensure(p.bin, "tiny")
	case "big-q8_0", "big-q4_k_m":
	default:
		if strings.HasSuffix(name, ".gguf") {
			return filepath.Abs(name)
		}
		return "", fmt.Errorf("unknown name %q", name)
	}
	big, err := bigModel()
	if err != nil || name == "big-q8_0" {
		return big, err
	}
	path := filepath.Join(filepath.Dir(big), name+".gguf")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if built == "" {
		return "", fmt.Errorf("%s has to be made by llama-quantize, which --peers=false leaves out", name)
	}
	temp := filepath.Join(p.bin, "quantised.gguf")
	defer os.Remove(temp)
	if text, err := exec.Command(filepath.Join(built, "llama-quantize"), "--allow-requantize", big, temp, "q4_k_m").CombinedOutput(); err != nil {
		return "", fmt.Errorf("llama-quantize: %w\n%s", err, text)
	}
	return path, moveFile(temp, path)
}

// moveFile copies a file, even to another file system; the caller removes the old one. The new file
// gets its name only when it is complete.
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

// batchedBench returns the total rate at which llama-batched-bench decodes the given number of
// sequences, each of the given number of tokens, in tokens per second.
func (p *peers) batchedBench(model string, tokens, sequences int) (float64, error) {
	out, err := p.tool("llama-batched-bench", "-m", model, "-c", fmt.Sprint(peerContext), "-npp", "32", "-ntg", fmt.Sprint(tokens),
		"-npl", fmt.Sprint(sequences), "-kvu", "-t", fmt.Sprint(p.threads), "-tb", fmt.Sprint(p.threads), "--output-format", "jsonl")
	if err != nil {
		return 0, err
	}
	for _, o := range out {
		var r struct {
			PL    int
			Speed float64 `json:"speed_tg"`
		}
		if err := json.Unmarshal(o, &r); err != nil {
			return 0, fmt.Errorf("llama-batched-bench: %w", err)
		}
		if r.PL == sequences && r.Speed > 0 {
			return r.Speed, nil
		}
	}
	return 0, fmt.Errorf("llama-batched-bench printed no rate of %d sequences", sequences)
}

// llamaBench returns the rate at which llama-bench prefills the given number of tokens, in tokens per
// second, as the average of several times.
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

// tool runs a program of llama.cpp and returns the JSON objects that it prints, one to a line. The
// program's logger sometimes loses all output at the end; then tool runs the program again.
func (p *peers) tool(name string, args ...string) ([]json.RawMessage, error) {
	for range 5 {
		cmd := exec.CommandContext(p.ctx, filepath.Join(p.llama, name), args...)
		var said bytes.Buffer
		cmd.Stderr = &said
		text, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("%s: %w\n%s", name, err, tail(said.Bytes()))
		}
		var objects []json.RawMessage
		for line := range bytes.Lines(text) {
			if json.Valid(line) && bytes.HasPrefix(line, []byte("{")) {
				objects = append(objects, bytes.TrimSpace(line))
			}
		}
		if objects != nil {
			return objects, nil
		}
	}
	return nil, fmt.Errorf("%s printed nothing, five times", name)
}

func tail(text []byte) []byte { return text[max(0, len(text)-1000):] }

// llamaServers returns a contender for each of the given modes of llama-server, or none if
// llama.cpp is not measured.
func (p *peers) llamaServers(unified ...bool) []contender {
	if p.llama == "" {
		return nil
	}
	all := make([]contender, len(unified))
	for i, mode := range unified {
		all[i] = contender{llamaName(mode), func() (*testServer, error) { return p.llamaServer(p.model, mode) }}
	}
	return all
}

// llamaName returns the name of llama-server in a mode.
func llamaName(unified bool) string {
	if unified {
		return "llama-server --kv-unified"
	}
	return "llama-server"
}

// llamaServer starts llama-server with eight slots. If unified is set, they share one cache;
// otherwise each has its part of the context.
func (p *peers) llamaServer(model string, unified bool) (*testServer, error) {
	dir, err := os.MkdirTemp("", "ls")
	if err != nil {
		return nil, err
	}
	kv := "-no-kvu"
	if unified {
		kv = "-kvu"
	}
	path := filepath.Join(dir, "s.sock")
	cmd := exec.Command(filepath.Join(p.llama, "llama-server"), "-m", model, "-c", fmt.Sprint(peerContext), "-np", fmt.Sprint(peerSlots), kv,
		"-t", fmt.Sprint(p.threads), "-tb", fmt.Sprint(p.threads), "--host", path, "--no-ui", "--slots")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var output bytes.Buffer // read only after the end of the program
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() { // runs until the program ends
		_ = cmd.Wait()
		close(ended)
	}()
	get := httpGet(path)
	s := &testServer{name: llamaName(unified), target: load.Target{Dialect: load.Llama, Path: path}}
	s.running = func() (int, error) { return llamaRunning(p.ctx, get) }
	s.stop = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
		_ = os.RemoveAll(dir)
	}
	p.servers = append(p.servers, s)
	for {
		if _, err := get(p.ctx, "/health"); err == nil {
			break
		}
		select {
		case <-ended:
			return nil, fmt.Errorf("llama-server ended:\n%s", tail(output.Bytes()))
		case <-p.ctx.Done():
			return nil, errors.New("llama-server did not become ready")
		case <-time.After(20 * time.Millisecond):
		}
	}
	return s, errors.Join(os.Chmod(dir, 0o755), os.Chmod(path, 0o777)) // so that other users can connect
}

// llamaRunning returns the number of running requests on llama-server.
func llamaRunning(ctx context.Context, get func(ctx context.Context, path string) ([]byte, error)) (int, error) {
	text, err := get(ctx, "/slots")
	if err != nil {
		return 0, err
	}
	var slots []struct {
		Busy bool `json:"is_processing"`
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

// httpGet returns a function that requests a path from the HTTP server at a socket.
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
