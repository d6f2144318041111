package settings

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/inferd-go/inferd/internal/trust"
)

// maxFile is the maximum size of a config file, in bytes.
const maxFile = 1 << 20

// readFile returns the content of a regular file of at most maxFile bytes. It refuses a file that
// another user can change or replace. It reads no byte of a named pipe or a device, because their
// content might never end.
func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|nonBlocking, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	// Only this user and root may change the file, because it names programs, libraries and
	// models.
	if err := trust.File(f); err != nil {
		return nil, err
	}
	if err := trust.Path(path); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return nil, err
	case len(data) > maxFile:
		return nil, fmt.Errorf("%s has more than %d bytes", path, maxFile)
	}
	return data, nil
}

// Open reads a config file and checks its syntax. It returns nil and no error if there is no such
// file.
func Open(path string) (*Document, error) {
	data, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // no file is no error
	}
	if err != nil {
		return nil, err // names the file
	}
	return parse(path, data)
}

// A Document is a config file that is being read. It keeps the first error. Reading continues after
// an error, so that every unknown member is found.
type Document struct {
	path string
	data []byte
	Root *Object
	err  error                      // the first one; names the file and the line
	at   map[jsontext.Pointer]int64 // offsets of the values; nil until they are needed
}

// parse checks the syntax of the content of a config file, which must be a JSON object.
func parse(path string, data []byte) (*Document, error) {
	d := &Document{path: path, data: data}
	if strings.TrimSpace(string(data)) == "" {
		return nil, fmt.Errorf("%s is empty: it must hold a JSON object", path)
	}
	var value jsontext.Value
	if err := json.Unmarshal(data, &value); err != nil {
		e, ok := errors.AsType[*jsontext.SyntacticError](err)
		switch {
		case ok && e.JSONPointer != "":
			return nil, fmt.Errorf("%s:%d: %s: %w", path, d.lineAt(e.ByteOffset), spell(e.JSONPointer), e.Err)
		case ok:
			return nil, fmt.Errorf("%s:%d: %w", path, d.lineAt(e.ByteOffset), e.Err)
		}
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if value.Kind() != jsontext.KindBeginObject {
		return nil, fmt.Errorf("%s:%d: the file must hold a JSON object, this is %s", path, d.lineAt(0), kindNames[value.Kind()])
	}
	d.Root = d.object("", value)
	return d, nil
}

// failf records an error at a value, unless there is an earlier error.
func (d *Document) failf(at jsontext.Pointer, format string, args ...any) {
	if d.err != nil {
		return
	}
	position := spell(at)
	if position != "" && !strings.HasPrefix(format, ":") {
		position += " "
	}
	d.err = fmt.Errorf("%s:%d: %s%w", d.path, d.line(at), position, fmt.Errorf(format, args...))
}

// line returns the number, from 1, of the line on which the value at a position begins. If there is
// no such value, it returns the line of the nearest object around the position.
func (d *Document) line(at jsontext.Pointer) int {
	if d.at == nil {
		d.at = make(map[jsontext.Pointer]int64)
		dec := jsontext.NewDecoder(strings.NewReader(string(d.data)))
		for {
			if _, err := dec.ReadToken(); err != nil { // the end: the syntax is right
				break
			}
			if p := dec.StackPointer(); d.at[p] == 0 {
				d.at[p] = dec.InputOffset() - 1
			}
		}
	}
	for ; at != ""; at = at.Parent() {
		if offset, ok := d.at[at]; ok {
			return d.lineAt(offset)
		}
	}
	return d.lineAt(0)
}

// lineAt returns the number, from 1, of the line of the value at or after an offset: it skips white
// space, commas and colons first.
func (d *Document) lineAt(offset int64) int {
	rest := d.data[min(int(offset), len(d.data)):]
	skip := len(rest) - len(bytes.TrimLeft(rest, " \t\r\n,:"))
	return 1 + bytes.Count(d.data[:int(offset)+skip], []byte("\n"))
}

// Err returns the first error of the document, or nil. The error names the file and the line.
func (d *Document) Err() error { return d.err }

// Unknown returns a warning for every member that was not read, in the order of the file. Call it
// after all settings have been read.
func (d *Document) Unknown() (warnings []string) {
	var at []jsontext.Pointer
	d.Root.unknown(&at)
	for _, p := range at {
		warnings = append(warnings, fmt.Sprintf("%s:%d: unknown key %s", d.path, d.line(p), spell(p)))
	}
	return warnings
}

// kindNames name the kinds of JSON values in messages.
var kindNames = map[jsontext.Kind]string{
	jsontext.KindNull: "null", jsontext.KindFalse: "a boolean", jsontext.KindTrue: "a boolean", jsontext.KindString: "a string",
	jsontext.KindNumber: "a number", jsontext.KindBeginObject: "an object", jsontext.KindBeginArray: "an array",
}

// spell returns a position in the form in which messages show it, such as backends[0].model.
func spell(p jsontext.Pointer) string {
	var b strings.Builder
	for token := range p.Tokens() {
		if _, err := strconv.Atoi(token); err == nil {
			b.WriteString("[" + token + "]")
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		b.WriteString(token)
	}
	return b.String()
}
