// Package models opens models for engines: files, generated models, and models by name, which are
// pulled into the model store if they are missing there. It also pulls models for clients, and reads
// the operator's catalog. It depends neither on the config nor on engines.
package models

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"

	"github.com/inferd-go/inferd/internal/backend"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/modelname"
	"github.com/inferd-go/inferd/internal/pull"
	"github.com/inferd-go/inferd/internal/status"
	"github.com/inferd-go/inferd/internal/store"
)

// Catalog returns the catalog of this release. If file is not empty, the entries of the catalog in that
// file come first, and replace entries of the release with the same name.
func Catalog(file string) (modelname.Catalog, error) {
	base := modelname.Embedded()
	if file == "" {
		return base, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	own, err := modelname.ParseCatalog(text)
	if err != nil {
		return nil, fmt.Errorf("catalog %s: %w", file, err)
	}
	return own.Over(base), nil
}

// A Source opens models. Its methods may be called from any goroutine.
type Source struct {
	Puller *pull.Puller // with the store
	// AutoPull means that Open pulls missing models.
	AutoPull bool
	// Unable is the reason why no model can be pulled, such as an invalid token, or nil. It does not
	// prevent the use of models in the store.
	Unable error

	pulling sync.RWMutex // guards closed; Pull holds its read lock throughout
	closed  bool
}

// Close waits for running calls of [Source.Pull], and then closes the store. The caller must end the
// contexts of these calls, or Close may wait for long. Later calls of Pull fail.
func (s *Source) Close() error {
	s.pulling.Lock()
	defer s.pulling.Unlock()
	s.closed = true
	return s.Puller.Store.Close()
}

// Pull brings a model into the store for a client of Ollama's interface, even if AutoPull is false. name
// is the model's name in that interface; stored is its name in the store.
func (s *Source) Pull(ctx context.Context, name string, report func(status.Phase)) (stored string, err error) {
	s.pulling.RLock()
	defer s.pulling.RUnlock()
	if s.closed {
		return "", infer.Errorf(infer.Unavailable, "the model store is closed")
	}
	if s.Unable != nil {
		return "", s.Unable
	}
	typed := s.typed(name)
	if _, err := modelname.Parse(typed); err != nil {
		return "", infer.Errorf(infer.Invalid, "%w", err)
	}
	r, err := s.Puller.Pull(ctx, typed, pull.Options{}, report)
	return r.Name, err
}

// typed converts a name of Ollama's interface to the form that [modelname.Parse] takes. A name without
// the prefix of a source is looked up in the store and in the catalog, and otherwise taken as one of
// Ollama's registry.
func (s *Source) typed(name string) string {
	for _, prefix := range []string{"hf:", "hf.co/", "huggingface.co/", "ollama:", "https:", "http:"} {
		if strings.HasPrefix(name, prefix) {
			return name
		}
	}
	bare := strings.TrimSuffix(name, ":latest")
	if ref, err := modelname.Parse(bare); err == nil && ref.Kind == modelname.Plain {
		if known, err := s.Puller.Known(bare); err == nil && known != "" {
			return bare
		}
		if _, ok := s.Puller.Catalog.Find(bare); ok {
			return bare
		}
	}
	return "ollama:" + name
}

// Open opens a model, and checks its digest if that is known. If the store has the model with a
// manifest, and with the digest in m, if any, Open sends no request. Files that are unchanged since
// they were verified are not hashed again; see [store.Store.Ensure]. Open passes its phases to phase.
// [status.CheckingLocal] comes at most once: first, unless a model of unknown digest is pulled.
func (s *Source) Open(ctx context.Context, m backend.Model, phase func(status.Phase)) (*store.Model, error) {
	if m.Name == "" {
		return s.Puller.Store.Ensure(ctx, store.Ref{Path: m.Path, Builtin: m.Builtin, SHA256: m.SHA256}, phase)
	}
	checked := false
	once := func(p status.Phase) {
		if _, ok := p.(status.CheckingLocal); ok {
			if checked {
				return
			}
			checked = true
		}
		phase(p)
	}
	ref, there, err := s.Known(m)
	if err != nil {
		return nil, err
	}
	if !there {
		name, err := s.obtain(ctx, m, once)
		if err != nil {
			return s.withoutManifest(ctx, ref, err, once)
		}
		ref.Name = name
	}
	return s.Puller.Store.Ensure(ctx, ref, once)
}

// obtain pulls a model that the store lacks, and returns its name in the store.
func (s *Source) obtain(ctx context.Context, m backend.Model, phase func(status.Phase)) (name string, err error) {
	switch {
	case !s.AutoPull:
		return "", s.missing(m)
	case s.Unable != nil:
		return "", fmt.Errorf("pull model %q: %w", modelname.Public(m.Name), s.Unable)
	}
	var r pull.Result
	if m.SHA256 != "" {
		r, err = s.Puller.Ensure(ctx, pull.Wanted{Name: m.Name, SHA256: m.SHA256, License: m.License, Size: m.Size, SourceURL: m.URL}, pull.Options{}, phase)
	} else {
		r, err = s.Puller.Pull(ctx, m.Name, pull.Options{}, phase)
	}
	return r.Name, err
}

// withoutManifest opens a model by its digest after obtain has failed with err: a read-only store may
// have the blob, although no manifest can be written. If the digest is unknown, the context has ended or
// there is no blob, it returns err.
func (s *Source) withoutManifest(ctx context.Context, ref store.Ref, err error, phase func(status.Phase)) (*store.Model, error) {
	if ref.SHA256 == "" || ctx.Err() != nil {
		return nil, err
	}
	m, check := s.Puller.Store.Ensure(ctx, ref, phase)
	switch {
	case errors.Is(check, fs.ErrNotExist):
		return nil, err
	case check != nil:
		return nil, check
	case s.AutoPull:
		s.Puller.Log.LogAttrs(ctx, slog.LevelWarn, "a model is used without a manifest", slog.String("name", ref.Name), slog.Any("err", err))
	}
	return m, nil
}

// Known returns the reference of a model, and reports whether the store has the model with a manifest.
// The digest in the reference is that of the config or, if the config has none and the store lacks the
// model, that of the catalog. The reference is zero if neither has a digest and the store lacks the model.
func (s *Source) Known(m backend.Model) (ref store.Ref, there bool, err error) {
	if m.SHA256 != "" {
		return store.Ref{Name: m.Name, SHA256: m.SHA256}, s.Puller.Has(m.Name, m.SHA256), nil
	}
	name, err := s.Puller.Known(m.Name)
	if err != nil || name != "" {
		return store.Ref{Name: name}, name != "", err
	}
	if e, ok := s.Puller.Catalog.Find(m.Name); ok {
		return store.Ref{Name: e.Name, SHA256: e.SHA256}, false, nil
	}
	return store.Ref{}, false, nil
}

// missing returns the error for a model that is not in the store, and that Open does not pull because
// AutoPull is false. It names the command that brings the model into the store.
func (s *Source) missing(m backend.Model) error {
	shown := modelname.Public(m.Name)
	command := "inferdctl pull " + m.Name
	if shown != m.Name { // the query of an address may be a secret
		command = "inferdctl pull, which pulls the models of the config"
	}
	if e, ok := s.Puller.Catalog.Find(m.Name); m.SHA256 != "" && (!ok || e.SHA256 != m.SHA256) {
		command = "inferdctl pull, which pulls the models of the config, or inferdctl import --name " + m.Name + " FILE"
	}
	return fmt.Errorf("model %q is not in the model store %s, and auto_pull is false: run %s", shown, s.Puller.Store.Home, command)
}
