package main

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/inferd-go/inferd/internal/automaton"
	"github.com/inferd-go/inferd/internal/schema"
	"github.com/inferd-go/inferd/internal/vocab"
)

// A verdict is the result for a schema and its instances.
type verdict string

const (
	right        verdict = "right" // each valid instance is taken, each invalid one refused
	refused      verdict = "refused"
	goodRejected verdict = "good rejected"
	badTaken     verdict = "bad taken" // an invalid instance is taken, even if valid ones are rejected, too
	crashed      verdict = "crashed"
	absent       verdict = "" // not run
)

// An outcome is the verdict on a problem, with its reason and figures.
type outcome struct {
	Verdict verdict
	Why     string          // the reason of a refusal or a crash, or the instance with a wrong result
	Keyword string          // the keyword of a refusal
	Right   int             // the number of instances with the right result
	Start   time.Duration   // CPU time to compile the schema; in our outcomes also to find its shortest value
	Bytes   int             // memory of the compiled schema and of the states of all instances, without masks
	Masks   []time.Duration // CPU time of each mask
	masks   [][]byte        // the masks of the first valid instance, if they are compared
}

// A judge computes our verdicts on problems, with one vocabulary. It must be used on one OS thread,
// because it measures the CPU time of that thread.
type judge struct {
	vocab *vocab.Vocab // nil to follow texts byte by byte, without masks
	mask  []uint64
}

func newJudge(words []vocab.Token) *judge {
	if words == nil {
		return &judge{}
	}
	v := vocab.New(words, nil)
	return &judge{vocab: v, mask: make([]uint64, v.Words())}
}

// cpu returns the CPU time of the calling thread, which excludes the time of other programs.
func cpu() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		panic("internal error: " + err.Error())
	}
	return time.Duration(t.Nano())
}

// judge compiles the schema of a problem, and checks the instances against it. A panic, or an error
// of a mask, results in the verdict crashed.
func (j *judge) judge(p *problem) (o outcome) {
	defer func() {
		if r := recover(); r != nil {
			o = outcome{Verdict: crashed, Why: fmt.Sprint(r)}
		}
	}()
	begin := cpu()
	s, err := schema.Compile(p.schema, &automaton.Budget{})
	if err != nil {
		return j.refusal(p, err, cpu()-begin)
	}
	a := automaton.New(s.Grammar)
	text, _ := a.Open().Shortest(schema.MaxShortest) // Compile refuses a schema with a longer one
	if j.vocab != nil {
		j.vocab.Count(text)
	}
	o.Start, o.Verdict = cpu()-begin, right
	var masks *vocab.Masks
	if j.vocab != nil {
		masks = vocab.NewMasks(j.vocab, a)
	}
	for i := range p.instances {
		x := &p.instances[i]
		taken, err := j.follow(&o, a, masks, x.text)
		switch {
		case err != nil:
			return outcome{Verdict: crashed, Why: err.Error()}
		case taken == x.valid:
			o.Right++
		case taken:
			o.Verdict, o.Why = badTaken, x.name
		case o.Verdict == right:
			o.Verdict, o.Why = goodRejected, x.name+": "+stopped(a, x.text)
		}
	}
	o.Bytes = s.Grammar.Size() + a.Bytes()
	return o
}

// refusal returns the outcome of a schema that does not compile. If the reason is that no value
// satisfies the schema, the verdict is right for a schema with only invalid instances, and
// goodRejected for one with a valid instance.
func (j *judge) refusal(p *problem, err error, took time.Duration) outcome {
	o := outcome{Verdict: refused, Why: err.Error(), Start: took}
	if r, ok := errors.AsType[schema.RefusedError](err); ok {
		o.Keyword = r[0].Keyword
	}
	if schema.Empty(err) {
		o.Verdict, o.Keyword = right, ""
		for i := range p.instances {
			if p.instances[i].valid {
				o.Verdict, o.Why = goodRejected, "refused as a schema that no value satisfies, although this instance is valid: "+p.instances[i].name
			} else {
				o.Right++
			}
		}
		if len(p.instances) == 0 {
			o.Verdict = refused
		}
	}
	return o
}

// errMask reports that a mask and the check of one token disagree.
var errMask = errors.New("a token of the mask does not fit, or one that fits is not in the mask")

// follow feeds a text to the automaton token by token, and checks each token against its mask;
// without masks it feeds the bytes. It reports whether the text is taken, and appends the time of
// each mask to o.
func (j *judge) follow(o *outcome, a *automaton.Automaton, masks *vocab.Masks, text string) (taken bool, err error) {
	c := a.Open()
	defer c.Close()
	if masks == nil {
		return c.Feed([]byte(text)) && c.MayEnd(), nil
	}
	for _, id := range j.tokens(text) {
		begin := cpu()
		err := masks.Mask(c, j.mask)
		o.Masks = append(o.Masks, cpu()-begin)
		if err != nil {
			return false, err
		}
		fits := vocab.Has(j.mask, id)
		if masks.Next(c, id) != fits {
			return false, errMask
		}
		if !fits {
			return false, nil
		}
	}
	return c.MayEnd(), nil
}

// tokens divides a text into tokens, each the longest that matches. It stops at a byte for which
// there is no token.
func (j *judge) tokens(text string) (ids []int32) {
	symbols := make([]automaton.Symbol, len(text))
	for i := range len(text) {
		symbols[i] = automaton.Symbol(text[i])
	}
	for len(symbols) > 0 {
		id, n, ok := j.vocab.First(symbols)
		if !ok {
			return ids
		}
		ids, symbols = append(ids, id), symbols[n:]
	}
	return ids
}

// stopped describes the position at which a text is refused.
func stopped(a *automaton.Automaton, text string) string {
	c := a.Open()
	defer c.Close()
	for i := range len(text) {
		if !c.Feed([]byte{text[i]}) {
			return fmt.Sprintf("stopped at %.40q behind %q", text[i:], text[max(0, i-40):i])
		}
	}
	return "may not end behind " + fmt.Sprintf("%q", text[max(0, len(text)-40):])
}
