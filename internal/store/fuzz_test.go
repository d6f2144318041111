package store_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/internal/store"
)

// Whatever other programs write in place of a manifest, a state or a record, the store can be listed,
// its model is whole or refused, and its ingest can be finished.
func FuzzFilesOfOthers(f *testing.F) {
	hex := sum("x")
	f.Add(`{"schema_version":1,"name":"m","format":"gguf","blob":"sha256:` + hex + `","size_bytes":1}`)
	f.Add(`{"schema_version":1,"name":"m","format":"gguf","blob":"sha256:` + hex + `","size_bytes":1,"parts":[{"blob":"sha256:` + hex + `"}],"companions":{"a":{"blob":"b"}},"refers":{"path":"/dev/zero","size":1}}`)
	f.Add(`{"sha256":"` + hex + `","total":1,"ranges":[{"start":0,"end":1}],"hashed":1,"hash_state":"AA==","pid":1,"boot_id":"x"}`)
	f.Add(`{"expected":"` + hex + `","actual":"","times":9}`)
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		home := filepath.Join(t.TempDir(), "models")
		blobs := filepath.Join(home, "blobs", "sha256", hex[:2])
		for path, content := range map[string]string{
			filepath.Join(blobs, hex, "data"):                                 "x",
			filepath.Join(blobs, ".partial-"+hex, "data.tmp"):                 "x",
			filepath.Join(blobs, ".partial-"+hex, "state.json"):               text,
			filepath.Join(blobs, ".partial-"+hex, "durable.json"):             text,
			filepath.Join(home, "manifests", "m.json"):                        text,
			filepath.Join(home, "locks", "quarantine", "x-sha-mismatch.json"): text,
		} {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			write(t, path, content)
		}
		s := &store.Store{Home: home}
		defer s.Close()
		if _, err := s.List(); err != nil {
			t.Error(err)
		}
		if m, err := s.Ensure(t.Context(), store.Ref{Name: "m"}, nil); err == nil {
			if got := content(t, m); strings.Join(got, "") != strings.Repeat("x", len(m.Files)) {
				t.Errorf("%q", got)
			}
			m.Close()
		}
		if _, err := s.Refused(hex); err != nil {
			t.Error(err)
		}
		if err := os.RemoveAll(filepath.Join(home, "blobs", "sha256", hex[:2], hex)); err != nil {
			t.Fatal(err)
		}
		i, err := s.Begin(store.Want{SHA256: hex})
		if err != nil {
			if !strings.Contains(err.Error(), "being written") { // by a running process
				t.Error(err)
			}
			return
		}
		if err := i.Reset(store.Upstream{}); err != nil {
			t.Error(err)
		}
		write1(t, i, []byte("x"), 0)
		commit(t, i)
	})
}
