package automaton

// States within a character of a JSON string; see [Builder.Text]. Only well-formed UTF-8 is taken,
// and each character has one spelling: a short escape if JSON has one, \u00XX in lower case for
// other control characters, and otherwise the character itself.
const (
	whole    = iota // between characters
	tail1           // one continuation byte is missing
	tailE0          // A0–BF, then one more
	tail2           // any two
	tailED          // 80–9F, then one more
	tailF0          // 90–BF, then two more
	tail3           // any three
	tailF4          // 80–8F, then two more
	escape          // after a backslash
	escapeU         // after \u
	escape0         // after \u0
	escape00        // after \u00
	low             // after \u000
	high            // after \u001
	refused
)

// textBits is the number of low bits of an item's count that hold the state within a character; the
// bits above count the characters so far.
const textBits = 4

// textRest holds the smallest number of bytes from each state to the end of the character.
var textRest = [...]int32{whole: 0, tail1: 1, tailE0: 2, tail2: 2, tailED: 2, tailF0: 3, tail3: 3, tailF4: 3, escape: 1, escapeU: 4, escape0: 3, escape00: 2, low: 1, high: 1}

// Plain reports whether a character is plain: it stands for itself in a JSON string, and is neither
// a control character nor a line separator. The dot of a pattern takes every plain character.
func Plain(r rune) bool {
	return r >= 0x20 && r != '"' && r != '\\' && r != 0x7f && r != 0x2028 && r != 0x2029
}

// textNext returns the state after a byte: whole after the last byte of a character, refused if the
// byte does not fit.
func textNext(state int32, b byte) int32 {
	tail := b >= 0x80 && b <= 0xbf
	onlyIf := func(ok bool, next int32) int32 {
		if ok {
			return next
		}
		return refused
	}
	switch state {
	case whole:
		return textFirst(b)
	case tail1:
		return onlyIf(tail, whole)
	case tail2:
		return onlyIf(tail, tail1)
	case tail3:
		return onlyIf(tail, tail2)
	case tailE0:
		return onlyIf(tail && b >= 0xa0, tail1)
	case tailED:
		return onlyIf(tail && b <= 0x9f, tail1)
	case tailF0:
		return onlyIf(tail && b >= 0x90, tail2)
	case tailF4:
		return onlyIf(tail && b <= 0x8f, tail2)
	case escape:
		switch b {
		case '"', '\\', 'b', 'f', 'n', 'r', 't':
			return whole
		}
		return onlyIf(b == 'u', escapeU)
	case escapeU:
		return onlyIf(b == '0', escape0)
	case escape0:
		return onlyIf(b == '0', escape00)
	case escape00:
		if b == '1' {
			return high
		}
		return onlyIf(b == '0', low)
	case low:
		return onlyIf(b >= '0' && b <= '7' || b == 'b' || b == 'e' || b == 'f', whole)
	case high:
		return onlyIf(b >= '0' && b <= '9' || b >= 'a' && b <= 'f', whole)
	}
	return refused
}

// textFirst is textNext for the first byte of a character.
func textFirst(b byte) int32 {
	switch {
	case b == '\\':
		return escape
	case b < 0x20, b == '"':
		return refused
	case b < 0x80:
		return whole
	case b < 0xc2:
		return refused
	case b < 0xe0:
		return tail1
	case b == 0xe0:
		return tailE0
	case b == 0xed:
		return tailED
	case b < 0xf0:
		return tail2
	case b == 0xf0:
		return tailF0
	case b < 0xf4:
		return tail3
	case b == 0xf4:
		return tailF4
	}
	return refused
}
