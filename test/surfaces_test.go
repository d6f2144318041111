package test

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/inferd-go/inferd/internal/builtin"
	"github.com/inferd-go/inferd/internal/shortdir"
)

// bound returns the names of the surfaces' sockets that exist.
func (d *daemon) bound() []string {
	var all []string
	for _, leaf := range leaves {
		if _, err := os.Lstat(d.socket(leaf)); err == nil {
			all = append(all, leaf)
		}
	}
	return all
}

// A surface has a socket if it is enabled and an entry can serve it. If a flag enables a surface
// that no entry can serve, the daemon logs a warning, and the other surfaces work.
func TestSurfaceIsBoundOrNot(t *testing.T) {
	const generates, embeds, reranks = "infer.sock infer.v2.sock inferd.sock", "infer.embed.sock", "infer.rerank.sock"
	for name, test := range map[string]struct {
		config  string
		flags   []string
		want    string
		warning string
	}{
		"all surfaces of a mock":    {oneMock, nil, generates + " " + embeds + " " + reranks, ""},
		"a flag switches one off":   {oneMock, []string{"--v2=false"}, "infer.sock inferd.sock " + embeds + " " + reranks, ""},
		"flags switch many off":     {oneMock, []string{"--v1=false", "--v2=false", "--lp=false", "--rerank=false"}, embeds, ""},
		"the config switches off":   {`{"surfaces":{"lp":false,"embed":false},` + oneMock[1:], nil, "infer.sock infer.v2.sock " + reranks, ""},
		"a flag beats the config":   {`{"surfaces":{"lp":false},` + oneMock[1:], []string{"--lp", "--embed=false"}, generates + " " + reranks, ""},
		"no entry embeds":           {`{"backends":[{"kind":"mock","name":"m","embed":false}]}`, []string{"--embed"}, generates + " " + reranks, "surface=embed reason=\"no backend embeds\""},
		"no entry reranks":          {`{"backends":[{"kind":"mock","name":"m","rerank":false}]}`, []string{"--rerank=true"}, generates + " " + embeds, "surface=rerank reason=\"no backend reranks\""},
		"one of two embeds":         {`{"backends":[{"kind":"mock","name":"m","embed":false},{"kind":"mock","name":"n"}]}`, nil, generates + " " + embeds + " " + reranks, ""},
		"a model that only embeds":  {`{"backends":[{"kind":"llamacpp","name":"e","model":{"builtin":"embed"}}]}`, []string{"--lp"}, embeds, "surface=lp reason=\"no backend generates\""},
		"a model that only reranks": {`{"backends":[{"kind":"llamacpp","name":"e","model":{"builtin":"rerank"}}]}`, []string{"--lp"}, reranks, "surface=lp reason=\"no backend generates\""},
		"a model that generates":    {`{"backends":[{"kind":"llamacpp","name":"e","model":{"builtin":"chain"}}]}`, nil, generates, ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := mocked(t, test.config, test.flags...)
			want := slices.DeleteFunc(slices.Clone(leaves), func(leaf string) bool { return !slices.Contains(strings.Fields(test.want), leaf) })
			if got := d.bound(); !slices.Equal(got, want) {
				t.Errorf("bound %q, want %q", got, want)
			}
			for _, leaf := range d.bound() {
				d.served(leaf)
			}
			log := d.stderr.String()
			if warned := strings.Contains(log, "level=WARN"); warned != (test.warning != "") || !strings.Contains(log, test.warning) {
				t.Errorf("want the warning %q:\n%s", test.warning, log)
			}
		})
	}
}

// served checks that a surface answers.
func (d *daemon) served(leaf string) {
	d.t.Helper()
	p := d.peer(leaf)
	defer p.Close()
	p.ask("g")
	if m, err := p.terminal(); err != nil || m["type"] == "error" || m["id"] != "g" {
		d.t.Errorf("%s: %v, %v\n%s", leaf, m, err, d.stderr)
	}
}

// ask sends the valid request of the surface, with another ID.
func (p *peer) ask(id string) {
	p.t.Helper()
	if _, err := p.Write(p.framed(strings.Replace(validRequests[p.leaf], `"id":"g"`, fmt.Sprintf(`"id":%q`, id), 1))); err != nil {
		p.t.Fatal(err)
	}
}

// refused reads the answer to a request, and checks that it is a refusal with the given code.
func (p *peer) refused(id, code string) {
	p.t.Helper()
	if m, err := p.next(); err != nil || m["type"] != "error" || m["id"] != id || m["code"] != code {
		p.t.Errorf("%s: got %v, %v; want %s for %s", p.leaf, m, err, code, id)
	}
}

// One gate is in front of all surfaces: a request on one surface takes a slot from all, and its
// end, failure or hang-up frees the slot.
func TestOneGate(t *testing.T) {
	const slow = `{"backends":[{"kind":"mock","name":"m","tokens":["x","y"],"token_delay_ms":60000,"n_slots":8}]}`
	for _, permits := range []string{"1", "0"} { // 0 means 1
		t.Run(permits+" permits, nobody waits", func(t *testing.T) {
			d := mocked(t, slow, "--active-permits", permits, "--queue-depth", "0")
			for _, holder := range leaves[:3] {
				runs := d.peer(holder)
				runs.ask("runs")
				eventually(t, "it runs", func() bool { return d.stats().Running == 1 })
				for _, leaf := range leaves {
					p := d.peer(leaf)
					p.ask("too many")
					p.refused("too many", "queue_full")
					// The same connection is used again below, once a slot is free.
					if _, err := p.Write(p.framed(`{"id":"bad","wire_version":1,"messages":[],"input":[],"query":"","documents":[]}`)); err != nil {
						t.Fatal(err)
					}
					p.refused("bad", "invalid_request") // an invalid request needs no slot
				}
				waits := d.peer("infer.embed.sock")
				waits.ask("first")
				waits.refused("first", "queue_full")
				_ = runs.Close()
				eventually(t, "its slot is free", func() bool { return d.stats().Running == 0 })
				waits.ask("second")
				if m, err := waits.terminal(); err != nil || m["type"] != "embeddings" || m["id"] != "second" {
					t.Errorf("then: %v, %v", m, err)
				}
			}
		})
	}
	t.Run("four run, ten wait, one is refused", func(t *testing.T) {
		d := mocked(t, strings.Replace(slow, `,"n_slots":8`, "", 1))
		var all []*peer
		for i := range 14 {
			p := d.peer(leaves[i%3])
			p.ask(fmt.Sprint(i))
			all = append(all, p)
			eventually(t, "it is in", func() bool { s := d.stats(); return s.Running+s.Waiting == i+1 })
		}
		if s := d.stats(); s.Running != 4 || s.Waiting != 10 {
			t.Errorf("%+v", s)
		}
		for _, leaf := range leaves {
			p := d.peer(leaf)
			p.ask("15")
			p.refused("15", "queue_full")
		}
		_ = all[0].Close()  // this one runs
		_ = all[13].Close() // this one waits
		eventually(t, "both are gone", func() bool { s := d.stats(); return s.Running == 4 && s.Waiting == 8 })
	})
	t.Run("a failure frees its slot", func(t *testing.T) {
		for _, knob := range []string{`"pre_stream_error":"internal"`, `"mid_stream_drop_after":1`} {
			d := mocked(t, `{"backends":[{"kind":"mock","name":"m",`+knob+`}]}`, "--active-permits", "1", "--queue-depth", "0")
			for _, leaf := range leaves[:3] {
				p := d.peer(leaf)
				for range 3 {
					p.ask("f")
					if m, err := p.terminal(); err != nil || m["type"] != "error" || m["code"] == "queue_full" {
						t.Errorf("%s, %s: %v, %v", knob, leaf, m, err)
					}
				}
			}
			if s := d.stats(); s.Running != 0 {
				t.Errorf("%s: %+v", knob, s)
			}
		}
	})
}

// Vectors come from one model: another entry answers only if it has the same model file.
func TestVectorsStayWithTheirModel(t *testing.T) {
	model, err := builtin.Ensure(shortdir.New(t), "embed")
	if err != nil {
		t.Fatal(err)
	}
	dir := shortdir.New(t)
	first, linked, copied := filepath.Join(dir, "first"), filepath.Join(dir, "linked"), filepath.Join(dir, "copied")
	copyFile(t, model, first)
	copyFile(t, model, copied)
	if err := os.Link(first, linked); err != nil {
		t.Fatal(err)
	}
	d := mocked(t, fmt.Sprintf(`{"backends":[
		{"kind":"llamacpp","name":"first","aliases":["twins","others"],"model":{"path":%q}},
		{"kind":"llamacpp","name":"copied","aliases":["others"],"model":{"path":%q}},
		{"kind":"llamacpp","name":"linked","aliases":["twins"],"model":{"path":%q}}]}`, first, copied, linked))
	embeds := func(model, want string) {
		t.Helper()
		if _, errs, code := d.ctl("embed", "--model", model, "x"); code != 0 && want == "" || !strings.Contains(errs, want) {
			t.Errorf("embed with %q: exit %d, %q, want %q", model, code, errs, want)
		}
	}
	for _, name := range []string{"", "first", "copied", "linked", "twins", "others"} {
		embeds(name, "")
	}
	// Without its file, the first entry cannot be loaded again.
	if err := os.Remove(first); err != nil {
		t.Fatal(err)
	}
	w := d.watch()
	defer w.Close()
	w.until("ready", "")
	kill(t, d.entries()["first"].PID, syscall.SIGKILL)
	w.until("restarting", "gave_up")
	embeds("", "")
	embeds("twins", "")
	embeds("others", "backend_unavailable")
	embeds("first", "backend_unavailable")
	embeds("copied", "")
}

const threeModels = `{"backends":[
	{"kind":"llamacpp","name":"gen","model":{"builtin":"chain"}},
	{"kind":"llamacpp","name":"emb","model":{"builtin":"embed"}},
	{"kind":"llamacpp","name":"rank","model":{"builtin":"rerank"}}]}`

// Three models, each in a process of its own, answer on their surfaces. The vectors have the length
// 1, and like texts have like vectors.
func TestThreeModels(t *testing.T) {
	d := mocked(t, threeModels)
	if n := len(d.engines()); n != 3 {
		t.Errorf("%d engines", n)
	}
	for range 3 {
		d.serves()
	}
	vectors := func(msg string) [][]float64 {
		t.Helper()
		p := d.peer("infer.embed.sock")
		defer p.Close()
		if _, err := p.Write(p.framed(msg)); err != nil {
			t.Fatal(err)
		}
		m, err := p.terminal()
		if err != nil || m["type"] != "embeddings" {
			t.Fatalf("%s: %v, %v", msg, m, err)
		}
		var all [][]float64
		raw, _ := json.Marshal(m["embeddings"])
		if err := json.Unmarshal(raw, &all); err != nil {
			t.Fatal(err)
		}
		for _, v := range all {
			sum := 0.0
			for _, x := range v {
				sum += x * x
			}
			if math.Abs(math.Sqrt(sum)-1) > 1e-3 {
				t.Errorf("%s: the norm is %g", msg, math.Sqrt(sum))
			}
			if want := m["dimensions"].(float64); len(v) != int(want) {
				t.Errorf("%s: %d dimensions, not %g", msg, len(v), want)
			}
		}
		return all
	}
	v := vectors(`{"input":["a red apple","a fast car","red apples"]}`)
	if like, unlike := dot(v[0], v[2]), dot(v[0], v[1]); like <= unlike {
		t.Errorf("likeness %g of two apples, %g of an apple and a car", like, unlike)
	}
	if alone := vectors(`{"input":["a red apple"]}`); math.Abs(dot(alone[0], v[0])-1) > 1e-3 {
		t.Errorf("a text alone has another vector: cosine %g", dot(alone[0], v[0]))
	}
	if short := vectors(`{"input":["a red apple"],"dimensions":8}`); len(short[0]) != 8 {
		t.Errorf("%d dimensions, want 8", len(short[0]))
	}
	p := d.peer("infer.rerank.sock")
	if _, err := p.Write(p.framed(`{"id":"r","query":"red apple","documents":["a fast car","a red apple","red"],"top_n":2}`)); err != nil {
		t.Fatal(err)
	}
	m, err := p.next()
	if err != nil || m["type"] != "rerank" {
		t.Fatalf("%v, %v", m, err)
	}
	results := m["results"].([]any)
	first, second := results[0].(map[string]any), results[1].(map[string]any)
	if len(results) != 2 || first["index"] != 1.0 || first["score"].(float64) < second["score"].(float64) {
		t.Errorf("ranked %v", m["results"])
	}
	// An engine that dies is replaced, and all surfaces work again.
	for _, pid := range d.engines() {
		kill(t, pid, syscall.SIGKILL)
		eventually(t, "there is another engine", func() bool {
			now := d.engines()
			return len(now) == 3 && !slices.Contains(now, pid)
		})
		d.serves()
	}
}

func dot(a, b []float64) float64 {
	sum := 0.0
	for i := range a {
		sum += a[i] * b[i]
	}
	return sum
}

// Input that is too long for a model is refused with the number of tokens and the limit, and the
// connection can still be used.
func TestTooLongForTheModel(t *testing.T) {
	d := mocked(t, threeModels)
	long, err := json.Marshal(strings.Repeat("apple ", 5000))
	if err != nil {
		t.Fatal(err)
	}
	for leaf, msg := range map[string]string{
		"infer.embed.sock":  `{"id":"l","input":["short",` + string(long) + `]}`,
		"infer.rerank.sock": `{"id":"l","query":"apple","documents":["short",` + string(long) + `]}`,
		"infer.v2.sock":     `{"id":"l","messages":[{"role":"user","content":[{"type":"text","text":` + string(long) + `}]}]}`,
	} {
		p := d.peer(leaf)
		if _, err := p.Write(p.framed(msg)); err != nil {
			t.Fatal(err)
		}
		m, err := p.next()
		text, _ := m["message"].(string)
		if err != nil || m["code"] != "invalid_request" || m["id"] != "l" || !strings.Contains(text, "tokens") || strings.Count(text, "000") == 0 && len(strings.Fields(text)) < 5 {
			t.Errorf("%s: %v, %v", leaf, m, err)
		}
		p.ask("g")
		if m, err := p.terminal(); err != nil || m["type"] == "error" {
			t.Errorf("%s, then: %v, %v", leaf, m, err)
		}
	}
}

// Features that an engine lacks are refused by name, in both framings of v2, and the connection can
// still be used.
func TestEnginesRefuseByName(t *testing.T) {
	d := mocked(t, `{"backends":[{"kind":"llamacpp","name":"gen","model":{"builtin":"chain"}}]}`)
	const text = `"messages":[{"role":"user","content":[{"type":"text","text":"w"}]}]`
	for more, want := range map[string][2]string{
		`,"tools":[{"name":"t","description":"","input_schema":{"$dynamicRef":"#x"}}]`: {"invalid_request", `"t": input_schema: /$dynamicRef`},
		`,"thinking":true`: {"invalid_request", "thinking"},
		`,"response_format":{"type":"json_schema","schema":{"type":"string","pattern":"(?=a)b"}}`:           {"invalid_request", "/pattern: pattern \"(?=a)b\""},
		`,"response_format":{"type":"json_schema","schema":{"type":"string","minLength":9}},"max_tokens":5`: {"invalid_request", "has 11 tokens"},
		`,"logprobs":21`:          {"invalid_request", "logprobs"},
		`,"logit_bias":{"999":1}`: {"invalid_request", "logit_bias"},
		`,"deadline_ms":0`:        {"invalid_request", "deadline_ms"},
		`,"model":"other"`:        {"invalid_request", "other"},
		`,"response_format":null`: {},
	} {
		for _, leaf := range []string{"infer.v2.sock", "inferd.sock"} {
			p := d.peer(leaf)
			if _, err := p.Write(p.framed(`{"id":"x","wire_version":1,` + text + more + `}`)); err != nil {
				t.Fatal(err)
			}
			m, err := p.terminal()
			says, _ := m["message"].(string)
			if code, _ := m["code"].(string); err != nil || code != want[0] || !strings.Contains(says, want[1]) {
				t.Errorf("%s%s: %v, %v; want %v", leaf, more, m, err, want)
			}
			p.ask("g")
			if m, err := p.terminal(); err != nil || m["type"] != "done" {
				t.Errorf("%s%s, then: %v, %v", leaf, more, m, err)
			}
		}
	}
	image := `{"id":"x","messages":[{"role":"user","content":[{"type":"image","attachment_id":"i"}]}],"attachments":[{"kind":"image","id":"i","width":1,"height":1,"bytes":"AAAA"}]}`
	p := d.peer("infer.v2.sock")
	if _, err := p.Write(p.framed(image)); err != nil {
		t.Fatal(err)
	}
	p.refused("x", "attachment_unsupported")
}

// A request beyond the abilities of an engine is refused at once, even while other requests wait
// for a slot: it takes no place in the queue, and a full queue does not change its error.
func TestEnginesRefuseBeforeTheQueue(t *testing.T) {
	d := mocked(t, `{"backends":[{"kind":"llamacpp","name":"gen","model":{"builtin":"chain"}},
		{"kind":"mock","name":"slow","tokens":["x"],"token_delay_ms":60000}]}`, "--active-permits", "1", "--queue-depth", "1")
	ask := func(p *peer, id, more string) {
		t.Helper()
		msg := fmt.Sprintf(`{"id":%q,"wire_version":1,"messages":[{"role":"user","content":[{"type":"text","text":"w"}]}]%s}`, id, more)
		if _, err := p.Write(p.framed(msg)); err != nil {
			t.Fatal(err)
		}
	}
	running, queued := d.peer("infer.v2.sock"), d.peer("infer.v2.sock")
	ask(running, "runs", `,"model":"slow"`)
	eventually(t, "one runs", func() bool { return d.stats().Running == 1 })
	ask(queued, "waits", `,"model":"gen"`)
	eventually(t, "one waits", func() bool { return d.stats().Waiting == 1 })
	for _, leaf := range []string{"infer.v2.sock", "inferd.sock"} {
		p := d.peer(leaf)
		ask(p, "full", `,"model":"gen"`)
		p.refused("full", "queue_full")
		ask(p, "thinks", `,"model":"gen","thinking":true`)
		p.refused("thinks", "invalid_request")
		ask(p, "mock", `,"model":"slow","thinking":true`)
		p.refused("mock", "queue_full")
	}
	if s := d.stats(); s.Running != 1 || s.Waiting != 1 {
		t.Errorf("%d run and %d wait", s.Running, s.Waiting)
	}
	_ = running.Close()
	if m, err := queued.terminal(); err != nil || m["type"] != "done" {
		t.Errorf("the waiting request got %v, %v", m, err)
	}
}

// The mock emits thinking on request, in both framings, and its usage counts the tokens of the
// thinking.
func TestMockThinks(t *testing.T) {
	d := mocked(t, `{"backends":[{"kind":"mock","name":"m","tokens":["a"],"thinking_tokens":["h","m"]}]}`)
	for _, leaf := range []string{"infer.v2.sock", "inferd.sock"} {
		all := d.peer(leaf).askFrames("w", `,"thinking":true`)
		var said []string
		for _, f := range all[:len(all)-1] {
			block, _ := f["block"].(map[string]any)
			said = append(said, fmt.Sprint(block["type"], ":", block["delta"]))
		}
		usage, _ := all[len(all)-1]["usage"].(map[string]any)
		if want := "thinking:h thinking:m text:a"; strings.Join(said, " ") != want || usage["output_tokens"] != 3.0 {
			t.Errorf("%s: %v, usage %v; want %s and 3 tokens", leaf, said, usage, want)
		}
	}
}

// A hang-up on any surface frees the slot or the place in the queue: while the request is queued,
// during prefill and during an answer.
func TestHangUpOnAnySurface(t *testing.T) {
	d := mocked(t, `{"backends":[{"kind":"mock","name":"m","tokens":["x","y"],"token_delay_ms":100,"n_slots":1}]}`, "--queue-depth", "1")
	before := d.resources()
	for _, leaf := range leaves[:3] {
		for range 3 {
			runs, waits := d.peer(leaf), d.peer(leaf)
			runs.ask("runs")
			eventually(t, "one runs", func() bool { return d.stats().Running == 1 })
			waits.ask("waits")
			eventually(t, "one waits", func() bool { s := d.stats(); return s.Waiting == 1 || s.Running == 0 })
			_ = waits.Close()
			_ = runs.Close()
			eventually(t, "both are gone", func() bool { s := d.stats(); return s.Running == 0 && s.Waiting == 0 })
		}
	}
	for _, leaf := range leaves[3:] {
		for range 20 {
			p := d.peer(leaf)
			p.ask("g")
			_ = p.Close()
		}
	}
	d.recovers(before)
}

// A hang-up also frees the slot of an embedding model.
func TestHangUpWhileEncoding(t *testing.T) {
	d := mocked(t, threeModels, "--n-slots", "1", "--queue-depth", "0")
	docs, err := json.Marshal(slices.Repeat([]string{strings.Repeat("apple ", 60)}, 200))
	if err != nil {
		t.Fatal(err)
	}
	for leaf, msg := range map[string]string{
		"infer.embed.sock":  `{"id":"l","input":` + string(docs) + `}`,
		"infer.rerank.sock": `{"id":"l","query":"apple","documents":` + string(docs) + `}`,
	} {
		for range 5 {
			p := d.peer(leaf)
			if _, err := p.Write(p.framed(msg)); err != nil {
				t.Fatal(err)
			}
			_ = p.Close()
			eventually(t, "there is a slot", func() bool {
				p := d.peer(leaf)
				defer p.Close()
				p.ask("g")
				m, err := p.terminal()
				return err == nil && m["type"] != "error"
			})
		}
	}
}

// The commands of inferdctl that send requests to the daemon work, and wrong ones exit with 2. doctor
// finds no fault, except for a daemon that does not run.
func TestCommands(t *testing.T) {
	d := mocked(t, threeModels)
	for _, test := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"chat", "-m", "w"}, 0, "xyz\n"},
		{[]string{"embed", "a red apple"}, 0, "["},
		{[]string{"rerank", "--query", "red apple", "a fast car", "a red apple"}, 0, `"index":1,"text":"a red apple"}` + "\n"},
		{[]string{"status"}, 0, `"ready"`},
		{[]string{"stats"}, 0, `"backends"`},
		{[]string{"log-level", "debug"}, 0, ""},
		{[]string{"log-level", "loud"}, 2, ""},
		{[]string{"retry", "gen"}, 2, ""},
		{[]string{"nonsense"}, 2, ""},
	} {
		out, errs, code := d.ctl(test.args...)
		if code != test.code || !strings.Contains(out, test.says) || (code == 2) != (errs != "") {
			t.Errorf("%q: exit %d, %q, %q", test.args, code, out, errs)
		}
	}
	out, errs, code := d.ctl("--config", filepath.Join(d.dir, "config.json"), "doctor")
	if strings.Contains(out, "[FAIL]") || code != 0 || strings.Count(out, "[ ok ]") < 8 {
		t.Errorf("doctor: exit %d\n%s%s", code, out, errs)
	}
	// doctor reports faults, and works without a daemon.
	d.signal(syscall.SIGTERM)
	d.exit()
	if out, _, code := d.ctl("--config", filepath.Join(d.dir, "config.json"), "doctor"); code != 1 || !strings.Contains(out, "[FAIL] admin") || !strings.Contains(out, "[ ok ] config") {
		t.Errorf("doctor without a daemon: exit %d\n%s", code, out)
	}
}

// A request of another user runs next, however many requests of the first user wait. The kernel
// reports the users, so the test needs root to act as two of them.
func TestFairBetweenUsers(t *testing.T) {
	asRoot(t)
	d := mocked(t, `{"backends":[{"kind":"mock","name":"m","tokens":["x"],"token_delay_ms":50,"n_slots":1}]}`, "--queue-depth", "64")
	stranger := d.stranger("infer.sock", 65534)
	var flood []*peer
	const waiting = 60
	for i := range waiting {
		p := d.peer("infer.sock")
		p.ask(fmt.Sprint(i))
		flood = append(flood, p)
	}
	eventually(t, "they are in", func() bool { s := d.stats(); return s.Running+s.Waiting == waiting })
	stranger.send(`{"id":"other","messages":[{"role":"user","content":"x"}]}`)
	if m := stranger.terminal(); m["type"] != "done" {
		t.Errorf("the answer to the other user: %v", m)
	}
	s := d.stats()
	// Others still wait, so the other user's request did not wait for all sixty.
	if s.Waiting == 0 {
		t.Errorf("no request waits any more: %+v", s)
	}
	raw, _, _ := d.ctl("stats")
	var stats struct {
		Callers []struct{ User string }
	}
	if err := json.Unmarshal([]byte(raw), &stats); err != nil || !slices.ContainsFunc(stats.Callers, func(c struct{ User string }) bool { return strings.Contains(c.User, "65534") || c.User == "nobody" }) {
		t.Errorf("the stats have no caller of the other user: %v\n%s", err, raw)
	}
	for _, p := range flood {
		_ = p.Close()
	}
}
