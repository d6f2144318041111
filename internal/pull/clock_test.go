package pull_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inferd-go/inferd/internal/hubtest"
	"github.com/inferd-go/inferd/internal/pull"
	"github.com/inferd-go/inferd/internal/store"
)

// A pipeListener accepts connections that are made in the same process.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { close(l.closed); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case l.conns <- far:
		return near, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// A failure, an answer with Retry-After and a stall take the real pauses and time-outs, on the fake
// clock of a synctest bubble.
func TestRealPauses(t *testing.T) {
	hub := hubtest.New(t)
	certificate, roots := hub.Certificate(), hub.Roots()
	c := content(64<<10, 70)
	home := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int32
		server := &http.Server{
			TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}},
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("ETag", `"v1"`)
				switch n.Add(1) {
				case 1:
					w.WriteHeader(http.StatusInternalServerError)
					return
				case 2:
					w.Header().Set("Retry-After", "90")
					w.WriteHeader(http.StatusTooManyRequests)
					return
				case 3:
					w.Header().Set("Content-Length", "65536")
					_, _ = w.Write(c[:1000])
					_ = http.NewResponseController(w).Flush()
					<-r.Context().Done()
					return
				}
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(c))
			}),
		}
		ln := &pipeListener{make(chan net.Conn), make(chan struct{})}
		served := make(chan error, 1)
		go func() { served <- server.ServeTLS(ln, "", "") }()
		st := &store.Store{Home: home}
		p := &pull.Puller{Store: st, Roots: roots, Log: discard(), Proxy: noProxy}
		p.SetHooks(pull.Hooks{Dial: ln.dial})
		start := time.Now()
		r, err := p.Pull(t.Context(), "https://hub.test/m.gguf#sha256="+hubtest.Sum(c), pull.Options{}, nil)
		if err != nil || r.Digest != hubtest.Sum(c) {
			t.Errorf("%+v, %v", r, err)
		}
		// 0.25 to 0.75 s, 90 s, 30 s without a byte, 1 to 3 s
		if took := time.Since(start); took < 121*time.Second || took > 125*time.Second {
			t.Errorf("it took %v", took)
		}
		if err := errors.Join(st.Close(), server.Close()); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
}
