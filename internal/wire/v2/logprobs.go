package v2

import (
	"strconv"
	"unicode/utf8"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
)

// appendLogprobs appends the members of an array, without its brackets.
func appendLogprobs(dst []byte, list []infer.Logprob) []byte {
	for i, l := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendCandidate(dst, l.Candidate)
		dst = append(dst, `,"top":[`...)
		for j, c := range l.Top {
			if j > 0 {
				dst = append(dst, ',')
			}
			dst = append(appendCandidate(dst, c), '}')
		}
		dst = append(dst, "]}"...)
	}
	return dst
}

// appendCandidate appends an object without its closing brace. A token that is not valid UTF-8
// has no exact JSON string, so its bytes are sent as well.
func appendCandidate(dst []byte, c infer.Candidate) []byte {
	dst = append(dst, `{"token":`...)
	dst = wire.AppendString(dst, c.Piece)
	if !utf8.Valid(c.Piece) {
		dst = append(dst, `,"bytes":[`...)
		for i, b := range c.Piece {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = strconv.AppendUint(dst, uint64(b), 10)
		}
		dst = append(dst, ']')
	}
	dst = append(dst, `,"id":`...)
	dst = strconv.AppendInt(dst, int64(c.ID), 10)
	dst = append(dst, `,"logprob":`...)
	return strconv.AppendFloat(dst, c.Logprob, 'g', -1, 32) // models compute in single precision
}

// candidate is the wire form of an [infer.Candidate].
type candidate struct {
	Token   string  `json:"token"`
	Bytes   []int   `json:"bytes"`
	ID      int     `json:"id"`
	Logprob float64 `json:"logprob"`
}

type logprob struct {
	candidate
	Top []candidate `json:"top"`
}

func (c *candidate) infer() infer.Candidate {
	out := infer.Candidate{ID: c.ID, Piece: []byte(c.Token), Logprob: c.Logprob}
	if c.Bytes != nil {
		out.Piece = out.Piece[:0]
		for _, b := range c.Bytes {
			out.Piece = append(out.Piece, byte(b))
		}
	}
	return out
}

func logprobsOf(list []logprob) []infer.Logprob {
	var all []infer.Logprob
	for _, l := range list {
		one := infer.Logprob{Candidate: l.infer()}
		for _, c := range l.Top {
			one.Top = append(one.Top, c.infer())
		}
		all = append(all, one)
	}
	return all
}
