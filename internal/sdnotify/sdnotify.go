// Package sdnotify tells the service manager that has started us how far we are, in the
// datagrams of systemd's sd_notify. It does not know what is ready or why, and where no
// manager listens it does nothing.
package sdnotify

import (
	"fmt"
	"net"
	"strings"
)

// Variable is where the manager says where it listens. Children are none of its business.
const Variable = "NOTIFY_SOCKET"

// Words of the protocol.
const (
	Ready    = "READY=1"
	Stopping = "STOPPING=1"
)

// Status is a line for people, which systemctl status shows.
func Status(text string) string { return "STATUS=" + text }

// Tell sends assignments in one datagram to a manager that listens at socket, the value of
// [Variable]: a path, or a name that begins with '@'. If it is empty nobody does.
func Tell(socket string, assignments ...string) error {
	if socket == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(strings.Join(assignments, "\n"))); err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	return nil
}
