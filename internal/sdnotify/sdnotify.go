// Package sdnotify reports the daemon's state to the service manager that started it, in the
// datagrams of systemd's sd_notify. It attaches no meaning to the states, and does nothing without
// a manager.
package sdnotify

import (
	"fmt"
	"net"
	"strings"
)

// Variable is the environment variable with the manager's socket. It must not reach child
// processes.
const Variable = "NOTIFY_SOCKET"

// States of the protocol.
const (
	Ready    = "READY=1"
	Stopping = "STOPPING=1"
)

// Status returns the assignment that makes systemctl status show a line of text. The text must not
// contain a line break.
func Status(text string) string { return "STATUS=" + text }

// Notify sends assignments in one datagram to the manager at socket, the value of [Variable]:
// a path, or an abstract name that begins with '@'. If socket is empty, there is no manager, and
// Notify does nothing.
func Notify(socket string, assignments ...string) error {
	if socket == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(strings.Join(assignments, "\n"))); err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	return nil
}
