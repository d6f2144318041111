package proc

import (
	"errors"
	"net"
	"os"
)

var errMissing = errors.New("engines cannot be started on Windows: that needs a job object and an inherited pipe")

func start(Command) (*Child, error) { return nil, errMissing }

func inheritedConn() (net.Conn, error) { return nil, errMissing }

func resume(*os.Process) {}

func dump(*os.Process) {}

// forbidDumps does nothing: Windows writes no core files, and crash reports are a setting of the
// machine.
func forbidDumps() error { return nil }
