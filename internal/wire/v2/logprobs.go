package v2

import (
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
)

// appendLogprobs appends list as the elements of a JSON array, without the brackets. Each element has
// all alternatives.
func appendLogprobs(dst []byte, list []infer.Logprob) []byte {
	return wire.AppendLogprobs(dst, list, math.MaxInt, "top", appendCandidate)
}

// appendCandidate appends the object for a token, without its closing brace. If the token is not valid
// UTF-8, a JSON string cannot express it, so its bytes are appended as well.
func appendCandidate(dst []byte, c infer.Candidate) []byte {
	dst = append(dst, `{"token":`...)
	dst = wire.AppendString(dst, c.Piece)
	if !utf8.Valid(c.Piece) {
		dst = wire.AppendBytes(append(dst, `,"bytes":`...), c.Piece)
	}
	dst = append(dst, `,"id":`...)
	dst = strconv.AppendInt(dst, int64(c.ID), 10)
	dst = append(dst, `,"logprob":`...)
	return strconv.AppendFloat(dst, c.Logprob, 'g', -1, 32) // models compute in single precision
}

// A candidate is an [infer.Candidate] in the form of the wire.
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
