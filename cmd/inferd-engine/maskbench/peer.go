package main

import (
	"bufio"
	"context"
	_ "embed" // for the script
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/inferd-go/inferd/internal/vocab"
)

// peerVersion is the version of llguidance that is measured.
const peerVersion = "1.9.1"

//go:embed peer.py
var script []byte

// A peer is llguidance in a Python process. It gets one problem at a time, so that it and our judge
// are measured in turns.
type peer struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	dir string
}

// startPeer installs llguidance into a temporary folder and starts it with a vocabulary. If masks
// is set, the peer returns the masks of the first valid instance of each problem.
func startPeer(ctx context.Context, python string, words []vocab.Token, masks bool) (*peer, error) {
	dir, err := os.MkdirTemp("", "maskbench-")
	if err != nil {
		return nil, err
	}
	p := &peer{dir: dir}
	if err := p.start(ctx, python, words, masks); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

func (p *peer) start(ctx context.Context, python string, words []vocab.Token, masks bool) error {
	modules := filepath.Join(p.dir, "modules")
	//nolint:gosec // G204: the command for Python is the caller's
	install := exec.CommandContext(ctx, python, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:", "--target", modules, "llguidance=="+peerVersion)
	if text, err := install.CombinedOutput(); err != nil {
		return fmt.Errorf("pip: %w: %.200s", err, strings.TrimSpace(string(text)))
	}
	file := filepath.Join(p.dir, "peer.py")
	if err := os.WriteFile(file, script, 0o600); err != nil {
		return err
	}
	//nolint:gosec // G204: likewise
	p.cmd = exec.CommandContext(ctx, python, "-B", file)
	p.cmd.Env = append(os.Environ(), "PYTHONPATH="+modules)
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return err
	}
	p.out = bufio.NewReaderSize(out, 1<<20)
	if err := p.cmd.Start(); err != nil {
		p.cmd = nil
		return err
	}
	type token struct {
		Bytes   []byte `json:"bytes"`
		Control bool   `json:"control"`
	}
	var setup struct {
		Tokens []token `json:"tokens"`
		Masks  bool    `json:"masks"`
	}
	setup.Masks = masks
	for _, w := range words {
		setup.Tokens = append(setup.Tokens, token{w.Bytes, w.Control})
	}
	var ready bool
	return p.ask(setup, &ready)
}

// ask sends a question as a line of JSON, and reads a line with the answer.
func (p *peer) ask(question, answer any) error {
	line, err := json.Marshal(question)
	if err != nil {
		return err
	}
	if _, err := p.in.Write(append(line, '\n')); err != nil {
		return err
	}
	line, err = p.out.ReadBytes('\n')
	if err != nil {
		return errors.New("the Python process has ended")
	}
	return json.Unmarshal(line, answer)
}

// stop ends the process, waits for it, and removes the temporary folder.
func (p *peer) stop() {
	if p.cmd != nil {
		_ = p.in.Close() // the process ends at the end of its input
		_ = p.cmd.Wait() // it has printed its own error
	}
	_ = os.RemoveAll(p.dir) // temporary
}

// judge sends a problem to the peer and returns the outcome. tokens divides a text into tokens, as
// for our judge.
func (p *peer) judge(x *problem, tokens func(string) []int32) (o outcome, err error) {
	type sequence struct {
		Tokens []int32 `json:"tokens"`
		Valid  bool    `json:"valid"`
	}
	question := struct {
		Schema    json.RawMessage `json:"schema"`
		Instances []sequence      `json:"instances"`
	}{Schema: x.schema}
	for _, i := range x.instances {
		question.Instances = append(question.Instances, sequence{tokens(i.text), i.valid})
	}
	var answer struct {
		Error    string   `json:"error"`
		Start    int64    `json:"start"`
		Masks    []int64  `json:"masks"`
		Taken    []bool   `json:"taken"`
		BitMasks []string `json:"bitmasks"`
	}
	if err := p.ask(question, &answer); err != nil {
		return o, err
	}
	o.Start = time.Duration(answer.Start)
	if answer.Error != "" {
		o.Verdict, o.Why = refused, answer.Error
		return o, nil
	}
	o.Verdict = right
	for i, taken := range answer.Taken {
		switch {
		case taken == x.instances[i].valid:
			o.Right++
		case taken:
			o.Verdict = badTaken
		case o.Verdict == right:
			o.Verdict = goodRejected
		}
	}
	for _, ns := range answer.Masks {
		o.Masks = append(o.Masks, time.Duration(ns))
	}
	for _, m := range answer.BitMasks {
		bits, err := base64.StdEncoding.DecodeString(m)
		if err != nil {
			return o, err
		}
		o.masks = append(o.masks, bits)
	}
	return o, nil
}
