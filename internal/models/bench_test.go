package models_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/inferd-go/inferd/internal/backend"
	"github.com/inferd-go/inferd/internal/models"
	"github.com/inferd-go/inferd/internal/pull"
	"github.com/inferd-go/inferd/internal/status"
	"github.com/inferd-go/inferd/internal/store"
)

// BenchmarkOpenVerified opens by name a model of 300 MB that was verified before, as the daemon does at
// its start. The model is not hashed, and no request is sent.
func BenchmarkOpenVerified(b *testing.B) {
	dir := b.TempDir()
	file := filepath.Join(dir, "m.gguf")
	if err := os.WriteFile(file, append([]byte("GGUF"), make([]byte, 300<<20)...), 0o600); err != nil {
		b.Fatal(err)
	}
	fresh := func() *store.Store {
		return &store.Store{Home: filepath.Join(dir, "models"), VerifiedFile: filepath.Join(dir, "state", "verified.json"), Guarded: true}
	}
	first := fresh()
	if _, err := first.Import(b.Context(), store.Import{Path: file, Name: "m"}, nil); err != nil {
		b.Fatal(err)
	}
	if err := first.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() { // a new store each time, as in a new process
		s := &models.Source{AutoPull: true, Puller: &pull.Puller{Store: fresh()}}
		m, err := s.Open(b.Context(), backend.Model{Name: "m"}, func(p status.Phase) {
			if _, hashed := p.(status.Verify); hashed {
				b.Fatal("it was hashed")
			}
		})
		if err != nil {
			b.Fatal(err)
		}
		m.Close()
		if err := s.Puller.Store.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
