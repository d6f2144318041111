package hubtest

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log" //nolint:depguard // http.Server has no other way to be silent
	"math/big"
	"net"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"
)

// Certificates are valid by any clock, including that of a synctest bubble.
var (
	notBefore = time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)
	notAfter  = time.Date(2199, 1, 1, 0, 0, 0, 0, time.UTC)
)

// An authority signs the certificates of the servers of a test.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pem  []byte
	pool *x509.CertPool
}

func newAuthority(tb testing.TB) *authority {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "hubtest"},
		NotBefore: notBefore, NotAfter: notAfter,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		tb.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	a := &authority{key, cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), x509.NewCertPool()}
	a.pool.AddCert(cert)
	return a
}

// leaf returns a certificate for three loopback addresses, for localhost, for hub.test and for names
// that end in .hub.test.
func (a *authority) leaf(tb testing.TB) tls.Certificate {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "hubtest server"},
		NotBefore: notBefore, NotAfter: notAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(127, 0, 0, 2), net.IPv6loopback},
		DNSNames:    []string{"localhost", "hub.test", "*.hub.test"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		tb.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// quiet returns a logger that drops the log of http.Server: tests break connections on purpose.
func quiet() *log.Logger { return log.New(io.Discard, "", 0) }

// A Proxy is an HTTP proxy that serves only CONNECT.
type Proxy struct {
	URL *url.URL
	// Hosts maps "HOST:PORT" of a request to the address that is dialled for it.
	Hosts map[string]string

	mu    sync.Mutex
	dials []string
}

// NewProxy starts a proxy, which stops at the end of the test. hosts must not be changed after the
// first request.
func NewProxy(tb testing.TB, hosts map[string]string) *Proxy {
	tb.Helper()
	ln, err := (&net.ListenConfig{}).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	p := &Proxy{URL: &url.URL{Scheme: "http", Host: ln.Addr().String()}, Hosts: hosts}
	server := &http.Server{Handler: http.HandlerFunc(p.connect), ReadHeaderTimeout: time.Minute, ErrorLog: quiet()}
	var served sync.WaitGroup
	served.Go(func() {
		if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			tb.Errorf("proxy: %v", err)
		}
	})
	tb.Cleanup(func() {
		_ = server.Close() // closes its connections, which are no longer needed
		served.Wait()
	})
	return p
}

// Dials returns the hosts that clients have requested, in order.
func (p *Proxy) Dials() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.dials...)
}

func (p *Proxy) connect(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.dials = append(p.dials, r.Host)
	p.mu.Unlock()
	addr, ok := p.Hosts[r.Host]
	if !ok || r.Method != http.MethodConnect {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	far, err := (&net.Dialer{}).DialContext(r.Context(), "tcp", addr)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer far.Close()
	near, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer near.Close()
	if _, err := io.WriteString(near, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
		return
	}
	shuttle(near, far, buffered)
}

// shuttle copies bytes both ways until both connections are closed.
func shuttle(near, far net.Conn, buffered *bufio.ReadWriter) {
	var copied sync.WaitGroup
	copied.Go(func() {
		_, _ = io.Copy(far, buffered) // ends when a connection is closed
		_ = far.Close()
	})
	_, _ = io.Copy(near, far) // ends when a connection is closed
	_ = near.Close()
	copied.Wait()
}
