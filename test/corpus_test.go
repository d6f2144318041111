package test

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/inferd-go/inferd/internal/corpus"
)

// TestCorpus plays every transcript of spec/corpus against the real daemon.
func TestCorpus(t *testing.T) {
	all, err := corpus.Load(os.DirFS("../spec/corpus"))
	if err != nil {
		t.Fatal(err)
	}
	for _, script := range all {
		t.Run(script.Name, func(t *testing.T) {
			d := mocked(t, script.Config)
			dial := func(leaf string) (net.Conn, error) { return net.Dial("unix", filepath.Join(d.dir, leaf)) }
			if err := script.Play(dial, 1<<30); err != nil {
				t.Error(err)
			}
		})
	}
}
