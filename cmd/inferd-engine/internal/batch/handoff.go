package batch

import (
	"time"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/prefill"
	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/schedule"
)

// This file has the loop's side of the prefill worker: it submits jobs and imports their results.
// All its functions run on the loop's thread.

// maxImport is the maximum number of tokens with KV state that one job copies from the loop to the
// worker, over all sequences.
const maxImport = 256

// A handoff is the outstanding job of the prefill worker.
//
//	none ─submit─▶ outstanding ─done─▶ none
//	                   └─overdue─▶ abandoned ─done─▶ none
type handoff struct {
	state  handoffState
	seqs   []*sequence // the sequences of the job's chunks, in the same order
	tokens int
	since  time.Time
	urgent bool // streams wait for the job, at most for the stall budget
}

// handoffState is the state of the outstanding job. The set is closed.
type handoffState uint8

const (
	noJob handoffState = iota
	outstanding
	abandoned // the job is overdue: the worker is not used until the job is done
)

// busy reports whether the worker has a job that is not overdue.
func (h *handoff) busy() bool { return h.state == outstanding }

// abandoned reports whether the worker has an overdue job.
func (h *handoff) abandoned() bool { return h.state == abandoned }

// prefillDeadline is the time at which the outstanding job becomes overdue.
func (l *stepper) prefillDeadline() time.Time {
	return l.handoff.since.Add(l.times.PrefillTimeout(l.handoff.tokens))
}

// submitPrefill does nothing without an idle worker. Otherwise it recalls the sequences that end or
// have no tokens at the worker in the plan, and submits a job with chunks of the others.
func (l *stepper) submitPrefill(plan schedule.Step) {
	h := &l.handoff
	if l.Prefill == nil || h.state != noJob {
		return
	}
	var chunks []prefill.Chunk
	var abort []*sequence // canceling one of them aborts the job
	h.seqs, h.tokens = h.seqs[:0], 0
	imports := maxImport
	for i, s := range l.live {
		if plan.Offload[i] == 0 || s.ending {
			l.recall(s)
			continue
		}
		c, ok := l.chunkFor(s, plan.Offload[i], &imports)
		if !ok {
			continue
		}
		chunks, h.seqs = append(chunks, c), append(h.seqs, s)
		h.tokens += len(c.Tokens)
		if len(c.Tokens) >= minAbort {
			abort = append(abort, s)
		}
	}
	if len(chunks) == 0 {
		return
	}
	h.state, h.since, h.urgent = outstanding, time.Now(), plan.Urgent
	l.prefilling.begin(abort, l.Prefill.Abort)
	l.Prefill.Submit(chunks)
}

// recall takes a sequence back from the worker, if it is there. Steps then decode its prompt.
func (l *stepper) recall(s *sequence) {
	if s.state.AtWorker() {
		l.transition(s, s.active())
	}
}

// chunkFor builds the next chunk of s: the KV state that the worker lacks and, once that is complete,
// up to n new tokens. imports is the number of tokens for which the job may still import state; chunkFor
// subtracts those of the chunk. It reports false if there is nothing to do, if the worker has no free
// sequence, or if s was recalled, because tokens of s were lost or their state could not be saved.
func (l *stepper) chunkFor(s *sequence, n int, imports *int) (prefill.Chunk, bool) {
	if l.transition(s, schedule.Staged); s.state != schedule.Staged {
		return prefill.Chunk{}, false
	}
	cached := s.cached()
	if cached < s.workerLen { // tokens were lost in a slide
		l.recall(s)
		return prefill.Chunk{}, false
	}
	c := prefill.Chunk{Seq: s.workerSeq, Start: min(cached, s.workerLen+*imports)}
	if c.Start > s.workerLen {
		var err error
		if c.Import, err = l.cache.Save(s.cells, s.workerLen, c.Start); err != nil {
			l.refuse(s)
			return c, false
		}
		c.Before = s.tokens[s.workerLen:c.Start]
		*imports -= c.Start - s.workerLen
	}
	if c.Start == cached {
		c.Tokens = s.tokens[cached:min(cached+n, len(s.tokens)-1)]
	}
	if len(c.Before)+len(c.Tokens) == 0 {
		return c, false
	}
	l.transition(s, schedule.Offloaded)
	return c, true
}

// refuse recalls a sequence after a failure of its chunk. The sequence is not offloaded again.
func (l *stepper) refuse(s *sequence) {
	s.noOffload = true
	l.recall(s)
}

// collectPrefill imports the results of the worker's job, if it is done. When a job becomes
// overdue, collectPrefill abandons it.
func (l *stepper) collectPrefill() {
	h := &l.handoff
	if h.state == noJob {
		return
	}
	took := time.Since(h.since)
	job := l.Prefill.Poll()
	switch {
	case job == nil && h.busy() && !time.Now().Before(l.prefillDeadline()):
		l.abandonPrefill(took)
		return
	case job == nil:
		return
	case job.Aborted:
		l.addStats(func(st *Stats) { st.Aborted++ })
	case job.Err == nil && h.busy():
		l.times.ObservePrefill(h.tokens, took)
	}
	h.state = noJob
	l.prefilling.end()
	l.Progress.Finish(1)
	for i, s := range h.seqs {
		switch c := &job.Chunks[i]; {
		case s.state != schedule.Offloaded: // recalled meanwhile
		case job.Err == nil && l.importChunk(s, c):
			l.transition(s, schedule.Staged)
		case job.Aborted:
			l.recall(s)
		default:
			l.refuse(s)
		}
	}
	clear(h.seqs)
}

// abandonPrefill aborts an overdue job, and recalls its sequences. Until the job is done, the loop
// continues without a worker.
func (l *stepper) abandonPrefill(took time.Duration) {
	h := &l.handoff
	l.times.ObservePrefill(max(h.tokens, schedule.ChunkTokens/2), took)
	h.state = abandoned
	l.Prefill.Abort()
	for _, s := range h.seqs {
		if s.state == schedule.Offloaded {
			l.recall(s)
		}
	}
}

// importChunk appends the tokens of a chunk to its sequence, with the KV state that the worker has
// computed. It reports false if the sequence has another length, or if the state cannot be loaded.
func (l *stepper) importChunk(s *sequence, c *prefill.Chunk) bool {
	n := len(c.Tokens)
	if n > 0 {
		if s.cached() != c.Start || l.cache.Load(s.cells, c.Tokens, c.Export) != nil {
			return false
		}
		l.addStats(func(st *Stats) {
			st.PrefillTokens += int64(n)
			st.PrefillOffloaded += int64(n)
		})
	}
	s.workerLen = c.Start + n
	return true
}
