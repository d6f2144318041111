package bridge_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/bridge"
	"github.com/inferd-go/inferd/internal/infer"
)

// echoes is a handler that repeats a text. The prompt consists of the text, the number of
// repetitions, and the pause before each of them in milliseconds. echoes counts the running
// requests.
type echoes struct{ running atomic.Int64 }

func (e *echoes) Handle(ctx context.Context, req *infer.Request, emit infer.Sink) error {
	e.running.Add(1)
	defer e.running.Add(-1)
	var text string
	var times, pause int
	if _, err := fmt.Sscan(req.Task.(*infer.Generate).Messages[0].Text(), &text, &times, &pause); err != nil {
		return err
	}
	for range times {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Duration(pause) * time.Millisecond):
		}
		if err := emit(&infer.Text{Delta: []byte(text)}); err != nil {
			return err
		}
	}
	return emit(&infer.Done{Reason: infer.EndOfTurn})
}

// A randomClient is a client with random behaviour on one connection. It sends requests in pieces
// of any size, some of them before the previous answer, and then closes the connection.
type randomClient struct {
	r           *rand.Rand
	nc          net.Conn
	name        string
	ahead       int // maximum number of requests that are not answered yet
	answersRead int // number of answers after which the client closes the connection
	questions   []question
}

// A question is a request for [echoes].
type question struct {
	text         string
	times, pause int
	stream       bool
}

func (q question) body() string {
	return fmt.Sprintf(`{"model":"gen","stream":%v,"messages":[{"role":"user","content":"%s %d %d"}]}`, q.stream, q.text, q.times, q.pause)
}

// newRandomClient returns a client. Its texts contain name, and so differ from the texts of other
// clients.
func newRandomClient(r *rand.Rand, name string, nc net.Conn) *randomClient {
	l := &randomClient{r: r, nc: nc, name: name, ahead: 1 + r.IntN(2)*r.IntN(3)}
	for i := range 1 + r.IntN(6) {
		size := []int{1, 1, 600, 5000}[r.IntN(4)]
		l.questions = append(l.questions, question{
			text: fmt.Sprintf("%s-%d-%s", name, i, strings.Repeat("x", size)), times: 1 + r.IntN(4),
			pause: []int{0, 0, 1, 20, 70}[r.IntN(5)], stream: r.IntN(2) == 0,
		})
	}
	l.answersRead = len(l.questions)
	if r.IntN(3) == 0 {
		l.answersRead = r.IntN(len(l.questions))
	}
	return l
}

// bytes returns the bytes of a request, in a random framing of the body.
func (l *randomClient) bytes(q question) string {
	body := q.body()
	if l.r.IntN(4) > 0 {
		return request("POST", chatPath, body)
	}
	cut := l.r.IntN(len(body)-1) + 1
	chunks := fmt.Sprintf("%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n", cut, body[:cut], len(body)-cut, body[cut:])
	return request("POST", chatPath, chunks, "Transfer-Encoding: chunked")
}

// run sends the requests and reads the answers. It returns an error if an answer does not belong to its question.
func (l *randomClient) run() error {
	answers := make(chan struct{}, len(l.questions))
	var sending sync.WaitGroup
	defer sending.Wait()
	defer close(answers)
	defer l.nc.Close()
	cuts := rand.New(rand.NewPCG(l.r.Uint64(), 0))
	pieces := make([]string, len(l.questions))
	for i, q := range l.questions {
		pieces[i] = l.bytes(q)
	}
	sending.Go(func() {
		for i, text := range pieces {
			if i >= l.ahead {
				<-answers
			}
			if sendCut(cuts, l.nc, text) != nil {
				return // the missing answers show the failure
			}
		}
	})
	in := bufio.NewReader(l.nc)
	for i, q := range l.questions[:l.answersRead] {
		if err := q.answered(in); err != nil {
			return fmt.Errorf("%s, request %d of %d, %d ahead: %w", l.name, i, len(l.questions), l.ahead, err)
		}
		answers <- struct{}{}
	}
	if l.answersRead < len(l.questions) { // leaves in the middle of an answer
		_, _ = io.CopyN(io.Discard, in, l.r.Int64N(600)) // the answer may be shorter
	}
	return nil
}

// sendCut writes a text in pieces, with pauses between them.
func sendCut(r *rand.Rand, w io.Writer, text string) error {
	for text != "" {
		n := len(text)
		if r.IntN(3) == 0 {
			n = 1 + r.IntN(n)
		}
		if _, err := io.WriteString(w, text[:n]); err != nil {
			return err
		}
		text = text[n:]
		time.Sleep(time.Duration(r.IntN(2)*r.IntN(30)) * time.Millisecond)
	}
	return nil
}

// answered reads an answer, and returns an error if it is not the whole answer to the question.
func (q question) answered(in *bufio.Reader) error {
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if err != nil {
		return fmt.Errorf("the body: %w", err)
	}
	if n := strings.Count(string(body), q.text); res.StatusCode != http.StatusOK || n != q.times || res.Close {
		return fmt.Errorf("%d pieces of %d, %s, closed: %v: %.200q", n, q.times, res.Status, res.Close, body)
	}
	return nil
}

// Connections with random behaviour get their answers in order, while others are closed in the
// middle of an answer. The requests on closed connections end.
func TestRandomClients(t *testing.T) {
	handler := &echoes{}
	h := open(t, handler, func(b *bridge.Bridge) { b.Runner.Handler = handler })
	runs := 10
	if testing.Short() {
		runs = 1
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var clients sync.WaitGroup
	for client := range 16 {
		r := rand.New(rand.NewPCG(seed, uint64(client)))
		clients.Go(func() {
			for n := range runs {
				network, addr := "tcp", h.addr.String()
				if r.IntN(3) == 0 {
					network, addr = "unix", h.path
				}
				nc, err := net.Dial(network, addr)
				if err != nil {
					t.Error(err)
					return
				}
				_ = nc.SetDeadline(time.Now().Add(2 * waitLimit))
				if err := newRandomClient(r, fmt.Sprintf("%d-%d", client, n), nc).run(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	clients.Wait()
	until(t, "nothing runs", func() bool { return handler.running.Load() == 0 })
}
