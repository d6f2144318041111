package activity

import (
	"os"

	"golang.org/x/sys/unix"
)

// mountSmall mounts a file system of 64 KiB at dir.
func mountSmall(dir string) error { return unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k") }

func unmount(dir string) error { return unix.Unmount(dir, unix.MNT_DETACH) }

// mountReadOnly makes the file system that mountSmall mounted at dir read-only.
func mountReadOnly(dir string) error {
	return unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT|unix.MS_RDONLY, "")
}

// redirect makes the descriptor of f refer to the file to.
func redirect(f *os.File, to string) error {
	other, err := os.OpenFile(to, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer other.Close()
	return unix.Dup3(int(other.Fd()), int(f.Fd()), unix.O_CLOEXEC)
}
