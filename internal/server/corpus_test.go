package server_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/backend/mock"
	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/server"
)

// TestCorpus plays the transcripts of spec/corpus/v1, each as it is and a byte at a time.
func TestCorpus(t *testing.T) {
	files, err := filepath.Glob("../../spec/corpus/v1/*.txt")
	if err != nil || len(files) < 30 {
		t.Fatalf("%d transcripts, %v", len(files), err)
	}
	for _, name := range files {
		script, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		name = strings.TrimSuffix(filepath.Base(name), ".txt")
		t.Run(name, func(t *testing.T) { play(t, string(script), 1<<30) })
		t.Run(name+", a byte at a time", func(t *testing.T) { play(t, string(script), 1) })
	}
}

// play plays a transcript over a Unix socket, in writes of at most step bytes.
func play(t *testing.T, script string, step int) {
	t.Helper()
	backend := new(mock.Backend)
	var nc *net.UnixConn
	var r frame.Reader
	var unsent []byte
	connect := func() {
		if nc == nil {
			nc = serveUnix(t, &server.Server{Handler: backend}).dial()
			r = frame.Lines.NewReader(nc, frame.Limit)
		}
	}
	flush := func() {
		connect()
		for len(unsent) > 0 {
			n := min(step, len(unsent))
			if _, err := nc.Write(unsent[:n]); err != nil {
				t.Fatal(err)
			}
			unsent = unsent[n:]
		}
		_ = nc.SetReadDeadline(time.Now().Add(patience))
	}
	for line := range strings.Lines(script) {
		op, text, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		switch op {
		case "#":
		case "mock":
			configure(t, backend, text)
		case ">":
			unsent = append(append(unsent, text...), '\n')
		case ">>":
			unsent = append(unsent, text...)
		case "x":
			raw, err := hex.DecodeString(text)
			if err != nil {
				t.Fatal(err)
			}
			unsent = append(unsent, raw...)
		case "half-close":
			flush()
			if err := nc.CloseWrite(); err != nil {
				t.Fatal(err)
			}
		case "<":
			flush()
			_, got, err := r.ReadFrame()
			if err != nil {
				t.Fatalf("%v, want %s", err, text)
			}
			if !matches(text, string(got)) {
				t.Fatalf("\n got %s\nwant %s", got, text)
			}
		case "EOF":
			flush()
			if got, err := io.ReadAll(nc); err != nil || len(got) > 0 {
				t.Fatalf("%q, %v, want EOF", got, err)
			}
		default:
			t.Fatalf("what is %q?", line)
		}
	}
}

func matches(pattern, got string) bool {
	quoted := strings.ReplaceAll(regexp.QuoteMeta(pattern), "…", ".*")
	return regexp.MustCompile(`\A(?s:` + quoted + `)\z`).MatchString(got)
}

func configure(t *testing.T, b *mock.Backend, text string) {
	t.Helper()
	var m struct {
		Tokens    []string `json:"tokens"`
		PreStream string   `json:"pre_stream_error"`
		DropAfter int      `json:"mid_stream_drop_after"`
		FailFirst int      `json:"fail_first"`
	}
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		t.Fatal(err)
	}
	b.Tokens, b.PreStream, b.DropAfter, b.FailFirst = m.Tokens, m.PreStream, m.DropAfter, m.FailFirst
}
