package load_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/inferd-go/inferd/bench/load"
	"github.com/inferd-go/inferd/internal/shortdir"
)

// asCaller is the environment variable that is set in the process of a Caller.
const asCaller = "INFERD_TEST_CALLER"

func TestMain(m *testing.M) {
	if os.Getenv(asCaller) != "" {
		if err := load.Serve(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// A script returns the lines of a server's answer; in them ID stands for the ID of the request.
type script func(question map[string]any) string

// serve answers on a v1 socket until the end of the test.
func serve(t *testing.T, answer script) load.Target {
	t.Helper()
	dir := shortdir.New(t)
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	t.Cleanup(func() {
		_ = l.Close()
		all.Wait()
	})
	all.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer nc.Close()
				for lines := bufio.NewScanner(nc); lines.Scan(); {
					var q map[string]any
					if err := json.Unmarshal(lines.Bytes(), &q); err != nil {
						t.Error(err)
						return
					}
					if _, err := io.WriteString(nc, strings.ReplaceAll(answer(q), "ID", fmt.Sprint(q["id"]))); err != nil {
						return
					}
				}
			})
		}
	})
	return load.Target{Dialect: load.V1, Path: l.Addr().String()}
}

const (
	tokenA = `{"type":"token","id":"ID","content":"a"}` + "\n"
	doneA  = `{"type":"done","id":"ID","content":"a","usage":{"prompt_tokens":3,"completion_tokens":1,"cached_tokens":2}}` + "\n"
)

var question = load.Request{Turns: []string{"hey"}, MaxTokens: 1}

func TestOutcomes(t *testing.T) {
	for name, test := range map[string]struct {
		says string
		want load.Outcome // text, tokens, code
		err  string       // error of the outcome or of Close
	}{
		"an answer":                   {tokenA + doneA, load.Outcome{Text: "a", Frames: 1, In: 3, Out: 1, Cached: 2}, ""},
		"a refusal":                   {`{"type":"error","id":"ID","code":"queue_full"}` + "\n", load.Outcome{Code: "queue_full"}, "queue_full"},
		"refused before it is read":   {`{"type":"error","id":"","code":"queue_full"}` + "\n", load.Outcome{Code: "queue_full"}, "queue_full"},
		"a token of another request":  {`{"type":"token","id":"other","content":"b"}` + "\n" + doneA, load.Outcome{}, `a frame of "other"`},
		"no id":                       {`{"type":"token","content":"b"}` + "\n" + doneA, load.Outcome{}, `a frame of ""`},
		"an unknown frame":            {`{"type":"tokens","id":"ID"}` + "\n", load.Outcome{}, `a frame of type "tokens"`},
		"an error without a code":     {`{"type":"error","id":"ID"}` + "\n", load.Outcome{}, "without a code"},
		"no JSON":                     {"{\n", load.Outcome{}, "a frame that is not JSON"},
		"two ends":                    {tokenA + doneA + doneA, load.Outcome{Text: "a", Frames: 1, In: 3, Out: 1, Cached: 2}, "after the end"},
		"a token that comes too late": {tokenA + doneA + tokenA, load.Outcome{Text: "a", Frames: 1, In: 3, Out: 1, Cached: 2}, "after the end"},
	} {
		t.Run(name, func(t *testing.T) {
			var asker load.Asker
			o := asker.Ask(t.Context(), load.Shot{Target: serve(t, func(map[string]any) string { return test.says }), Request: question, Keep: true}, nil)
			err := errors.Join(o.Err(), asker.Close())
			if test.err == "" && err != nil || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
				t.Errorf("error %v, want %q", err, test.err)
			}
			if o.Text != test.want.Text || o.Frames != test.want.Frames || o.In != test.want.In || o.Out != test.want.Out || o.Cached != test.want.Cached || o.Code != test.want.Code {
				t.Errorf("got %+v, want %+v", o, test.want)
			}
		})
	}
}

// A hang-up after some frames, or after a time, ends the request without a fault.
func TestLeaving(t *testing.T) {
	talks := serve(t, func(map[string]any) string { return strings.Repeat(tokenA, 3) })
	silent := serve(t, func(map[string]any) string { return "" })
	for name, test := range map[string]struct {
		shot   load.Shot
		frames int
	}{
		"after two frames": {load.Shot{Target: talks, LeaveAfter: 2}, 2},
		"within a while":   {load.Shot{Target: silent, LeaveWithin: time.Millisecond}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			test.shot.Request = question
			var asker load.Asker
			if o := asker.Ask(t.Context(), test.shot, nil); !o.Gone || o.Frames != test.frames || o.Fault != "" {
				t.Errorf("%+v", o)
			}
		})
	}
	t.Run("from a process of its own", func(t *testing.T) {
		c := caller(t)
		ctx, leave := context.WithCancel(t.Context())
		o := c.Ask(ctx, load.Shot{Target: talks, Request: question}, leave)
		if !o.Gone || o.Frames == 0 || o.Fault != "" {
			t.Errorf("%+v", o)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

// caller starts a Caller.
func caller(t *testing.T) *load.Caller {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), asCaller+"=1")
	c, err := load.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCaller(t *testing.T) {
	c := caller(t)
	target := serve(t, func(map[string]any) string { return tokenA + doneA })
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			due := load.Now().After(20 * time.Millisecond)
			o := c.Ask(t.Context(), load.Shot{Target: target, Request: question, Due: due, Trace: true}, nil)
			if o.Err() != nil || o.Out != 1 || len(o.Arrivals) != 1 || o.Due != due || o.TTFT() <= 0 {
				t.Errorf("%+v", o)
			}
		})
	}
	all.Wait()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if o := c.Ask(t.Context(), load.Shot{Target: target, Request: question}, nil); o.Fault == "" {
		t.Errorf("a caller that has ended got %+v", o)
	}
}

// Mixed finds a fault in every server that has one, and none in a correct server.
func TestMixedFinds(t *testing.T) {
	recite := func(q map[string]any, n int) string {
		var text strings.Builder
		prompt := q["messages"].([]any)[0].(map[string]any)["content"].(string)
		in := len(prompt)
		switch of, grammar := q["grammar"].(string); {
		case grammar:
			in += load.TemplateTokens
			text.WriteString(strings.Repeat(strings.TrimPrefix(of, "root ::= [")[:1], n))
		default:
			for i := range n {
				text.WriteByte('a' + (prompt[len(prompt)-1]-'a'+1+byte(i))%26)
			}
		}
		return fmt.Sprintf(`{"type":"token","id":"ID","content":%q}`+"\n"+`{"type":"done","id":"ID","usage":{"prompt_tokens":%d,"completion_tokens":%d}}`+"\n", text.String(), in, n)
	}
	asked := func(q map[string]any) int { return int(q["max_tokens"].(float64)) }
	const refused = `{"type":"error","id":"ID","code":"invalid_request"}` + "\n"
	correct := func(q map[string]any) string {
		if asked(q) == 0 {
			return refused
		}
		return recite(q, asked(q))
	}
	for name, test := range map[string]struct {
		answer script
		finds  bool
	}{
		"nothing is wrong":               {correct, false},
		"a token too few":                {func(q map[string]any) string { return recite(q, max(0, asked(q)-1)) }, true},
		"an invalid request is answered": {func(q map[string]any) string { return recite(q, asked(q)) }, true},
		"every request is refused":       {func(map[string]any) string { return refused }, true},
		"the letters of the next caller": {func(q map[string]any) string { return strings.ReplaceAll(correct(q), `"content":"a`, `"content":"d`) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			m := load.Mixed{Targets: []load.Target{serve(t, test.answer)}, Requests: 300, Streams: 3, Seed: 1}
			var asker load.Asker
			tally := m.Run(t.Context(), &asker, 0)
			if err := asker.Close(); err != nil {
				t.Error(err)
			}
			if found := len(tally.Faults) > 0; found != test.finds {
				t.Errorf("%d faults, %.3q", len(tally.Faults), tally.Faults)
			}
		})
	}
}

func TestTallyAgrees(t *testing.T) {
	tally := load.Tally{In: 10, Out: 20, LeftIn: 5, LeftOut: 6}
	for _, test := range []struct {
		in, out int64
		agrees  bool
	}{{10, 20, true}, {15, 26, true}, {9, 20, false}, {16, 20, false}, {10, 19, false}, {10, 27, false}} {
		if err := tally.Agrees(test.in, test.out); (err == nil) != test.agrees {
			t.Errorf("%d in and %d out: %v", test.in, test.out, err)
		}
	}
}
