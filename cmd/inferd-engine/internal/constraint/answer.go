package constraint

import (
	"errors"
	"slices"

	"github.com/inferd-go/inferd/internal/automaton"
	"github.com/inferd-go/inferd/internal/infer"
)

// An Answer keeps one answer within its constraint. Before each token, Mask returns the allowed tokens; Take
// follows the chosen token:
//
//	Mask ─▶ choose ─▶ Take ─▶ true: the next token
//	          ▲        │
//	          └────────┘ false: the mask has become smaller
//
// While enough tokens are left, every token that fits the grammar is allowed. Take refuses a token if the
// shortest completion behind it has more tokens than are left; the mask then keeps only tokens with a
// completion in time. If none is left, or too many are refused, the rest of the answer is the shortest
// completion. Only the chosen token is checked, so the common case costs nothing.
//
// Mask and Take must be called on one thread, the same for all answers of a compiler.
type Answer struct {
	constraint *Constraint
	cursor     *automaton.Cursor
	left       int // number of tokens that the answer may still have
	tries      int // number of tokens that Take has refused since the last Mask
	mask       []uint64

	ending bool               // the answer ends with rest
	forced bool               // rest comes next; behind it any fitting token is allowed again
	rest   []automaton.Symbol // the symbols that are decided and still to come

	// Watch, if not nil, is called after each symbol of a token that Take or Try follows.
	Watch func(s automaton.Symbol, position Position)
}

// A Position describes a point of an answer, behind a symbol.
type Position struct {
	// Marks are the marks that at least one parse of the text has passed at the symbol; Sure are those that
	// all parses have passed.
	Marks, Sure automaton.Mark
	MayEnd      bool
}

// maxTries is the maximum number of refused tokens at one position before the rest of the answer is decided.
const maxTries = 8

// ErrShort is the error of Open for too few tokens.
var ErrShort = errors.New("constraint: too few tokens")

// Least returns the number of tokens of the shortest answer.
func (k *Constraint) Least() int { return k.start.tokens }

// Open begins an answer of up to most tokens. It returns [ErrShort] if most is less than [Constraint.Least].
func (k *Constraint) Open(most int) (*Answer, error) {
	if most < k.Least() {
		return nil, ErrShort
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return &Answer{constraint: k, cursor: k.auto.Open(), left: most, mask: k.compiler.scratch}, nil
}

// Close releases the states that the answer uses. The answer must not be used afterwards.
func (a *Answer) Close() {
	a.constraint.mu.Lock()
	defer a.constraint.mu.Unlock()
	a.cursor.Close()
}

// Mask returns the tokens that may come next, end tokens included. The mask is valid until the next call of
// Mask on any answer of the compiler. It is empty if the model has no token for the next byte. An error means
// that the text so far could continue in too many ways.
func (a *Answer) Mask() ([]uint64, error) {
	k := a.constraint
	k.mu.Lock()
	defer k.mu.Unlock()
	a.tries = 0
	if a.ending || a.forced {
		a.follow()
		return a.mask, nil
	}
	if err := k.masks.Mask(a.cursor, a.mask); err != nil {
		k.compiler.forget(k)
		return nil, infer.Errorf(infer.Invalid, "%s: %w", k.source.Member(), err)
	}
	a.end()
	if !k.compiler.grown(k) {
		k.masks.Forget()
		k.auto.Renew(nil)
		k.compiler.grown(k)
	}
	return a.mask, nil
}

// end adds the end tokens to the mask if the answer may end here.
func (a *Answer) end() {
	if a.cursor.MayEnd() {
		for _, id := range a.constraint.compiler.ends {
			a.mask[id>>6] |= 1 << (id & 63)
		}
	}
}

// follow sets the mask to the next token of rest, or to the end tokens if rest is empty.
func (a *Answer) follow() {
	clear(a.mask)
	if len(a.rest) == 0 {
		a.end()
		return
	}
	if id, _, ok := a.constraint.compiler.vocab.First(a.rest); ok {
		a.mask[id>>6] |= 1 << (id & 63)
	}
}

// Take follows a token of the mask. If the token would leave too few tokens for an end, Take removes it from
// the mask, and reports false.
func (a *Answer) Take(id int32) (accepted bool) {
	k := a.constraint
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case a.cursor.MayEnd() && slices.Contains(k.compiler.ends, id):
		return true
	case a.ending || a.forced:
		_, n, _ := k.compiler.vocab.First(a.rest)
		a.rest = a.rest[n:]
		a.forced = a.forced && len(a.rest) > 0
	case !k.masks.Ends(a.cursor, id, a.left-1):
		a.narrow(id)
		return false
	}
	a.left--
	return a.next(id) || a.giveUp()
}

// Try follows a token that was chosen without a mask. It reports false, and changes nothing, if the token
// does not fit or leaves too few tokens for an end. Where most tokens fit, Try is cheaper than Mask and Take.
func (a *Answer) Try(id int32) (accepted bool) {
	k := a.constraint
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case a.ending || a.forced:
		return false
	case slices.Contains(k.compiler.ends, id):
		return a.cursor.MayEnd()
	case !k.masks.Ends(a.cursor, id, a.left-1) || !a.next(id):
		return false
	}
	a.left--
	if k.auto.Full() {
		k.auto.Renew(nil)
	}
	return true
}

// next follows a token, and calls Watch. It reports false if the token does not fit.
func (a *Answer) next(id int32) bool {
	k := a.constraint
	if a.Watch == nil {
		return k.masks.Next(a.cursor, id)
	}
	p := k.compiler.vocab.Bytes(id)
	if k.masks.ByID(a.cursor, id) {
		return k.masks.Next(a.cursor, id) && a.watch(256+automaton.Symbol(id))
	}
	if k.compiler.vocab.Control(id) || len(p) == 0 || !a.cursor.Try(p) {
		return false
	}
	for i := range p {
		if !a.cursor.Feed(p[i : i+1]) {
			return false
		}
		a.watch(automaton.Symbol(p[i]))
	}
	return true
}

func (a *Answer) watch(s automaton.Symbol) bool {
	a.Watch(s, a.position())
	return true
}

func (a *Answer) position() Position {
	return Position{a.cursor.Marks(), a.cursor.SureMarks(), a.cursor.MayEnd()}
}

// Position returns the current position of the answer.
func (a *Answer) Position() Position {
	a.constraint.mu.Lock()
	defer a.constraint.mu.Unlock()
	return a.position()
}

// Force makes text the next part of the answer. If behind begins with the text of a token, the longest such
// token is forced, too, so that a marker there stays whole. After that any fitting token is allowed again.
// Force reports false, and changes nothing, if text is empty, if the two do not fit or leave too few tokens
// for an end, while an earlier text is still coming, or when the rest of the answer is decided.
func (a *Answer) Force(text, behind []automaton.Symbol) bool {
	k := a.constraint
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(text) > 0 && len(behind) > 0 {
		if _, n, ok := k.compiler.vocab.First(behind); ok {
			text = slices.Concat(text, behind[:n])
		}
	}
	if a.ending || a.forced || len(text) == 0 || !a.leaves(text) {
		return false
	}
	a.forced, a.rest = true, text
	return true
}

// leaves reports whether enough tokens are left for text and the shortest end behind it.
func (a *Answer) leaves(text []automaton.Symbol) bool {
	v := a.constraint.compiler.vocab
	end, ok := a.cursor.ShortestBehind(text, 4*maxShortest)
	return ok && v.Count(text)+v.Count(end) <= a.left
}

// giveUp handles a token of the mask that does not fit, which is an internal error. It decides the rest of the
// answer, so that the caller stops choosing. It returns false.
func (a *Answer) giveUp() bool {
	a.left++
	a.decide()
	return false
}

// narrow removes from the mask the tokens that leave too few tokens for an end, among them id, the refused
// token. If the mask becomes empty, or after more than maxTries refusals, it decides the rest of the answer.
func (a *Answer) narrow(id int32) {
	if a.tries == 0 {
		a.constraint.masks.Within(a.cursor, a.mask, a.left-1)
		a.end()
	}
	a.mask[id>>6] &^= 1 << (id & 63)
	a.tries++
	if a.tries > maxTries || !slices.ContainsFunc(a.mask, func(w uint64) bool { return w != 0 }) {
		a.decide()
	}
}

// decide makes the shortest completion the rest of the answer.
func (a *Answer) decide() {
	a.rest, _ = a.cursor.Shortest(4 * maxShortest)
	a.ending = true
	a.follow()
}
