package store

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/inferd-go/inferd/internal/gguf"
	"github.com/inferd-go/inferd/internal/printable"
)

// An Import describes a model to import.
type Import struct {
	Path       string // the file; of a split model, the first part
	Name       string // empty means [NameOf] the file
	SHA256     string // expected digest of a model of one file; empty means any
	ProducedBy string // program and version, for the manifest
}

// An Imported is the result of an import.
type Imported struct {
	Manifest *Manifest
	Path     string // path of the blob, or of the blob of the first part
	Warning  string // why the model may not be loadable; empty if there is no reason
}

// localImport is the registry in the manifests of imported models.
const localImport = "local-import"

// Import copies a file of this machine, or all parts of a split model, into the store under a name.
// Each copy is read back and compared with the file, which is not changed. Content that the store
// already has is not copied again. If the name belongs to a model with other digests, the error is a
// [TakenError]. After an error the store is as it was before. progress, which may be nil, gets the
// number of copied bytes and the total, both over all parts.
func (s *Store) Import(ctx context.Context, im Import, progress func(done, total int64)) (*Imported, error) {
	im, err := im.check()
	if err != nil {
		return nil, err
	}
	files, err := s.openParts(ctx, im.Path)
	if err != nil {
		return nil, err
	}
	defer files.Close()
	if im.SHA256 != "" && len(files.Files) > 1 {
		return nil, fmt.Errorf("%s has %d parts: a digest can be expected of a single file only", im.Path, len(files.Files))
	}
	lock, err := s.LockName(im.Name)
	if err != nil {
		return nil, err
	}
	defer lock.Release()
	c := &copying{store: s, progress: progress, name: im.Name}
	if c.total, err = sizeOfAll(files.Files); err != nil {
		return nil, err
	}
	// Refuse a name that belongs to another model before any byte is copied.
	old, err := s.Manifest(im.Name)
	if err != nil {
		old = nil
	}
	if old != nil && (im.SHA256 != "" && im.SHA256 != old.Digest() || len(old.Blobs()) != len(files.Files)) {
		return nil, &TakenError{im.Name, old.Digest()}
	}
	blobs, err := c.copyFiles(ctx, files.Files, old, im)
	if err != nil {
		return nil, c.undo(err)
	}
	m := manifestOf(im, blobs)
	result := &Imported{Manifest: m, Path: blobs[0].Path}
	m.GGUF, result.Warning = headerOf(files.Files[0], len(files.Files))
	if old != nil { // it has the same blobs, and possibly more members
		result.Manifest = old
		return result, nil
	}
	if err := s.PutManifest(m, false); err != nil {
		return nil, c.undo(err)
	}
	return result, nil
}

func sizeOfAll(files []*os.File) (total int64, err error) {
	for _, f := range files {
		info, err := f.Stat()
		if err != nil {
			return 0, err
		}
		total += info.Size()
	}
	return total, nil
}

// manifestOf returns the manifest of an imported model.
func manifestOf(im Import, blobs []Blob) *Manifest {
	m := &Manifest{
		Name: im.Name, ProducedBy: im.ProducedBy,
		Blob: digestPrefix + blobs[0].Digest, Size: blobs[0].Size,
		Source: Source{Registry: localImport, Filename: filepath.Base(im.Path)},
	}
	for _, b := range blobs {
		if len(blobs) > 1 {
			m.Parts = append(m.Parts, Part{Blob: digestPrefix + b.Digest, Size: b.Size})
		}
	}
	return m
}

// check returns the import with defaults filled in, or an error if a field is not valid.
func (im Import) check() (Import, error) {
	var err error
	if im.Name == "" {
		if im.Name, err = NameOf(im.Path); err != nil {
			return im, fmt.Errorf("%w: name it with --name", err)
		}
	}
	if err := CheckName(im.Name); err != nil {
		return im, err
	}
	if im.SHA256 != "" {
		if im.SHA256, err = ParseDigest(im.SHA256); err != nil {
			return im, err
		}
	}
	im.Path, err = filepath.Abs(im.Path)
	return im, err
}

// openParts opens a model of one file, or all parts of a split model, given the path of its first
// part. The path of another part is an error.
func (s *Store) openParts(ctx context.Context, path string) (*Model, error) {
	stem := filepath.Base(path)
	if match := anyPart.FindStringSubmatch(stem[:len(stem)-len(filepath.Ext(stem))]); match != nil && match[2] != "00001" {
		return nil, fmt.Errorf("%s is a part of a split model: name its first part, %s-00001-of-%s%s", path, match[1], match[3], filepath.Ext(stem))
	}
	return s.openFiles(ctx, path)
}

// headerOf reads the header of the first file of a model, for the manifest. parts is the number of
// its files. If the header cannot be read, or states another number of parts, headerOf returns a
// warning, not an error: other programs may be able to use the file.
func headerOf(f *os.File, parts int) (*Header, string) {
	info, err := f.Stat()
	if err != nil {
		return nil, err.Error()
	}
	h, err := gguf.ReadHeader(f, info.Size())
	if err != nil {
		return nil, fmt.Sprintf("%s cannot be loaded as a model: %v", f.Name(), err)
	}
	warning := ""
	switch {
	case h.SplitCount <= 1 && parts > 1:
		warning = fmt.Sprintf("by its header %s is a whole model, but it was given as one of %d parts: these files are not one model", f.Name(), parts)
	case h.SplitCount > 1 && h.SplitCount != uint64(parts):
		warning = fmt.Sprintf("by its header %s is one of %d parts: the model cannot be loaded without the others", f.Name(), h.SplitCount)
	}
	return &Header{printable.Text(h.Arch), h.Quant, clampInt(h.NCtx), clampInt(h.NVocab)}, warning
}

// clampInt limits a number of an untrusted header to 2^53, up to which JSON readers are exact.
func clampInt(n uint64) int64 { return int64(min(n, 1<<53)) }

// copying is the state of one import.
type copying struct {
	store       *Store
	name        string
	progress    func(done, total int64)
	done, total int64
	blobs       []string // digests of the blobs that this import has added
}

// copyFiles makes a blob of each file. old is the current manifest of the name, or nil; a file with
// another digest than its blob in old is refused.
func (c *copying) copyFiles(ctx context.Context, files []*os.File, old *Manifest, im Import) ([]Blob, error) {
	var blobs []Blob
	for n, f := range files {
		taken := ""
		if old != nil {
			taken = old.Blobs()[n].Blob[len(digestPrefix):]
		}
		blob, err := c.copyFile(ctx, f, taken, im)
		if err == nil && old != nil && blob.Digest != taken {
			err = &TakenError{im.Name, old.Digest()}
		}
		if err != nil {
			return nil, err
		}
		blobs = append(blobs, blob)
	}
	return blobs, nil
}

// copyFile makes a blob of a file, unless the store has it already. taken is the digest of the blob
// that the name has now, or empty; a file with another digest is not copied.
func (c *copying) copyFile(ctx context.Context, f *os.File, taken string, im Import) (Blob, error) {
	info, err := f.Stat()
	if err != nil {
		return Blob{}, err
	}
	_, known := c.store.knownDigest(keyOf(identityOf(info), f.Name()))
	if taken != "" || im.SHA256 != "" || known { // otherwise the digest is computed during the copy
		digest, err := c.store.digestOf(ctx, f, info, f.Name(), cmp.Or(im.SHA256, taken), nil)
		if err != nil {
			return Blob{}, err
		}
		if im.SHA256 != "" && digest != im.SHA256 {
			return Blob{}, mismatchOf(im.SHA256, digest)
		}
		d, err := c.store.open(true)
		if err != nil {
			return Blob{}, err
		}
		if present, err := c.store.Have(ctx, digest, nil); err != nil {
			return Blob{}, err
		} else if present {
			c.report(info.Size())
			return Blob{digest, info.Size(), d.path(blobPath(digest))}, nil
		}
		if taken != "" && digest != taken {
			return Blob{Digest: digest, Size: info.Size()}, nil
		}
	}
	return c.ingestFile(ctx, f, info, im)
}

func mismatchOf(want, got string) error {
	return fmt.Errorf("SHA-256 mismatch: expected %s, file is %s (nothing imported)", want, got)
}

// ingestFile copies a file to an ingest, which reads the copy back and hashes it.
func (c *copying) ingestFile(ctx context.Context, f *os.File, info fs.FileInfo, im Import) (blob Blob, err error) {
	in, err := c.store.Begin(Want{SHA256: im.SHA256, Name: c.name, Upstream: Upstream{URL: "file:" + f.Name()}})
	if _, present := errors.AsType[*PresentError](err); present {
		return c.copyFile(ctx, f, im.SHA256, im) // another process has committed it
	}
	if err != nil {
		return Blob{}, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, in.Discard())
			return
		}
		err = in.Close()
	}()
	// Drop the bytes of an earlier import: the file may have changed since, and must be read again
	// anyway.
	if err := in.Reset(Upstream{URL: "file:" + f.Name(), Total: info.Size()}); err != nil {
		return Blob{}, err
	}
	if err := in.Reserve(); err != nil {
		return Blob{}, err
	}
	h, fresh := sha256.New(), identityOf(info).isFresh(time.Now())
	if err := c.stream(ctx, in, io.NewSectionReader(f, 0, info.Size()), h); err != nil {
		return Blob{}, err
	}
	synced := syncRead(f) == nil
	if now, err := f.Stat(); err != nil || identityOf(now) != identityOf(info) {
		return Blob{}, errors.Join(fmt.Errorf("%s was changed while it was copied (nothing imported)", f.Name()), err)
	}
	digest := hex.EncodeToString(h.Sum(nil))
	if im.SHA256 != "" && digest != im.SHA256 {
		return Blob{}, mismatchOf(im.SHA256, digest)
	}
	present, err := c.store.exists(digest)
	if err != nil {
		return Blob{}, err
	}
	blob, err = in.Commit(ctx)
	switch mismatch, ok := errors.AsType[*MismatchError](err); {
	case ok:
		return Blob{}, fmt.Errorf("copy verification failed: the copy has SHA-256 %s, the file %s (nothing imported)", mismatch.Actual, digest)
	case err != nil:
		return Blob{}, err
	}
	if !present {
		c.blobs = append(c.blobs, blob.Digest)
	}
	if blob.Digest != digest {
		return Blob{}, fmt.Errorf("copy verification failed: the copy has SHA-256 %s, the file %s (nothing imported)", blob.Digest, digest)
	}
	c.store.rememberKey(keyOf(identityOf(info), f.Name()), digest, synced && !fresh)
	return blob, nil
}

// copyChunk is the size of one read in bytes.
const copyChunk = 1 << 20

// stream copies all bytes to the ingest, and hashes one chunk while it reads the next.
func (c *copying) stream(ctx context.Context, in *Ingest, from io.Reader, h hash.Hash) error {
	buffers := [2][]byte{make([]byte, copyChunk), make([]byte, copyChunk)}
	hashed := make(chan struct{}, 1)
	hashed <- struct{}{}
	defer func() { <-hashed }() // waits for the hash of the last chunk
	off := int64(0)
	for turn := 0; ; turn = 1 - turn {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := io.ReadFull(from, buffers[turn])
		chunk := buffers[turn][:n]
		<-hashed // wait for the previous chunk: its buffer is free then, and the chunks stay in order
		go func() {
			h.Write(chunk)
			hashed <- struct{}{}
		}()
		if n > 0 {
			if _, err := in.WriteAt(chunk, off); err != nil {
				return err
			}
			off += int64(n)
			c.report(int64(n))
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return err
		}
	}
}

func (c *copying) report(n int64) {
	c.done += n
	if c.progress != nil {
		c.progress(c.done, c.total)
	}
}

// undo removes the blobs that this import has added, unless a manifest names them by now or a process
// uses them. It returns err, joined with the errors of the removals.
func (c *copying) undo(err error) error {
	for _, digest := range c.blobs {
		err = errors.Join(err, c.store.removeUnnamed(digest))
	}
	return err
}

// exists reports whether there is a file at the path of a blob.
func (s *Store) exists(digest string) (bool, error) {
	d, err := s.open(false)
	if err != nil {
		return false, err
	}
	_, err = d.root.Lstat(blobPath(digest))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// removeUnnamed removes a blob unless a manifest names it or a process uses it.
func (s *Store) removeUnnamed(digest string) error {
	d, err := s.open(true)
	if err != nil {
		return err
	}
	lock, err := s.lockBlob(d, digest, false)
	if _, busy := errors.AsType[*BusyError](err); busy {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Release()
	if names, err := d.namesOf(digest); err != nil || len(names) > 0 {
		return err
	}
	if err := d.removeBlob(digest); err != nil {
		return err
	}
	d.removeLock(digest)
	return nil
}
