package gbnf

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// characters parses the rest of a literal, up to its closing byte end.
func (p *parser) characters(end byte) (all []charRange, err error) {
	begin := p.pos - 1
	for p.next() != end {
		c, err := p.character(begin)
		if err != nil {
			return nil, err
		}
		all = append(all, charRange{c, c})
	}
	p.pos++
	return all, nil
}

// A charRange is a range of code points, which may exceed the largest one of Unicode.
type charRange struct{ least, most uint64 }

// class parses the rest of a class: its characters and ranges, up to the bracket.
func (p *parser) class() (all []charRange, err error) {
	begin := p.pos - 1
	for p.next() != ']' {
		at := p.pos
		least, err := p.character(begin)
		if err != nil {
			return nil, err
		}
		if p.next() != '-' || strings.HasPrefix(p.source[p.pos:], "-]") {
			all = append(all, charRange{least, least})
			continue
		}
		p.pos++
		most, err := p.character(begin)
		all = append(all, charRange{least, most})
		switch {
		case err != nil:
			return nil, err
		case most < least:
			return nil, p.errorf(at, "the range %q is empty: its first character comes after its last", p.source[at:p.pos])
		}
	}
	p.pos++
	return all, nil
}

// escapes maps each escape letter to the number of hexadecimal digits that follow it.
var escapes = map[byte]int{'x': 2, 'u': 4, 'U': 8, 't': 0, 'r': 0, 'n': 0, '\\': 0, '"': 0, '[': 0, ']': 0, '-': 0}

// controls maps an escape letter to the control character for which it stands.
var controls = map[byte]uint64{'t': '\t', 'r': '\r', 'n': '\n'}

// character parses a character of the literal or class that begins at begin, and returns its code
// point.
func (p *parser) character(begin int) (uint64, error) {
	b := p.next()
	switch {
	case b == 0:
		return 0, p.errorf(begin, "%q has no end", p.source[begin])
	case b != '\\':
		r, size := utf8.DecodeRuneInString(p.source[p.pos:])
		p.pos += size
		return uint64(r), nil
	}
	at := p.pos
	p.pos++
	b = p.next()
	digits, ok := escapes[b]
	if !ok {
		return 0, p.errorf(at, "an unknown escape")
	}
	p.pos++
	if code, ok := controls[b]; ok {
		return code, nil
	}
	if digits == 0 {
		return uint64(b), nil
	}
	end := min(p.pos+digits, len(p.source))
	code, err := strconv.ParseUint(p.source[p.pos:end], 16, 64)
	if err != nil || end < p.pos+digits {
		return 0, p.errorf(at, "%d hexadecimal digits are missing", digits)
	}
	p.pos = end
	return code, nil
}
