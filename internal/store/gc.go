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

// Minimum ages of files that GC removes.
const (
	gcBlobAge       = time.Hour          // a writer may be about to write its manifest
	gcIngestAge     = 7 * 24 * time.Hour // a process may resume it
	gcQuarantineAge = 7 * 24 * time.Hour // an operator may want to inspect it
)

// GCOptions are the options of a collection.
type GCOptions struct {
	Spare  func(digest string) bool // reports whether a blob without a manifest is kept; may be nil
	DryRun bool                     // remove nothing, and only report
	Now    time.Time                // zero means now
}

// A Removed is a file or folder that was removed, or would be in a dry run.
type Removed struct {
	Path string
	What string // the kind of file, for reports
	Size int64  // bytes
}

// GC removes blobs that no manifest names and temporary files of killed processes, once they are an
// hour old, and unfinished ingests, unfinished imports and quarantined content, once they are a week
// old. Blobs in use are kept. If a manifest cannot be read, all blobs are kept, because it may name
// any of them. problems lists the manifests and folders that cannot be read. If a file cannot be
// removed, GC goes on with the others; the error names each such file.
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
	for _, step := range []func() error{c.collectShards, c.collectQuarantine, func() error { return c.collectTemps(manifestsDir) }, c.collectImports} {
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
	// blocked means that no blob may be removed, because some manifest cannot be read.
	blocked  bool
	removed  []Removed
	problems []Problem
	failed   []error // one for each file that could not be removed
}

// skip records the error of one file and returns nil, so that the collection continues. The error
// of a read-only disk is returned instead, because every other file would fail, too.
func (c *collection) skip(err error) error {
	if err == nil || errors.Is(err, syscall.EROFS) {
		return err
	}
	c.failed = append(c.failed, err)
	return nil
}

// damaged reports whether a manifest cannot be read, and adds each such manifest to the problems.
func (c *collection) damaged() (bool, error) {
	_, problems, err := c.disk.manifests()
	for _, p := range problems {
		c.problems = append(c.problems, Problem{p.Path, p.What + ": no blobs are removed, because this manifest may name them; remove it first (inferdctl rm)"})
	}
	return len(problems) > 0, err
}

// collectShards removes the blobs and ingests that are not needed. A shard is the folder of all digests
// with the same first two digits.
func (c *collection) collectShards() error {
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
			if err := c.skip(c.collectShard(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// collectShard removes the blob or the ingest in the folder leaf of the shard dir if it is not needed.
func (c *collection) collectShard(dir, leaf string) error {
	ref, partial := strings.CutPrefix(leaf, partialPrefix)
	if !isDigest(ref) {
		return nil // not a file of the store
	}
	if !partial {
		return c.collectBlob(ref)
	}
	u := c.disk.unfinished(path.Join(dir, leaf), ref)
	age := gcIngestAge
	if u.allocated == 0 && u.Done == 0 { // an empty folder that a commit has left
		age = gcBlobAge
	}
	if c.Now.Sub(u.Touched) < age {
		return nil
	}
	return c.withLock(ref, func() error {
		return c.remove(u.dir, "unfinished ingest", u.allocated, func() error { return c.disk.removeDir(u.dir) })
	})
}

// collectBlob removes a blob that no manifest names. It reads the manifests again once it holds the lock,
// since writers of manifests also hold that lock.
func (c *collection) collectBlob(digest string) error {
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
	return c.withLock(digest, func() error {
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

// withLock calls act while it holds the lock of a blob or an ingest. If another process holds the
// lock, withLock does nothing. A dry run does not take the lock, but only checks it.
func (c *collection) withLock(ref string, act func() error) error {
	if c.DryRun {
		if _, used := c.disk.inUse(ref); used || c.disk.isHeld(ref) {
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

// collectQuarantine removes old quarantined content and its records.
func (c *collection) collectQuarantine() error {
	return c.removeOld(quarantineDir, "quarantined content", gcQuarantineAge, func(string) bool { return true })
}

// collectTemps removes temporary files of processes that were killed.
func (c *collection) collectTemps(dir string) error {
	return c.removeOld(dir, "temporary file", gcBlobAge, func(leaf string) bool { return strings.HasPrefix(leaf, ".") })
}

// collectImports removes unfinished imports of the reference implementation.
func (c *collection) collectImports() error {
	return c.removeOld(locksDir, "unfinished import", gcIngestAge, func(leaf string) bool { return strings.HasPrefix(leaf, ".import-") })
}

// removeOld removes the files of a folder that match and were not written to for at least age.
func (c *collection) removeOld(dir, what string, age time.Duration, match func(leaf string) bool) error {
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

// namesOf returns the sorted names of the models with the blob in their manifests. It skips
// manifests that cannot be used.
func (d *disk) namesOf(digest string) ([]string, error) {
	manifests, _, err := d.manifests()
	if err != nil {
		return nil, err
	}
	var names []string
	for name, m := range manifests {
		if slices.ContainsFunc(m.allBlobs(), func(p Part) bool { return p.Blob == digestPrefix+digest }) {
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
