package pull_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/pull"
	"github.com/inferd-go/inferd/internal/store"
)

// Environment variables of the child processes of TestKilledAnywhere and of the benchmarks.
const (
	childName  = "INFERD_TEST_PULL"
	childHome  = "INFERD_TEST_HOME"
	childHub   = "INFERD_TEST_HUB"
	childRoots = "INFERD_TEST_ROOTS"
	childPlain = "INFERD_TEST_PLAIN" // if set, ranges and buffers have their real sizes
)

func TestMain(m *testing.M) {
	if name := os.Getenv(childName); name != "" {
		if err := child(name); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child pulls the model name, as the variables above say. It is the main function of a child
// process.
func child(name string) error {
	roots := x509.NewCertPool()
	pem, err := os.ReadFile(os.Getenv(childRoots))
	if err != nil {
		return err
	}
	roots.AppendCertsFromPEM(pem)
	st := &store.Store{Home: os.Getenv(childHome)}
	p := &pull.Puller{
		Store: st, Agent: "inferd/test", HubEndpoint: os.Getenv(childHub), Roots: roots,
		Log:   slog.New(slog.DiscardHandler),
		Proxy: func(*http.Request) (*url.URL, error) { return nil, nil },
	}
	if os.Getenv(childPlain) != "" {
		_, err := p.Pull(context.Background(), name, pull.Options{}, nil)
		status, _ := os.ReadFile("/proc/self/status") // only on Linux
		if _, peak, ok := strings.Cut(string(status), "VmHWM:"); ok {
			peak, _, _ = strings.Cut(peak, "\n")
			fmt.Println("VmHWM:", strings.TrimSpace(peak))
		}
		return errors.Join(err, st.Close())
	}
	p.SetHooks(pull.Hooks{Ranges: killRange, Several: 2 * killRange, Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if tcp, ok := conn.(*net.TCPConn); ok && err == nil {
			err = tcp.SetReadBuffer(killBuffer)
		}
		return conn, err
	}})
	if _, err := p.Pull(context.Background(), name, pull.Options{}, nil); err != nil {
		return err
	}
	return st.Close()
}

// Sizes and limits of TestKilledAnywhere.
const (
	killSize    = 32 << 20 // size of a model
	killRange   = 4 << 20
	killWindow  = 24 << 20 // most bytes, without killSlack, that a process receives before it is killed
	killSlack   = 2 << 20  // bytes that the hub may send beyond those at which a process is to be killed
	killBuffer  = 64 << 10 // write buffer of the hub's sockets, and read buffer of the child's
	connections = 4        // requests at once
	checkpoint  = 8 << 20  // most bytes between two saved states
	lanes       = 5        // processes that run at once
)

// If a process is killed at any moment, at most 8 MiB per connection are sent again, and at most 8 MiB
// in all on average. The finished model has no wrong byte, and no other file is left.
func TestKilledAnywhere(t *testing.T) {
	kills, lanes := 100, lanes
	if testing.Short() {
		kills, lanes = 1, 1
	}
	var again atomic.Int64 // number of bytes sent twice
	t.Run("lanes", func(t *testing.T) {
		for lane := range lanes {
			t.Run(fmt.Sprint(lane), func(t *testing.T) {
				t.Parallel()
				b := newBench(t)
				c := content(killSize, 50)
				var g gate
				b.hub.Sending, b.hub.WriteBuffer = g.sending, killBuffer
				b.repo(c) // must follow the settings above, which the hub's requests read
				random := rand.New(rand.NewPCG(uint64(lane), uint64(kills)))
				for left := kills / lanes; left > 0; {
					killed := b.killAnywhere(&g, random, left)
					left -= killed
					b.holds("m-q4_k_m", c)
					more := b.hub.Sent() - killSize
					again.Add(more)
					if limit := int64(killed * connections * checkpoint); more > limit {
						t.Errorf("%d kills cost %d bytes, more than %d", killed, more, limit)
					}
				}
			})
		}
	})
	mean := float64(again.Load()) / float64(kills)
	t.Logf("%d kills; %.1f MiB again for each, on average", kills, mean/(1<<20))
	if !testing.Short() && mean > checkpoint {
		t.Errorf("a kill costs %.0f bytes on average, more than %d", mean, checkpoint)
	}
}

// killAnywhere pulls a model in child processes, one after the other, until one finishes. It kills each
// at a random moment, but no more than most, and returns the number of kills. It replaces b.Puller by
// one with the same store.
func (b *bench) killAnywhere(g *gate, random *rand.Rand, most int) (killed int) {
	b.t.Helper()
	home, roots := b.t.TempDir(), b.hub.RootsFile(b.t)
	b.Puller = b.puller(home)
	b.hub.Forget()
	for {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childName+"=O/R", childHome+"="+home, childHub+"="+b.hub.URL(), childRoots+"="+roots)
		out := &tail{}
		cmd.Stderr = out
		if err := cmd.Start(); err != nil {
			b.t.Fatal(err)
		}
		exited := make(chan error, 1)
		go func() { exited <- cmd.Wait() }()
		var moment <-chan time.Time
		if killed < most {
			// A random moment before or while bytes are sent.
			if random.IntN(5) == 0 {
				moment = time.After(time.Duration(random.IntN(400)) * time.Millisecond)
			} else {
				moment = g.shut(b.hub.Sent()+int64(random.IntN(killWindow)), time.Duration(random.IntN(10))*time.Millisecond)
			}
		}
		select {
		case err := <-exited:
			g.open()
			if err != nil {
				b.t.Fatalf("%v: %s", err, out.text)
			}
			return killed
		case <-moment:
			_ = cmd.Process.Kill() // it may have ended already
			<-exited
			g.open()
			killed++
		}
	}
}

// A gate holds back bytes that a hub is about to send.
type gate struct {
	mu      sync.Mutex
	at      int64          // the gate is shut once at+killSlack bytes have been sent
	delay   time.Duration  // from the moment at which at was reached
	moment  chan time.Time // nil once at was reached
	opening chan struct{}  // closed by open; nil while the gate is open
}

// shut holds back all bytes beyond the first at+killSlack. The returned channel receives a value
// when delay has passed since at bytes were sent.
func (g *gate) shut(at int64, delay time.Duration) <-chan time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	moment := make(chan time.Time, 1)
	g.at, g.delay, g.moment, g.opening = at, delay, moment, make(chan struct{})
	return moment
}

// open lets all bytes pass.
func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opening != nil {
		close(g.opening)
	}
	g.moment, g.opening = nil, nil
}

func (g *gate) sending(sent int64) {
	g.mu.Lock()
	at, opening := g.at, g.opening
	if g.moment != nil && sent >= at {
		moment := g.moment
		time.AfterFunc(g.delay, func() { moment <- time.Now() })
		g.moment = nil
	}
	g.mu.Unlock()
	if opening != nil && sent >= at+killSlack {
		<-opening
	}
}

// A tail keeps the last output of a process.
type tail struct{ text []byte }

func (o *tail) Write(p []byte) (int, error) {
	o.text = append(o.text, p...)
	o.text = o.text[max(0, len(o.text)-4096):]
	return len(p), nil
}
