package load

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"
)

// MixedBackends are the config's entries for [Mixed]: one recites the alphabet, the other generates
// random letters.
const MixedBackends = `{"kind":"llamacpp","name":"recites","n_slots":4,"threads":1,"model":{"builtin":"loop"}},
	{"kind":"llamacpp","name":"babbles","n_slots":4,"threads":1,"model":{"builtin":"tiny"}}`

// Mixed sends requests of all kinds for many callers. Each caller has letters that must not be in
// an answer to another caller, and every answer has a known length or text. So a token that is lost
// or reaches another caller is noticed.
type Mixed struct {
	Targets  []Target // sockets of one inferd that has [MixedBackends]
	Requests int      // number of requests of each caller
	Streams  int      // number of requests of a caller at once
	Leave    bool     // a third of the requests hang up at a random time
	Seed     uint64
}

// A Tally counts the outcomes of a caller's requests.
type Tally struct {
	Answered, Refused, Left int
	In, Out                 int      // tokens of the answered requests
	LeftIn, LeftOut         int      // upper bound for the tokens of requests that hung up
	Faults                  []string // a text for each wrong outcome
}

// Add adds the tally of another caller.
func (t *Tally) Add(u *Tally) {
	t.Answered += u.Answered
	t.Refused += u.Refused
	t.Left += u.Left
	t.In += u.In
	t.Out += u.Out
	t.LeftIn += u.LeftIn
	t.LeftOut += u.LeftOut
	t.Faults = append(t.Faults, u.Faults...)
}

// Agrees returns an error unless the server's counts agree with the answers. For requests that hung
// up, it accepts any count up to the bound.
func (t *Tally) Agrees(in, out int64) error {
	between := func(what string, counted int64, least, more int) error {
		if counted < int64(least) || counted > int64(least+more) {
			return fmt.Errorf("%d %s tokens were counted; the answers have %d, and requests that hung up have at most %d", counted, what, least, more)
		}
		return nil
	}
	if err := between("input", in, t.In, t.LeftIn); err != nil {
		return err
	}
	return between("output", out, t.Out, t.LeftOut)
}

// MixedCallers is the number of callers. Each has letters of its own.
const MixedCallers = 16

const (
	letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	marks   = len(letters) / MixedCallers // number of letters of a caller
)

// TemplateTokens is the number of tokens that the template of builtin:tiny and of the big model
// adds to one user message. S and E stand for control tokens; every other byte is a token.
const TemplateTokens = len("Suser\nE\nSassistant\n")

// Run sends the requests of a caller, and returns their tally. The number of the caller is below
// [MixedCallers].
func (m *Mixed) Run(ctx context.Context, client Doer, caller int) Tally {
	var (
		all   sync.WaitGroup
		mu    sync.Mutex // guards tally
		tally Tally
	)
	for stream := range m.Streams {
		all.Go(func() {
			r := rand.New(rand.NewPCG(m.Seed, uint64(caller*m.Streams+stream)))
			for i := stream; i < m.Requests && ctx.Err() == nil; i += m.Streams {
				one := m.draw(r, caller)
				o := client.Ask(ctx, one.shot, nil)
				mu.Lock()
				one.settle(&o, &tally)
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if err := ctx.Err(); err != nil {
		tally.Faults = append(tally.Faults, fmt.Sprintf("the requests did not end in time: %v", err))
	}
	return tally
}

// A marked is a shot with a known answer.
type marked struct {
	shot     Shot
	in       int    // tokens of the prompt
	answer   string // the text of the answer; empty if it is random
	alphabet string // letters of a random answer
}

// draw returns a random request.
func (m *Mixed) draw(r *rand.Rand, caller int) marked {
	const digits = "0123456789 "
	prompt := make([]byte, 1+r.IntN(300))
	for i := range prompt {
		prompt[i] = digits[r.IntN(len(digits))]
	}
	s := Shot{
		Target:  m.Targets[r.IntN(len(m.Targets))],
		Request: Request{MaxTokens: 1 + r.IntN(60)},
		Keep:    true,
	}
	var one marked
	if r.IntN(2) == 0 {
		first := r.IntN(26)
		prompt[len(prompt)-1] = 'a' + byte(first)
		var rest strings.Builder
		for i := range s.Request.MaxTokens {
			rest.WriteByte('a' + byte((first+1+i)%26))
		}
		s.Request.Model = "recites"
		one.answer, one.in = rest.String(), len(prompt)
	} else {
		one.alphabet = letters[caller*marks:][:marks]
		one.in = len(prompt) + TemplateTokens
		s.Request.Model, s.Request.Temperature, s.Request.Grammar = "babbles", 1, "root ::= ["+one.alphabet+"]+"
	}
	s.Request.Turns = []string{string(prompt)}
	if r.IntN(20) == 0 {
		s.Request.MaxTokens = 0 // not valid: must be refused
	}
	if m.Leave {
		switch r.IntN(6) {
		case 0:
			s.LeaveAfter = 1 + r.IntN(60)
		case 1:
			s.LeaveWithin = time.Duration(1 + r.IntN(int(50*time.Millisecond)))
		}
	}
	one.shot = s
	return one
}

// settle adds the outcome of the shot to the tally.
func (one *marked) settle(o *Outcome, t *Tally) {
	fault := func(format string, args ...any) {
		t.Faults = append(t.Faults, fmt.Sprintf("%s, %s, %d tokens: ", one.shot.Target.Dialect, one.shot.Request.Model, one.shot.Request.MaxTokens)+fmt.Sprintf(format, args...))
	}
	n := one.shot.Request.MaxTokens
	switch {
	case o.Fault != "":
		fault("%s", o.Fault)
	case o.Gone:
		t.Left++
		t.LeftIn += one.in
		t.LeftOut += n
	case o.Code != "":
		t.Refused++
		if (o.Code == "invalid_request") != (n == 0) || n != 0 && o.Code != "queue_full" {
			fault("refused with %s", o.Code)
		}
		return
	default:
		t.Answered++
		t.In += o.In
		t.Out += o.Out
		if o.In != one.in || o.Out != n {
			fault("%d tokens in and %d out, want %d and %d", o.In, o.Out, one.in, n)
		}
		if one.answer != "" && o.Text != one.answer || len(o.Text) != n {
			fault("answered %q, want %q or %d of %q", o.Text, one.answer, n, one.alphabet)
		}
	}
	switch strange := strings.Trim(o.Text, one.alphabet); {
	case one.answer != "" && !strings.HasPrefix(one.answer, o.Text):
		fault("answered %q, which does not begin %q", o.Text, one.answer)
	case one.answer == "" && strange != "":
		fault("answered %q, where %q has letters of other callers", o.Text, strange)
	}
}
