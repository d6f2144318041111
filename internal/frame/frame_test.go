package frame_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/inferd-go/inferd/internal/frame"
)

const limit = 16

// readAll returns the messages of a stream, each with its kind, and the error at its end.
func readAll(r frame.Reader) (msgs []string, end error) {
	for {
		kind, msg, err := r.ReadFrame()
		if err != nil {
			return msgs, err
		}
		msgs = append(msgs, string('0'+rune(kind))+string(msg))
	}
}

func TestLines(t *testing.T) {
	for name, test := range map[string]struct {
		stream string
		want   []string
		end    string
	}{
		"nothing":                       {"", nil, "EOF"},
		"two in one":                    {"a\nb\n", []string{"1a", "1b"}, "EOF"},
		"the last without newline":      {"a\nb", []string{"1a", "1b"}, "EOF"},
		"a blank one is one":            {"\na\n", []string{"1", "1a"}, "EOF"},
		"a carriage return is kept":     {"a\r\n", []string{"1a\r"}, "EOF"},
		"exactly the limit":             {strings.Repeat("a", limit) + "\nb\n", []string{"1" + strings.Repeat("a", limit), "1b"}, "EOF"},
		"the limit and the end":         {strings.Repeat("a", limit), []string{"1" + strings.Repeat("a", limit)}, "EOF"},
		"one byte more":                 {"a\n" + strings.Repeat("a", limit+1) + "\n", []string{"1a"}, "frame exceeds 16 byte cap"},
		"one byte more without newline": {strings.Repeat("a", limit+1), nil, "frame exceeds 16 byte cap"},
	} {
		t.Run(name, func(t *testing.T) {
			for kind, r := range map[string]io.Reader{
				"whole":          strings.NewReader(test.stream),
				"a byte at once": iotest.OneByteReader(strings.NewReader(test.stream)),
			} {
				got, end := readAll(frame.Lines.NewReader(r, limit))
				if diff := cmp.Diff(test.want, got); diff != "" || end.Error() != test.end {
					t.Errorf("%s: got %q, %v, want %q, %s", kind, got, end, test.want, test.end)
				}
			}
		})
	}
}

func TestPrefixed(t *testing.T) {
	for name, test := range map[string]struct {
		stream string // in hex
		want   []string
		end    string
	}{
		"nothing":                   {"", nil, "EOF"},
		"JSON, then a blob":         {"02017b7d 010261", []string{"1{}", "2a"}, "EOF"},
		"newlines have no meaning":  {"03010a0a0a", []string{"1\n\n\n"}, "EOF"},
		"an empty one":              {"0001 0002", []string{"1", "2"}, "EOF"},
		"a longer length than need": {"8100 01 61", []string{"1a"}, "EOF"},
		"exactly the limit":         {"1002" + strings.Repeat("61", limit), []string{"2" + strings.Repeat("a", limit)}, "EOF"},
		"one byte more":             {"11", nil, "frame exceeds 16 byte cap"},
		"far more":                  {"ffffffff7f", nil, "frame exceeds 16 byte cap"},
		"an endless length":         {"808080808001", nil, "malformed frame: length varint exceeded 5 bytes"},
		"an unknown kind":           {"0109", nil, "malformed frame: unknown frame-type byte 0x09"},
		"kind zero":                 {"0100", nil, "malformed frame: unknown frame-type byte 0x00"},
		"ends in the length":        {"80", nil, "malformed frame: stream ended mid-length-varint"},
		"ends before the kind":      {"01", nil, "malformed frame: stream ended mid-frame reading the type byte"},
		"ends before the payload":   {"0101", nil, "malformed frame: stream ended mid-frame reading the payload"},
		"ends in the payload":       {"020161", nil, "malformed frame: stream ended mid-frame reading the payload"},
	} {
		t.Run(name, func(t *testing.T) {
			stream, err := hex.DecodeString(strings.ReplaceAll(test.stream, " ", ""))
			if err != nil {
				t.Fatal(err)
			}
			for kind, r := range map[string]io.Reader{
				"whole":          bytes.NewReader(stream),
				"a byte at once": iotest.OneByteReader(bytes.NewReader(stream)),
			} {
				got, end := readAll(frame.Prefixed.NewReader(r, limit))
				if diff := cmp.Diff(test.want, got); diff != "" || end.Error() != test.end {
					t.Errorf("%s: got %q, %v, want %q, %s", kind, got, end, test.want, test.end)
				}
			}
		})
	}
}

func TestAppendHead(t *testing.T) {
	for n, want := range map[int]string{
		0: "0001", 1: "0101", 111: "6f01", 127: "7f01", 128: "800101", 300: "ac0201",
		16383: "ff7f01", 16384: "80800101", frame.Limit: "8080802001",
	} {
		if got := hex.EncodeToString(frame.AppendHead(nil, frame.JSON, n)); got != want {
			t.Errorf("%d bytes: %s, want %s", n, got, want)
		}
	}
}

// counter counts the calls of Write.
type counter struct {
	io.Writer
	writes int
}

func (c *counter) Write(p []byte) (int, error) { c.writes++; return c.Writer.Write(p) }

func TestOneWritePerMessage(t *testing.T) {
	for _, framing := range []frame.Framing{frame.Lines, frame.Prefixed} {
		c := &counter{Writer: io.Discard}
		w := framing.NewWriter(c)
		for _, n := range []int{0, 1, 1 << 20, 5} {
			if err := w.WriteFrame(make([]byte, n)); err != nil {
				t.Fatal(err)
			}
		}
		if c.writes != 4 {
			t.Errorf("%T: %d writes for 4 messages", framing, c.writes)
		}
	}
}

// Held messages are sent with the next message that is written, or once they have maxHeld bytes, in
// order.
func TestHeldMessages(t *testing.T) {
	for _, framing := range []frame.Framing{frame.Lines, frame.Prefixed} {
		var stream bytes.Buffer
		c := &counter{Writer: &stream}
		w := framing.NewWriter(c)
		var want []string
		send := func(send func([]byte) error, msg string, writes int) {
			t.Helper()
			want = append(want, "1"+msg)
			if err := send([]byte(msg)); err != nil || c.writes != writes {
				t.Errorf("%T: after %.9q: %d writes, want %d; %v", framing, msg, c.writes, writes, err)
			}
		}
		send(w.HoldFrame, "a", 0)
		send(w.HoldFrame, "", 0)
		send(w.WriteFrame, "b", 1)
		send(w.WriteFrame, "c", 2)
		send(w.HoldFrame, strings.Repeat("d", 10<<10), 2)
		send(w.HoldFrame, strings.Repeat("e", 10<<10), 3)
		send(w.HoldFrame, "f", 3)
		if b, ok := w.(frame.BlobWriter); ok {
			if err := b.WriteBlob([]byte("blob")); err != nil {
				t.Error(err)
			}
			want = append(want, "2blob")
		} else {
			send(w.WriteFrame, "g", 4)
		}
		if got, end := readAll(framing.NewReader(&stream, frame.Limit)); !cmp.Equal(got, want) || !errors.Is(end, io.EOF) {
			t.Errorf("%T: got %q, %v", framing, got, end)
		}
	}
}

func TestSteadyStateDoesNotAllocate(t *testing.T) {
	for _, framing := range []frame.Framing{frame.Lines, frame.Prefixed} {
		var stream bytes.Buffer
		r, w := framing.NewReader(&stream, limit), framing.NewWriter(&stream)
		msg := []byte("{}")
		if n := testing.AllocsPerRun(100, func() {
			if err := errors.Join(w.HoldFrame(msg), w.WriteFrame(msg)); err != nil {
				t.Error(err)
			}
			for range 2 {
				if _, _, err := r.ReadFrame(); err != nil {
					t.Error(err)
				}
			}
		}); n != 0 {
			t.Errorf("%T: %v allocations a message", framing, n)
		}
	}
}

// zeros is a stream of n zero bytes.
func zeros(n int64) io.Reader {
	return io.LimitReader(endless{}, n)
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// The memory for a prefixed message depends on the bytes that have arrived, not on the announced
// length. For a line without an end, at most eight times the limit is allocated.
func TestMemoryIsBounded(t *testing.T) {
	allocated := func(f func()) uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	head := bytes.NewReader(frame.AppendHead(nil, frame.Blob, frame.Limit))
	if got := allocated(func() {
		_, _, err := frame.Prefixed.NewReader(io.MultiReader(head, zeros(1000)), frame.Limit).ReadFrame()
		if _, ok := errors.AsType[*frame.MalformedError](err); !ok {
			t.Error(err)
		}
	}); got > 1<<20 {
		t.Errorf("64 MiB announced and 1000 bytes sent cost %d bytes", got)
	}
	const line = 1 << 20
	if got := allocated(func() {
		_, _, err := frame.Lines.NewReader(endless{}, line).ReadFrame()
		if _, ok := errors.AsType[*frame.TooLongError](err); !ok {
			t.Error(err)
		}
	}); got > 8*line {
		t.Errorf("an endless line cost %d bytes, of which %d may be held", got, line)
	}
}

// watched is a stream that records its calls: "r" is a Read, "(" and ")" are FrameActive(true) and
// FrameActive(false); held has the arguments of Reserve.
type watched struct {
	io.Reader
	calls string
	held  []int
	full  error // result of Reserve
}

func (w *watched) Reserve(n int) error {
	w.held = append(w.held, n)
	return w.full
}

func (w *watched) FrameActive(under bool) {
	if under {
		w.calls += "("
	} else {
		w.calls += ")"
	}
}

func (w *watched) Read(p []byte) (int, error) {
	w.calls += "r"
	return w.Reader.Read(p)
}

func TestFrameActive(t *testing.T) {
	for name, test := range map[string]struct {
		framing frame.Framing
		parts   []string
		want    string
	}{
		"whole messages":               {frame.Lines, []string{"a\n", "b\n"}, "r()r()r"},
		"two at once":                  {frame.Lines, []string{"a\nb\n"}, "r()()r"},
		"in parts":                     {frame.Lines, []string{"a", "b\n"}, "r(r)r"},
		"the next begins with the end": {frame.Lines, []string{"a\nb", "c\n"}, "r()(r)r"},
		"too long":                     {frame.Lines, []string{strings.Repeat("a", limit+1)}, "r()"},
		"prefixed":                     {frame.Prefixed, []string{"\x01\x01a", "\x01", "\x01", "a\x00", "\x01"}, "r()r(rr)(r)r"},
		"prefixed, torn":               {frame.Prefixed, []string{"\x01"}, "r(r)"},
	} {
		t.Run(name, func(t *testing.T) {
			var parts []io.Reader
			for _, p := range test.parts {
				parts = append(parts, strings.NewReader(p))
			}
			stream := &watched{Reader: io.MultiReader(parts...)}
			_, _ = readAll(test.framing.NewReader(stream, limit))
			if stream.calls != test.want {
				t.Errorf("calls %s, want %s", stream.calls, test.want)
			}
		})
	}
}

// Reserve is called for all memory beyond FreeBytes that a message takes, and for at most twice the
// size of the message; for small messages it is not called. If it fails, reading the message fails.
func TestReserve(t *testing.T) {
	for name, test := range map[string]struct {
		framing frame.Framing
		size    int
	}{
		"a line":          {frame.Lines, 5 << 20},
		"a small line":    {frame.Lines, frame.FreeBytes},
		"prefixed":        {frame.Prefixed, 5 << 20},
		"small, prefixed": {frame.Prefixed, frame.FreeBytes},
	} {
		t.Run(name, func(t *testing.T) {
			var wire bytes.Buffer
			msg := bytes.Repeat([]byte("a"), test.size)
			for range 2 {
				if err := test.framing.NewWriter(&wire).WriteFrame(msg); err != nil {
					t.Fatal(err)
				}
			}
			again := bytes.NewReader(wire.Bytes())
			stream := &watched{Reader: &wire}
			r := test.framing.NewReader(stream, frame.Limit)
			_, first, err := r.ReadFrame()
			if err != nil || len(first) != test.size {
				t.Fatalf("%d bytes, %v", len(first), err)
			}
			sum := frame.FreeBytes
			for _, n := range stream.held {
				sum += n
			}
			if sum < cap(first) || test.size <= frame.FreeBytes && len(stream.held) > 0 || sum > 2*test.size && sum > frame.FreeBytes {
				t.Errorf("reserved %v, and allocated %d", stream.held, cap(first))
			}
			// A detached message does not change.
			r.Detach()
			first[0] = 'b'
			if _, second, err := r.ReadFrame(); err != nil || second[0] != 'a' || first[0] != 'b' {
				t.Errorf("the next: %q, %v", second[:1], err)
			}
			full := errors.New("full")
			stream = &watched{Reader: again, full: full}
			_, _, err = test.framing.NewReader(stream, frame.Limit).ReadFrame()
			if test.size > frame.FreeBytes && !errors.Is(err, full) || test.size <= frame.FreeBytes && err != nil {
				t.Errorf("without memory: %v", err)
			}
		})
	}
}

func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte(`{"id":"1"}`))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, msg []byte) {
		for _, framing := range []frame.Framing{frame.Lines, frame.Prefixed} {
			if framing == frame.Lines && bytes.ContainsRune(msg, '\n') {
				continue // a line cannot contain a newline
			}
			var b bytes.Buffer
			if err := framing.NewWriter(&b).WriteFrame(msg); err != nil {
				t.Fatal(err)
			}
			whole := bytes.Clone(b.Bytes())
			r := framing.NewReader(iotest.OneByteReader(&b), len(msg))
			if kind, got, err := r.ReadFrame(); err != nil || kind != frame.JSON || !bytes.Equal(got, msg) {
				t.Fatalf("%T: got %d %q, %v; want %q", framing, kind, got, err, msg)
			}
			if _, _, err := r.ReadFrame(); !errors.Is(err, io.EOF) {
				t.Fatalf("%T: after the last message: %v, want EOF", framing, err)
			}
			if len(msg) == 0 {
				continue
			}
			_, _, err := framing.NewReader(bytes.NewReader(whole), len(msg)-1).ReadFrame()
			if _, ok := errors.AsType[*frame.TooLongError](err); !ok {
				t.Fatalf("%T: one byte over the limit: %v", framing, err)
			}
		}
	})
}

// FuzzPrefixed checks that the reader returns after any input, without a panic or a message over
// the limit.
func FuzzPrefixed(f *testing.F) {
	f.Add([]byte{0x80, 0x80, 0x80, 0x20})
	f.Add([]byte{0xac, 0x02, 0x02})
	f.Fuzz(func(t *testing.T, stream []byte) {
		msgs, _ := readAll(frame.Prefixed.NewReader(bytes.NewReader(stream), 1<<10))
		for _, m := range msgs {
			if len(m) > 1+1<<10 {
				t.Fatalf("a message of %d bytes", len(m)-1)
			}
		}
	})
}
