package llama

import (
	"fmt"
	"math"

	yzma "github.com/hybridgroup/yzma/pkg/llama"

	"github.com/inferd-go/inferd/internal/infer"
)

// Logprobs returns the log probability that tok follows entry i of the batch decoded last, and the
// n likeliest tokens with theirs. They come from the model's logits, before any Sampler is applied.
// The call scans the whole vocabulary, which takes a millisecond if it is large.
func (m *Model) Logprobs(c *Context, i int, tok Token, n int) (infer.Logprob, error) {
	logits, err := m.logits(c, i)
	if err != nil {
		return infer.Logprob{}, err
	}
	return m.logprobs(logits, tok, n)
}

func (m *Model) logprobs(logits []float32, tok Token, n int) (infer.Logprob, error) {
	if !m.valid(tok) {
		return infer.Logprob{}, fmt.Errorf("token %d is not in the vocabulary of %d tokens", tok, m.size)
	}
	top := make([]Token, 0, min(n, m.size)+1) // the likeliest first; one more than n while a token is inserted
	most := float32(math.Inf(-1))
	for tok, x := range logits {
		most = max(most, x)
		if len(top) == cap(top)-1 && (len(top) == 0 || x <= logits[top[len(top)-1]]) {
			continue
		}
		at := len(top)
		for at > 0 && x > logits[top[at-1]] {
			at--
		}
		top = append(top, 0)
		copy(top[at+1:], top[at:])
		top[at] = Token(tok)
		top = top[:min(len(top), cap(top)-1)]
	}
	sum := 0.0
	for _, x := range logits {
		if d := x - most; d > -40 { // the sum of all others is negligible
			sum += math.Exp(float64(d))
		}
	}
	logSum := float64(most) + math.Log(sum)
	candidate := func(tok Token) infer.Candidate {
		p := float64(logits[tok]) - logSum
		if !(p > infer.LeastLogprob) { // also if p is NaN
			p = infer.LeastLogprob
		}
		return infer.Candidate{ID: int(tok), Piece: m.AppendPiece(nil, tok), Logprob: p}
	}
	out := infer.Logprob{Candidate: candidate(tok), Top: make([]infer.Candidate, len(top))}
	for i, tok := range top {
		out.Top[i] = candidate(tok)
	}
	return out, nil
}

// logits returns the logits of entry i of the batch decoded last, one per token of the vocabulary.
// They are in C's memory, and valid until the next batch is decoded.
func (m *Model) logits(c *Context, i int) ([]float32, error) {
	if err := c.checkLogits(i); err != nil {
		return nil, err
	}
	logits, err := yzma.GetLogitsIth(c.handle, int32(i), m.size)
	if err == nil && logits == nil {
		err = fmt.Errorf("entry %d of the batch has no logits", i)
	}
	return logits, err
}
