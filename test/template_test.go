package test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/builtin"
)

// untaught starts a daemon with a model that recites pieces and has no chat template.
func untaught(t *testing.T, pieces ...string) *daemon {
	t.Helper()
	path := filepath.Join(t.TempDir(), "model.gguf")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(builtin.Script(f, pieces...), f.Close()); err != nil {
		t.Fatal(err)
	}
	return serve(t, "--model-path", path)
}

// A talk is a conversation over v2.
type talk struct {
	t     *testing.T
	conn  *bufio.ReadWriter
	turns []string // messages as JSON
	texts []string // texts of the frames of the last answer
}

type v2Done struct {
	Type, Code, Message string
	Reason              string `json:"stop_reason"`
	Usage               struct {
		In     int `json:"input_tokens"`
		Out    int `json:"output_tokens"`
		Cached int `json:"cached_tokens"`
	}
	Block    struct{ Delta string }
	Logprobs []struct{ Token string } `json:"logprobs"`
}

func (d *daemon) talk() *talk {
	d.t.Helper()
	nc := d.dial("infer.v2.sock")
	d.t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(patience))
	return &talk{t: d.t, conn: bufio.NewReadWriter(bufio.NewReader(nc), bufio.NewWriter(nc))}
}

func (k *talk) add(role, text string) {
	message, err := json.Marshal(map[string]any{"role": role, "content": []any{map[string]string{"type": "text", "text": text}}})
	if err != nil {
		k.t.Fatal(err)
	}
	k.turns = append(k.turns, string(message))
}

// ask sends a question after the turns so far, and adds it and its answer to them. It returns the
// text, the tokens of the logprobs, joined by |, and the terminal frame.
func (k *talk) ask(question, more string) (text, joined string, done v2Done) {
	k.t.Helper()
	k.add("user", question)
	fmt.Fprintf(k.conn, `{"id":"1","messages":[%s]%s}`+"\n", strings.Join(k.turns, ","), more)
	if err := k.conn.Flush(); err != nil {
		k.t.Fatal(err)
	}
	k.texts = nil
	var tokens []string
	for {
		line, err := k.conn.ReadBytes('\n')
		if err != nil {
			k.t.Fatal(err)
		}
		var f v2Done
		if err := json.Unmarshal(line, &f); err != nil {
			k.t.Fatalf("%q: %v", line, err)
		}
		if f.Type != "frame" {
			k.add("assistant", text)
			return text, strings.Join(tokens, "|"), f
		}
		text += f.Block.Delta
		k.texts = append(k.texts, f.Block.Delta)
		for _, l := range f.Logprobs {
			tokens = append(tokens, l.Token)
		}
	}
}

// Over v1 and v2, an answer of a model without a chat template ends at a marker of the next turn,
// with the reason end of turn. It begins without white space. Over v2 the next turn finds it in the
// cache.
func TestNoTemplate(t *testing.T) {
	d := untaught(t, " Hello", " there", ".", "\n", "User", ":")
	for _, stream := range []string{"", `,"stream":false`} {
		t.Run("v1"+stream, func(t *testing.T) {
			text, end := d.ask("Hi", stream)
			if stream != "" {
				text = end.Content
			}
			if text != "Hello there." || end.Content != text || end.Reason != "end" || end.Usage.Completion != 6 {
				t.Errorf("%q, %+v", text, end)
			}
			if _, end := d.ask("Hi", stream+`,"stop":["there"]`); end.Content != "Hello " || end.Reason != "end" || end.Usage.Completion != 2 {
				t.Errorf("with a stop: %+v", end)
			}
			if _, end := d.ask("Hi", stream+`,"stop":["Hello"]`); end.Content != "" || end.Reason != "end" || end.Usage.Completion != 1 {
				t.Errorf("with a stop in the first token: %+v", end)
			}
			if _, end := d.ask("Hi", stream+`,"max_tokens":2`); end.Content != "Hello there" || end.Reason != "length" {
				t.Errorf("with a limit: %+v", end)
			}
		})
		t.Run("v2"+stream, func(t *testing.T) {
			k := d.talk()
			k.add("system", " Be brief (v2"+stream[:min(len(stream), 1)]+").\n")
			before := 0
			for turn := range 3 {
				text, tokens, done := k.ask(fmt.Sprint(" Hi ", turn, "\n"), stream+`,"logprobs":1`)
				if text != "Hello there." || tokens != " Hello| there|." || done.Reason != "end_turn" || done.Usage.Out != 6 {
					t.Errorf("turn %d: %q, %q, %+v", turn, text, tokens, done)
				}
				if stream != "" && len(k.texts) != 1 {
					t.Errorf("turn %d: texts %q", turn, k.texts)
				}
				if turn > 0 && done.Usage.Cached != before {
					t.Errorf("turn %d had %d tokens in the cache, want %d", turn, done.Usage.Cached, before)
				}
				before = done.Usage.In + done.Usage.Out - 1 // the last token was not decoded
			}
			for stop, want := range map[string]string{"\n": "Hello there.", "User:": "Hello there.", "there": "Hello "} {
				quoted, _ := json.Marshal(stop)
				if text, _, done := d.talk().ask("Hi", stream+`,"stop":[`+string(quoted)+`]`); text != want || done.Reason != "stop_sequence" {
					t.Errorf("stop %q: %q, %+v", stop, text, done)
				}
			}
		})
	}
}

// An answer that has no text before its end, except for white space, consists of the last frame.
func TestNoTemplateNoText(t *testing.T) {
	for name, pieces := range map[string][]string{
		"white space":       {" ", "\t", "\n", "User", ":"},
		"a marker":          {"\n", "User", ":"},
		"a marker as token": {"\nUser:"},
		"an end":            {" ", "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			d := untaught(t, pieces...)
			for _, stream := range []string{"", `,"stream":false`} {
				c := d.client()
				c.send(prompt("q", "Hi", stream))
				if text, end := c.answer(); text != "" || end.Content != "" || end.Reason != "end" || end.Usage.Completion == 0 {
					t.Errorf("v1%s: %q, %+v", stream, text, end)
				}
				k := d.talk()
				if text, told, done := k.ask("Hi", stream+`,"logprobs":1`); text != "" || told != "" || len(k.texts) > 0 || done.Reason != "end_turn" {
					t.Errorf("v2%s: %q, %q, %+v", stream, text, k.texts, done)
				}
				if _, _, done := k.ask("And?", stream); done.Type != "done" || done.Usage.Cached == 0 {
					t.Errorf("v2%s, the next turn: %+v", stream, done)
				}
			}
		})
	}
}

// A missing chat template is shown in capabilities, doctor and the log, where it is logged once.
func TestNoTemplateIsSaid(t *testing.T) {
	const said = "model without a chat template"
	template := func(d *daemon) any {
		w := d.watch()
		defer w.Close()
		for _, frame := range w.until("ready", "") {
			if frame["status"] == "capabilities" {
				return frame["chat_template"]
			}
		}
		return "no capabilities"
	}
	d := untaught(t, " Hi")
	if got := template(d); got != "none" {
		t.Errorf("capabilities say %v", got)
	}
	if out, _, code := d.ctl("doctor"); !strings.Contains(out, "[ ok ] backend: warning: the model of llamacpp has no chat template") {
		t.Errorf("doctor: exit %d\n%s", code, out)
	}
	w := d.watch()
	defer w.Close()
	w.until("ready", "")
	kill(t, d.engine(), syscall.SIGKILL)
	w.until("restarting", "engine_exited")
	w.until("ready", "")
	if text, end := d.ask("x", ""); text != "Hi" || end.Type != "done" {
		t.Errorf("after a restart: %q, %+v", text, end)
	}
	if n := strings.Count(d.stderr.String(), said); n != 1 || !strings.Contains(d.stderr.String(), "instruction-tuned") {
		t.Errorf("%d warnings, want one that advises an instruction-tuned model", n)
	}

	d = serve(t, "--model-path", "builtin:chain")
	if got := template(d); got != nil {
		t.Errorf("a model with a template: capabilities say %v", got)
	}
	if out, _, _ := d.ctl("doctor"); strings.Contains(out, "chat template") || strings.Contains(d.stderr.String(), said) {
		t.Errorf("a model with a template: %s\n%s", out, d.stderr)
	}
}
