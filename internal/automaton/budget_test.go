package automaton_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inferd-go/inferd/internal/automaton"
)

// The time in Yield does not count. During Yield the engine computes running answers, and a schema that
// compiles on an idle engine must compile on a busy one, too.
func TestBudgetOfTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		yields := 0
		b := &automaton.Budget{Yield: func() { yields++; time.Sleep(time.Second) }}
		work := func(d time.Duration) {
			for begin := time.Duration(0); begin < d; begin += 200 * time.Microsecond {
				time.Sleep(200 * time.Microsecond)
				for range 64 {
					b.Spend(0)
				}
			}
		}
		work(900 * time.Millisecond)
		if b.Err() != nil || yields < 1000 {
			t.Fatalf("%v after %d yields", b.Err(), yields)
		}
		if work(200 * time.Millisecond); !errors.Is(b.Err(), automaton.ErrTime) || b.Spend(0) {
			t.Errorf("%v after more than a second of work", b.Err())
		}
	})
}

// Freed bytes can be spent again, and the first error is kept.
func TestBudgetOfBytes(t *testing.T) {
	b := &automaton.Budget{Bytes: 100}
	if !b.Spend(90) {
		t.Fatal(b.Err())
	}
	b.Free(80)
	if !b.Spend(90) || b.Used() != 100 {
		t.Errorf("%d bytes are used: %v", b.Used(), b.Err())
	}
	if b.Spend(1) || !errors.Is(b.Err(), automaton.ErrMemory) {
		t.Errorf("got %v", b.Err())
	}
	if b.Free(50); b.Spend(0) {
		t.Error("the error has gone")
	}
}
