package proc

import (
	"bytes"
	"regexp"
	"strings"

	"github.com/inferd-go/inferd/internal/printable"
)

// maxOutput is the number of bytes that are kept of a process's output: the last 16 KiB.
const maxOutput = 16 << 10

// crashLine matches the first line of a process that crashes. "error" and "failed" do not
// count: native libraries log them about optional features.
var crashLine = regexp.MustCompile(`GGML_ASSERT\(|` + // llama.cpp, with or without a file name
	`^\S+\.(?:c|cc|cpp|cu|h|hpp|m|mm):\d+: |` + // assert and abort of native code
	`^terminate called |` + // C++
	`^(?:panic|fatal error|SIG[A-Z]+): `) // Go

// An output keeps the end of a stream and its first crash line.
type output struct {
	tail  []byte // at least the last maxOutput bytes, at most twice as many
	line  []byte // the current, incomplete line, cut at printable.Max
	crash string // the first crash line; empty if there is none so far
}

func (o *output) Write(p []byte) (int, error) {
	n := len(p)
	for rest, ended := p, true; ended && o.crash == ""; {
		var part []byte
		part, rest, ended = bytes.Cut(rest, []byte("\n"))
		o.line = append(o.line, part[:min(len(part), printable.Max-len(o.line))]...)
		if ended {
			o.endLine()
		}
	}
	o.tail = append(o.tail, p[max(0, len(p)-maxOutput):]...)
	if len(o.tail) > 2*maxOutput { // trimmed rarely, so that a byte is moved at most once
		o.tail = append(o.tail[:0], o.kept()...)
	}
	return n, nil
}

func (o *output) endLine() {
	if crashLine.Match(o.line) {
		o.crash = printable.Text(string(o.line))
	}
	o.line = o.line[:0]
}

func (o *output) kept() []byte { return o.tail[max(0, len(o.tail)-maxOutput):] }

// end returns the crash line, and the last maxOutput bytes as valid UTF-8. No Write may follow.
func (o *output) end() (crash, tail string) {
	if o.crash == "" {
		o.endLine()
	}
	return o.crash, strings.ToValidUTF8(string(o.kept()), "\uFFFD")
}
