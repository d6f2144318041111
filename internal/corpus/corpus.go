// Package corpus reads and plays transcripts: the messages that a client sends to a daemon, and the
// answers that it must get. They are in spec/corpus and serve any implementation; the README there
// describes the format. The package handles the framing of messages, but not their meaning. Its
// caller passes a function that connects to a daemon.
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

// prefixedLeaf is the socket with length-prefixed messages.
const prefixedLeaf = "inferd.sock"

// DefaultConfig is the daemon's config for a transcript without a section config.
const DefaultConfig = `{"backends":[{"kind":"mock","name":"mock"}]}`

// A Transcript is one file.
type Transcript struct {
	Name   string // path below the folder, without extension
	About  string // the description at the start of the file
	Config string // content of the daemon's config file
	// Hub lists the files of a hub, from which the daemon pulls into an empty model store. The hub
	// answers only after the first connection is made. If Hub is empty, the transcript needs no
	// hub.
	Hub   []HubFile
	conns []conn
}

// A HubFile is a GGUF file of a repository.
type HubFile struct {
	Repo, Path string // OWNER/REPO, and the path in the repository
	Content    string // a word; the player of the transcript defines its meaning
	Flipped    bool   // the last byte is sent with its bits flipped, so the digest is wrong
}

// A conn is the script of one connection.
type conn struct {
	leaf  string // name of the socket
	lines []line
}

// A line is an action or an expectation.
type line struct {
	number   int // in the file
	op, text string
	raw      []byte // op "x": the bytes
	zeros    int    // op "blob-zeros": the number of zeros
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
			if section = m[1]; section != "config" && section != "hub" {
				t.conns = append(t.conns, conn{leaf: section})
			}
			continue
		}
		switch section {
		case "":
			about.WriteString(raw + "\n")
		case "config":
			config.WriteString(raw + "\n")
		case "hub":
			f, err := parseHubFile(raw)
			if err != nil {
				return nil, fmt.Errorf("%s:%d: %w", name, n, err)
			}
			if f != nil {
				t.Hub = append(t.Hub, *f)
			}
		default:
			l, err := parseLine(raw)
			if err != nil {
				return nil, fmt.Errorf("%s:%d: %w", name, n, err)
			}
			if l.number = n; l.op != "#" {
				last := &t.conns[len(t.conns)-1]
				last.lines = append(last.lines, l)
			}
		}
	}
	if len(t.conns) == 0 {
		return nil, fmt.Errorf("%s: no connection", name)
	}
	t.About = strings.TrimSpace(about.String())
	if config.Len() > 0 {
		t.Config = config.String()
	}
	return t, nil
}

// parseHubFile parses OWNER/REPO/PATH CONTENT [flipped]. It returns nil for a comment or an empty
// line.
func parseHubFile(raw string) (*HubFile, error) {
	words := strings.Fields(raw)
	if len(words) == 0 || strings.HasPrefix(raw, "#") {
		return nil, nil //nolint:nilnil // no file is no failure
	}
	parts := strings.SplitN(words[0], "/", 3)
	if len(parts) != 3 || len(words) < 2 || len(words) > 3 || len(words) == 3 && words[2] != "flipped" {
		return nil, fmt.Errorf("unknown file of a hub %q: want OWNER/REPO/PATH CONTENT [flipped]", raw)
	}
	return &HubFile{Repo: parts[0] + "/" + parts[1], Path: parts[2], Content: words[1], Flipped: len(words) == 3}, nil
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
			err = fmt.Errorf("unexpected text after %s", op)
		}
	case "":
		if l.op = "#"; text != "" {
			err = fmt.Errorf("unknown line %q", raw)
		}
	default:
		err = fmt.Errorf("unknown line %q", raw)
	}
	return l, err
}

// Load reads all transcripts of a folder and its subfolders. It fails if there are none.
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

// Play plays the connections of the transcript one after the other. dial connects to a socket of a
// daemon that runs with the transcript's config. The error wraps [ErrHalfClose] if the transcript
// half-closes a connection that does not support it. Output is written in pieces of at most step
// bytes. An error names the line and the difference.
func (t *Transcript) Play(dial func(leaf string) (net.Conn, error), step int) error {
	for _, c := range t.conns {
		nc, err := dial(c.leaf)
		if err != nil {
			return fmt.Errorf("%s: %s: %w", t.Name, c.leaf, err)
		}
		err = c.play(nc, step)
		_ = nc.Close()
		if err != nil {
			return fmt.Errorf("%s:%w", t.Name, err)
		}
	}
	return nil
}

// ErrHalfClose means that the transcript half-closes a connection that does not support it.
var ErrHalfClose = errors.New("this connection cannot be half-closed")

func closeWrite(nc net.Conn) error {
	half, ok := nc.(interface{ CloseWrite() error })
	if !ok {
		return ErrHalfClose
	}
	return half.CloseWrite()
}

// matches reports whether got matches pattern, in which … stands for any text. Numbers are compared
// by value: 1 matches 1.0 and 1e0.
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

// token matches a JSON string or number in which the special characters of regexp are quoted.
var token = regexp.MustCompile(`"(?:[^"\\]|\\\\(?:\\?.)|\\[^\\])*"|-?[0-9]+(?:\\\.[0-9]+)?(?:[eE](?:-|\\\+)?[0-9]+)?`)

// sameNumber reports whether a and b have the same value. It compares fractions in single precision
// only, because a daemon may use that.
func sameNumber(a, b string) bool {
	x, errX := strconv.ParseFloat(a, 64)
	y, errY := strconv.ParseFloat(b, 64)
	if errX != nil || errY != nil {
		return false
	}
	return x == y || x != math.Trunc(x) && float32(x) == float32(y)
}
