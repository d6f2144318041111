// Package corpus reads and plays transcripts: what a client sends to a daemon, and what it
// must get. They lie in spec/corpus, whose README has the format; they are meant for any
// implementation. The package knows how messages are cut, not what they mean, and no daemon:
// somebody else connects.
package corpus

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// prefixedLeaf is the socket whose messages are length-prefixed.
const prefixedLeaf = "inferd.sock"

// DefaultConfig is the config of a transcript that names none.
const DefaultConfig = `{"backends":[{"kind":"mock","name":"mock"}]}`

// A Transcript is one file.
type Transcript struct {
	Name   string // path below the folder, without extension
	About  string // what it is about
	Config string // of the daemon: the content of its config file
	talks  []talk
}

// A talk is what happens on one connection.
type talk struct {
	leaf  string // name of the socket
	lines []line
}

// A line is something to do, or something to expect.
type line struct {
	number   int // in the file
	op, text string
	raw      []byte // of "x": the bytes
	zeros    int    // of "blob-zeros": how many
}

var header = regexp.MustCompile(`^-- (\S+) --$`)

// Parse reads a transcript. Its errors name the file and the line.
func Parse(name string, data []byte) (*Transcript, error) {
	t := &Transcript{Name: strings.TrimSuffix(name, path.Ext(name)), Config: DefaultConfig}
	var (
		about, config strings.Builder
		section       string
		n             int
	)
	for raw := range strings.Lines(string(data)) {
		n++
		raw = strings.TrimSuffix(raw, "\n")
		if m := header.FindStringSubmatch(raw); m != nil {
			if section = m[1]; section != "config" {
				t.talks = append(t.talks, talk{leaf: section})
			}
			continue
		}
		switch section {
		case "":
			about.WriteString(raw + "\n")
		case "config":
			config.WriteString(raw + "\n")
		default:
			l, err := parseLine(raw)
			if err != nil {
				return nil, fmt.Errorf("%s:%d: %w", name, n, err)
			}
			if l.number = n; l.op != "#" {
				last := &t.talks[len(t.talks)-1]
				last.lines = append(last.lines, l)
			}
		}
	}
	if len(t.talks) == 0 {
		return nil, fmt.Errorf("%s: nothing is said", name)
	}
	t.About = strings.TrimSpace(about.String())
	if config.Len() > 0 {
		t.Config = config.String()
	}
	return t, nil
}

func parseLine(raw string) (line, error) {
	op, text, _ := strings.Cut(raw, " ")
	l := line{op: op, text: text}
	var err error
	switch op {
	case "#", ">", ">>", "<", "blob":
	case "x":
		l.raw, err = hex.DecodeString(text)
	case "blob-zeros":
		var n uint64
		n, err = strconv.ParseUint(text, 10, 28)
		l.zeros = int(n)
	case "half-close", "EOF":
		if text != "" {
			err = fmt.Errorf("%s stands alone", op)
		}
	case "":
		if l.op = "#"; text != "" {
			err = fmt.Errorf("what is %q?", raw)
		}
	default:
		err = fmt.Errorf("what is %q?", raw)
	}
	return l, err
}

// Load reads all transcripts of a folder and those below it.
func Load(dir fs.FS) ([]*Transcript, error) {
	var all []*Transcript
	err := fs.WalkDir(dir, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || path.Ext(name) != ".txtar" {
			return err
		}
		data, err := fs.ReadFile(dir, name)
		if err != nil {
			return err
		}
		t, err := Parse(name, data)
		if err != nil {
			return err
		}
		all = append(all, t)
		return nil
	})
	if err == nil && len(all) == 0 {
		err = errors.New("no transcripts")
	}
	return all, err
}

// Play plays the transcript, one connection after the other. dial connects to a socket of
// a daemon with the transcript's config; it should give a connection that can be
// half-closed, see [ErrHalfClose]. What goes out between two expectations is written in
// pieces of at most step bytes. An error says what was not as it should be, and where.
func (t *Transcript) Play(dial func(leaf string) (net.Conn, error), step int) error {
	for _, k := range t.talks {
		nc, err := dial(k.leaf)
		if err != nil {
			return fmt.Errorf("%s: %s: %w", t.Name, k.leaf, err)
		}
		err = k.play(nc, step)
		_ = nc.Close()
		if err != nil {
			return fmt.Errorf("%s:%w", t.Name, err)
		}
	}
	return nil
}

// ErrHalfClose is how a transcript ends whose connection cannot be half-closed, and had to.
var ErrHalfClose = errors.New("this connection cannot be half-closed")

func closeWrite(nc net.Conn) error {
	half, ok := nc.(interface{ CloseWrite() error })
	if !ok {
		return ErrHalfClose
	}
	return half.CloseWrite()
}

// matches reports whether got is pattern, in which … stands for anything. Numbers may be
// written in another way: 1 is 1.0 and 1e0.
func matches(pattern, got string) bool {
	pattern = regexp.QuoteMeta(pattern)
	anything := func(expr string) string { return strings.ReplaceAll(expr, "…", ".*") }
	if regexp.MustCompile(`\A(?s:` + anything(pattern) + `)\z`).MatchString(got) {
		return true
	}
	var want []string
	numbers := token.ReplaceAllStringFunc(pattern, func(t string) string {
		if t[0] == '"' {
			return t
		}
		want = append(want, strings.ReplaceAll(t, `\`, ""))
		return "(" + number + ")"
	})
	found := regexp.MustCompile(`\A(?s:` + anything(numbers) + `)\z`).FindStringSubmatch(got)
	if found == nil {
		return false
	}
	for i, n := range want {
		if !sameNumber(n, found[i+1]) {
			return false
		}
	}
	return true
}

const number = `-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?`

// token is a string or a number of JSON in which regexp's own characters are quoted.
var token = regexp.MustCompile(`"(?:[^"\\]|\\\\(?:\\?.)|\\[^\\])*"|-?[0-9]+(?:\\\.[0-9]+)?(?:[eE](?:-|\\\+)?[0-9]+)?`)

// sameNumber compares values. A fraction may have been computed in single precision.
func sameNumber(a, b string) bool {
	x, errX := strconv.ParseFloat(a, 64)
	y, errY := strconv.ParseFloat(b, 64)
	if errX != nil || errY != nil {
		return false
	}
	return x == y || x != math.Trunc(x) && float32(x) == float32(y)
}
