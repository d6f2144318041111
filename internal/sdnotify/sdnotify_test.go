//go:build unix

package sdnotify_test

import (
	"net"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/inferd-go/inferd/internal/sdnotify"
	"github.com/inferd-go/inferd/internal/shortdir"
)

func TestNotify(t *testing.T) {
	dir := shortdir.New(t)
	names := map[string]string{"a path": filepath.Join(dir, "notify")}
	if runtime.GOOS == "linux" {
		names["an abstract name"] = "@" + filepath.Join(dir, "notify")
	}
	for name, socket := range names {
		t.Run(name, func(t *testing.T) {
			manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
			if err != nil {
				t.Fatal(err)
			}
			defer manager.Close()
			if err := sdnotify.Notify(socket, sdnotify.Ready, sdnotify.Status("it is")); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 100)
			n, err := manager.Read(got)
			if want := "READY=1\nSTATUS=it is"; err != nil || string(got[:n]) != want {
				t.Errorf("got %q, %v, want %q", got[:n], err, want)
			}
		})
	}
	if err := sdnotify.Notify("", sdnotify.Ready); err != nil {
		t.Errorf("without a manager: %v", err)
	}
	if err := sdnotify.Notify(filepath.Join(dir, "nothing"), sdnotify.Ready); err == nil {
		t.Error("no error without the socket")
	}
}
