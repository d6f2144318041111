package constraint

import (
	"context"
	"crypto/sha256"
	"errors"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/inferd-go/inferd/internal/automaton"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/vocab"
)

// A Vocabulary is what a Compiler needs of a model. Package llama's Model is one.
type Vocabulary interface {
	// Vocabulary returns the tokens and those of them that end an answer. It calls yield often.
	Vocabulary(yield func()) (tokens []vocab.Token, ends []int32)
	// ByName returns the token that a grammar names.
	ByName(name string) (id int32, ok bool)
}

// A Compiler compiles one source at a time, and yields the processor every 100 µs: the engine runs
// Go on one processor, and decodes meanwhile. It keeps the compiled ones within a budget of memory,
// the least recently used go first. Those of different owners are kept apart: from a shared one
// others could tell by its time that a schema is in use.
type Compiler struct {
	Model Vocabulary
	Bytes int // budget of memory for grammars, states and kept masks; 0 means 256 MiB
	// Time bounds one compile; 0 means [automaton.DefaultTime].
	Time time.Duration

	once    sync.Once // guards the next three
	vocab   *vocab.Vocab
	ends    []int32
	turn    chan struct{} // has room for one: holds the turn to compile
	scratch []uint64      // the mask of the present choice, see Answer.Mask

	mu      sync.Mutex // guards the fields below
	kept    []*Constraint
	used    int // bytes of all kept
	refused refusals
}

const defaultBytes = 256 << 20

// A Source is what a Compiler compiles.
type Source interface {
	// Digest names the source: equal ones have equal grammars.
	Digest() [sha256.Size]byte
	// Grammar compiles it. The error, an [infer.Error], names what cannot be enforced.
	Grammar(model Vocabulary, b *automaton.Budget) (*automaton.Grammar, error)
	// Member is the member of a request that it comes from, for errors.
	Member() string
}

// A key names a compiled source.
type key struct {
	owner  string
	digest [sha256.Size]byte
}

// A Constraint is a compiled source.
type Constraint struct {
	compiler *Compiler
	key      key
	source   Source
	start    startCost
	pending  time.Duration // time of compiling, until an answer has taken it

	mu    sync.Mutex // guards automaton, masks and all cursors
	auto  *automaton.Automaton
	masks *vocab.Masks

	// Guarded by compiler.mu.
	refs  int
	bytes int
}

// A startCost is the length of the shortest answer.
type startCost struct{ bytes, tokens int }

// maxShortest bounds the shortest answer, in bytes.
const maxShortest = 32 << 10

// Compile returns the constraint of a source, for one answer; Release ends its use. It waits for the
// compiles of others, until ctx ends. Without an owner it is not kept for another answer. A refusal
// is kept for the owner's next request.
func (c *Compiler) Compile(ctx context.Context, owner string, s Source) (*Constraint, error) {
	k := key{owner: owner, digest: s.Digest()}
	if found, err := c.find(k); found != nil || err != nil {
		return found, err
	}
	c.once.Do(c.load)
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if found, err := c.find(k); found != nil || err != nil { // compiled meanwhile
		return found, err
	}
	made, err := c.compile(k, s)
	if err != nil {
		return nil, err
	}
	return made, c.keep(made)
}

// load reads the vocabulary.
func (c *Compiler) load() {
	tokens, ends := c.Model.Vocabulary(runtime.Gosched)
	c.vocab, c.ends = vocab.New(tokens), ends
	c.turn = make(chan struct{}, 1)
	c.scratch = make([]uint64, c.vocab.Words())
}

// find returns what is kept of a format: its constraint, or the error of its refusal.
func (c *Compiler) find(k key) (*Constraint, error) {
	if k.owner == "" {
		return nil, nil //nolint:nilnil // nothing is kept
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.refused.find(k); err != nil {
		return nil, err
	}
	i := slices.IndexFunc(c.kept, func(o *Constraint) bool { return o.key == k })
	if i < 0 {
		return nil, nil //nolint:nilnil // likewise
	}
	found := c.kept[i]
	c.kept = append(slices.Delete(c.kept, i, i+1), found) // the last one used is the last one
	found.refs++
	return found, nil
}

// compile makes the constraint of a source.
func (c *Compiler) compile(k key, source Source) (made *Constraint, err error) {
	var busy time.Duration
	since := time.Now()
	b := &automaton.Budget{Time: c.Time, Yield: func() {
		busy += time.Since(since)
		runtime.Gosched()
		since = time.Now()
	}}
	defer func() {
		// After a compile that was too slow the machine may be less busy the next time.
		if err != nil && k.owner != "" && !errors.Is(b.Err(), automaton.ErrTime) {
			c.refuse(k, err)
		}
	}()
	g, err := source.Grammar(c.Model, b)
	if err != nil {
		return nil, err
	}
	made = &Constraint{compiler: c, key: k, auto: automaton.New(g), source: source, refs: 1}
	made.masks = vocab.NewMasks(c.vocab, made.auto)
	var ok bool
	if made.start, ok = c.startOf(made.auto); !ok {
		return nil, infer.Errorf(infer.Invalid, "%s: the shortest answer has more than %d bytes", source.Member(), maxShortest)
	}
	made.pending = busy + time.Since(since)
	made.bytes = made.size()
	return made, nil
}

// startOf returns the length of the shortest answer. It is false if that is too long.
func (c *Compiler) startOf(a *automaton.Automaton) (startCost, bool) {
	cursor := a.Open()
	defer cursor.Close()
	if a.Cost(cursor.State()) > maxShortest {
		return startCost{}, false
	}
	text, ok := cursor.Shortest(maxShortest)
	return startCost{len(text), c.vocab.Count(text)}, ok
}

// Source returns the source that was compiled: one with the digest of the one that was asked for.
func (k *Constraint) Source() Source { return k.source }

// size returns the memory of a constraint.
func (k *Constraint) size() int { return k.auto.Grammar().Size() + k.auto.Bytes() + k.masks.Bytes() }

// keep adds a new constraint. It is refused if those in use take up the whole budget.
func (c *Compiler) keep(made *Constraint) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.used += made.bytes
	c.kept = append(c.kept, made)
	if !c.evictLocked() {
		c.dropLocked(made)
		return infer.Errorf(infer.Busy, "the response formats and tools in use take up the memory for them")
	}
	return nil
}

func (c *Compiler) budget() int {
	if c.Bytes > 0 {
		return c.Bytes
	}
	return defaultBytes
}

// evictLocked drops unused constraints until the others are within the budget. It reports whether
// they are.
func (c *Compiler) evictLocked() bool {
	for i := 0; c.used > c.budget() && i < len(c.kept); {
		if k := c.kept[i]; k.refs == 0 {
			c.dropLocked(k)
		} else {
			i++
		}
	}
	return c.used <= c.budget()
}

func (c *Compiler) dropLocked(k *Constraint) {
	if i := slices.Index(c.kept, k); i >= 0 {
		c.kept = slices.Delete(c.kept, i, i+1)
		c.used -= k.bytes
	}
}

// grown counts the memory of a constraint anew. It reports whether all are within the budget.
func (c *Compiler) grown(k *Constraint) bool {
	size := k.size()
	c.mu.Lock()
	defer c.mu.Unlock()
	if slices.Contains(c.kept, k) {
		c.used += size - k.bytes
	}
	k.bytes = size
	return c.evictLocked()
}

// forget drops a constraint that has failed: its automaton stays in error.
func (c *Compiler) forget(k *Constraint) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropLocked(k)
}

// Used returns the bytes of all kept constraints.
func (c *Compiler) Used() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.used
}

// Release ends the use of a constraint.
func (k *Constraint) Release() {
	c := k.compiler
	c.mu.Lock()
	defer c.mu.Unlock()
	k.refs--
	if k.refs == 0 && k.key.owner == "" {
		c.dropLocked(k)
	}
	c.evictLocked()
}

// TakeCost returns the time that compiling took, once.
func (k *Constraint) TakeCost() time.Duration {
	c := k.compiler
	c.mu.Lock()
	defer c.mu.Unlock()
	took := k.pending
	k.pending = 0
	return took
}
