// Package overhttp is a client of a daemon's HTTP interface, for the verbs of inferdctl that work
// over HTTP. It has the methods and the types of package client, so that a verb can use either of
// them. It uses OpenAI's dialect and, for the state of the daemon, the paths that the page uses.
package overhttp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/inferd-go/inferd/client"
	"github.com/inferd-go/inferd/internal/sockdiag"
)

// A Client sends requests to one address. Use [New].
type Client struct {
	// Key is sent as a bearer token; if it is empty, none is sent.
	Key string
	// Wait is the longest wait for a daemon that does not run or is not ready. 0 means no wait. If
	// it is negative, only the context limits the wait.
	Wait time.Duration
	// Trace, if not nil, is called with the data of every event of an answer, unchanged.
	Trace func(message []byte)

	base string // without a slash at the end
	http http.Client
}

// unixHost is the host of requests over a socket.
const unixHost = "http://inferd"

// New returns a client of an address: the URL of a server, or unix:PATH. Over TCP on this machine
// it uses only a listener of the current user or of root: another user could have taken the port to
// collect prompts and keys.
func New(address string) (*Client, error) {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		if path == "" {
			return nil, errors.New("want unix:PATH, the path of the daemon's http.sock")
		}
		dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}
		return &Client{base: unixHost, http: http.Client{Transport: &http.Transport{DialContext: dial}}}, nil
	}
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.User != nil {
		return nil, fmt.Errorf("%q is no address: want http://HOST:PORT or unix:PATH", address)
	}
	base := strings.TrimSuffix(strings.TrimRight(u.String(), "/"), "/v1")
	return &Client{base: base, http: http.Client{Transport: &http.Transport{DialContext: dialChecked}}}, nil
}

// dialChecked connects to an address. It returns an error if the listener belongs to another user,
// before any byte is sent.
func dialChecked(ctx context.Context, network, addr string) (net.Conn, error) {
	nc, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	remote, ok := nc.RemoteAddr().(*net.TCPAddr)
	local, ok2 := nc.LocalAddr().(*net.TCPAddr)
	if ok && ok2 && remote.IP.Equal(local.IP) || ok && remote.IP.IsLoopback() {
		if err := CheckListener(remote.AddrPort()); err != nil {
			_ = nc.Close()
			return nil, err
		}
	}
	return nc, nil
}

// CheckListener returns an error unless the socket that listens at an address of this machine
// belongs to the current user or to root. On systems that do not report the user it returns nil.
func CheckListener(at netip.AddrPort) error {
	users, err := sockdiag.Open()
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find out which user listens at %s: %w", at, err)
	}
	defer users.Close()
	uid, err := users.ListenerOf(at)
	switch {
	case errors.Is(err, sockdiag.ErrUnknown):
		return &ListenerError{at, "no known user listens there"}
	case err != nil:
		return fmt.Errorf("find out which user listens at %s: %w", at, err)
	case uid != 0 && int64(uid) != int64(os.Getuid()):
		return &ListenerError{at, "user " + strconv.FormatUint(uint64(uid), 10) + " listens there"}
	}
	return nil
}

// A ListenerError means that the listener at an address belongs neither to the current user nor to
// root, or that its user is unknown.
type ListenerError struct {
	At  netip.AddrPort
	Why string
}

func (e *ListenerError) Error() string {
	return fmt.Sprintf("%s is not used: %s, and it must be you or root", e.At, e.Why)
}

// The pauses between two attempts.
const (
	minPause = 50 * time.Millisecond
	maxPause = time.Second
)

// send sends a request: a GET if body is nil, otherwise a POST of body as JSON. If the daemon does
// not run or is not ready, send tries again until Wait is over. The caller must close the body of
// the response. If the daemon refuses the request, the error is a [client.Error].
func (c *Client) send(ctx context.Context, path string, body any) (*http.Response, error) {
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
	}
	begin := time.Now()
	for pause := minPause; ; pause = min(2*pause, maxPause) {
		res, err := c.try(ctx, path, text)
		if err == nil || ctx.Err() != nil || !transient(err) || c.Wait >= 0 && time.Since(begin)+pause > c.Wait {
			return res, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// transient reports whether a later attempt may succeed.
func transient(err error) bool {
	if refused, ok := errors.AsType[*client.Error](err); ok {
		return refused.Code == client.BackendUnavailable
	}
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist)
}

// try sends a request once.
func (c *Client) try(ctx context.Context, path string, body []byte) (*http.Response, error) {
	method := http.MethodGet
	if body != nil {
		method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.Key != "" {
		req.Header.Set("Authorization", "Bearer "+c.Key)
	}
	res, err := c.http.Do(req)
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case transient(err):
		return nil, fmt.Errorf("no daemon answers: is inferd running with --http? %w", err)
	case err != nil:
		return nil, err
	case res.StatusCode != http.StatusOK:
		defer res.Body.Close()
		return nil, refusalOf(res)
	}
	return res, nil
}

// maxRefusal bounds the bytes of the body of a refusal.
const maxRefusal = 64 << 10

// A failure is the daemon's description of an error.
type failure struct {
	Message string `json:"message"`
	Type    string `json:"type"`
	Code    string `json:"code"`
}

// refusalOf returns the error that a response describes.
func refusalOf(res *http.Response) error {
	text, err := io.ReadAll(io.LimitReader(res.Body, maxRefusal))
	if err != nil {
		return fmt.Errorf("read the refusal: %w", err)
	}
	var m struct {
		Error failure `json:"error"`
	}
	if json.Unmarshal(text, &m) != nil || m.Error.Message == "" {
		return fmt.Errorf("the server is not inferd: it answered %s", res.Status)
	}
	return m.Error.as(res.StatusCode)
}

// codes maps status codes to the codes of package client.
var codes = map[int]client.Code{
	http.StatusTooManyRequests: client.QueueFull, http.StatusServiceUnavailable: client.BackendUnavailable,
	http.StatusRequestEntityTooLarge: client.FrameTooLarge, http.StatusInternalServerError: client.Internal,
	http.StatusBadGateway: client.ToolCallMalformed,
}

// as returns the failure as an error of package client. status is that of the response; 0 means a
// failure within a stream.
func (f failure) as(status int) error {
	code, ok := codes[status]
	switch {
	case ok:
	case f.Code == "server_is_overloaded":
		code = client.BackendUnavailable
	case f.Type == "rate_limit_error":
		code = client.QueueFull
	case f.Type == "api_error":
		code = client.Internal
	default:
		code = client.InvalidRequest
	}
	return &client.Error{Code: code, Message: f.Message}
}

// fetch sends a request, decodes the JSON of the answer into the value that into points to, and
// returns the JSON.
func (c *Client) fetch(ctx context.Context, path string, body, into any) ([]byte, error) {
	res, err := c.send(ctx, path, body)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return nil, fmt.Errorf("the answer is not from inferd: %w", err)
	}
	return text, nil
}
