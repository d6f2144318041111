package engine

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"

	"github.com/inferd-go/inferd/internal/libraries"
	"github.com/inferd-go/inferd/internal/paths"
)

// engineLibraries chooses llama.cpp's libraries for the engines of all launchers.
type engineLibraries struct {
	folder *libraries.Folder
	memory *libraries.Memory
	log    *slog.Logger

	mu      sync.Mutex     // guards the fields below
	warned  bool           // about unverified libraries
	logged  bool           // the log names the variants that an earlier daemon avoided
	current *libraries.Set // the last that was checked
}

func newEngineLibraries(dir string, env paths.Env, log *slog.Logger) (*engineLibraries, error) {
	folder, err := libraries.At(dir, env.EngineDir(), paths.EngineVersion)
	if err != nil {
		return nil, err
	}
	return &engineLibraries{
		folder: folder,
		memory: &libraries.Memory{Path: env.VariantsFile(), Processor: libraries.ThisProcessor()},
		log:    log,
	}, nil
}

// A libraryChoice has the libraries of one engine.
type libraryChoice struct {
	set      *libraries.Set
	backends []string // file names; see [libraries.Set.Backends]
}

// choose checks the libraries and chooses those of the next engine, without the avoided CPU variants.
// If it finds no CPU variant, it fails, and the avoided ones are forgotten.
func (l *engineLibraries) choose(ctx context.Context) (libraryChoice, error) {
	set, err := l.folder.Check(ctx)
	if err != nil {
		return libraryChoice{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.current = set
	avoid, err := l.memory.Avoid(set.Digest)
	if err != nil {
		l.log.LogAttrs(ctx, slog.LevelWarn, "list of avoided CPU variants not read", slog.Any("err", err))
	}
	if !set.Verified && !l.warned {
		l.warned = true
		l.log.LogAttrs(ctx, slog.LevelWarn, "engine libraries are unverified: they are not the folder that \"make engine\" makes",
			slog.String("folder", l.folder.Path))
	}
	if len(avoid) > 0 && !l.logged {
		l.logged = true
		l.log.LogAttrs(ctx, slog.LevelInfo, "CPU variants avoided: they ended with an illegal instruction on this machine",
			slog.String("variants", strings.Join(avoid, ",")), slog.String("remembered_in", l.memory.Path))
	}
	backends, err := set.Backends(avoid)
	if errors.Is(err, libraries.ErrNoVariant) { // the avoided variants may not have been the cause of the deaths
		err = errors.Join(err, l.memory.Forget(set.Digest))
	}
	return libraryChoice{set: set, backends: backends}, err
}

// avoid excludes a CPU variant from later engines, after an engine with the given choice has ended
// with an illegal instruction while it used the variant. It reports false if the choice does not
// have the variant.
func (l *engineLibraries) avoid(ctx context.Context, choice libraryChoice, entry, variant string) bool {
	if !choice.has(variant) {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.logged = true
	news, err := l.memory.Remember(choice.set.Digest, variant)
	if err != nil {
		l.log.LogAttrs(ctx, slog.LevelWarn, "list of avoided CPU variants not written", slog.Any("err", err))
	}
	if news { // false if the variant is already avoided, because another engine ended the same way
		avoid, _ := l.memory.Avoid(choice.set.Digest) // its error has been logged
		l.log.LogAttrs(ctx, slog.LevelWarn, "engine ended with an illegal instruction while loading: this CPU variant is avoided on this machine from now on",
			slog.String("backend", entry), slog.String("variant", variant), slog.String("next", choice.set.Lower(variant, avoid)))
	}
	return true
}

// searchPath returns an additional folder for the system's loader: folder, if it has a libffi for
// systems that lack one, else "".
func (c libraryChoice) searchPath(folder string) string {
	if c.set.SearchPath {
		return folder
	}
	return ""
}

// has reports whether the engine may load the CPU variant.
func (c libraryChoice) has(variant string) bool {
	for _, file := range c.backends {
		if name, ok := libraries.VariantOf(file); ok && name == variant {
			return true
		}
	}
	return false
}

// Results of [engineLibraries.state].
const (
	verified   = "verified"
	unverified = "unverified"
)

// state returns verified if the libraries were the packaged ones at the last check, else unverified,
// and "" before the first check.
func (l *engineLibraries) state() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.current == nil:
		return ""
	case l.current.Verified:
		return verified
	default:
		return unverified
	}
}
