package inbox_test

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/inbox"
)

// Every submitted value arrives once and wakes the loop. The values of one goroutine arrive in
// order.
func TestSubmit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var box inbox.Inbox[[2]int]
		var all sync.WaitGroup
		for who := range 4 {
			all.Go(func() {
				for i := range 100 {
					if !box.Submit([2]int{who, i}) {
						t.Errorf("value %d of %d was refused", i, who)
					}
				}
			})
		}
		var got [4][]int
		for n := 0; n < 400; {
			box.Wait()
			for _, v := range box.Take() {
				got[v[0]] = append(got[v[0]], v[1])
				n++
			}
		}
		all.Wait()
		for who, values := range got {
			if len(values) != 100 || !slices.IsSorted(values) {
				t.Errorf("of %d came %v", who, values)
			}
		}
	})
}

func TestClose(t *testing.T) {
	var box inbox.Inbox[int]
	box.Submit(1)
	box.Submit(2)
	if rest := box.Close(); !slices.Equal(rest, []int{1, 2}) {
		t.Errorf("Close = %v", rest)
	}
	if box.Submit(3) {
		t.Error("a value was taken after Close")
	}
	if rest := box.Take(); len(rest) > 0 {
		t.Errorf("Take = %v", rest)
	}
}

// A wake-up before a wait ends the wait at once. Several such wake-ups count as one.
func TestWaitUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var box inbox.Inbox[int]
		box.Wake()
		box.Wake()
		began := time.Now()
		if box.WaitUntil(began.Add(time.Second)) || time.Since(began) > 0 {
			t.Errorf("the first wait took %v", time.Since(began))
		}
		if !box.WaitUntil(began.Add(time.Second)) || time.Since(began) != time.Second {
			t.Errorf("the second wait took %v", time.Since(began))
		}
		time.AfterFunc(time.Second, box.Wake)
		if box.WaitUntil(began.Add(time.Hour)) || time.Since(began) != 2*time.Second {
			t.Errorf("the third wait took %v", time.Since(began))
		}
	})
}
