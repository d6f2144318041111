//go:build unix

package listen

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/inferd-go/inferd/internal/trust"
)

// A socket is made in a staging folder beside its path, where no other user can reach it
// before it has its mode, and is then renamed. Both names are short, because they count
// against the limit of a socket's path: "<folder>/.infXXXX/s" is as long as
// "<folder>/infer.sock".
const (
	stagingPrefix = ".inf"
	stagingRandom = 4 // characters
	stagingSocket = "s"
)

// maxPath is the maximum length of a socket's path, in bytes. It leaves room for the final NUL that
// clients written in C need.
const maxPath = len(unix.RawSockaddrUnix{}.Path) - 1

const noGroup = -1

func local(path string, opt Options) (net.Listener, error) {
	dir := filepath.Dir(path)
	if err := checkLength(path, filepath.Join(dir, stagingDir(), stagingSocket)); err != nil {
		return nil, err
	}
	gid, err := groupID(opt.Group)
	if err != nil {
		return nil, err
	}
	if err := makeFolder(dir, gid); err != nil {
		return nil, err
	}
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("stat uds path: %w", err)
	case info.Mode()&fs.ModeSymlink != 0:
		return nil, fmt.Errorf("uds path is a symlink (refused): %s", path)
	case info.IsDir():
		return nil, fmt.Errorf("uds path is a folder: %s", path)
	}
	if err := sweep(dir); err != nil {
		return nil, fmt.Errorf("sweep the folder of the socket: %w", err)
	}
	for attempt := 1; ; attempt++ {
		ln, err := bind(path, opt.Mode, gid)
		// Another process may have swept the staging folder before bind locked it, or the random
		// name may be in use.
		if attempt < 10 && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist)) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("listen on %s: %w", path, err)
		}
		return ln, nil
	}
}

// checkLength returns an error for a path that is empty or too long for a socket's address,
// where the system would only say "invalid argument".
func checkLength(names ...string) error {
	for _, name := range names {
		if len(name) > maxPath {
			return fmt.Errorf("uds path has %d bytes, but the system allows %d: %s", len(name), maxPath, name)
		}
	}
	if names[0] == "" {
		return errors.New("uds path is empty")
	}
	return nil
}

// bind creates the socket in a staging folder and moves it to path.
func bind(path string, mode fs.FileMode, gid int) (net.Listener, error) {
	staging := filepath.Join(filepath.Dir(path), stagingDir())
	if err := os.Mkdir(staging, 0o700); err != nil {
		return nil, err
	}
	defer os.Remove(staging)
	lock, err := lockStaging(staging)
	if err != nil {
		return nil, err
	}
	defer lock.Close()

	temp := filepath.Join(staging, stagingSocket)
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: temp, Net: "unix"})
	if err != nil {
		return nil, err
	}
	ln.SetUnlinkOnClose(false) // it would remove temp, which has another name by then
	info, err := finish(temp, path, mode, gid)
	if err != nil {
		os.Remove(temp)
		ln.Close()
		return nil, err
	}
	return &listener{UnixListener: ln, path: path, made: info}, nil
}

// finish sets the socket's group and mode, then renames it to path. It returns the socket's file
// information, which identifies it.
func finish(temp, path string, mode fs.FileMode, gid int) (fs.FileInfo, error) {
	if err := grant(temp, mode, gid); err != nil {
		return nil, err
	}
	info, err := os.Lstat(temp)
	if err != nil {
		return nil, err
	}
	return info, os.Rename(temp, path)
}

// grant sets the group and then the mode, because setting the group may clear bits of the mode.
func grant(name string, mode fs.FileMode, gid int) error {
	if gid != noGroup {
		if err := os.Chown(name, -1, gid); err != nil {
			return err
		}
	}
	return os.Chmod(name, mode)
}

func stagingDir() string { return stagingPrefix + strings.ToLower(rand.Text()[:stagingRandom]) }

// lockStaging locks a staging folder until the file is closed or this process ends. A folder that
// another process has locked is being swept; the error is then [fs.ErrNotExist].
func lockStaging(staging string) (*os.File, error) {
	f, err := os.OpenFile(staging, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = fs.ErrNotExist
		}
		return nil, err
	}
	return f, nil
}

// sweep removes the staging folders that killed processes have left in dir. It removes only folders
// with the name of a staging folder, and from them only a socket.
func sweep(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if len(e.Name()) != len(stagingPrefix)+stagingRandom || !strings.HasPrefix(e.Name(), stagingPrefix) || !e.IsDir() {
			continue
		}
		staging := filepath.Join(dir, e.Name())
		lock, err := lockStaging(staging)
		if err != nil {
			continue // in use, or another user's
		}
		temp := filepath.Join(staging, stagingSocket)
		if info, err := os.Lstat(temp); err == nil && info.Mode()&fs.ModeSocket != 0 {
			os.Remove(temp)
		}
		os.Remove(staging) // fails if it contains anything else
		lock.Close()
	}
	return nil
}

// A listener removes its socket when it is closed.
type listener struct {
	*net.UnixListener
	path string
	made fs.FileInfo // of the socket file
	once sync.Once
}

// Addr returns the final path of the socket, not the one in the staging folder.
func (l *listener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// Close removes the socket and ends Accept. It removes the file first: while the socket is
// open, no other file can get its inode, by which Close recognises it.
func (l *listener) Close() error {
	l.once.Do(func() {
		if info, err := os.Lstat(l.path); err == nil && os.SameFile(info, l.made) {
			os.Remove(l.path)
		}
	})
	return l.UnixListener.Close()
}

func folder(dir, group string) error {
	gid, err := groupID(group)
	if err != nil {
		return err
	}
	return makeFolder(dir, gid)
}

func makeFolder(dir string, gid int) error {
	err := checkFolder(dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := mkdirAll(dir, gid); err != nil {
		return fmt.Errorf("create the folder of the socket: %w", err)
	}
	return checkFolder(dir) // another user may have made it first
}

func mkdirAll(dir string, gid int) error {
	parent := filepath.Dir(dir)
	if _, err := os.Stat(parent); errors.Is(err, fs.ErrNotExist) && parent != dir {
		if err := mkdirAll(parent, gid); err != nil {
			return err
		}
	}
	switch err := os.Mkdir(dir, 0o700); {
	case errors.Is(err, fs.ErrExist):
		return nil
	case err != nil:
		return err
	case gid == noGroup:
		return nil
	}
	return grant(dir, 0o750, gid)
}

// checkFolder returns an error for a folder in which another user could replace our socket. If dir
// is a symbolic link, it checks both the link and its target.
func checkFolder(dir string) error {
	if err := trust.Folder(dir); err != nil {
		return fmt.Errorf("folder of the socket: %w", err)
	}
	return nil
}

// groupID returns the gid of a group, or noGroup for an empty name.
func groupID(name string) (int, error) {
	if name == "" {
		return noGroup, nil
	}
	g, err := user.LookupGroup(name)
	if _, unknown := errors.AsType[user.UnknownGroupError](err); unknown {
		return 0, fmt.Errorf("group not found: %s", name)
	}
	if err != nil {
		return 0, fmt.Errorf("look up group %s: %w", name, err)
	}
	return strconv.Atoi(g.Gid)
}

func dial(ctx context.Context, path string) (net.Conn, error) {
	if err := checkLength(path); err != nil {
		return nil, err
	}
	if dir := filepath.Dir(path); filepath.Base(dir) == "inferd-"+strconv.Itoa(os.Getuid()) {
		if err := checkFolder(dir); err != nil {
			return nil, err
		}
	}
	if path[0] == '@' {
		path = "./" + path // else it would name an abstract socket
	}
	var d net.Dialer
	return d.DialContext(ctx, "unix", path)
}
