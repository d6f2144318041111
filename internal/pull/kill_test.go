package pull_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
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
	p.SetHooks(pull.Hooks{Ranges: 8 << 20, Several: 16 << 20})
	if _, err := p.Pull(context.Background(), name, pull.Options{}, nil); err != nil {
		return err
	}
	return st.Close()
}

// A process that is killed at any moment costs at most 8 MiB a connection, never a wrong byte,
// and leaves no stray file.
func TestKilledAnywhere(t *testing.T) {
	kills := 100
	if testing.Short() {
		kills = 5
	}
	const (
		size        = 32 << 20
		connections = 4
		checkpoint  = 8 << 20
		inFlight    = 4 << 20 // of a connection: in the buffers of both kernels and processes
	)
	b := newBench(t)
	c := content(size, 50)
	b.repo(c)
	b.hub.Slow = 30 * time.Millisecond // for a MiB of one connection: a quarter of a second for all
	roots := b.hub.RootsFile(t)
	random := rand.New(rand.NewPCG(1, uint64(kills)))
	worst := int64(0)
	for killed, whole := 0, 0; killed < kills || whole == 0; {
		home := t.TempDir()
		b.hub.Forget()
		here := 0
		for ended := false; !ended; {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), childName+"=O/R", childHome+"="+home, childHub+"="+b.hub.URL(), childRoots+"="+roots)
			out := &tail{}
			cmd.Stderr = out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			exited := make(chan error, 1)
			go func() { exited <- cmd.Wait() }()
			// At a random moment before or while bytes come.
			moment := make(chan time.Time)
			stop := make(chan struct{})
			if here < 20 && killed < kills {
				bytes := b.hub.Sent() + int64(random.IntN(12<<20))
				delay := time.Duration(random.IntN(10)) * time.Millisecond
				if random.IntN(5) == 0 {
					bytes, delay = 0, time.Duration(random.IntN(400))*time.Millisecond
				}
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
			}
			select {
			case err := <-exited:
				if err != nil {
					t.Fatalf("%v: %s", err, out.text)
				}
				ended = true
			case <-moment:
				_ = cmd.Process.Kill() // it may have ended by now
				<-exited
				killed++
				here++
			}
			close(stop)
		}
		whole++
		b.Puller = b.puller(home)
		b.holds("m-q4_k_m", c)
		again := b.hub.Sent() - size
		if limit := int64(here * connections * (checkpoint + inFlight)); again > limit {
			t.Errorf("%d kills cost %d bytes, more than %d", here, again, limit)
		}
		if here > 0 {
			worst = max(worst, again/int64(here))
		}
	}
	t.Logf("%d kills; at most %.1f MiB again for each, on average of a model", kills, float64(worst)/(1<<20))
}

// A tail keeps the last output of a process.
type tail struct{ text []byte }

func (o *tail) Write(p []byte) (int, error) {
	o.text = append(o.text, p...)
	o.text = o.text[max(0, len(o.text)-4096):]
	return len(p), nil
}
