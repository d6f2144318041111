package test

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/inferd-go/inferd/internal/builtin"
	"github.com/inferd-go/inferd/internal/corpus"
	"github.com/inferd-go/inferd/internal/hubtest"
	"github.com/inferd-go/inferd/internal/shortdir"
)

// TestCorpus plays every transcript of spec/corpus against the real daemon.
func TestCorpus(t *testing.T) {
	all, err := corpus.Load(os.DirFS("../spec/corpus"))
	if err != nil {
		t.Fatal(err)
	}
	for _, script := range all {
		t.Run(script.Name, func(t *testing.T) {
			dial := dialer(t, script)
			if err := script.Play(dial, 1<<30); err != nil {
				t.Error(err)
			}
		})
	}
}

// dialer starts the daemon for a transcript, with a hub if the transcript has one. It returns a
// function that connects to the daemon.
func dialer(t *testing.T, script *corpus.Transcript) func(leaf string) (net.Conn, error) {
	t.Helper()
	if len(script.Hub) == 0 {
		d := mocked(t, script.Config)
		return func(leaf string) (net.Conn, error) { return net.Dial("unix", filepath.Join(d.dir, leaf)) }
	}
	s := newHubStore(t)
	repos, contents := make(map[string]map[string]*hubtest.File), make(map[string][]byte)
	for _, f := range script.Hub {
		var content bytes.Buffer
		if err := builtin.Write(strings.TrimPrefix(f.Content, "builtin:"), &content); err != nil {
			t.Fatal(err)
		}
		if repos[f.Repo] == nil {
			repos[f.Repo] = make(map[string]*hubtest.File)
		}
		repos[f.Repo][f.Path] = &hubtest.File{Content: content.Bytes()}
		if f.Flipped {
			sent := slices.Clone(content.Bytes())
			sent[len(sent)-1] ^= 1
			contents[hubtest.Sum(content.Bytes())] = sent
		}
	}
	for name, files := range repos {
		s.hub.AddRepo(name, modelCommit, "", files)
	}
	s.set(func(r hubtest.Request) *hubtest.Fault {
		if sent := contents[filepath.Base(r.Path)]; r.Origin == hubtest.CDN && sent != nil {
			return &hubtest.Fault{Content: sent}
		}
		return nil
	})
	dir := shortdir.New(t)
	write(t, filepath.Join(dir, "config.json"), script.Config)
	s.watched = make(chan struct{})
	open := sync.OnceFunc(func() { close(s.watched) })
	t.Cleanup(open)
	d := start(t, dir)
	return func(leaf string) (net.Conn, error) {
		nc := d.dial(leaf)
		return &opening{nc, open}, nil
	}
}

// An opening is a connection that calls open after each read. open lets the hub answer, so the hub
// waits until the first frame has arrived.
type opening struct {
	net.Conn
	open func()
}

func (o *opening) Read(p []byte) (int, error) {
	defer o.open()
	return o.Conn.Read(p)
}
