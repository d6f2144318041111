package corpus

import (
	"fmt"
	"io"
	"net"
	"time"

	"github.com/inferd-go/inferd/internal/frame"
)

// ioTimeout bounds each read and write. Its only purpose is to detect a daemon that hangs.
const ioTimeout = 20 * time.Second

// play plays one connection, and writes output in pieces of at most step bytes. Its errors begin
// with the number of the line.
func (c *conn) play(nc net.Conn, step int) error {
	framing := frame.Lines
	if c.leaf == prefixedLeaf {
		framing = frame.Prefixed
	}
	s := &sender{nc: nc, step: step}
	r := framing.NewReader(nc, frame.Limit)
	for _, l := range c.lines {
		if err := c.step(l, s, r, nc); err != nil {
			return fmt.Errorf("%d: %w", l.number, err)
		}
	}
	return nil
}

// step executes one line. It adds output to s, or sends the output so far and then half-closes nc
// or checks the next message or the end.
func (c *conn) step(l line, s *sender, r frame.Reader, nc net.Conn) error {
	switch l.op {
	case ">":
		if c.leaf == prefixedLeaf {
			s.unsent = append(frame.AppendHead(s.unsent, frame.JSON, len(l.text)), l.text...)
		} else {
			s.unsent = append(append(s.unsent, l.text...), '\n')
		}
	case ">>":
		s.unsent = append(s.unsent, l.text...)
	case "blob":
		s.unsent = append(frame.AppendHead(s.unsent, frame.Blob, len(l.text)), l.text...)
	case "blob-zeros":
		s.unsent = append(frame.AppendHead(s.unsent, frame.Blob, l.zeros), make([]byte, l.zeros)...)
	case "x":
		s.unsent = append(s.unsent, l.raw...)
	case "half-close":
		s.flush()
		return closeWrite(nc)
	case "<":
		return c.expect(l.text, s, r, nc)
	case "EOF":
		s.flush()
		if err := nc.SetReadDeadline(time.Now().Add(ioTimeout)); err != nil {
			return err
		}
		if kind, got, err := r.ReadFrame(); err == nil {
			return fmt.Errorf("got a message of kind %d, %s, want the end", kind, got)
		} else if err != io.EOF { //nolint:errorlint // a clean end is io.EOF itself
			return fmt.Errorf("got %w, want a clean end", err)
		}
	}
	return nil
}

func (c *conn) expect(want string, s *sender, r frame.Reader, nc net.Conn) error {
	s.flush()
	if err := nc.SetReadDeadline(time.Now().Add(ioTimeout)); err != nil {
		return err
	}
	kind, got, err := r.ReadFrame()
	switch {
	case err != nil && s.err != nil:
		return fmt.Errorf("got %w (after %w), want %s", err, s.err, want)
	case err != nil:
		return fmt.Errorf("got %w, want %s", err, want)
	case kind != frame.JSON:
		return fmt.Errorf("got a blob, want %s", want)
	case !matches(want, string(got)):
		return fmt.Errorf("\n got %s\nwant %s", got, want)
	}
	return nil
}

// A sender collects output until flush. A daemon may answer and hang up before it has read
// everything, so a write error counts only if the answer is wrong, too.
type sender struct {
	nc     net.Conn
	step   int
	unsent []byte
	err    error
}

func (s *sender) flush() {
	for len(s.unsent) > 0 && s.err == nil {
		if s.err = s.nc.SetWriteDeadline(time.Now().Add(ioTimeout)); s.err != nil {
			return
		}
		n := min(s.step, len(s.unsent))
		_, s.err = s.nc.Write(s.unsent[:n])
		s.unsent = s.unsent[n:]
	}
	s.unsent = nil
}
