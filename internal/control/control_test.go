package control_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/control"
	"github.com/inferd-go/inferd/internal/frame"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/shortdir"
	wire "github.com/inferd-go/inferd/internal/wire/control"
)

// waitLimit bounds each wait of a test. It is long enough for a busy machine.
const waitLimit = 20 * time.Second

// serve runs a control socket with the given function as the verb retry. end stops the server,
// waits until it has ended, and returns the error of Serve.
func serve(t *testing.T, retry func(context.Context, string) error) (path string, end func() error) {
	t.Helper()
	dir := shortdir.New(t)
	path = filepath.Join(dir, "control.sock")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() {
		served <- control.Serve(ctx, ln, control.Verbs{Retry: retry}, nil, nil, slog.New(slog.DiscardHandler))
	}()
	end = func() error {
		cancel()
		select {
		case err := <-served:
			served <- nil
			return err
		case <-time.After(waitLimit):
			return errors.New("Serve does not return")
		}
	}
	t.Cleanup(func() {
		if err := end(); err != nil {
			t.Error(err)
		}
	})
	return path, end
}

func onlyGen(_ context.Context, backend string) error {
	switch backend {
	case "gen":
		return nil
	case "broken":
		return errors.New("no hands")
	default:
		return infer.Errorf(infer.Invalid, "invalid request: no engine is called %q", backend)
	}
}

func dial(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	nc, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	if err := nc.SetDeadline(time.Now().Add(waitLimit)); err != nil {
		t.Fatal(err)
	}
	return nc.(*net.UnixConn)
}

func TestTranscripts(t *testing.T) {
	const (
		retryGen = `{"id":"1","type":"retry","backend":"gen"}`
		done     = `{"type":"done","id":"1"}`
	)
	for name, test := range map[string]struct {
		send string
		want []string // all lines until the end of the stream
	}{
		"a retry":                       {retryGen + "\n", []string{done}},
		"no newline, then a half-close": {retryGen, []string{done}},
		"a carriage return":             {retryGen + "\r\n", []string{done}},
		"nothing":                       {"", nil},
		"unknown members": {
			`{"id":"1","type":"retry","backend":"gen","force":{"very":true}}` + "\n",
			[]string{done},
		},
		"pipelined, and a refusal leaves the connection open": {
			`{"id":"a","type":"retry","backend":"ghost"}` + "\n" + `{"id":"b","type":"retry","backend":"broken"}` + "\n" + retryGen + "\n",
			[]string{
				`{"type":"error","id":"a","code":"invalid_request","message":"invalid request: no engine is called \"ghost\""}`,
				`{"type":"error","id":"b","code":"internal","message":"internal error"}`,
				done,
			},
		},
		"an unknown type": {
			`{"id":"1","type":"explode"}` + "\n" + retryGen + "\n",
			[]string{`{"type":"error","id":"1","code":"invalid_request","message":"invalid request: unknown type \"explode\""}`, done},
		},
		"an unknown type that is long": {
			`{"id":"1","type":"` + strings.Repeat("x", 1000) + `"}` + "\n",
			[]string{`{"type":"error","id":"1","code":"invalid_request","message":"invalid request: unknown type \"` + strings.Repeat("x", 64) + `\""}`},
		},
		"an id that is too long": {
			`{"id":"` + strings.Repeat("x", 1025) + `","type":"retry","backend":"gen"}` + "\n" + retryGen + "\n",
			[]string{`{"type":"error","id":"","code":"invalid_request","message":"invalid request: id has 1025 bytes, at most 1024 are allowed"}`, done},
		},
		"no backend": {
			`{"id":"1","type":"retry"}` + "\n" + retryGen + "\n",
			[]string{`{"type":"error","id":"1","code":"invalid_request","message":"invalid request: backend must not be empty"}`, done},
		},
	} {
		t.Run(name, func(t *testing.T) {
			path, _ := serve(t, onlyGen)
			nc := dial(t, path)
			if _, err := io.WriteString(nc, test.send); err != nil {
				t.Fatal(err)
			}
			if err := nc.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(nc)
			if err != nil {
				t.Fatal(err)
			}
			want := strings.Join(append(test.want, ""), "\n")
			if string(got) != want {
				t.Errorf("got:\n%swant:\n%s", got, want)
			}
		})
	}
}

// A malformed request ends the connection with an error without an ID, even if valid requests
// follow.
func TestBrokenRequestsEndTheConnection(t *testing.T) {
	for name, test := range map[string]struct{ line, code string }{
		"broken JSON":      {"{not json}", "invalid_request"},
		"a blank line":     {"", "invalid_request"},
		"a wrong type":     {`{"id":"1","type":5}`, "invalid_request"},
		"no type":          {`{"id":"1","backend":"gen"}`, "invalid_request"},
		"a doubled member": {`{"id":"1","type":"retry","type":"retry"}`, "invalid_request"},
		"another case":     {`{"id":"1","Type":"retry","backend":"gen"}`, "invalid_request"},
		"invalid UTF-8":    {"{\"id\":\"\xff\",\"type\":\"retry\",\"backend\":\"gen\"}", "invalid_request"},
	} {
		t.Run(name, func(t *testing.T) {
			path, _ := serve(t, onlyGen)
			nc := dial(t, path)
			if _, err := io.WriteString(nc, test.line+"\n"+`{"id":"2","type":"retry","backend":"gen"}`+"\n"); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(nc)
			if !lines.Scan() {
				t.Fatalf("no answer: %v", lines.Err())
			}
			if want := `{"type":"error","id":"","code":"` + test.code + `","message":"`; !strings.HasPrefix(lines.Text(), want) {
				t.Errorf("got %s, want %s…", lines.Text(), want)
			}
			if lines.Scan() {
				t.Errorf("got %s after it, want the end", lines.Text())
			}
		})
	}
}

func TestRequestTooLongEndsTheConnection(t *testing.T) {
	path, _ := serve(t, onlyGen)
	nc := dial(t, path)
	go func() { _, _ = nc.Write(make([]byte, 1<<20)) }() // fails when the server closes the connection
	line, err := bufio.NewReader(nc).ReadString('\n')
	want := `{"type":"error","id":"","code":"frame_too_large","message":"frame exceeds 65536 byte cap"}` + "\n"
	if err != nil || line != want {
		t.Errorf("got %q, %v, want %q", line, err, want)
	}
}

func TestIdleConnectionsDoNotDelayTheEnd(t *testing.T) {
	path, end := serve(t, onlyGen)
	idle, half := dial(t, path), dial(t, path)
	if _, err := wire.Call(frame.Lines.NewReader(idle, frame.Limit), frame.Lines.NewWriter(idle), wire.Retry{Backend: "gen"}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(half, `{"id":`); err != nil {
		t.Fatal(err)
	}
	if err := end(); err != nil {
		t.Error(err)
	}
	for name, nc := range map[string]net.Conn{"idle": idle, "in the middle of a request": half} {
		if b, err := io.ReadAll(nc); len(b) > 0 || err != nil && !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "reset") {
			t.Errorf("%s: read %q, %v, want the end", name, b, err)
		}
	}
}

func TestRunningVerbIsAnsweredAtTheEnd(t *testing.T) {
	started := make(chan struct{})
	path, end := serve(t, func(ctx context.Context, _ string) error {
		close(started)
		<-ctx.Done()
		return infer.Errorf(infer.Unavailable, "stopping")
	})
	nc := dial(t, path)
	ended := make(chan error, 1)
	go func() {
		<-started
		ended <- end()
	}()
	_, err := wire.Call(frame.Lines.NewReader(nc, frame.Limit), frame.Lines.NewWriter(nc), wire.Retry{Backend: "gen"})
	if err == nil || err.Error() != "stopping" || infer.CodeOf(err) != infer.Unavailable {
		t.Errorf("Call = %v, want the error of the verb", err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
