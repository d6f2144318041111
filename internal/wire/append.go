package wire

import (
	"strconv"

	"github.com/inferd-go/inferd/internal/infer"
)

// AppendLogprobs appends the elements of an array, without its brackets. Each element has a member
// of the given name with up to top alternatives. candidate appends an object without its closing
// brace.
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

// AppendBytes appends text as an array of numbers, one for each byte.
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
