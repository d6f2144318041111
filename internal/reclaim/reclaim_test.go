package reclaim

import (
	"testing"
	"testing/synctest"
	"time"
)

// Memory is returned a second after a large request, only once for all requests within that second,
// and again after a later request. Small requests have no effect.
func TestAfter(t *testing.T) {
	original := free
	t.Cleanup(func() { free = original })
	synctest.Test(t, func(t *testing.T) {
		times := 0
		free = func() { times++ }
		check := func(what string, want int) {
			t.Helper()
			synctest.Wait()
			if times != want {
				t.Errorf("%s: memory was returned %d times, want %d", what, times, want)
			}
		}
		After(0)
		After(large - 1)
		time.Sleep(2 * delay)
		check("after small requests", 0)
		for range 3 {
			After(large)
		}
		time.Sleep(delay - 1)
		check("too early", 0)
		time.Sleep(time.Nanosecond)
		check("after large requests", 1)
		After(large)
		time.Sleep(delay)
		check("after a later one", 2)
	})
}
