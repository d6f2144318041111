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
	"github.com/inferd-go/inferd/internal/schema"
	"github.com/inferd-go/inferd/internal/vocab"
)

// A Vocabulary is the part of a model that a Compiler needs; the Model of package llama implements it.
type Vocabulary interface {
	// Vocabulary returns the tokens, and the ids of the end tokens. It calls yield often.
	Vocabulary(yield func()) (tokens []vocab.Token, ends []int32)
	// ByName returns the token that a grammar names. It reports false if there is none.
	ByName(name string) (id int32, ok bool)
}

// A Compiler compiles one source at a time, and yields the processor every 100 µs: the engine runs
// Go on one processor, and decodes at the same time. It caches constraints within a memory budget and
// evicts the least recently used first. The cache is separate for each owner: with a shared one, an owner
// could learn from response times that another owner uses a schema.
type Compiler struct {
	Model Vocabulary
	Bytes int // budget of memory for sources, grammars, states and kept masks; 0 means 256 MiB
	// Time bounds one compile; 0 means [automaton.DefaultTime].
	Time time.Duration

	once      sync.Once // guards the making of the next four fields
	vocab     *vocab.Vocab
	ends      []int32
	compiling chan struct{} // has room for one; full while a compile runs
	scratch   []uint64      // the mask of the current choice, see Answer.Mask

	mu      sync.Mutex // guards the fields below
	kept    []*Constraint
	used    int // bytes of all cached constraints
	refused refusals
}

const defaultBytes = 256 << 20

// A Source is a description of answers: a response format, or tools.
type Source interface {
	// Digest identifies the source: sources with equal digests have equal grammars.
	Digest() [sha256.Size]byte
	// Grammar compiles the source. The error, an [infer.Error], names the keyword, or the position in the
	// source, that cannot be enforced.
	Grammar(model Vocabulary, b *automaton.Budget) (*automaton.Grammar, error)
	// Size returns the number of bytes that the source itself occupies once its grammar is made.
	Size() int
	// Member returns the name of the request's member with the source, for errors.
	Member() string
}

// A key identifies a constraint in the cache.
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

	mu    sync.Mutex // guards auto, masks and all cursors
	auto  *automaton.Automaton
	masks *vocab.Masks

	// Guarded by compiler.mu.
	refs  int
	bytes int
}

// A startCost is the length of the shortest answer, in bytes and in tokens.
type startCost struct{ bytes, tokens int }

// maxShortest is the maximum length in bytes of the shortest answer; a source with no answer that short is
// refused.
const maxShortest = schema.MaxShortest

// Compile returns the constraint of a source for one answer; the caller must call Release. Only one compile
// runs at a time: the others wait until it has ended, or until their ctx ends. Constraints and refusals are
// cached for later requests of the owner; an empty owner has no cache. spent is the compile time to charge to
// the request, even if it is refused; it is 0 for a result from the cache, and does not include waiting.
func (c *Compiler) Compile(ctx context.Context, owner string, s Source) (k *Constraint, spent time.Duration, err error) {
	name := key{owner: owner, digest: s.Digest()}
	if found, err := c.find(name); found != nil || err != nil {
		return found, 0, err
	}
	c.Load()
	select {
	case c.compiling <- struct{}{}:
		defer func() { <-c.compiling }()
	case <-ctx.Done():
		return nil, 0, context.Cause(ctx)
	}
	if found, err := c.find(name); found != nil || err != nil { // compiled meanwhile
		return found, 0, err
	}
	k, spent, err = c.compile(name, s)
	if err == nil {
		err = c.keep(k)
	}
	if err != nil {
		return nil, spent, err
	}
	return k, spent, nil
}

// Load reads the vocabulary in its first call, and does nothing in later ones. For a large vocabulary the
// first call takes most of a second of CPU time; it yields often. Compile calls Load, too.
func (c *Compiler) Load() { c.once.Do(c.load) }

func (c *Compiler) load() {
	tokens, ends := c.Model.Vocabulary(runtime.Gosched)
	c.vocab, c.ends = vocab.New(tokens, runtime.Gosched), ends
	schema.Prepare()
	c.compiling = make(chan struct{}, 1)
	c.scratch = make([]uint64, c.vocab.Words())
}

// find returns the cached constraint of a key, or the cached error of its refusal; both are nil if neither
// is cached.
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
	c.kept = append(slices.Delete(c.kept, i, i+1), found) // the most recently used is last
	found.refs++
	return found, nil
}

// compile makes the constraint of a source. spent is the time that it took, without the yields.
func (c *Compiler) compile(k key, source Source) (built *Constraint, spent time.Duration, err error) {
	var busy time.Duration
	since := time.Now()
	b := &automaton.Budget{Time: c.Time, Yield: func() {
		busy += time.Since(since)
		runtime.Gosched()
		since = time.Now()
	}}
	defer func() {
		spent = busy + time.Since(since)
		// A compile that ran out of time is not cached: the next time the machine may be less busy.
		if err != nil && k.owner != "" && !errors.Is(b.Err(), automaton.ErrTime) {
			c.refuse(k, err)
		}
	}()
	g, err := source.Grammar(c.Model, b)
	if err != nil {
		return nil, 0, err
	}
	built = &Constraint{compiler: c, key: k, auto: automaton.New(g), source: source, refs: 1}
	built.masks = vocab.NewMasks(c.vocab, built.auto)
	var ok bool
	if built.start, ok = c.startOf(built.auto); !ok {
		return nil, 0, infer.Refusef(source.Member(), "%s: the shortest answer has more than %d bytes", source.Member(), maxShortest)
	}
	built.bytes = built.size()
	return built, 0, nil
}

// startOf returns the length of the shortest answer. It reports false if it is longer than maxShortest.
func (c *Compiler) startOf(a *automaton.Automaton) (startCost, bool) {
	cursor := a.Open()
	defer cursor.Close()
	if a.Cost(cursor.State()) > maxShortest {
		return startCost{}, false
	}
	text, ok := cursor.Shortest(maxShortest)
	return startCost{len(text), c.vocab.Count(text)}, ok
}

// Source returns the compiled source. It may be an earlier one than the source given to Compile, with the
// same digest.
func (k *Constraint) Source() Source { return k.source }

// size returns the number of bytes that a constraint occupies.
func (k *Constraint) size() int {
	return k.source.Size() + k.auto.Grammar().Size() + k.auto.Bytes() + k.masks.Bytes()
}

// keep caches a new constraint. It fails if the constraints in use leave too little of the budget.
func (c *Compiler) keep(k *Constraint) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.used += k.bytes
	c.kept = append(c.kept, k)
	if !c.evictLocked() {
		c.dropLocked(k)
		return infer.Errorf(infer.Busy, "the response formats and tools in use take up the memory for them: try again when other requests have ended")
	}
	return nil
}

func (c *Compiler) budget() int {
	if c.Bytes > 0 {
		return c.Bytes
	}
	return defaultBytes
}

// evictLocked drops unused constraints, the least recently used first, until the cache is within the budget.
// It reports false if the constraints in use alone exceed the budget.
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

// grown measures the memory of a constraint again, and evicts unused ones if necessary. It reports whether
// the cache is within the budget.
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

// forget drops a constraint from the cache after its automaton has failed: the failure is permanent.
func (c *Compiler) forget(k *Constraint) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropLocked(k)
}

// Used returns the number of bytes of all cached constraints.
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
