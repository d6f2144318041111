// Package libraries checks the libraries of llama.cpp that engines load. It has the digests of the
// packaged libraries, and accepts the files of a folder by owner, mode and digest. It lists the builds
// for different processors (CPU variants), and remembers those that ended with an illegal instruction
// on this machine. It does not depend on the engine, or on how the engine loads a library.
package libraries

import (
	"cmp"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/inferd-go/inferd/internal/trust"
)

// For each platform, the SHA-256 of the libraries that engines load from the pinned package of
// llama.cpp, in the format of sha256sum. scripts/engine.sh installs no other file; a test compares
// the tables with an installed folder.
var (
	//go:embed linux-x64.sums
	linuxX64 string
	//go:embed linux-arm64.sums
	linuxARM64 string
)

// packaged returns the digests of the packaged libraries of a platform by file name; nil if
// there is no package for it.
func packaged(goos, goarch string) map[string]string {
	text := map[string]string{"linux/amd64": linuxX64, "linux/arm64": linuxARM64}[goos+"/"+goarch]
	if text == "" {
		return nil
	}
	sums := make(map[string]string)
	for line := range strings.Lines(text) {
		if digest, name, ok := strings.Cut(strings.TrimSpace(line), "  "); ok {
			sums[name] = digest
		}
	}
	return sums
}

// File returns the file name of a library, such as libllama.so for llama.
func File(library string) string {
	switch runtime.GOOS {
	case "windows":
		return library + ".dll"
	case "darwin":
		return "lib" + library + ".dylib"
	}
	return "lib" + library + ".so"
}

// Core returns the libraries that every engine loads, in the order of their dependencies.
func Core() []string { return []string{"ggml-base", "ggml", "llama"} }

// versioned returns the name of the file to which the packaged link libNAME.so leads.
func versioned(library, version string) string { return "lib" + library + ".v" + version + ".so" }

// accelerators are the backends to load in addition to the CPU backend, in llama.cpp's order. They
// do not include rpc, which sends the work to another machine.
var accelerators = []string{"blas", "zendnn", "cann", "cuda", "hip", "metal", "sycl", "vulkan", "virtgpu", "opencl", "hexagon", "musa", "openvino"}

// ffi is the library through which the engine calls llama.cpp's libraries.
const ffi = "libffi.so.8"

// Mend is the advice for a folder with wrong libraries.
const Mend = `run "make engine", or name another folder with --engine-lib`

// A Folder is a folder with the libraries that engines load. Several goroutines may use it.
type Folder struct {
	Path string
	// Version is the release of llama.cpp to which the packaged libraries belong.
	Version string
	// Packaged is true for the folder that "make engine" makes: there each library must be the
	// packaged one. In another folder libraries may have any content, but users other than this
	// one and root must not be able to change them.
	Packaged bool

	mu      sync.Mutex            // guards the field below; held during Check
	digests map[string]hashedFile // by file name
}

// At returns the folder at path. packagedDir is the folder that "make engine" makes from the release
// version of llama.cpp; if path is that folder, the result is Packaged.
func At(path, packagedDir, version string) (*Folder, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("folder of llama.cpp's libraries: %w", err)
	}
	return &Folder{Path: path, Version: version, Packaged: path == filepath.Clean(packagedDir)}, nil
}

// A hashedFile is the digest of a file. It is valid while the file has the same info and change time.
type hashedFile struct {
	info    fs.FileInfo
	changed time.Time
	digest  string
}

// A Set describes the libraries of a folder as [Folder.Check] found them.
type Set struct {
	// Verified is true if each library has the digest of the packaged one.
	Verified bool
	// SearchPath is true if the system's loader should also search the folder, because the folder
	// contains a libffi, which some systems lack.
	SearchPath bool
	// Digest is a digest over the names and contents of the CPU variants; it is the key of the set
	// in a [Memory].
	Digest string

	folder string
	files  []string // of the accelerators
	cpu    []string // variants, the best first
}

// Check checks every library of the folder that an engine may load: owner, mode and, in a packaged
// folder, digest. A file is hashed again only if its inode, size or times have changed. After Check
// has succeeded, only this user and root can replace a file before it is loaded.
func (f *Folder) Check(ctx context.Context) (*Set, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := &checking{Folder: f, sums: packaged(runtime.GOOS, runtime.GOARCH), variantsHash: sha256.New()}
	c.set = &Set{Verified: f.Packaged && c.sums != nil, folder: f.Path}
	if _, err := os.Stat(filepath.Join(f.Path, File("llama"))); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("llama.cpp's libraries are missing: there is no %s in %s. Run \"make engine\", or name their folder with --engine-lib", File("llama"), f.Path)
	}
	// A sticky folder is refused, too: another user could add a file that a library loads.
	if err := trust.Path(f.Path); err != nil {
		return nil, fmt.Errorf("llama.cpp's libraries: %w", err)
	}
	if err := c.core(ctx); err != nil {
		return nil, err
	}
	for _, v := range Variants(runtime.GOARCH) {
		present, err := c.optional(ctx, variantFile(v))
		if err != nil {
			return nil, err
		}
		if present {
			c.set.cpu = append(c.set.cpu, v)
		}
	}
	c.set.Digest = hex.EncodeToString(c.variantsHash.Sum(nil))
	for _, name := range accelerators {
		file := File("ggml-" + name)
		present, err := c.optional(ctx, file)
		if err != nil {
			return nil, err
		}
		if present {
			c.set.files = append(c.set.files, file)
		}
	}
	var err error
	if c.set.SearchPath, err = c.optional(ctx, ffi); err != nil {
		return nil, err
	}
	return c.set, nil
}

// A checking is one run of Check.
type checking struct {
	*Folder
	set          *Set
	sums         map[string]string // digests of the packaged files; nil: unknown
	variantsHash hash.Hash         // of the variants' names and digests
}

// core checks the libraries of [Core].
func (c *checking) core(ctx context.Context) error {
	for _, library := range Core() {
		packagedName := File(library)
		if _, direct := c.sums[packagedName]; !direct {
			packagedName = versioned(library, c.Version)
		}
		present, err := c.check(ctx, File(library), packagedName)
		if err != nil {
			return err
		}
		if !present {
			return fmt.Errorf("llama.cpp's library %s is missing in %s: %s", File(library), c.Path, Mend)
		}
		if c.set.Verified { // the libraries refer to each other by the versioned name
			if _, err := c.check(ctx, packagedName, packagedName); err != nil {
				return err
			}
		}
	}
	return nil
}

// optional checks a library that not every engine needs, and reports whether it is present. In a
// verified folder, a library that is not in the package counts as absent.
func (c *checking) optional(ctx context.Context, file string) (present bool, err error) {
	if _, known := c.sums[file]; c.set.Verified && !known {
		return false, nil
	}
	return c.check(ctx, file, file)
}

// check checks a file and reports whether it is present. In a verified folder, a missing file is an
// error, and the file must have the digest that the package lists under the name packagedName.
func (c *checking) check(ctx context.Context, file, packagedName string) (present bool, err error) {
	digest, err := c.digest(ctx, file)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !c.set.Verified:
		return false, nil
	case errors.Is(err, fs.ErrNotExist):
		return false, fmt.Errorf("llama.cpp's library %s is missing in %s: run \"make engine\"", file, c.Path)
	case err != nil:
		return false, fmt.Errorf("llama.cpp's libraries: %w", err) // names the file
	case c.set.Verified && digest != c.sums[packagedName]:
		return false, fmt.Errorf("llama.cpp's library %s is not the packaged one (its SHA-256 is %s, not %s): run \"make engine\"", filepath.Join(c.Path, file), digest, c.sums[packagedName])
	}
	if _, ok := VariantOf(file); ok {
		fmt.Fprintf(c.variantsHash, "%s  %s\n", digest, file)
	}
	return true, nil
}

// digest checks a file of the folder, following links, and returns its SHA-256. It opens the file
// once, and checks and hashes that descriptor.
func (f *Folder) digest(ctx context.Context, name string) (string, error) {
	path := filepath.Join(f.Path, name)
	if err := trust.Path(path); err != nil {
		return "", err
	}
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	if err := trust.File(file); err != nil {
		return "", err
	}
	info, err := file.Stat()
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is not a regular file", path)
	}
	if s, ok := f.digests[name]; ok && os.SameFile(s.info, info) && s.info.Size() == info.Size() &&
		s.info.ModTime().Equal(info.ModTime()) && s.changed.Equal(changeTime(info)) {
		return s.digest, nil
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, contextReader{ctx, file}); err != nil {
		return "", err
	}
	if f.digests == nil {
		f.digests = make(map[string]hashedFile)
	}
	s := hashedFile{info: info, changed: changeTime(info), digest: hex.EncodeToString(sum.Sum(nil))}
	f.digests[name] = s
	return s.digest, nil
}

// A contextReader reads from r until its context ends, and then fails with the cause.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.Read(p)
}

// ErrNoVariant is the error of [Set.Backends] if no CPU variant is left.
var ErrNoVariant = errors.New("every CPU variant ended with an illegal instruction")

// Backends returns the files of the backends that an engine loads: all accelerators, then the CPU
// variants, of which the engine takes the first that supports the processor. The variants in avoid are
// left out. If the folder has variants, but none remains, the error wraps [ErrNoVariant].
func (s *Set) Backends(avoid []string) ([]string, error) {
	files := slices.Clone(s.files)
	left := Remaining(s.cpu, avoid)
	if len(left) == 0 && len(s.cpu) > 0 {
		return nil, fmt.Errorf("%w: %s, in %s", ErrNoVariant, strings.Join(s.cpu, ", "), s.folder)
	}
	for _, name := range left {
		files = append(files, variantFile(name))
	}
	return files, nil
}

// Lower returns the variant that an engine tries after the variant name, without those in avoid. It
// returns "" if there is none, or if the set has no variant of that name.
func (s *Set) Lower(name string, avoid []string) string {
	i := slices.Index(s.cpu, name)
	if i < 0 {
		return ""
	}
	return cmp.Or(append(Remaining(s.cpu[i+1:], avoid), "")...)
}

// Present returns the files of the backends of a folder, as [Set.Backends] does, without a check
// of owners and digests.
func Present(dir string) (files []string) {
	var names []string
	for _, name := range accelerators {
		names = append(names, File("ggml-"+name))
	}
	for _, v := range Variants(runtime.GOARCH) {
		names = append(names, variantFile(v))
	}
	return slices.DeleteFunc(names, func(name string) bool {
		_, err := os.Stat(filepath.Join(dir, name))
		return err != nil
	})
}
