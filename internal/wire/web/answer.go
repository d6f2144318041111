package web

import (
	"strconv"
	"time"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
)

// AppendTimings appends the member timings, preceded by a comma. Its times are in milliseconds.
func AppendTimings(dst []byte, t infer.Timings) []byte {
	for _, of := range []struct {
		name string
		time time.Duration
	}{{`,"timings":{"queue_ms":`, t.Queue}, {`,"prefill_ms":`, t.Prefill}, {`,"decode_ms":`, t.Decode}} {
		dst = append(dst, of.name...)
		dst = strconv.AppendFloat(dst, float64(of.time.Microseconds())/1000, 'g', -1, 64)
	}
	return append(dst, '}')
}

// AppendLogprobs appends list as the elements of a JSON array, without the brackets. Each element
// has up to top alternatives.
func AppendLogprobs(dst []byte, list []infer.Logprob, top int) []byte {
	return wire.AppendLogprobs(dst, list, top, "top_logprobs", appendCandidate)
}

// appendCandidate appends the object for a token, without its closing brace.
func appendCandidate(dst []byte, c infer.Candidate) []byte {
	dst = append(dst, `{"token":`...)
	dst = wire.AppendString(dst, c.Piece)
	dst = append(dst, `,"logprob":`...)
	dst = strconv.AppendFloat(dst, c.Logprob, 'g', -1, 32)
	return wire.AppendBytes(append(dst, `,"bytes":`...), c.Piece)
}
