package store

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
)

// An OpKind is a kind of change that the store makes on disk.
type OpKind string

// The kinds of changes. A rename replaces a file at its destination.
const (
	OpMkdir    OpKind = "mkdir"
	OpCreate   OpKind = "create" // a new file
	OpWrite    OpKind = "write"
	OpTruncate OpKind = "truncate"
	OpReserve  OpKind = "reserve" // blocks for a file, without a change of its size
	OpSync     OpKind = "sync"    // the content of a file
	OpSyncDir  OpKind = "sync folder"
	OpRename   OpKind = "rename"
	OpChmod    OpKind = "chmod"
	OpRemove   OpKind = "remove"
	OpClone    OpKind = "clone" // the content of a file, by the file system
	OpLink     OpKind = "link"  // a hard link to a file outside of the store
)

// An Op is a change that the store is about to make. A field after Path is zero if the kind does
// not use it.
type Op struct {
	Kind   OpKind
	Path   string // relative to the store's folder, with slashes
	To     string // the new path of a rename
	Offset int64  // the offset of a write
	Data   []byte // the bytes of a write; valid only during the call
	Size   int64  // the size of a truncate or a reserve
}

// A disk is the folder of a store. Every change goes through one of its methods, and through
// os.Root: a link that leads out of the folder is refused.
type disk struct {
	root   *os.Root
	before func(Op) error // as [Store.Before]; may be nil
	shared bool           // the folder belongs to a group of users

	lockFile func(f *os.File, shared bool) error // [filelock.File], or a replacement for tests

	mu sync.Mutex // held during each change if before is set, so that before sees the changes in order
}

// do calls before, if it is set, and then change. An error of before prevents the change.
func (d *disk) do(op Op, change func() error) error {
	if d.before != nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		if err := d.before(op); err != nil {
			return &fs.PathError{Op: string(op.Kind), Path: d.path(op.Path), Err: err}
		}
	}
	return d.full(change())
}

// full replaces the relative path in an error of os.Root by the absolute one.
func (d *disk) full(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok && !filepath.IsAbs(e.Path) {
		return &fs.PathError{Op: e.Op, Path: d.path(e.Path), Err: e.Err}
	}
	return err
}

// Modes of folders and files. In a shared store the group may write, and new entries belong to the
// group of the store. The state files of ingests have fileMode even there, so that the owner of a
// state file is always the user who wrote its content.
const (
	dirMode        fs.FileMode = 0o755
	sharedDirMode              = 0o775 | fs.ModeSetgid
	fileMode       fs.FileMode = 0o644
	sharedFileMode fs.FileMode = 0o664
	blobMode       fs.FileMode = 0o444
)

// mkdirAll makes a folder and its missing parents, and syncs the parent of each new folder.
func (d *disk) mkdirAll(dir string) error {
	if dir == "." {
		return nil
	}
	info, err := d.root.Stat(dir)
	switch {
	case err == nil && info.IsDir():
		return nil
	case err == nil:
		return fmt.Errorf("%s is not a folder", d.path(dir))
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := d.mkdirAll(path.Dir(dir)); err != nil {
		return err
	}
	err = d.do(Op{Kind: OpMkdir, Path: dir}, func() error { return d.root.Mkdir(dir, dirMode) })
	if errors.Is(err, fs.ErrExist) { // another process has created it
		return nil
	}
	if err != nil {
		return err
	}
	if d.shared { // the umask may have removed the group's permission
		if err := d.chmod(dir, sharedDirMode); err != nil {
			return err
		}
	}
	return d.syncDir(path.Dir(dir))
}

// create creates a file, which must not exist. Its mode is fileMode less the umask; in a shared
// store its mode is the parameter shared, whatever the umask.
func (d *disk) create(name string, shared fs.FileMode) (f *os.File, err error) {
	err = d.do(Op{Kind: OpCreate, Path: name}, func() error {
		f, err = d.root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, fileMode)
		return err
	})
	if err != nil {
		return nil, err
	}
	if d.shared {
		if err := d.chmod(name, shared); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return f, nil
}

// open opens a regular file. Symbolic links are refused: the store makes none.
func (d *disk) open(name string, flag int) (*os.File, fs.FileInfo, error) {
	link, err := d.root.Lstat(name)
	if err != nil {
		return nil, nil, d.full(err)
	}
	if !link.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%s is not a regular file", d.path(name))
	}
	f, err := d.root.OpenFile(name, flag|nonblocking, 0)
	if err != nil {
		return nil, nil, d.full(err)
	}
	info, err := f.Stat()
	if err == nil && !os.SameFile(link, info) {
		err = fmt.Errorf("%s was replaced while it was opened", d.path(name))
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, info, nil
}

func (d *disk) writeAt(f *os.File, name string, p []byte, off int64) error {
	return d.do(Op{Kind: OpWrite, Path: name, Offset: off, Data: p}, func() error {
		_, err := f.WriteAt(p, off)
		return err
	})
}

func (d *disk) truncate(f *os.File, name string, size int64) error {
	return d.do(Op{Kind: OpTruncate, Path: name, Size: size}, func() error { return f.Truncate(size) })
}

func (d *disk) sync(f *os.File, name string) error {
	return d.do(Op{Kind: OpSync, Path: name}, f.Sync)
}

func (d *disk) syncDir(dir string) error {
	return d.do(Op{Kind: OpSyncDir, Path: dir}, func() error { return syncDir(d.root, dir) })
}

// syncUp syncs a folder and its parents up to the folder of the store, so that dir is found again
// after a power cut.
func (d *disk) syncUp(dir string) error {
	for ; dir != "."; dir = path.Dir(dir) {
		if err := d.syncDir(dir); err != nil {
			return err
		}
	}
	return d.syncDir(dir)
}

func (d *disk) rename(from, to string) error {
	return d.do(Op{Kind: OpRename, Path: from, To: to}, func() error { return d.root.Rename(from, to) })
}

func (d *disk) chmod(name string, mode fs.FileMode) error {
	return d.do(Op{Kind: OpChmod, Path: name}, func() error { return d.root.Chmod(name, mode) })
}

// remove removes a file or an empty folder. A missing one is no error.
func (d *disk) remove(name string) error {
	err := d.do(Op{Kind: OpRemove, Path: name}, func() error { return d.root.Remove(name) })
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// removeDir removes a folder and the files in it.
func (d *disk) removeDir(dir string) error {
	entries, err := d.readDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := d.remove(path.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return d.remove(dir)
}

// readDir lists a folder. A missing folder has no entries.
func (d *disk) readDir(dir string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(d.root.FS(), dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return entries, d.full(err)
}

// replace writes a temporary file and renames it to name. If durable is set, the content is synced
// before the rename, and the folder after it: a power cut leaves the old file or the new one.
// shared is the mode of the file in a shared store.
func (d *disk) replace(name string, data []byte, shared fs.FileMode, durable bool) (err error) {
	temp := path.Join(path.Dir(name), tempPrefix(name)+rand.Text()[:8])
	f, err := d.create(temp, shared)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.remove(temp))
		}
	}()
	err = d.writeAt(f, temp, data, 0)
	if err == nil && durable {
		err = d.sync(f, temp)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := d.rename(temp, name); err != nil {
		return err
	}
	if durable {
		return d.syncDir(path.Dir(name))
	}
	return nil
}

// tempPrefix returns the beginning of the names that replace gives to its temporary files.
func tempPrefix(name string) string { return "." + path.Base(name) + "." }

// removeTemps removes the temporary files of processes that were killed while they replaced the
// file name. The caller must be the only writer of that file.
func (d *disk) removeTemps(name string) error {
	entries, err := d.readDir(path.Dir(name))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempPrefix(name)) {
			if err := d.remove(path.Join(path.Dir(name), e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// readFile reads a file. It returns an error if the file has more than limit bytes.
func (d *disk) readFile(name string, limit int64) ([]byte, fs.FileInfo, error) {
	f, info, err := d.open(name, os.O_RDONLY)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	if info.Size() > limit {
		return nil, nil, fmt.Errorf("%s has %d bytes, more than %d", d.path(name), info.Size(), limit)
	}
	data := make([]byte, info.Size())
	n, err := f.ReadAt(data, 0)
	if int64(n) < info.Size() {
		return nil, nil, err
	}
	return data, info, nil
}
