package store

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Ages from which on files are collected.
const (
	gcBlobAge       = time.Hour          // its manifest may be about to be written
	gcIngestAge     = 7 * 24 * time.Hour // it may be resumed
	gcQuarantineAge = 7 * 24 * time.Hour // an operator may want to look at it
)

// GCOptions are the options of a collection.
type GCOptions struct {
	Spare  func(digest string) bool // reports digests that are needed without a manifest; may be nil
	DryRun bool                     // removes nothing
	Now    time.Time                // zero means the present
}

// A Removed is something that was removed, or would be.
type Removed struct {
	Path string
	What string
	Size int64 // bytes
}

// GC removes unneeded files: blobs that no manifest names, older than an hour; unfinished
// ingests and quarantined content older than a week; and rests of processes that were killed.
// Blobs in use stay. If a manifest cannot be read all blobs stay, for it may name them:
// the problems say so. A file that cannot be removed does not keep the others from it: the error
// names all of those.
func (s *Store) GC(ctx context.Context, o GCOptions) (removed []Removed, problems []Problem, err error) {
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	d, err := s.open(false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err == nil && !o.DryRun {
		d, err = s.open(true)
	}
	if err != nil {
		return nil, nil, err
	}
	c := &collection{GCOptions: o, store: s, disk: d}
	if c.blocked, err = c.damaged(); err != nil {
		return nil, nil, err
	}
	for _, step := range []func() error{c.shards, c.quarantine, func() error { return c.temps(manifestsDir) }, c.imports} {
		if ctx.Err() != nil {
			return c.removed, c.problems, context.Cause(ctx)
		}
		if err := step(); err != nil {
			return c.removed, c.problems, s.unwritable(errors.Join(append(c.failed, err)...))
		}
	}
	if err := errors.Join(c.failed...); err != nil {
		return c.removed, c.problems, s.unwritable(err)
	}
	return c.removed, c.problems, nil
}

// A collection is one run of GC.
type collection struct {
	GCOptions
	store *Store
	disk  *disk
	// blocked says that blobs must stay: a manifest cannot be read.
	blocked  bool
	removed  []Removed
	problems []Problem
	failed   []error // of files that stay, though they are unneeded
}

// skip notes the failure of one file, so that the collection goes on. It returns a failure that
// all files share.
func (c *collection) skip(err error) error {
	if err == nil || errors.Is(err, syscall.EROFS) {
		return err
	}
	c.failed = append(c.failed, err)
	return nil
}

// damaged reports whether a manifest cannot be read.
func (c *collection) damaged() (bool, error) {
	_, problems, err := c.disk.manifests()
	for _, p := range problems {
		c.problems = append(c.problems, Problem{p.Path, p.What + ": no blobs are removed, for it may name one; remove it first (inferdctl rm)"})
	}
	return len(problems) > 0, err
}

// shards looks at the folders of blobs.
func (c *collection) shards() error {
	shards, err := c.disk.readDir(blobsDir)
	if err != nil {
		return err
	}
	for _, shard := range shards {
		dir := path.Join(blobsDir, shard.Name())
		entries, err := c.disk.readDir(dir)
		if err != nil {
			c.problems = append(c.problems, Problem{c.disk.path(dir), err.Error()})
			continue
		}
		for _, e := range entries {
			if err := c.skip(c.shard(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// shard looks at a blob or an ingest.
func (c *collection) shard(dir, leaf string) error {
	ref, partial := strings.CutPrefix(leaf, partialPrefix)
	if !isDigest(ref) {
		return nil // nothing of ours
	}
	if !partial {
		return c.blob(ref)
	}
	u := c.disk.unfinished(path.Join(dir, leaf), ref)
	age := gcIngestAge
	if u.allocated == 0 && u.Done == 0 { // the rest of a commit
		age = gcBlobAge
	}
	if c.Now.Sub(u.Touched) < age {
		return nil
	}
	return c.locked(ref, func() error {
		return c.remove(u.dir, "unfinished ingest", u.allocated, func() error { return c.disk.removeDir(u.dir) })
	})
}

// blob removes a blob that no manifest names. Manifests are read again with the lock: a new one
// is written under it.
func (c *collection) blob(digest string) error {
	if c.blocked || c.Spare != nil && c.Spare(digest) {
		return nil
	}
	info, err := c.disk.root.Lstat(blobPath(digest))
	if err != nil {
		if info, err = c.disk.root.Lstat(blobDir(digest)); err != nil {
			return nil //nolint:nilerr // it was removed meanwhile
		}
	}
	if c.Now.Sub(info.ModTime()) < gcBlobAge {
		return nil
	}
	names, err := c.disk.namesOf(digest)
	if err != nil || len(names) > 0 {
		return err
	}
	return c.locked(digest, func() error {
		names, err := c.disk.namesOf(digest)
		if err != nil || len(names) > 0 {
			return err
		}
		size := int64(0)
		if info.Mode().IsRegular() {
			size = info.Size()
		}
		return c.remove(blobPath(digest), "blob without a manifest", size, func() error { return c.disk.removeBlob(digest) })
	})
}

// locked acts with the lock of a blob or an ingest, or not at all if a process has it.
func (c *collection) locked(ref string, act func() error) error {
	if c.DryRun {
		if _, used := c.disk.user(ref); used || c.disk.isHeld(ref) {
			return nil
		}
		return act()
	}
	lock, err := c.store.lockBlob(c.disk, ref, false)
	if _, busy := errors.AsType[*BusyError](err); busy {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Release()
	if err := act(); err != nil {
		return err
	}
	if _, err := c.disk.root.Lstat(blobDir(ref)); errors.Is(err, fs.ErrNotExist) {
		c.disk.removeLock(ref)
	}
	return nil
}

func (c *collection) remove(name, what string, size int64, act func() error) error {
	if !c.DryRun {
		if err := act(); err != nil {
			return err
		}
	}
	c.removed = append(c.removed, Removed{c.disk.path(name), what, size})
	return nil
}

// quarantine removes old content with a wrong digest, and the memory of it.
func (c *collection) quarantine() error {
	return c.old(quarantineDir, "quarantined content", gcQuarantineAge, func(string) bool { return true })
}

// temps removes temporary files of processes that were killed.
func (c *collection) temps(dir string) error {
	return c.old(dir, "temporary file", gcBlobAge, func(leaf string) bool { return strings.HasPrefix(leaf, ".") })
}

// imports removes leftovers of the reference's imports.
func (c *collection) imports() error {
	return c.old(locksDir, "unfinished import", gcIngestAge, func(leaf string) bool { return strings.HasPrefix(leaf, ".import-") })
}

// old removes files of a folder that have not been written to for that time.
func (c *collection) old(dir, what string, age time.Duration, match func(leaf string) bool) error {
	entries, err := c.disk.readDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() || !match(e.Name()) || c.Now.Sub(info.ModTime()) < age {
			continue
		}
		name := path.Join(dir, e.Name())
		if err := c.skip(c.remove(name, what, info.Size(), func() error { return c.disk.remove(name) })); err != nil {
			return err
		}
	}
	return nil
}

// namesOf returns the names of manifests that name a blob.
func (d *disk) namesOf(digest string) ([]string, error) {
	manifests, _, err := d.manifests()
	if err != nil {
		return nil, err
	}
	var names []string
	for name, m := range manifests {
		if slices.ContainsFunc(m.all(), func(p Part) bool { return p.Blob == digestPrefix+digest }) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// removeBlob removes a blob and its folder.
func (d *disk) removeBlob(digest string) error {
	if err := d.removeDir(blobDir(digest)); err != nil {
		return err
	}
	return d.syncDir(path.Dir(blobDir(digest)))
}
