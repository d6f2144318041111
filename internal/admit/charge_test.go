package admit_test

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
)

// Work that needs no slot counts against the share of its user.
func TestCharge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(1, 10)
		var all sync.WaitGroup
		for _, user := range []string{"busy", "counts", "waits"} {
			all.Go(func() { s.send(t.Context(), from(user, "p", user)) })
			synctest.Wait()
		}
		s.gate.Charge(from("counts", "p", ""), 10_000)
		all.Wait()
		if want := []string{"busy", "waits", "counts"}; !slices.Equal(s.served, want) {
			t.Errorf("served %v, want %v", s.served, want)
		}
	})
}
