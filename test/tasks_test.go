package test

import (
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// The tasks of an entry determine its sockets, its capabilities and its contexts. What the engine
// assumes about a model is logged once.
func TestTasksOfAnEntry(t *testing.T) {
	const noPooling, noRank = "the model's file does not say how vectors are pooled", "the model's file does not say that the model was trained to rank"
	for name, test := range map[string]struct {
		entry string // members of the entry
		model string
		bound []string
		nCtx  int
		warns []string
	}{
		"a model that generates":    {`"n_ctx":512`, "chain", leaves[:3], 512, nil},
		"it embeds as well":         {`"embed":true,"embed_pooling":"last","n_ctx":512,"embed_n_ctx":64`, "chain", leaves[:4], 512, nil},
		"it does everything":        {`"embed":true,"rerank":true,"n_ctx":512`, "chain", leaves, 512, []string{noPooling, noRank}},
		"it does not generate":      {`"generate":false,"embed":true,"embed_pooling":1,"n_ctx":512,"embed_n_ctx":64`, "chain", leaves[3:4], 64, nil},
		"it does so by default":     {`"generate":true,"embed":false,"n_ctx":512`, "chain", leaves[:3], 512, nil},
		"one that can only embed":   {`"embed":true,"embed_n_ctx":64`, "embed", leaves[3:4], 64, nil},
		"one that can only rerank":  {`"rerank":true,"rerank_n_ctx":64`, "rerank", leaves[4:], 64, nil},
		"a context of few tokens":   {`"embed":true,"embed_pooling":"mean","n_ctx":512,"embed_n_ctx":8`, "chain", leaves[:4], 512, nil},
		"embedding as the default":  {`"n_ctx":64`, "embed", leaves[3:4], 64, nil},
		"generate says nothing new": {`"generate":false`, "rerank", leaves[4:], 512, nil},
	} {
		t.Run(name, func(t *testing.T) {
			d := mocked(t, `{"backends":[{"kind":"llamacpp","name":"gen",`+test.entry+`,"model":{"builtin":"`+test.model+`"}}]}`)
			if got := d.bound(); strings.Join(got, " ") != strings.Join(test.bound, " ") {
				t.Errorf("bound %q, want %q", got, test.bound)
			}
			for _, leaf := range test.bound {
				d.served(leaf)
			}
			if got := d.entries()["gen"].NCtx; got != test.nCtx {
				t.Errorf("context of %d, want %d", got, test.nCtx)
			}
			w := d.watch()
			defer w.Close()
			can := w.until("capabilities", "")
			bound := strings.Join(test.bound, " ")
			for member, leaf := range map[string]string{"v2": leaves[1], "embed": leaves[3], "rerank": leaves[4]} {
				if says, is := can[len(can)-1][member] == true, strings.Contains(bound, leaf); says != is {
					t.Errorf("capabilities say %s: %v", member, says)
				}
			}
			log := d.stderr.String()
			if n := strings.Count(log, "level=WARN"); n != len(test.warns) {
				t.Errorf("%d warnings, want %q:\n%s", n, test.warns, log)
			}
			for _, want := range test.warns {
				if strings.Count(log, want) != 1 {
					t.Errorf("no warning %q:\n%s", want, log)
				}
			}
		})
	}
}

// An entry that has no task is refused at the start, with the reason.
func TestEntryWithoutATask(t *testing.T) {
	d := start(t, "", "--model-path", "builtin:chain", "--llamacpp-generate=false")
	if code := d.exit(); code != 1 || !strings.Contains(d.stderr.String(), "generate is switched off, and neither embed nor rerank is on") {
		t.Errorf("exit %d\n%s", code, d.stderr)
	}
}

// both is the format of a config with one entry that generates, embeds and reranks. Its argument is
// the number of slots.
const both = `{"backends":[{"kind":"llamacpp","name":"gen","n_slots":%d,"embed":true,"embed_pooling":"mean","rerank":true,"model":{"builtin":"loop"}}]}`

// encodes sends n requests for vectors and scores, and checks the answers.
func (d *daemon) encodes(n int) {
	d.t.Helper()
	for _, leaf := range leaves[3:] {
		p := d.peer(leaf)
		for i := range n {
			p.ask(fmt.Sprint(i))
			if m, err := p.terminal(); err != nil || m["type"] == "error" || m["id"] != fmt.Sprint(i) {
				d.t.Fatalf("%s: %v, %v", leaf, m, err)
			}
		}
		_ = p.Close()
	}
}

// A reader reads a stream all the time, so that it never stalls.
type reader struct {
	*client
	tokens atomic.Int64
	ended  chan struct{}
}

// read begins to read streams, each until it is closed.
func read(streams []*client) (all []*reader) {
	for _, c := range streams {
		r := &reader{client: c, ended: make(chan struct{})}
		_ = c.SetReadDeadline(time.Time{})
		go func() {
			defer close(r.ended)
			for {
				line, err := r.r.ReadString('\n')
				if err != nil || !strings.Contains(line, `"type":"token"`) {
					return
				}
				r.tokens.Add(1)
			}
		}()
		all = append(all, r)
	}
	return all
}

// writes waits until the stream has n more tokens.
func (r *reader) writes(n int64) {
	r.t.Helper()
	before := r.tokens.Load()
	eventually(r.t, "the stream goes on", func() bool { return r.tokens.Load() >= before+n })
}

// end closes a stream.
func (r *reader) end() {
	_ = r.Close()
	<-r.ended
}

// Vectors and scores are computed while two answers continue.
func TestEncodingBesideStreams(t *testing.T) {
	d := mocked(t, fmt.Sprintf(both, 3))
	running := read(d.streams(2))
	for range 10 {
		before := running[0].tokens.Load() + running[1].tokens.Load()
		d.encodes(5)
		for _, r := range running {
			r.writes(1)
		}
		t.Logf("%d tokens beside 10 requests", running[0].tokens.Load()+running[1].tokens.Load()-before)
	}
	before := d.entries()["gen"].Engine
	d.encodes(5)
	after := d.entries()["gen"].Engine
	if before == nil || after == nil || after.Steps < before.Steps+10 || after.Prefill < before.Prefill+10 {
		t.Errorf("the stats were %+v, and are %+v", before, after)
	}
	if s := d.stats(); len(s.Backends) != 1 || s.Backends[0].Requests != 110 || s.Running != 2 {
		t.Errorf("%+v", s)
	}
	for _, r := range running {
		r.end()
	}
}

// A request for vectors waits for a slot. Unlike a request for text, it preempts no answer.
func TestEncodingDoesNotPreempt(t *testing.T) {
	d := mocked(t, fmt.Sprintf(both, 2))
	running := read(d.streams(2))
	defer func() {
		for _, r := range running {
			r.end()
		}
	}()
	type result struct {
		out, errs string
		code      int
	}
	answers := make(chan result, 1)
	go func() { // another program, which has no running request
		out, errs, code := d.ctl("embed", "text")
		answers <- result{out, errs, code}
	}()
	eventually(t, "the request for vectors waits", func() bool { return d.stats().Waiting == 1 })
	for _, r := range running { // for longer than a quantum
		r.writes(200)
	}
	if n := d.entries()["gen"].Parked; n != 0 {
		t.Errorf("%d answers are preempted", n)
	}
	select {
	case r := <-answers:
		t.Fatalf("the request has not waited: %+v", r)
	default:
	}
	running[0].end()
	if r := <-answers; r.code != 0 || !strings.Contains(r.out, "[") {
		t.Errorf("%+v", r)
	}
	running[1].writes(1)
}

// If the config sets exact, stats and capabilities say whether answers are exact and, if not, why.
func TestExactIsShown(t *testing.T) {
	d := mocked(t, `{"backends":[
		{"kind":"llamacpp","name":"exact","exact":true,"model":{"builtin":"chain"}},
		{"kind":"llamacpp","name":"usual","model":{"builtin":"chain"}}]}`)
	d.works()
	all := d.entries()
	kept, reason := all["exact"].Exact, all["exact"].Inexact
	if kept == nil || *kept == (reason != "") {
		t.Errorf("exact: %v, and the reason against it is %q", kept, reason)
	}
	if e := all["usual"]; e.Exact != nil || e.Inexact != "" {
		t.Errorf("exact %v, reason %q, although the config does not set exact", e.Exact, e.Inexact)
	}
	w := d.watch()
	defer w.Close()
	seen := 0
	for _, frame := range w.until("ready", "") {
		if frame["status"] != "capabilities" {
			continue
		}
		seen++
		says, has := frame["exact"]
		why, _ := frame["inexact"].(string)
		switch asked := frame["backend"] == "exact"; {
		case has != asked:
			t.Errorf("%v", frame)
		case asked && (says != *kept || why != reason):
			t.Errorf("%v, want %v, %q", frame, *kept, reason)
		}
	}
	if seen != 2 {
		t.Errorf("%d capabilities", seen)
	}
	if warned := strings.Contains(d.stderr.String(), "the setting exact is not met"); warned == *kept {
		t.Errorf("warned: %v\n%s", warned, d.stderr)
	}
}

// The watchdog notices that one loop hangs although the other one works. A call that only waited
// for the hanging loop is answered by the next engine.
func TestOneOfSeveralLoopsWedges(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes half a minute")
	}
	engine, file := wedgeable(t)
	for mode, reason := range map[string]string{"spin": "wedged: spin: ", "sleep": "wedged: deadlock: "} {
		t.Run(mode, func(t *testing.T) {
			d := mocked(t, fmt.Sprintf(both, 3), "--engine", engine)
			w := d.watch()
			defer w.Close()
			w.until("ready", "")
			running := d.streams(1)
			wedge(t, file, mode)
			eventually(t, "the step hangs", func() bool {
				_, err := os.Stat(file)
				return os.IsNotExist(err)
			})
			p := d.peer("infer.embed.sock")
			p.ask("waits")
			if _, end := running[0].answer(); end.Code != "backend_unavailable" {
				t.Errorf("the stream ended with %+v", end)
			}
			_ = p.SetReadDeadline(time.Now().Add(patience))
			if m, err := p.terminal(); err != nil || m["type"] != "embeddings" {
				t.Errorf("vectors: %v, %v", m, err)
			}
			frames := w.until("restarting", "engine_exited")
			if got := fmt.Sprint(frames[len(frames)-1]["reason"]); !strings.HasPrefix(got, reason) {
				t.Errorf("reason %q, want %q", got, reason)
			}
			d.encodes(2)
		})
	}
}
