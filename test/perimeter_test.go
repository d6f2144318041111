package test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/shortdir"
)

// frames is the number of random messages in TestRandomFrames.
var frames = flag.Int("frames", 20_000, "random messages to send")

// mocked starts a daemon with the given config, and waits until it is ready.
func mocked(t *testing.T, cfg string, args ...string) *daemon {
	t.Helper()
	dir := shortdir.New(t)
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(cfg), 0o600); err != nil {
		t.Fatal(err)
	}
	d := start(t, dir, args...)
	d.waitReady()
	return d
}

const oneMock = `{"backends":[{"kind":"mock","name":"m","tokens":["x","y","z"]}]}`

// leaves are the names of the sockets of the surfaces.
var leaves = []string{"infer.sock", "infer.v2.sock", "inferd.sock", "infer.embed.sock", "infer.rerank.sock"}

// validRequests has a valid request for each surface and for the control socket.
var validRequests = map[string]string{
	"infer.sock":        `{"id":"g","messages":[{"role":"user","content":"w"}]}`,
	"infer.v2.sock":     `{"id":"g","messages":[{"role":"user","content":[{"type":"text","text":"w"}]}]}`,
	"inferd.sock":       `{"id":"g","wire_version":1,"messages":[{"role":"user","content":[{"type":"text","text":"w"}]}]}`,
	"infer.embed.sock":  `{"id":"g","input":["w"]}`,
	"infer.rerank.sock": `{"id":"g","query":"w","documents":["w"]}`,
	"control.sock":      `{"id":"g","type":"stats","x":"user w text"}`,
}

// A peer is a connection to any surface, in its framing.
type peer struct {
	t *testing.T
	*net.UnixConn
	r    *bufio.Reader
	lp   bool
	leaf string
}

func (d *daemon) peer(leaf string) *peer {
	d.t.Helper()
	nc, err := net.Dial("unix", d.socket(leaf))
	if err != nil {
		d.t.Fatalf("%v\n%s", err, d.stderr)
	}
	d.t.Cleanup(func() { _ = nc.Close() })
	return &peer{t: d.t, UnixConn: nc.(*net.UnixConn), r: bufio.NewReader(nc), lp: leaf == "inferd.sock", leaf: leaf}
}

// framed returns the wire form of msg.
func (p *peer) framed(msg string) []byte { return framed(p.lp, msg) }

func framed(lp bool, msg string) []byte {
	if !lp {
		return []byte(msg + "\n")
	}
	return append(append(binary.AppendUvarint(nil, uint64(len(msg))), 1), msg...)
}

// next returns the next message, or the error of the stream.
func (p *peer) next() (map[string]any, error) {
	_ = p.SetReadDeadline(time.Now().Add(patience))
	var raw []byte
	var err error
	if p.lp {
		var n uint64
		if n, err = binary.ReadUvarint(p.r); err == nil {
			raw = make([]byte, n+1)
			_, err = io.ReadFull(p.r, raw)
			raw = raw[1:]
		}
	} else {
		raw, err = p.r.ReadBytes('\n')
	}
	if len(raw) > 0 && errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // the message is incomplete
	}
	if err != nil {
		return nil, err
	}
	var m map[string]any
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, fmt.Errorf("%s: %q: %w", p.leaf, raw, err)
	}
	return m, nil
}

// terminal reads an answer up to its terminal message, which it returns.
func (p *peer) terminal() (map[string]any, error) {
	for {
		m, err := p.next()
		if err != nil {
			return nil, err
		}
		if m["type"] != "token" && m["type"] != "frame" {
			return m, nil
		}
	}
}

// serves checks that every surface answers a valid request.
func (d *daemon) serves() {
	d.t.Helper()
	for _, leaf := range leaves {
		if err := d.answers(leaf); err != nil {
			d.t.Errorf("%s: a well-behaved client got %v\n%s", leaf, err, d.stderr)
		}
	}
}

// answers returns nil if a surface answers a valid request completely.
func (d *daemon) answers(leaf string) error {
	p := d.peer(leaf)
	defer p.Close()
	if _, err := p.Write(p.framed(validRequests[leaf])); err != nil {
		return err
	}
	m, err := p.terminal()
	if err == nil && (m["type"] == "error" || m["id"] != "g") {
		err = fmt.Errorf("%v", m)
	}
	return err
}

// stats returns stats from the control socket.
func (d *daemon) stats() (s struct {
	Running, Waiting, Stalled int
	Goroutines, Connections   int
	HeldBytes                 int `json:"held_bytes"`
	LogLost                   int `json:"log_lost"`
	Backends                  []struct {
		Requests int
		In       int64 `json:"input_tokens"`
		Out      int64 `json:"output_tokens"`
	}
},
) {
	d.t.Helper()
	nc := d.dial("control.sock")
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(patience))
	fmt.Fprintln(nc, `{"type":"stats"}`)
	var answer struct{ Stats any }
	answer.Stats = &s
	if err := json.NewDecoder(nc).Decode(&answer); err != nil {
		d.t.Fatal(err)
	}
	return s
}

// resources are the resources that an idle daemon uses.
type resources struct {
	descriptors, goroutines int
	memory                  int // resident bytes; they may grow a little
}

// memoryMargin is the growth of memory in bytes that recovers allows.
const memoryMargin = 48 << 20

func (d *daemon) resources() resources {
	d.t.Helper()
	d.serves() // makes resources that are made on first use
	var last resources
	eventually(d.t, "the daemon is at rest", func() bool {
		s := d.stats()
		now := resources{descriptors: d.descriptors(), goroutines: s.Goroutines}
		rests := s.Running == 0 && s.Waiting == 0 && s.HeldBytes == 0 && s.Connections == 1 && now == last
		last = now
		return rests
	})
	last.memory = d.memory("VmRSS:")
	return last
}

// recovers checks that all surfaces work and that the daemon uses no more resources than before.
func (d *daemon) recovers(before resources) {
	d.t.Helper()
	d.serves()
	var now resources
	var s any
	for deadline := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		stats := d.stats()
		now, s = resources{d.descriptors(), stats.Goroutines, d.memory("VmRSS:")}, stats
		if now.descriptors <= before.descriptors && now.goroutines <= before.goroutines && now.memory <= before.memory+memoryMargin &&
			stats.HeldBytes == 0 && stats.Running == 0 {
			return
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("left behind: %+v, %+v before; %+v", now, before, s)
		}
	}
}

// TestRandomFrames sends mutated messages over 50 connections at once. The daemon sends only complete
// messages, and then works with no more resources than before.
func TestRandomFrames(t *testing.T) {
	d := mocked(t, oneMock, "--queue-depth", "64")
	before := d.resources()
	const conns = 50
	var all sync.WaitGroup
	sockets := append(slices.Clone(leaves), "control.sock")
	for i := range conns {
		leaf := sockets[i%len(sockets)]
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 7))
			for left := *frames / conns; left > 0; {
				left -= max(1, d.sendMutants(leaf, r))
			}
		})
	}
	all.Wait()
	d.recovers(before)
	if peak := d.peak(); peak > 400<<20 {
		t.Errorf("the daemon took %d MiB", peak>>20)
	}
}

// sendMutants sends a few mutants of a valid request on one connection. It returns the number of
// mutants that the daemon has answered: the daemon stops at the first malformed one. It checks that
// the daemon sends only complete messages before it closes the connection.
func (d *daemon) sendMutants(leaf string, r *rand.Rand) (answered int) {
	p := d.peer(leaf)
	defer p.Close()
	var burst []byte
	for range 1 + r.IntN(50) {
		burst = append(burst, mutant(r, p.lp, validRequests[leaf])...)
	}
	_ = p.SetWriteDeadline(time.Now().Add(patience))
	if _, err := p.Write(burst); errors.Is(err, os.ErrDeadlineExceeded) {
		d.t.Errorf("%s: the daemon does not read", leaf)
	} // any other error: the daemon has closed the connection
	_ = p.CloseWrite()
	for {
		m, err := p.next()
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
				d.t.Errorf("%s: %v", leaf, err)
			}
			return answered
		}
		switch kind, _ := m["type"].(string); kind {
		case "token", "frame":
		case "":
			d.t.Errorf("%s: a message without type: %v", leaf, m)
		default:
			answered++
		}
	}
}

// mutant returns msg with its framing. Most mutants are valid; in the others the message, the
// framing, or both are damaged.
func mutant(r *rand.Rand, lp bool, msg string) []byte {
	b := []byte(msg)
	switch r.IntN(60) { // most are valid, so that the daemon reads the next one
	case 0: // change a byte
		b[r.IntN(len(b))] = byte(r.IntN(256))
	case 1: // truncate
		b = b[:r.IntN(len(b))]
	case 2: // double a part
		at, n := r.IntN(len(b)), r.IntN(8)
		b = append(b[:at:at], append(bytes.Clone(b[at:min(len(b), at+n)]), b[at:]...)...)
	case 3: // insert noise
		b = make([]byte, r.IntN(64))
		for i := range b {
			b[i] = byte(r.IntN(256))
		}
	case 4, 5: // change values
		for _, swap := range [][2]string{{`"g"`, `""`}, {`"w"`, `""`}, {`"user"`, `"nobody"`}, {`[`, `[[`}, {`"text"`, `"image"`}, {`1`, `99`}} {
			if r.IntN(3) == 0 {
				b = bytes.Replace(b, []byte(swap[0]), []byte(swap[1]), 1)
			}
		}
	}
	whole := framed(lp, string(b))
	switch r.IntN(40) { // sometimes the framing is wrong, so that the rest of the stream is malformed
	case 0:
		whole = whole[:r.IntN(len(whole))]
	case 1:
		whole[r.IntN(len(whole))] ^= byte(1 << r.IntN(8))
	case 2:
		whole = append(binary.AppendUvarint(nil, r.Uint64()>>r.IntN(64)), whole...)
	}
	return whole
}

// TestCrowd opens as many connections as one caller may have. Any further one is refused, until the
// others are closed.
func TestCrowd(t *testing.T) {
	d := mocked(t, oneMock)
	before := d.resources()
	var open []*peer
	for i := range 1024 {
		p := d.peer(leaves[i%len(leaves)])
		if _, err := p.Write(p.framed(validRequests[p.leaf])); err != nil {
			t.Fatal(err)
		}
		if m, err := p.terminal(); err != nil || m["type"] == "error" { // makes sure that it is admitted
			t.Fatalf("connection %d: %v, %v", i, m, err)
		}
		open = append(open, p)
	}
	for _, leaf := range leaves {
		p := d.peer(leaf)
		if m, err := p.next(); err != nil || m["code"] != "queue_full" || m["id"] != "" {
			t.Errorf("%s: the connection beyond the limit got %v, %v", leaf, m, err)
		}
		if m, err := p.next(); err == nil {
			t.Errorf("%s: and then %v", leaf, m)
		}
	}
	nc := d.dial("admin.sock")
	defer nc.Close()
	if raw, err := io.ReadAll(nc); len(raw) > 0 && err == nil {
		t.Errorf("the admin socket sent a client beyond the limit %q", raw)
	}
	for _, p := range open {
		_ = p.Close()
	}
	d.waitForRoom()
	d.recovers(before)
}

// waitForRoom waits until the daemon has noticed that connections were closed, and accepts new ones.
// It checks each socket, since each has a backlog of its own.
func (d *daemon) waitForRoom() {
	d.t.Helper()
	for _, leaf := range leaves {
		eventually(d.t, "there is room again on "+leaf, func() bool { return d.answers(leaf) == nil })
	}
}

// TestChurn connects and disconnects ten thousand times. The daemon then works, with no more
// resources than before.
func TestChurn(t *testing.T) {
	d := mocked(t, oneMock)
	before := d.resources()
	for i := 0; i < 10_000; {
		nc, err := net.Dial("unix", d.socket(leaves[i%len(leaves)]))
		if errors.Is(err, syscall.EAGAIN) { // the backlog of the socket is full for a moment
			time.Sleep(time.Millisecond)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		_ = nc.Close()
		i++
	}
	d.waitForRoom()
	d.recovers(before)
}

// TestHalfFrames sends a message byte by byte, and gets its answer. It then hangs up at every point
// within a message, and no resources remain in use.
func TestHalfFrames(t *testing.T) {
	d := mocked(t, oneMock)
	before := d.resources()
	for _, leaf := range leaves {
		slow := d.peer(leaf)
		for _, b := range slow.framed(validRequests[leaf]) {
			if _, err := slow.Write([]byte{b}); err != nil {
				t.Fatal(err)
			}
		}
		if m, err := slow.terminal(); err != nil || m["type"] == "error" {
			t.Errorf("%s, a byte at a time: %v, %v", leaf, m, err)
		}
		whole := slow.framed(validRequests[leaf])
		for cut := range whole {
			p := d.peer(leaf)
			if _, err := p.Write(whole[:cut]); err != nil {
				t.Fatal(err)
			}
			if cut%2 == 0 {
				_ = p.CloseWrite()
				if m, err := p.next(); err == nil && m["code"] != "invalid_request" {
					// A line without its newline is a complete request.
					if cut != len(whole)-1 {
						t.Errorf("%s, cut at %d: %v", leaf, cut, m)
					}
				}
			}
			_ = p.Close()
		}
		_ = slow.Close()
	}
	d.recovers(before)
}

// TestNeverReads requests far more bytes than a socket buffers, and does not read them. The slot
// becomes free, and the connection is cut off.
func TestNeverReads(t *testing.T) {
	tokens := make([]string, 240) // a config has at most 1 MiB
	for i := range tokens {
		tokens[i] = strings.Repeat("t", 4096)
	}
	list, err := json.Marshal(tokens)
	if err != nil {
		t.Fatal(err)
	}
	d := mocked(t, `{"backends":[{"kind":"mock","name":"m","tokens":`+string(list)+`}]}`,
		"--active-permits", "1", "--queue-depth", "0", "--write-timeout-secs", "1")
	before := d.resources()
	for _, leaf := range leaves[:4] { // an answer of rerank fits into the buffer of a socket
		silent := d.peer(leaf)
		long := strings.Replace(validRequests[leaf], `"input":["w"`, `"input":["w"`+strings.Repeat(`,"w"`, 20_000), 1)
		if _, err := silent.Write(silent.framed(long)); err != nil {
			t.Fatal(err)
		}
		if leaf != "infer.embed.sock" { // its only message is sent after the slot is free
			eventually(t, "it runs", func() bool { return d.stats().Running == 1 })
		}
		p := d.peer(leaf)
		eventually(t, "its slot is free", func() bool {
			if _, err := p.Write(p.framed(validRequests[leaf])); err != nil {
				t.Fatal(err)
			}
			m, err := p.terminal()
			if err != nil {
				t.Fatal(err)
			}
			return m["type"] != "error"
		})
		eventually(t, "it is cut off", func() bool { return d.stats().Connections == 2 })
		if _, err := silent.terminal(); err == nil {
			t.Errorf("%s: a client that did not read got its whole answer", leaf)
		}
		_ = p.Close()
		_ = silent.Close()
	}
	d.recovers(before)
}

// TestSpaces sends up to a gigabyte of spaces on every surface. The daemon reads little more than a
// message may have, and uses little memory.
func TestSpaces(t *testing.T) {
	d := mocked(t, oneMock)
	before := d.resources()
	block := bytes.Repeat([]byte(" "), 1<<20)
	for _, leaf := range leaves {
		p := d.peer(leaf)
		taken := 0
		for taken < 1<<30 {
			n, err := p.Write(block)
			taken += n
			if err != nil {
				break
			}
		}
		if taken > 100<<20 {
			t.Errorf("%s took %d MiB of a message", leaf, taken>>20)
		}
		if m, err := p.next(); err == nil && m["code"] != "frame_too_large" && m["code"] != "invalid_request" {
			t.Errorf("%s: %v", leaf, m)
		}
		_ = p.Close()
	}
	d.recovers(before)
	if peak := d.peak(); peak > 400<<20 {
		t.Errorf("the daemon took %d MiB", peak>>20)
	}
}

// TestDeep sends ten thousand levels of nesting on every surface. The daemon refuses them, and
// closes the connection.
func TestDeep(t *testing.T) {
	d := mocked(t, oneMock)
	before := d.resources()
	for _, leaf := range leaves {
		for _, msg := range []string{
			strings.Repeat(`{"x":`, 10_000) + "1" + strings.Repeat("}", 10_000),
			`{"messages":` + strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000) + "}",
		} {
			p := d.peer(leaf)
			if _, err := p.Write(p.framed(msg)); err != nil {
				t.Fatal(err)
			}
			if m, err := p.next(); err != nil || m["code"] != "invalid_request" || m["id"] != "" {
				t.Errorf("%s: %v, %v", leaf, m, err)
			}
			if m, err := p.next(); err == nil {
				t.Errorf("%s: and then %v", leaf, m)
			}
			_ = p.Close()
		}
	}
	d.recovers(before)
}

// fullRequests has a request for each surface that has strings in every possible place.
var fullRequests = map[string]string{
	"infer.sock": `{"id":"g","messages":[{"role":"user","content":"w"}],"stop":["s"],"grammar":"root ::= []","model":"m","priority":"normal",
		"client":"c","x":{"y":["z",{"a":"b"}]}}`,
	"infer.v2.sock": `{"id":"g","messages":[{"role":"user","content":[{"type":"text","text":"w"},{"type":"image","attachment_id":"i"}]},
		{"role":"assistant","content":[{"type":"tool_use","tool_call_id":"t","name":"f","input":{"a":"b"}}]},
		{"role":"user","content":[{"type":"tool_result","tool_call_id":"t","content":[{"type":"text","text":"w"}]}]}],
		"attachments":[{"kind":"image","id":"i","width":1,"height":1,"bytes":"AAAA"}],
		"tools":[{"name":"f","description":"d","input_schema":{"type":"object"}}],"tool_choice":{"type":"tool","name":"f"},
		"response_format":{"type":"json_schema","schema":{"a":"b"}},"logit_bias":{"7":1},"stop":["s"],"model":"m","priority":"normal","client":"c","x":{"y":["z"]}}`,
	"infer.embed.sock":  `{"id":"g","input":["w","v"],"task":"similarity","x":{"y":["z"]}}`,
	"infer.rerank.sock": `{"id":"g","query":"w","documents":["w","v"],"x":{"y":["z"]}}`,
	"control.sock":      `{"id":"g","type":"log_level","level":"info","backend":"m","x":{"y":["z"]}}`,
}

// TestEveryStringAndObject corrupts each string of a request, names of members included, and
// doubles a member of each object. The daemon must refuse each of these requests.
func TestEveryStringAndObject(t *testing.T) {
	d := mocked(t, oneMock)
	before := d.resources()
	all := maps.Clone(fullRequests)
	for leaf, msg := range all {
		all[leaf] = strings.Join(strings.Fields(msg), " ") // on one line
	}
	all["inferd.sock"] = `{"wire_version":1,` + strings.Replace(all["infer.v2.sock"], `,"bytes":"AAAA"`, "", 1)[1:]
	for leaf, msg := range all {
		spoiled := corruptions(msg)
		if len(spoiled) < 50 {
			t.Fatalf("%s: %d ways to spoil it", leaf, len(spoiled))
		}
		for _, bad := range spoiled {
			p := d.peer(leaf)
			if _, err := p.Write(p.framed(bad)); err != nil {
				t.Fatal(err)
			}
			if m, err := p.next(); err != nil || m["code"] != "invalid_request" || m["id"] != "" {
				t.Errorf("%s: %q: %v, %v", leaf, bad, m, err)
			}
			if m, err := p.next(); err == nil {
				t.Errorf("%s: %q: and then %v", leaf, bad, m)
			}
			_ = p.Close()
		}
		p := d.peer(leaf) // the unchanged request is accepted
		if _, err := p.Write(p.framed(msg)); err != nil {
			t.Fatal(err)
		}
		if leaf == "inferd.sock" {
			for _, part := range [][]byte{p.framed(`{"type":"attachment_blob","attachment_id":"i","len":3}`), []byte("\x03\x02abc")} {
				if _, err := p.Write(part); err != nil {
					t.Fatal(err)
				}
			}
		}
		if m, err := p.terminal(); err != nil || m["type"] == "error" || m["id"] != "g" {
			t.Errorf("%s: %v, %v", leaf, m, err)
		}
		_ = p.Close()
	}
	d.recovers(before)
}

// corruptions returns variants of msg, each with one defect: invalid UTF-8 or a lone surrogate in a
// string, or an object with two members of the same name.
func corruptions(msg string) (all []string) {
	quoted := false
	for i := range len(msg) {
		switch {
		case msg[i] == '"':
			if quoted {
				for _, bad := range []string{"\xff", "\xc3", "\xc0\xaf", "\xed\xa0\x80", `\ud800`, `\udc00`} {
					all = append(all, msg[:i]+bad+msg[i:])
				}
			}
			quoted = !quoted
		case msg[i] == '{' && !quoted:
			name, _, _ := strings.Cut(msg[i+2:], `"`)
			all = append(all, msg[:i+1]+`"`+name+`":null,`+msg[i+1:])
		}
	}
	return all
}

// TestManyValues sends several messages at once that take much more memory decoded than as bytes:
// they consist of the shortest values, either too many of them or nearly as many as are allowed.
// The daemon refuses the former, and its memory stays bounded.
func TestManyValues(t *testing.T) {
	d := mocked(t, oneMock)
	before := d.resources()
	const tooMany, most = 64<<20/3 - 100, 1<<18 - 100
	for leaf, parts := range map[string][2]string{
		"infer.sock":        {`{"id":"g","messages":[`, `{},`},
		"infer.v2.sock":     {`{"id":"g","messages":[{"role":"user","content":[`, `{},`},
		"inferd.sock":       {`{"id":"g","wire_version":1,"messages":[],"attachments":[`, `{},`},
		"infer.embed.sock":  {`{"id":"g","input":[`, `"",`},
		"infer.rerank.sock": {`{"id":"g","query":"w","documents":[`, `"",`},
	} {
		for _, n := range []int{tooMany, most, most, most, most, most, most} {
			p := d.peer(leaf)
			// The brackets are not closed, which the decoder notices only after all values.
			if _, err := p.Write(p.framed(parts[0] + strings.Repeat(parts[1], n))); err != nil && !errors.Is(err, syscall.EPIPE) {
				t.Fatal(err)
			}
		}
		p := d.peer(leaf)
		if _, err := p.Write(p.framed(parts[0] + strings.Repeat(parts[1], tooMany))); err != nil {
			t.Fatal(err)
		}
		if m, err := p.next(); err != nil || m["code"] != "invalid_request" || m["id"] != "" || !strings.Contains(fmt.Sprint(m["message"]), "values") {
			t.Errorf("%s: %v, %v", leaf, m, err)
		}
		d.recovers(before)
	}
	if peak := d.peak(); peak > 1<<30 {
		t.Errorf("the daemon took %d MiB", peak>>20)
	}
}

// TestLargeRequestsAtOnce sends attachments on several connections at once that together exceed the
// memory limit of their caller. Each waits for memory, and all are answered.
func TestLargeRequestsAtOnce(t *testing.T) {
	d := mocked(t, oneMock)
	before := d.resources()
	request := strings.Replace(validRequests["inferd.sock"], "{", `{"attachments":[{"kind":"image","id":"a"},{"kind":"image","id":"b"},{"kind":"image","id":"c"}],`, 1)
	const size = 40 << 20 // three of them are sent
	blob := append(binary.AppendUvarint(nil, size), append([]byte{2}, make([]byte, size)...)...)
	var all sync.WaitGroup
	for range 5 {
		all.Go(func() {
			p := d.peer("inferd.sock")
			defer p.Close()
			parts := [][]byte{p.framed(request)}
			for _, id := range []string{"a", "b", "c"} {
				parts = append(parts, p.framed(fmt.Sprintf(`{"type":"attachment_blob","attachment_id":%q,"len":%d}`, id, size)), blob)
			}
			for _, part := range parts {
				if _, err := p.Write(part); err != nil {
					t.Error(err)
				}
			}
			if m, err := p.terminal(); err != nil || m["type"] != "done" {
				t.Errorf("%v, %v", m, err)
			}
		})
	}
	all.Wait()
	d.recovers(before)
}

// TestManyAtOnce runs fifty clients, then twenty that hang up during their answer, then two hundred
// that only connect. Every answer ends exactly once.
func TestManyAtOnce(t *testing.T) {
	d := mocked(t, `{"backends":[{"kind":"mock","name":"m","tokens":["x","y","z"],"token_delay_ms":5}]}`, "--queue-depth", "64")
	before := d.resources()
	var all sync.WaitGroup
	for i := range 50 {
		leaf := leaves[i%3]
		all.Go(func() {
			p := d.peer(leaf)
			defer p.Close()
			for range 4 {
				if _, err := p.Write(p.framed(validRequests[leaf])); err != nil {
					t.Error(err)
					return
				}
			}
			_ = p.CloseWrite()
			for n := range 5 {
				m, err := p.terminal()
				if n < 4 && (err != nil || m["type"] != "done") || n == 4 && !errors.Is(err, io.EOF) {
					t.Errorf("%s: answer %d: %v, %v", leaf, n, m, err)
					return
				}
			}
		})
	}
	all.Wait()
	for i := range 20 {
		p := d.peer(leaves[i%3])
		if _, err := p.Write(p.framed(validRequests[p.leaf])); err != nil {
			t.Fatal(err)
		}
		if _, err := p.next(); err != nil {
			t.Fatal(err)
		}
		_ = p.Close()
	}
	for range 200 {
		_ = d.peer("infer.sock").Close()
	}
	d.recovers(before)
}

// TestDrainAnswersAll stops a daemon while fifty requests run or wait: each gets exactly one
// terminal frame, and the daemon exits in time.
func TestDrainAnswersAll(t *testing.T) {
	d := mocked(t, `{"backends":[{"kind":"mock","name":"m","tokens":["x","y","z"],"token_delay_ms":60000}]}`,
		"--queue-depth", "64", "--drain-timeout-secs", "1")
	var peers []*peer
	for i := range 50 {
		p := d.peer(leaves[i%3])
		if _, err := p.Write(p.framed(validRequests[p.leaf])); err != nil {
			t.Fatal(err)
		}
		peers = append(peers, p)
	}
	eventually(t, "all are in", func() bool { s := d.stats(); return s.Running+s.Waiting == 50 })
	d.signal(syscall.SIGTERM)
	for _, p := range peers {
		m, err := p.terminal()
		if err != nil || m["id"] != "g" || m["type"] != "done" && m["code"] != "backend_unavailable" {
			t.Errorf("%s: %v, %v", p.leaf, m, err)
		}
		if m, err := p.next(); !errors.Is(err, io.EOF) {
			t.Errorf("%s: and then %v, %v", p.leaf, m, err)
		}
	}
	if code := d.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
