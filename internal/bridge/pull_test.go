package bridge_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/internal/bridge"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/status"
)

// pullWith returns a function that sets the Pull of a bridge. The model m is pulled with pull; any
// other name fails.
func pullWith(pull func(ctx context.Context, report func(status.Phase)) error) func(*bridge.Bridge) {
	return func(b *bridge.Bridge) {
		b.Pull = func(ctx context.Context, name string, report func(status.Phase)) (string, error) {
			if name != "m" {
				return "", errors.New("pulled " + name)
			}
			return "m", pull(ctx, report)
		}
	}
}

// A pull is answered with a line for each phase, or in one piece. An error before anything was sent
// has a status of its own; a later error is the last line of the stream.
func TestPull(t *testing.T) {
	const manifest, fetched, success = `{"status":"pulling manifest"}` + "\n", `{"status":"pulling m","total":10,"completed":5}` + "\n", `{"status":"success"}` + "\n"
	broken := errors.New("model \"m\": disk is full")
	for name, test := range map[string]struct {
		early, late error // before the first phase; after the last phase
		stream      string
		status      int
		kind        string
		body        string
	}{
		"a stream":               {nil, nil, "", 200, "application/x-ndjson", manifest + fetched + success},
		"one piece":              {nil, nil, `,"stream":false`, 200, "application/json", success},
		"an early failure":       {broken, nil, "", 502, "application/json", `{"error":"model \"m\": disk is full"}`},
		"a late failure":         {nil, broken, "", 200, "application/x-ndjson", manifest + fetched + `{"error":"model \"m\": disk is full"}` + "\n"},
		"a failure in one piece": {nil, broken, `,"stream":false`, 502, "application/json", `{"error":"model \"m\": disk is full"}`},
		"no name":                {infer.Errorf(infer.Invalid, "no such form"), nil, "", 400, "application/json", `{"error":"no such form"}`},
	} {
		t.Run(name, func(t *testing.T) {
			h := open(t, words("a"), pullWith(func(_ context.Context, report func(status.Phase)) error {
				if test.early != nil {
					return test.early
				}
				report(status.CheckingLocal{Path: "/x"})
				report(status.Download{Name: "m", Done: 5, Total: 10})
				return test.late
			}))
			nc := h.dial()
			defer nc.Close()
			got := send(t, nc, request("POST", "/api/pull", `{"model":"m"`+test.stream+`}`))
			if got.status != test.status || got.header.Get("Content-Type") != test.kind || got.body != test.body {
				t.Errorf("got %+v", got)
			}
			if got := send(t, nc, request("GET", "/health", "")); got.status != 200 {
				t.Errorf("then on the same connection: %+v", got)
			}
		})
	}
}

// Only the daemon's own user may pull, but not with a key or through a proxy. For a model of the
// config, every client succeeds.
func TestWhoPulls(t *testing.T) {
	const secret = "0123456789abcdef"
	key, err := bridge.NewKey("ci", secret)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		user   int
		model  string
		header string
		status int
		want   string
	}{
		"the daemon's user":     {os.Getuid(), "m", "X-Nothing: 1", 200, "success"},
		"another user":          {os.Getuid() + 1, "m", "X-Nothing: 1", 403, `{"error":"only the daemon's user pulls models"}`},
		"a key":                 {os.Getuid(), "m", "Authorization: Bearer " + secret, 403, "only the daemon's user"},
		"a proxy":               {os.Getuid(), "m", "X-Forwarded-For: 10.0.0.1", 403, "only the daemon's user"},
		"a model of the config": {os.Getuid() + 1, "gen", "X-Nothing: 1", 200, "success"},
	} {
		t.Run(name, func(t *testing.T) {
			pulled := false
			h := open(t, words("a"), func(b *bridge.Bridge) {
				pullWith(func(context.Context, func(status.Phase)) error { pulled = true; return nil })(b)
				b.Access.Keys, b.Access.Open = []*bridge.Key{key}, true
				b.UserOf = func(*net.TCPConn) (uint32, error) { return uint32(test.user), nil }
			})
			got := h.once(request("POST", "/api/pull", `{"model":"`+test.model+`"}`, test.header))
			if got.status != test.status || !strings.Contains(got.body, test.want) || pulled != (test.status == 200 && test.model == "m") {
				t.Errorf("%+v, pulled: %v", got, pulled)
			}
		})
	}
}

// A pull ends when its client hangs up, and when the daemon stops.
func TestPullEnds(t *testing.T) {
	ended := make(chan error, 1)
	waits := pullWith(func(ctx context.Context, report func(status.Phase)) error {
		report(status.Verify{})
		<-ctx.Done()
		ended <- ctx.Err()
		return errors.New("the context has ended")
	})
	for _, stream := range []string{"", `,"stream":false`} {
		h := open(t, words("a"), waits)
		nc := h.dial()
		if _, err := io.WriteString(nc, request("POST", "/api/pull", `{"model":"m"`+stream+`}`)); err != nil {
			t.Fatal(err)
		}
		if stream == "" {
			if _, err := bufio.NewReader(nc).ReadString('}'); err != nil {
				t.Fatal(err)
			}
		}
		_ = nc.Close()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("it ends with %v", err)
		}
	}
	h := open(t, words("a"), waits)
	nc := h.dial()
	defer nc.Close()
	if _, err := io.WriteString(nc, request("POST", "/api/pull", `{"model":"m"}`)); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(nc)
	for line := ""; !strings.Contains(line, "verifying"); {
		var err error
		if line, err = in.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	h.stop()
	<-ended
	rest, err := io.ReadAll(in)
	if err != nil || !strings.Contains(string(rest), `{"error":"daemon is shutting down"}`+"\n") {
		t.Errorf("the daemon stops: %q, %v", rest, err)
	}
}
