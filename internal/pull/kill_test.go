package pull_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/pull"
	"github.com/inferd-go/inferd/internal/store"
)

// Variables of the process that TestKilledAnywhere kills.
const (
	childName  = "INFERD_TEST_PULL"
	childHome  = "INFERD_TEST_HOME"
	childHub   = "INFERD_TEST_HUB"
	childRoots = "INFERD_TEST_ROOTS"
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

// child pulls a model as a process of its own.
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

// Figures of TestKilledAnywhere.
const (
	killSize    = 32 << 20 // of a model
	killRange   = 4 << 20
	killWindow  = 24 << 20              // a process is killed before it has got more bytes
	killBuffer  = 64 << 10              // of a socket
	connections = 4                     // at once
	checkpoint  = 8 << 20               // most bytes between two states that are written down
	lanes       = 5                     // processes at once
	hubPace     = 30 * time.Millisecond // for a MiB of one connection: a quarter of a second for all
)

// A process that is killed at any moment costs at most 8 MiB a connection, at most 8 MiB for all
// of them on average, never a wrong byte, and leaves no stray file.
func TestKilledAnywhere(t *testing.T) {
	kills := 100
	if testing.Short() {
		kills = 5
	}
	var again atomic.Int64 // bytes that were sent twice
	t.Run("lanes", func(t *testing.T) {
		for lane := range lanes {
			t.Run(fmt.Sprint(lane), func(t *testing.T) {
				t.Parallel()
				b := newBench(t)
				c := content(killSize, 50)
				b.repo(c)
				b.hub.Slow, b.hub.WriteBuffer = hubPace, killBuffer
				random := rand.New(rand.NewPCG(uint64(lane), uint64(kills)))
				for left := kills / lanes; left > 0; {
					killed := b.killAnywhere(random, left)
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

// killAnywhere pulls a model by processes that are killed, at most that often, and by a last one
// that is not. It sets the puller to one of their store.
func (b *bench) killAnywhere(random *rand.Rand, most int) (killed int) {
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
		exited, stop := make(chan error, 1), make(chan struct{})
		go func() { exited <- cmd.Wait() }()
		var moment <-chan time.Time
		if killed < most {
			moment = b.moment(random, stop)
		}
		select {
		case err := <-exited:
			close(stop)
			if err != nil {
				b.t.Fatalf("%v: %s", err, out.text)
			}
			return killed
		case <-moment:
			close(stop)
			_ = cmd.Process.Kill() // it may have ended by now
			<-exited
			killed++
		}
	}
}

// moment returns a channel of a random moment before or while bytes come.
func (b *bench) moment(random *rand.Rand, stop <-chan struct{}) <-chan time.Time {
	bytes := b.hub.Sent() + int64(random.IntN(killWindow))
	delay := time.Duration(random.IntN(10)) * time.Millisecond
	if random.IntN(5) == 0 {
		bytes, delay = 0, time.Duration(random.IntN(400))*time.Millisecond
	}
	moment := make(chan time.Time)
	go func() {
		for b.hub.Sent() < bytes {
			select {
			case <-time.After(time.Millisecond):
			case <-stop:
				return
			}
		}
		select {
		case moment <- <-time.After(delay):
		case <-stop:
		}
	}()
	return moment
}

// A tail keeps the last output of a process.
type tail struct{ text []byte }

func (o *tail) Write(p []byte) (int, error) {
	o.text = append(o.text, p...)
	o.text = o.text[max(0, len(o.text)-4096):]
	return len(p), nil
}
