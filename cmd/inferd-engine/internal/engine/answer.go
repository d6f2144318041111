package engine

import (
	"bytes"
	"unicode"
	"unicode/utf8"

	"github.com/inferd-go/inferd/internal/infer"
)

// An answer turns the pieces of tokens into text that may be sent. It holds back
// undecided text: the first bytes of a character until the next token completes it, and text
// that may turn out to be the beginning of a stop.
//
// The answer ends at the first byte at which a stop is complete. The text before that stop
// is sent; of several stops that are complete there, the longest counts. If one of these is
// the request's, the answer ended at a stop sequence, else at the end of the turn. So neither
// text nor reason depends on the division of the text into tokens.
type answer struct {
	stops []stop
	trim  bool // the text so far is only white space, which is not sent

	raw     []byte // bytes that may become a character: fewer than utf8.UTFMax
	held    []byte // whole characters that may begin a stop
	out     []byte // result of the last call
	trimmed int    // number of dropped bytes of white space that withoutTrimmed has not handled yet

	stopped bool
	reason  infer.Reason // once stopped
	stop    string       // the request's stop that ended the answer, if one did: the longest that is complete there
}

// A stop is a text that ends an answer. It is never sent.
type stop struct {
	text   string
	reason infer.Reason // StopSequence for the request's stops, EndOfTurn for the template's
}

// add adds the bytes of a token and returns the text that is certain now. The result is valid
// until the next call. It reports true once a stop is complete: all text before the stop has then
// been returned.
func (a *answer) add(piece []byte) ([]byte, bool) {
	a.raw = append(a.raw, piece...)
	n := a.decode(false)
	a.raw = append(a.raw[:0], a.raw[n:]...)
	return a.release(false), a.stopped
}

// resume continues the answer behind a stop. It drops the held text.
func (a *answer) resume() {
	a.stopped, a.reason, a.stop = false, "", ""
	a.raw, a.held = a.raw[:0], a.held[:0]
}

// end returns the held text after the last token. An incomplete character at the end becomes
// U+FFFD, which may complete a stop.
func (a *answer) end() []byte {
	if a.stopped {
		return nil
	}
	a.decode(true)
	a.raw = a.raw[:0]
	return a.release(true)
}

// decode moves whole characters from raw to held and returns the number of decoded bytes. Bytes
// that no continuation can make valid become U+FFFD. If final is set, so does an incomplete
// character at the end.
func (a *answer) decode(final bool) int {
	n := 0
	for n < len(a.raw) {
		rest := a.raw[n:]
		r, size := utf8.DecodeRune(rest)
		if r == utf8.RuneError && size == 1 {
			if !final && !utf8.FullRune(rest) {
				break
			}
			a.held = utf8.AppendRune(a.held, utf8.RuneError)
		} else {
			a.held = append(a.held, rest[:size]...)
		}
		n += size
	}
	return n
}

// release removes from held the text before a stop or, if there is none, the text that cannot begin
// one; with final, all text. It returns the removed text after trimLeading.
func (a *answer) release(final bool) []byte {
	cut := a.find()
	if !a.stopped {
		cut = len(a.held)
		if !final {
			cut -= overlap(a.held, a.stops)
		}
	}
	a.out = append(a.out[:0], a.held[:cut]...)
	a.held = append(a.held[:0], a.held[cut:]...)
	return a.trimLeading(a.out)
}

// find searches held for a complete stop. It records the stop in a, and returns its beginning.
func (a *answer) find() int {
	begin, end := 0, len(a.held)+1
	for _, s := range a.stops {
		i := bytes.Index(a.held, []byte(s.text))
		if i < 0 || i+len(s.text) > end {
			continue
		}
		if i+len(s.text) < end {
			begin, end, a.reason, a.stop = i, i+len(s.text), s.reason, ""
		}
		begin = min(begin, i)
		if s.reason == infer.StopSequence {
			a.reason = s.reason
			if len(s.text) > len(a.stop) {
				a.stop = s.text
			}
		}
		a.stopped = true
	}
	return begin
}

// trimLeading drops white space from the beginning of the answer, while a.trim is set.
func (a *answer) trimLeading(text []byte) []byte {
	if !a.trim {
		return text
	}
	rest := bytes.TrimLeftFunc(text, unicode.IsSpace)
	a.trimmed += len(text) - len(rest)
	a.trim = len(rest) == 0
	return rest
}

// withoutTrimmed removes the logprobs of tokens that consist of trimmed text. list has the
// logprobs since the last sent text, without those that an earlier call removed.
func (a *answer) withoutTrimmed(list []infer.Logprob) []infer.Logprob {
	n := 0
	for n < len(list) && a.trimmed > 0 && len(list[n].Piece) <= a.trimmed {
		a.trimmed -= len(list[n].Piece)
		n++
	}
	if !a.trim {
		a.trimmed = 0 // the next token has text that is sent
	}
	return list[:copy(list, list[n:])]
}

// overlap returns the length of the longest suffix of text that is a proper prefix of a stop.
func overlap(text []byte, stops []stop) int {
	longest := 0
	for _, s := range stops {
		for n := min(len(s.text)-1, len(text)); n > longest; n-- {
			if string(text[len(text)-n:]) == s.text[:n] {
				longest = n
			}
		}
	}
	return longest
}
