package server_test

import (
	"bufio"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/exchange"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/server"
)

// A hang-up ends the request, whether or not an answer is being written, and whether or not further
// bytes of the client are unread. A half-close does not end the request.
func TestHangUp(t *testing.T) {
	ended := make(chan string, 100) // IDs of the requests
	h := serveUnix(t, &server.Server{Runner: &exchange.Runner{Handler: infer.HandlerFunc(func(ctx context.Context, req *infer.Request, emit infer.Sink) error {
		err := words(ctx, req, emit)
		if err != nil {
			ended <- req.ID
		}
		return err
	})}})
	rounds := 20
	if testing.Short() {
		rounds = 2
	}
	for name, test := range map[string]struct{ text, ahead string }{
		"before the first token":       {"wait", ""},
		"in the middle, nothing comes": {"a b wait", ""},
		"in the middle of a stream":    {"a forever wait", ""},
		"with a further request":       {"a wait", "wait"},
		"in the middle of a request":   {"a wait", "{\"id\":"},
	} {
		t.Run(name, func(t *testing.T) {
			for i := range rounds {
				nc := h.dial()
				r := bufio.NewReader(nc)
				id := fmt.Sprint(name, i)
				send(t, nc, id, test.text)
				if test.ahead != "" {
					send(t, nc, "ahead", test.ahead)
				}
				if test.text != "wait" {
					if _, err := r.ReadSlice('\n'); err != nil {
						t.Fatal(err)
					}
				}
				left := time.Now()
				_ = nc.Close()
				select {
				case got := <-ended:
					if got != id {
						t.Fatalf("%q has ended", got)
					}
					if took := time.Since(left); took > 5*time.Second { // at most 100 ms if the machine is not busy
						t.Errorf("it took %v", took)
					}
				case <-time.After(patience):
					t.Fatal("the request goes on")
				}
			}
		})
	}
	h.works()
}
