package main

import (
	"fmt"
	"math"
	"slices"

	"github.com/inferd-go/inferd/client"
)

// Number of texts in a batch, and of documents in a ranking.
const (
	batchSize = 10
	documents = 5
)

// vectors compares the vectors of a batch, and the scores of a ranking, with those of the same
// texts in requests of their own.
func (a *answers) vectors([]subject) error {
	for _, v := range []struct {
		model, more string
		measure     func(*answers, subject, *daemon) error
	}{
		{"real", `,"generate":false,"embed":true,"embed_pooling":"mean"`, (*answers).embeddings},
		{"embed", "", (*answers).embeddings},
		{"rerank", "", (*answers).scores},
	} {
		s, err := a.subject(v.model)
		if err != nil {
			return err
		}
		d, err := a.startEntry(s.file, v.more)
		if err != nil {
			return err
		}
		err = v.measure(a, s, d)
		d.stop()
		if err != nil {
			return fmt.Errorf("%s: %w", v.model, err)
		}
	}
	return nil
}

// embeddings compares the vectors of texts in a batch with those of each text alone. The texts have
// 10 to 100 tokens.
func (a *answers) embeddings(s subject, d *daemon) error {
	var texts []string
	for i := range batchSize {
		texts = append(texts, s.prose(uint64(400+i), between(10, 100, i, batchSize)))
	}
	c := client.Client{Dir: d.dir}
	all, err := c.Embed(a.ctx, &client.EmbedRequest{Inputs: texts})
	if err != nil {
		return err
	}
	equal, least := 0, 1.0
	for i, text := range texts {
		alone, err := c.Embed(a.ctx, &client.EmbedRequest{Inputs: []string{text}})
		if err != nil {
			return err
		}
		if slices.Equal(alone.Vectors[0], all.Vectors[i]) {
			equal++
		}
		least = min(least, cosine(alone.Vectors[0], all.Vectors[i]))
	}
	fmt.Fprintf(a.out, "%-15s %-10s %-42s %-9s cosine of at least %.8f\n", a.cpu, s.name, "vectors, alone and among ten", fmt.Sprintf("%d of %d", equal, batchSize), least)
	return nil
}

func cosine(a, b []float32) float64 {
	var ab, aa, bb float64
	for i := range a {
		x, y := float64(a[i]), float64(b[i])
		ab, aa, bb = ab+x*y, aa+x*x, bb+y*y
	}
	return ab / math.Sqrt(aa*bb)
}

// scores compares the scores of documents in a ranking with those of each document alone. The
// documents have 10 to 100 tokens.
func (a *answers) scores(s subject, d *daemon) error {
	query := s.prose(500, 12)
	var texts []string
	for i := range documents {
		texts = append(texts, s.prose(uint64(501+i), between(10, 100, i, documents)))
	}
	c := client.Client{Dir: d.dir}
	all, err := c.Rerank(a.ctx, &client.RerankRequest{Query: query, Documents: texts})
	if err != nil {
		return err
	}
	equal, largest := 0, 0.0
	for _, r := range all.Results {
		alone, err := c.Rerank(a.ctx, &client.RerankRequest{Query: query, Documents: texts[r.Index : r.Index+1]})
		if err != nil {
			return err
		}
		off := math.Abs(alone.Results[0].Score - r.Score)
		if off == 0 {
			equal++
		}
		largest = max(largest, off)
	}
	fmt.Fprintf(a.out, "%-15s %-10s %-42s %-9s off by %.2g at most\n", a.cpu, s.name, "scores, alone and among five", fmt.Sprintf("%d of %d", equal, documents), largest)
	return nil
}
