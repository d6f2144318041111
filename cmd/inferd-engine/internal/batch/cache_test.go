package batch_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/batch"
)

// A prompt that begins with the tokens of an earlier sequence of its owner does not decode them again.
// If sequences can be truncated, a prompt can also reuse a part of the earlier sequence. Tokens of
// another owner, or of a sequence without an owner, are decoded again.
func TestLoopReusesPrefixesOfAnOwner(t *testing.T) {
	for _, whole := range []bool{false, true} {
		t.Run(fmt.Sprintf("whole %v", whole), func(t *testing.T) {
			m := newToy(t)
			m.whole = whole
			loop := &batch.Loop{Decoder: m, Memory: m, Whole: m.whole, Limits: batch.Limits{Context: 1000, Batch: 64, Sequences: 2, Retained: 4}}
			run(t, loop, m)
			for _, step := range []struct {
				what          string
				owner         string
				first, prompt int
				cached, whole int // tokens found in the cache: if sequences can be truncated, and if they cannot
			}{
				{"the first time", "a", 0, 100, 0, 0},
				{"the same again", "a", 0, 100, 99, 0},
				{"the conversation goes on", "a", 0, 200, 109, 109},
				{"from another owner", "b", 0, 100, 0, 0},
				{"without an owner", "", 0, 100, 0, 0},
				{"without an owner again", "", 0, 100, 0, 0},
				{"something else", "a", 500, 50, 0, 0},
				{"the other owner goes on", "b", 0, 300, 109, 109},
			} {
				before := m.read
				var out []batch.Token
				got, err := loop.Do(t.Context(), m.ownedBy(step.owner, step.first, step.prompt, 10, &out))
				want := step.cached
				if whole {
					want = step.whole
				}
				if err != nil || got.Out != 10 || out[9] != batch.Token(step.first+step.prompt+9) {
					t.Fatalf("%s: %+v, %v, %v", step.what, got, out, err)
				}
				if read := m.read - before; got.Cached != want || read != step.prompt+9-want {
					t.Errorf("%s: %d were cached and %d were read, want %d cached", step.what, got.Cached, read, want)
				}
			}
			// The stats are published a moment after the answer.
			st := loop.Stats()
			for deadline := time.Now().Add(10 * time.Second); !slices.Contains(cached(st), "b 109") || st.KVKept == 0; st = loop.Stats() {
				if time.Now().After(deadline) {
					t.Fatalf("stats %+v", st)
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
}

// A pinned prompt is a prefix for all owners, and for sequences without an owner. It is never
// evicted. Loop.Room, the maximum size of a sequence, is the context without the pinned tokens.
func TestLoopPins(t *testing.T) {
	loop, m := start(t, batch.Limits{Context: 400, Batch: 64, Sequences: 2, Retained: 3})
	var out []batch.Token
	pin := m.ownedBy("", 0, 100, 1, &out)
	pin.Pinned, pin.Ends = true, func(batch.Token) bool { return true }
	if _, err := loop.Do(t.Context(), pin); err != nil {
		t.Fatal(err)
	}
	if loop.Room() != 300 {
		t.Errorf("there is room for %d", loop.Room())
	}
	for i := range 20 { // more than can be retained
		for _, owner := range []string{"a", "b", ""} {
			out = nil
			got, err := loop.Do(t.Context(), m.ownedBy(owner, 0, 101+i, 50, &out))
			if err != nil || got.Cached < 100 || len(out) != 50 {
				t.Fatalf("%q: %+v, %v", owner, got, err)
			}
			if got.Cached > 100 && owner == "" {
				t.Errorf("without an owner %d tokens were cached", got.Cached)
			}
			if _, err := loop.Do(t.Context(), m.ownedBy(owner, 5000+i*100, 60, 30, &out)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := loop.Do(t.Context(), m.ownedBy("a", 0, 290, 11, &out)); err == nil {
		t.Error("a prompt that cannot fit was accepted")
	}
}

// Retained sequences are offloaded while the loop is idle or other sequences decode. They are
// loaded again for a prompt that begins with them. The number of offloaded tokens is bounded.
func TestLoopOffloads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newToy(t)
		m.faults = 0
		m.slow = func() { time.Sleep(time.Millisecond) }
		loop := &batch.Loop{Decoder: m, Memory: m, Whole: m.whole, Limits: batch.Limits{Context: 4000, Batch: 512, Sequences: 2, Retained: 8, Offloaded: 2500}}
		run(t, loop, m)
		ask := func(owner string, first, prompt int) batch.Result {
			t.Helper()
			var out []batch.Token
			got, err := loop.Do(t.Context(), m.ownedBy(owner, first, prompt, 10, &out))
			if err != nil || out[9] != batch.Token(first+prompt+9) {
				t.Fatalf("%+v, %v, %v", got, out, err)
			}
			synctest.Wait()
			return got
		}
		var stream sync.WaitGroup
		stream.Go(func() {
			var out []batch.Token
			_, _ = loop.Do(t.Context(), m.ownedBy("", 9000, 10, 900, &out))
		})
		time.Sleep(5 * time.Millisecond)
		ask("a", 1000, 100)
		ask("a", 4000, 400) // moved piece by piece
		if got := ask("a", 4000, 600); got.Cached != 409 {
			t.Errorf("while it is being offloaded: %+v", got)
		}
		time.Sleep(200 * time.Millisecond) // the stats are published now and then
		if st := loop.Stats(); st.KVKept > 0 || st.KVUsed > 600 || st.KVStored < 700 || st.KVDead > 300 || st.KVSlides == 0 {
			t.Errorf("beside a stream: %+v", st)
		}
		stream.Wait()
		ask("b", 0, 980)
		ask("a", 5000, 980)
		time.Sleep(time.Second)
		st := loop.Stats()
		if st.KVStored < 1398 || st.KVStored > 2500 || st.KVKept != 0 || len(m.cells) != 0 {
			t.Errorf("after a second without requests: %+v, %d in the cache", st, len(m.cells))
		}
		before := m.read
		if got := ask("b", 0, 1500); got.Cached != 989 || m.read-before != 520 {
			t.Errorf("back from memory: %+v, %d were read", got, m.read-before)
		}
		time.Sleep(100 * time.Millisecond)
		if st := loop.Stats(); st.KVKept < 1509 {
			t.Errorf("a prefix is offloaded right after its use: %+v", st)
		}
		if got := ask("c", 0, 1500); got.Cached != 0 {
			t.Errorf("another owner: %+v", got)
		}
		for i := range 5 {
			ask("d", 5000+i, 900)
			time.Sleep(time.Second)
		}
		if st := loop.Stats(); st.KVStored > 2500 || st.KVStored == 0 {
			t.Errorf("in the end: %+v", st)
		}
	})
}

// cached lists the users of the stats, each with the number of prompt tokens found in the cache.
func cached(s batch.Stats) (all []string) {
	for _, u := range s.Users {
		all = append(all, fmt.Sprint(u.User, " ", u.CachedTokens))
	}
	return all
}
