// Package trust checks whether another user of the machine could change or replace a file that the
// daemon depends on, and opens the daemon's own files without following a link. It ignores access
// control lists; only owner, group and mode bits count. On Windows it checks no owners and modes,
// because inherited access lists protect the user's own folders there.
//
// The rule is that a file belongs to this user or to root, and that at most its owner and the
// owner's primary group can write to it. The rule also applies to the folder of a file, except that
// every user may write to a sticky folder, because only the owner of an entry can replace it there.
// Folders further up are not checked: in containers, a home folder often belongs to another uid.
package trust

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Facts are the owner and the mode of a file or a folder.
type Facts struct {
	Mode     fs.FileMode
	UID, GID uint32
}

// A Rule is the trust rule for one user.
type Rule struct {
	UID uint32 // the user's uid
	// Root is the uid of root's files: 0, or, in a user namespace without root, the overflow uid that
	// stands for all unmapped users.
	Root uint32
	// PrimaryGroup returns the primary group of a user, and false if it is unknown.
	PrimaryGroup func(uid uint32) (gid uint32, known bool)
}

// Check returns an error if the facts of path violate the rule, so that other users could change it.
// The error contains path, its owner and mode, and the command that corrects them.
func (j Rule) Check(path string, f Facts) error { return j.check(path, f, false) }

// CheckParent is Check for a parent folder, which may also be sticky and writable for every user.
func (j Rule) CheckParent(path string, f Facts) error { return j.check(path, f, true) }

const (
	groupWrite fs.FileMode = 0o020
	otherWrite fs.FileMode = 0o002
)

func (j Rule) check(path string, f Facts, parent bool) error {
	what := path
	if f.Mode.IsDir() {
		what = "folder " + path
	}
	seen := fmt.Sprintf("uid %d, mode %04o", f.UID, octal(f.Mode))
	switch {
	case f.UID != j.Root && f.UID != j.UID:
		return fmt.Errorf("%s belongs to another user (%s): refused; run \"%s\", or use another place", what, seen, fmt.Sprintf("chown %d %s", j.UID, quoted(path)))
	case f.Mode&fs.ModeSymlink != 0: // the mode of a link has no meaning
		return nil
	case parent && f.Mode&fs.ModeSticky != 0:
		return nil
	case f.Mode&otherWrite != 0:
		return fmt.Errorf("%s can be written to by every user (%s): refused; run \"%s\"", what, seen, "chmod o-w "+quoted(path))
	case f.Mode&groupWrite == 0:
		return nil
	}
	if gid, known := j.PrimaryGroup(f.UID); !known || gid != f.GID {
		return fmt.Errorf("%s can be written to by the group %d, which is not its owner's primary group (%s): refused; run \"%s\"", what, f.GID, seen, "chmod g-w "+quoted(path))
	}
	return nil
}

// octal returns the permissions and the sticky bit as chmod takes them.
func octal(m fs.FileMode) uint32 {
	bits := uint32(m.Perm())
	if m&fs.ModeSticky != 0 {
		bits |= 0o1000
	}
	return bits
}

// quoted returns a path, quoted for a shell.
func quoted(path string) string {
	if strings.ContainsFunc(path, func(r rune) bool { return !strings.ContainsRune("/._-+:@%,=", r) && !isWord(r) }) {
		return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
	}
	return path
}

func isWord(r rune) bool {
	return r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
}

// maxLinks is the maximum number of symbolic links that Path follows.
const maxLinks = 40

// Path checks a file or folder and its parent folder. If path is a symbolic link, Path follows it, and
// checks each link on the way and the target in the same way: a user with write access to the folder
// of a link can replace the link.
func Path(path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	for range maxLinks {
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		if err := checkInfo(path, info, false); err != nil {
			return err
		}
		if err := Parent(path); err != nil {
			return err
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			return nil
		}
		next, err := os.Readlink(path)
		if err != nil {
			return err
		}
		if !filepath.IsAbs(next) {
			next = filepath.Join(filepath.Dir(path), next)
		}
		path = next
	}
	return fmt.Errorf("%s: too many links", path)
}

// Parent checks the parent folder of an absolute path. That folder may be sticky.
func Parent(path string) error {
	dir := filepath.Dir(path)
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	return checkInfo(dir, info, true)
}

// Folder checks a folder in which files are to be created, and its parent. Both may be sticky. If dir
// is a symbolic link, Folder checks the link, its target, and the parent of the link.
func Folder(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	for _, stat := range []func(string) (fs.FileInfo, error){os.Lstat, os.Stat} {
		info, err := stat(dir)
		if err != nil {
			return err
		}
		if !info.IsDir() && info.Mode()&fs.ModeSymlink == 0 {
			return fmt.Errorf("%s is not a folder", dir)
		}
		if err := checkInfo(dir, info, true); err != nil {
			return err
		}
	}
	return Parent(dir)
}

// File checks an open file, but not its folder.
func File(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return checkInfo(f.Name(), info, false)
}

func checkInfo(path string, info fs.FileInfo, parent bool) error {
	facts, ok := factsOf(info)
	if !ok {
		return nil
	}
	return self().check(path, facts, parent)
}

// ErrLink is wrapped by the error of [OpenFile] for a symbolic link, except on Windows.
var ErrLink = errors.New("it is a symbolic link: refused")

// OpenFile is [os.OpenFile] for a file that the daemon writes, or wrote earlier. It returns an error
// for a symbolic link, which it does not follow, for any other file that is not regular, and for a
// file that other users can change. It does not check the folder.
func OpenFile(path string, flag int, perm fs.FileMode) (*os.File, error) {
	f, err := os.OpenFile(path, flag|NoFollow, perm)
	if err != nil {
		if info, look := os.Lstat(path); look == nil && info.Mode()&fs.ModeSymlink != 0 {
			err = &fs.PathError{Op: "open", Path: path, Err: ErrLink}
		}
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err == nil {
		err = checkInfo(path, info, false)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
