package wire

import (
	"strconv"

	"github.com/inferd-go/inferd/internal/infer"
)

// AppendLogprobs appends list as the elements of a JSON array, without the brackets. candidate
// appends the object for a token, but not its closing brace: AppendLogprobs adds an array named
// member with up to top alternatives, and closes the object.
func AppendLogprobs(dst []byte, list []infer.Logprob, top int, member string, candidate func([]byte, infer.Candidate) []byte) []byte {
	for i, l := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(candidate(dst, l.Candidate), `,"`...)
		dst = append(append(dst, member...), `":[`...)
		for j, c := range l.Top[:min(top, len(l.Top))] {
			if j > 0 {
				dst = append(dst, ',')
			}
			dst = append(candidate(dst, c), '}')
		}
		dst = append(dst, "]}"...)
	}
	return dst
}

// AppendBytes appends text as a JSON array of numbers, one for each byte.
func AppendBytes(dst, text []byte) []byte {
	dst = append(dst, '[')
	for i, b := range text {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = strconv.AppendUint(dst, uint64(b), 10)
	}
	return append(dst, ']')
}
