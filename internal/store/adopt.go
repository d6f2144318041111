package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
)

// An Adoption describes files of another tool that become a model of the store without a copy. Name,
// Source, Asked and ProducedBy are members of the manifest.
type Adoption struct {
	Name       string
	Files      []AdoptedFile // the only file, or the parts in order
	Source     Source
	Asked      []string
	ProducedBy string
}

// An AdoptedFile is a file of another tool. It is never written to.
type AdoptedFile struct {
	Path   string // absolute, without symbolic links
	SHA256 string // the digest that the tool states; empty if it states none
}

// A Method is the way in which a file was adopted.
type Method string

// The ways of adoption, best first. A clone and a hard link keep the content if the tool removes
// its file; only a clone also keeps it if the tool writes to that file.
const (
	Present    Method = "the blob in the store"
	Cloned     Method = "reflink"
	Linked     Method = "hard link"
	Referred   Method = "reference"
	notAdopted Method = ""
)

// An Adopted is the result of an adoption.
type Adopted struct {
	Manifest *Manifest
	Method   Method // how the first file was adopted
	Warning  string // why the model may not be loadable; empty if there is no reason
}

// A ClaimError means that a file does not have the digest that its tool claims.
type ClaimError struct{ Path, Claimed, Actual string }

func (e *ClaimError) Error() string {
	return fmt.Sprintf("%s has SHA-256 %s, not %s as its name or its manifest says: it is not adopted", e.Path, e.Actual, e.Claimed)
}

// Adopt makes files of another tool a model of the store. Each file is hashed, unless its digest is
// known, and refused if the tool claims another digest. Then it is cloned by the file system,
// hard-linked, or else referred to by the manifest: content is never copied. Adopting a model that
// is already in the store adds its Asked names to the manifest. If the name belongs to a model with
// other digests, the error is a [TakenError].
func (s *Store) Adopt(ctx context.Context, a Adoption) (*Adopted, error) {
	if err := CheckName(a.Name); err != nil {
		return nil, err
	}
	if len(a.Files) == 0 || len(a.Files) > maxParts {
		return nil, fmt.Errorf("adopt %s: %d files, want 1 to %d", a.Name, len(a.Files), maxParts)
	}
	lock, err := s.LockName(a.Name)
	if err != nil {
		return nil, err
	}
	defer lock.Release()
	old, err := s.Manifest(a.Name)
	if err != nil {
		old = nil
	}
	m := &Manifest{Name: a.Name, Source: a.Source, Asked: a.Asked, ProducedBy: a.ProducedBy}
	result := &Adopted{Manifest: m}
	for n, file := range a.Files {
		f, info, digest, err := s.openClaimed(ctx, file)
		if err != nil {
			return nil, fmt.Errorf("adopt %s: %w", a.Name, err)
		}
		part := Part{Blob: digestPrefix + digest, Size: info.Size()}
		method := notAdopted
		switch {
		case old != nil && (len(old.Blobs()) != len(a.Files) || old.Blobs()[n].Blob != part.Blob):
			err = &TakenError{a.Name, old.Digest()}
		default:
			if n == 0 {
				m.GGUF, result.Warning = headerOf(f, len(a.Files))
			}
			method, err = s.adopt(ctx, f, info, &part)
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("adopt %s: %w", a.Name, err)
		}
		if n == 0 {
			m.Blob, m.Size, m.Refers, result.Method = part.Blob, part.Size, part.Refers, method
		}
		if len(a.Files) > 1 {
			m.Parts = append(m.Parts, part)
		}
	}
	if old != nil {
		m = merge(old, m)
		result.Manifest = m
	}
	return result, s.PutManifest(m, false)
}

// merge returns old with the Asked names of m added and with the references of m. If old has no
// header, it gets that of m. Both manifests have the same blobs, but m may refer to other paths.
func merge(old, m *Manifest) *Manifest {
	merged := *old
	for _, name := range m.Asked {
		if !slices.Contains(merged.Asked, name) {
			merged.Asked = append(merged.Asked, name)
		}
	}
	merged.Refers, merged.Parts = m.Refers, m.Parts
	if merged.GGUF == nil {
		merged.GGUF = m.GGUF
	}
	return &merged
}

// openDirect opens a regular file by an absolute path. It returns an error if the path leads through
// a symbolic link, or if the file is replaced meanwhile.
func openDirect(file string) (*os.File, os.FileInfo, error) {
	f, info, err := openRegular(file)
	if err != nil {
		return nil, nil, err
	}
	target, err := filepath.EvalSymlinks(file)
	if err == nil && target != file {
		err = fmt.Errorf("%s leads through a symbolic link to %s: it is not adopted", file, target)
	}
	if err == nil {
		var present os.FileInfo
		if present, err = os.Lstat(file); err == nil && !os.SameFile(present, info) {
			err = fmt.Errorf("%s was replaced while it was opened", file)
		}
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, info, nil
}

// openClaimed opens a file and returns it with its state and its digest. If the tool states another
// digest, the error is a [ClaimError].
func (s *Store) openClaimed(ctx context.Context, file AdoptedFile) (*os.File, os.FileInfo, string, error) {
	target, err := filepath.Abs(file.Path)
	if err != nil {
		return nil, nil, "", err
	}
	f, info, err := openDirect(target)
	if err != nil {
		return nil, nil, "", err
	}
	digest, err := s.digestOf(ctx, f, info, target, file.SHA256, nil)
	if err == nil && file.SHA256 != "" && digest != file.SHA256 {
		err = &ClaimError{target, file.SHA256, digest}
	}
	if err != nil {
		return nil, nil, "", errors.Join(err, f.Close())
	}
	return f, info, digest, nil
}

// adopt brings the content of an open file into the store without a copy. If it can only refer to
// the file, it sets part.Refers.
func (s *Store) adopt(ctx context.Context, f *os.File, info os.FileInfo, part *Part) (Method, error) {
	digest := part.Blob[len(digestPrefix):]
	present, err := s.Have(ctx, digest, nil)
	if err != nil {
		return notAdopted, err
	}
	if present {
		return Present, nil
	}
	d, err := s.open(true)
	if err != nil {
		return notAdopted, err
	}
	s.releaseUse(digest)
	lock, err := s.lockBlob(d, digest, false)
	if err != nil {
		return notAdopted, err
	}
	defer lock.Release()
	// Another process may have held the lock and committed the blob.
	if present, _, err := s.check(ctx, d, digest, true, nil); err != nil {
		return notAdopted, err
	} else if present {
		return Present, nil
	}
	before := identityOf(info)
	for _, attempt := range []struct {
		method Method
		do     func(*os.File, os.FileInfo, string) (bool, error)
	}{{Cloned, d.clone}, {Linked, d.link}} {
		done, err := attempt.do(f, info, digest)
		if err != nil {
			return notAdopted, s.unwritable(err)
		}
		if done {
			return attempt.method, s.rememberAdopted(d, f, before, digest, attempt.method)
		}
	}
	if err := unchanged(f, before); err != nil {
		return notAdopted, err
	}
	part.Refers = &Refers{f.Name(), before}
	return Referred, nil
}

// unchanged returns an error if the identity of a file differs from before.
func unchanged(f *os.File, before Identity) error {
	now, err := f.Stat()
	if err == nil && identityOf(now) != before {
		err = fmt.Errorf("%s was changed while it was adopted", f.Name())
	}
	return err
}

// rememberAdopted records the digest of a new blob, and of the tool's file f, as verified. If the
// content has changed since it was hashed, it removes the blob and returns an error.
func (s *Store) rememberAdopted(d *disk, f *os.File, before Identity, digest string, method Method) error {
	now, err := f.Stat()
	if err != nil {
		return err
	}
	source := identityOf(now)
	if method == Linked { // making the link changed ctime; link compared it before
		source.CTime = before.CTime
	}
	if source != before {
		return errors.Join(fmt.Errorf("%s was changed while it was adopted", f.Name()), d.removeBlob(digest))
	}
	info, err := d.root.Stat(blobPath(digest))
	if err != nil {
		return d.full(err)
	}
	persistent := s.isPersistent(keyOf(before, f.Name()))
	s.remember(identityOf(info), digest, persistent)
	s.rememberKey(keyOf(identityOf(now), f.Name()), digest, persistent)
	return nil
}

// clone makes a blob that shares the blocks of a file. It reports false if the file system does
// not support that.
func (d *disk) clone(f *os.File, _ os.FileInfo, digest string) (done bool, err error) {
	dir := partialDir(digest)
	if _, err := d.root.Lstat(dir); err == nil { // an unfinished ingest, no longer needed
		if err := d.removeDir(dir); err != nil {
			return false, err
		}
	}
	if err := d.mkdirAll(dir); err != nil {
		return false, err
	}
	temp := path.Join(dir, tempLeaf)
	to, err := d.create(temp, sharedFileMode)
	if err != nil {
		return false, err
	}
	err = d.do(Op{Kind: OpClone, Path: temp}, func() error {
		done, err = cloneFile(to, f)
		return err
	})
	if err == nil && done {
		err = d.sync(to, temp)
	}
	if err := errors.Join(err, to.Close()); err != nil || !done {
		return false, errors.Join(err, d.removeDir(dir))
	}
	if err := d.mkdirAll(blobDir(digest)); err != nil {
		return false, err
	}
	if err := d.rename(temp, blobPath(digest)); err != nil {
		return false, err
	}
	return true, errors.Join(d.chmod(blobPath(digest), blobMode), d.syncDir(blobDir(digest)), d.removeDir(dir))
}

// link makes a blob that is a hard link to a file. It reports false if linking is not possible, if
// the file belongs to another user, or if other users of a shared store cannot read the file: a hard
// link has the mode of the file.
func (d *disk) link(f *os.File, info fs.FileInfo, digest string) (done bool, err error) {
	if !linksOpenFiles || !isOwn(info) || d.shared && info.Mode()&0o004 == 0 {
		return false, nil
	}
	if err := d.do(Op{Kind: OpSync, Path: blobPath(digest)}, f.Sync); err != nil { // the tool may not have synced it
		return false, err
	}
	if err := d.mkdirAll(blobDir(digest)); err != nil {
		return false, err
	}
	err = d.do(Op{Kind: OpLink, Path: blobPath(digest)}, func() error {
		if err := unchanged(f, identityOf(info)); err != nil {
			return err
		}
		done, err = linkFile(d.root, f, blobDir(digest), dataLeaf)
		return err
	})
	if err != nil || !done {
		return false, errors.Join(err, d.remove(blobDir(digest)))
	}
	return true, d.syncDir(blobDir(digest))
}
