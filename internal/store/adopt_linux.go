package store

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// linksOpenFiles is true on platforms where linkFile can make a link.
const linksOpenFiles = true

// descriptors calls act with the descriptors of files a and b.
func descriptors(a, b *os.File, act func(a, b int) error) error {
	rawA, err := a.SyscallConn()
	if err != nil {
		return err
	}
	rawB, err := b.SyscallConn()
	if err != nil {
		return err
	}
	ctlErr := rawA.Control(func(fdA uintptr) {
		if inner := rawB.Control(func(fdB uintptr) { err = act(int(fdA), int(fdB)) }); inner != nil {
			err = inner
		}
	})
	return errors.Join(ctlErr, err)
}

// cloneFile makes the file to share the blocks of the file from. It reports false if that is not
// possible, for example between two file systems.
func cloneFile(to, from *os.File) (bool, error) {
	err := descriptors(to, from, unix.IoctlFileClone)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOTTY), errors.Is(err, unix.EXDEV), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EPERM):
		return false, nil
	}
	return false, fmt.Errorf("clone %s: %w", from.Name(), err)
}

// linkFile makes a hard link to an open file: the name leaf in the folder dir below root. It links
// the descriptor, since another file may be at the path of f by now. It reports false if linking is
// not possible.
func linkFile(root *os.Root, f *os.File, dir, leaf string) (bool, error) {
	folder, err := root.Open(dir)
	if err != nil {
		return false, err
	}
	defer folder.Close()
	err = descriptors(f, folder, func(from, to int) error {
		return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", from), to, leaf, unix.AT_SYMLINK_FOLLOW)
	})
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.EXDEV), errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES), errors.Is(err, unix.EMLINK), errors.Is(err, unix.ENOENT), errors.Is(err, unix.EOPNOTSUPP):
		return false, nil // another disk, a file system without links, or no /proc
	}
	return false, fmt.Errorf("link %s: %w", f.Name(), err)
}
