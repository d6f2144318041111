package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/inferd-go/inferd/internal/frame"
)

// idle measures the memory that a connection takes when it is idle after a request.
func (b *bench) idle() error {
	d, err := b.mocked(`"n_slots":4`)
	if err != nil {
		return err
	}
	defer d.stop()
	if err := d.askMany(100); err != nil {
		return err
	}
	const conns = 1000
	before, err := d.memory()
	if err != nil {
		return err
	}
	var open []net.Conn
	defer func() { closeAll(open) }()
	for range conns {
		nc, err := d.dial(v1Leaf)
		if err != nil {
			return err
		}
		open = append(open, nc)
		if err := askShort(nc, bufio.NewReader(nc)); err != nil {
			return err
		}
	}
	after, err := d.memory()
	if err != nil {
		return err
	}
	b.report("memory of an idle connection, of 1,000", "<= 16 KiB", "%.1f KiB", float64(after-before)/conns/1024)
	return nil
}

func closeAll(conns []net.Conn) {
	for _, nc := range conns {
		_ = nc.Close()
	}
}

// attachments measures the daemon's peak memory while it reads a large attachment.
func (b *bench) attachments() error {
	const mib = 1 << 20
	for _, test := range []struct {
		leaf string
		size int
		goal float64
	}{{lpLeaf, 48 * mib, 1.1}, {v2Leaf, 40 * mib, 2.5}} {
		d, err := b.mocked(`"n_slots":4`)
		if err != nil {
			return err
		}
		before, err := d.memory()
		if err == nil {
			err = d.attach(test.leaf, test.size)
		}
		peak, err2 := d.peak()
		d.stop()
		if err := errors.Join(err, err2); err != nil {
			return err
		}
		b.report(fmt.Sprintf("memory for an attachment of %d MiB, %s", test.size/mib, test.leaf), fmt.Sprintf("<= %.1f of its size", test.goal),
			"%.2f", float64(peak-before)/float64(test.size))
	}
	return nil
}

// attach sends an image of size bytes, and reads the answer.
func (d *daemon) attach(leaf string, size int) error {
	nc, err := d.dial(leaf)
	if err != nil {
		return err
	}
	defer nc.Close()
	image := fmt.Sprintf(`"kind":"image","id":"i","width":%d,"height":1`, size/3)
	const ask = `{"id":"a","wire_version":1,"messages":[{"role":"user","content":[{"type":"image","attachment_id":"i"}]}],"attachments":[{%s}]}`
	data := make([]byte, size)
	w := bufio.NewWriter(nc)
	if leaf == lpLeaf {
		send := func(kind frame.Kind, msg []byte) {
			_, _ = w.Write(frame.AppendHead(nil, kind, len(msg)))
			_, _ = w.Write(msg)
		}
		send(frame.JSON, fmt.Appendf(nil, ask, image))
		send(frame.JSON, fmt.Appendf(nil, `{"type":"attachment_blob","attachment_id":"i","len":%d}`, size))
		send(frame.Blob, data)
	} else {
		head, tail, _ := strings.Cut(fmt.Sprintf(ask, image+`,"bytes":"@"`), "@")
		_, _ = w.WriteString(head)
		enc := base64.NewEncoder(base64.StdEncoding, w)
		_, _ = enc.Write(data)
		_ = enc.Close()
		_, _ = w.WriteString(tail + "\n")
	}
	if err := w.Flush(); err != nil {
		return err
	}
	got := make([]byte, 0, 4096)
	for !bytes.Contains(got, []byte(`"type":"done"`)) {
		n, err := nc.Read(got[len(got):cap(got)])
		if err != nil {
			return fmt.Errorf("%w after %q", err, got)
		}
		got = got[:len(got)+n]
	}
	return nil
}
