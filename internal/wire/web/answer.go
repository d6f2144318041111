package web

import (
	"strconv"
	"time"

	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/wire"
)

// AppendTimings appends the member timings, with a comma before it.
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

// AppendLogprobs appends the members of an array, without its brackets, with top alternatives
// each.
func AppendLogprobs(dst []byte, list []infer.Logprob, top int) []byte {
	for i, l := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendCandidate(dst, l.Candidate)
		dst = append(dst, `,"top_logprobs":[`...)
		for j, c := range l.Top[:min(top, len(l.Top))] {
			if j > 0 {
				dst = append(dst, ',')
			}
			dst = append(appendCandidate(dst, c), '}')
		}
		dst = append(dst, "]}"...)
	}
	return dst
}

// appendCandidate appends an object without its closing brace.
func appendCandidate(dst []byte, c infer.Candidate) []byte {
	dst = append(dst, `{"token":`...)
	dst = wire.AppendString(dst, c.Piece)
	dst = append(dst, `,"logprob":`...)
	dst = strconv.AppendFloat(dst, c.Logprob, 'g', -1, 32)
	dst = append(dst, `,"bytes":[`...)
	for i, b := range c.Piece {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = strconv.AppendUint(dst, uint64(b), 10)
	}
	return append(dst, ']')
}
