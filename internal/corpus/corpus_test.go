package corpus_test

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/inferd-go/inferd/internal/corpus"
	"github.com/inferd-go/inferd/internal/frame"
)

func TestParseErrors(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"an empty file":            {"", "a/b.txtar: no connection"},
		"a config only":            {"About.\n-- config --\n{}\n", "a/b.txtar: no connection"},
		"an unknown word":          {"About.\n-- infer.sock --\n> {}\nsend {}\n", `a/b.txtar:4: unknown line "send {}"`},
		"a space at the beginning": {"-- infer.sock --\n > {}\n", `a/b.txtar:2: unknown line " > {}"`},
		"invalid hex digits":       {"-- infer.sock --\nx 0g\n", "a/b.txtar:2: "},
		"half a byte":              {"-- infer.sock --\nx 000\n", "a/b.txtar:2: "},
		"an invalid length":        {"-- inferd.sock --\n\nblob-zeros many\n", "a/b.txtar:3: "},
		"a negative length":        {"-- inferd.sock --\nblob-zeros -1\n", "a/b.txtar:2: "},
		"too many zeros":           {"-- inferd.sock --\nblob-zeros 99999999999\n", "a/b.txtar:2: "},
		"text after EOF":           {"-- infer.sock --\nEOF now\n", "a/b.txtar:2: unexpected text after EOF"},
		"a hub's file in no repo":  {"-- hub --\nm.gguf builtin:chain\n", `a/b.txtar:2: unknown file of a hub "m.gguf builtin:chain"`},
		"a hub's file without one": {"-- hub --\nO/R/m.gguf\n", "a/b.txtar:2: unknown file of a hub"},
		"an unknown third word":    {"-- hub --\nO/R/m.gguf builtin:chain broken\n", "a/b.txtar:2: unknown file of a hub"},
	} {
		t.Run(name, func(t *testing.T) {
			script, err := corpus.Parse("a/b.txtar", []byte(test.text))
			if err == nil || !strings.HasPrefix(err.Error(), test.want) {
				t.Errorf("got %+v, %v, want %s", script, err, test.want)
			}
		})
	}
}

func TestParse(t *testing.T) {
	script, err := corpus.Parse("a/b.txtar", []byte("What it\nis about.\n\n-- config --\n{\"x\":\n1}\n-- infer.sock --\n# a comment\n\n> {}"))
	if err != nil || script.Name != "a/b" || script.About != "What it\nis about." || script.Config != "{\"x\":\n1}\n" {
		t.Errorf("got %+v, %v", script, err)
	}
	script, err = corpus.Parse("c.txtar", []byte("-- infer.sock --\n> {}\n"))
	if err != nil || script.Config != corpus.DefaultConfig {
		t.Errorf("without a config: %+v, %v", script, err)
	}
}

func TestParseHub(t *testing.T) {
	script, err := corpus.Parse("a.txtar", []byte("About.\n-- hub --\n# two files\nO/R/m.gguf builtin:chain\n\nO/R/d/n.gguf x flipped\n-- admin.sock --\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := []corpus.HubFile{{Repo: "O/R", Path: "m.gguf", Content: "builtin:chain"}, {Repo: "O/R", Path: "d/n.gguf", Content: "x", Flipped: true}}
	if !slices.Equal(script.Hub, want) || script.Config != corpus.DefaultConfig {
		t.Errorf("%+v", script)
	}
}

func TestLoad(t *testing.T) {
	good := &fstest.MapFile{Data: []byte("-- infer.sock --\n> {}\n")}
	all, err := corpus.Load(fstest.MapFS{"v1/a.txtar": good, "b.txtar": good, "README.md": &fstest.MapFile{Data: []byte("-- x --\nno\n")}})
	if err != nil || len(all) != 2 || all[0].Name != "b" || all[1].Name != "v1/a" {
		t.Errorf("got %v, %v", all, err)
	}
	if _, err := corpus.Load(fstest.MapFS{"README.md": good}); err == nil {
		t.Error("a folder without transcripts is no error")
	}
	if _, err := corpus.Load(fstest.MapFS{"v1/bad.txtar": &fstest.MapFile{Data: []byte("-- x --\nno\n")}}); err == nil || !strings.HasPrefix(err.Error(), "v1/bad.txtar:2: ") {
		t.Errorf("a bad one: %v", err)
	}
}

// An answer that differs from the transcript is an error with the line and the difference.
func TestPlay(t *testing.T) {
	head := func(kind frame.Kind, text string) string {
		return string(frame.AppendHead(nil, kind, len(text))) + text
	}
	for name, test := range map[string]struct {
		script string
		sends  string // output that must reach the daemon
		says   string // answer of the daemon, after all of the output
		want   string // start of the error; empty if there is none
	}{
		"the right answer": {"-- infer.sock --\n> {\"a\":1}\n< {\"b\":2}\nEOF", "{\"a\":1}\n", "{\"b\":2}\n", ""},
		"any text for …":   {"-- infer.sock --\n> a\n< {\"b\":\"…\",\"c\":…}\nEOF", "a\n", "{\"b\":\"x.y\",\"c\":[]}\n", ""},
		"all kinds of output": {
			"-- inferd.sock --\n> {}\n>> ab\nblob cd\nblob-zeros 3\nx 00fF\n< {}\nEOF",
			head(frame.JSON, "{}") + "ab" + head(frame.Blob, "cd") + head(frame.Blob, "\x00\x00\x00") + "\x00\xff", head(frame.JSON, "{}"), "",
		},
		"another spelling of a number": {"-- infer.sock --\n> a\n< {\"b\":[1,0.33333334,-2],\"c\":\"…\"}\nEOF", "a\n", "{\"b\":[1.0,0.3333333432674408,-2e0],\"c\":\"7\"}\n", ""},
		"another number":               {"-- infer.sock --\n> a\n< {\"b\":[1,0.5]}", "a\n", "{\"b\":[1.0,0.25]}\n", "t:3: "},
		"a number in a string":         {"-- infer.sock --\n> a\n< {\"b\":\"say \\\"1\\\" 1\"}", "a\n", "{\"b\":\"say \\\"1\\\" 1.0\"}\n", "t:3: "},
		"another large number":         {"-- infer.sock --\n> a\n< {\"b\":4294967296}", "a\n", "{\"b\":4294967297}\n", "t:3: "},
		"another answer":               {"-- infer.sock --\n> a\n< {\"b\":2}", "a\n", "{\"b\":3}\n", "t:3: \n got {\"b\":3}\nwant {\"b\":2}"},
		"more in the answer":           {"-- infer.sock --\n> a\n< {\"b\":2}", "a\n", "{\"b\":2} \n", "t:3: "},
		"a dot is a dot":               {"-- infer.sock --\n> a\n< 1.5", "a\n", "1x5\n", "t:3: "},
		"a part of the answer":         {"-- infer.sock --\n> a\n< {\"b\":2}", "a\n", "{\"b\"", "t:3: "},
		"no answer":                    {"-- infer.sock --\n> a\n< {\"b\":2}", "a\n", "", "t:3: got EOF, want {\"b\":2}"},
		"one answer too many":          {"-- infer.sock --\n> a\n< 1\nEOF", "a\n", "1\n2\n", "t:4: got a message of kind"},
		"no clean end":                 {"-- infer.sock --\n> a\n< 1\nEOF", "a\n", "1\n2", "t:4: got "},
		"a blob, not JSON":             {"-- inferd.sock --\n> a\n< b", head(frame.JSON, "a"), head(frame.Blob, "b"), "t:3: got a blob, want b"},
	} {
		for _, step := range []int{1, 1 << 20} {
			t.Run(name, func(t *testing.T) {
				script, err := corpus.Parse("t.txtar", []byte(test.script))
				if err != nil {
					t.Fatal(err)
				}
				dial, got := daemon(t, len(test.sends), test.says)
				err = script.Play(dial, step)
				if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.HasPrefix(err.Error(), test.want)) {
					t.Errorf("step %d: %v, want %q", step, err, test.want)
				}
				if sent := <-got; sent != test.sends {
					t.Errorf("step %d: sent %q, want %q", step, sent, test.sends)
				}
			})
		}
	}
}

// A half-close reaches the daemon, and the daemon can still answer.
func TestHalfClose(t *testing.T) {
	script, err := corpus.Parse("t.txtar", []byte("-- infer.sock --\n>> a\nhalf-close\n< 1\nEOF"))
	if err != nil {
		t.Fatal(err)
	}
	dial, got := daemon(t, -1, "1\n")
	if err := script.Play(dial, 1); err != nil {
		t.Error(err)
	}
	if sent := <-got; sent != "a" {
		t.Errorf("sent %q", sent)
	}
	pipe := func(string) (net.Conn, error) {
		here, there := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, there) }()
		return here, nil
	}
	if err := script.Play(pipe, 1); err == nil || !strings.HasPrefix(err.Error(), "t:3: this connection cannot be half-closed") {
		t.Errorf("on a pipe: %v", err)
	}
}

func TestPlayWithoutDaemon(t *testing.T) {
	script, err := corpus.Parse("t.txtar", []byte("-- infer.sock --\n> a\n"))
	if err != nil {
		t.Fatal(err)
	}
	refused := errors.New("connection refused")
	if err := script.Play(func(string) (net.Conn, error) { return nil, refused }, 1); !errors.Is(err, refused) || !strings.HasPrefix(err.Error(), "t: infer.sock: ") {
		t.Errorf("got %v", err)
	}
}

// daemon starts a daemon that reads n bytes, or to the end if n is negative, writes says and hangs
// up. got yields the bytes that it has read.
func daemon(t *testing.T, n int, says string) (dial func(string) (net.Conn, error), got <-chan string) {
	t.Helper()
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	all := make(chan string, 1)
	go func() {
		nc, err := ln.Accept()
		if err != nil {
			all <- err.Error()
			return
		}
		defer nc.Close()
		var buf []byte
		if n < 0 {
			buf, _ = io.ReadAll(nc)
		} else {
			buf = make([]byte, n)
			_, _ = io.ReadFull(nc, buf)
		}
		_, _ = io.WriteString(nc, says)
		all <- string(buf)
	}()
	return func(string) (net.Conn, error) { return net.Dial("unix", ln.Addr().String()) }, all
}

func FuzzParse(f *testing.F) {
	f.Add("About.\n-- config --\n{}\n-- infer.sock --\n> {}\n< …\nEOF\n")
	f.Add("-- inferd.sock --\nblob x\nblob-zeros 3\nx 00ff\n>> a\nhalf-close\n")
	f.Fuzz(func(t *testing.T, text string) {
		script, err := corpus.Parse("t.txtar", []byte(text))
		if (script == nil) == (err == nil) {
			t.Errorf("got %v and %v", script, err)
		}
		if err != nil && !strings.HasPrefix(err.Error(), "t.txtar:") {
			t.Errorf("the error does not name the file: %v", err)
		}
	})
}

// The transcripts send the members that the typed clients of the reference implementation always
// send, and do not send null where those clients never do. A daemon may require both.
func TestCorpusSendsWhatTheReferenceRequires(t *testing.T) {
	all, err := filepath.Glob("../../spec/corpus/*/*.txtar")
	if err != nil || len(all) == 0 {
		t.Fatal(all, err)
	}
	for _, path := range all {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(data)) {
			text, ok := strings.CutPrefix(line, "> ")
			var m map[string]any
			if !ok || json.Unmarshal([]byte(text), &m) != nil {
				continue
			}
			if fault := missing(m); fault != "" && !strings.Contains(path, "missing-") && !strings.Contains(path, "not-a-request") {
				t.Errorf("%s: %s: %s", path, fault, text)
			}
		}
	}
}

// missing describes a member that the reference implementation requires and that the request lacks
// or sends as null. It returns an empty string if there is none.
func missing(m map[string]any) string {
	for _, name := range []string{"id", "grammar", "tools", "attachments"} {
		if value, ok := m[name]; ok && value == nil {
			return name + " is null"
		}
	}
	needs := map[string][]string{"image": {"width", "height"}, "audio": {"sample_rate"}}
	attachments, _ := m["attachments"].([]any)
	for _, a := range attachments {
		a, _ := a.(map[string]any)
		kind, _ := a["kind"].(string)
		for _, name := range needs[kind] {
			if a[name] == nil {
				return "an attachment without " + name
			}
		}
	}
	tools, _ := m["tools"].([]any)
	for _, tool := range tools {
		tool, _ := tool.(map[string]any)
		for _, name := range []string{"description", "input_schema"} {
			if tool[name] == nil {
				return "a tool without " + name
			}
		}
	}
	return ""
}

// In the transcripts a blob follows every descriptor. A daemon may read the blob before it checks
// the id of the descriptor; without a blob the transcript would hang.
func TestCorpusSendsBlobsBehindDescriptors(t *testing.T) {
	all, err := filepath.Glob("../../spec/corpus/lp/*.txtar")
	if err != nil || len(all) == 0 {
		t.Fatal(all, err)
	}
	for _, path := range all {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		pending := "" // the descriptor whose blob must follow; empty if none
		for line := range strings.Lines(string(data)) {
			announced, isLength := strings.CutPrefix(line, `> {"type":"attachment_blob"`)
			if pending != "" && strings.HasPrefix(line, "<") {
				t.Errorf("%s: an answer is expected before the blob of %s", path, pending)
			}
			inPlace := pending != "" // a descriptor instead of a blob is the fault under test
			pending = ""
			if isLength && !inPlace && !strings.Contains(announced, `"len":-`) && !strings.Contains(announced, `"len":67108865`) && !strings.Contains(announced, `"len":9223372036854775808`) {
				pending = line // a daemon refuses the excluded lengths without reading a blob
			}
		}
	}
}
