package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/automaton"
	"github.com/inferd-go/inferd/internal/builtin"
	"github.com/inferd-go/inferd/internal/paths"
	"github.com/inferd-go/inferd/internal/schema"
	"github.com/inferd-go/inferd/internal/vocab"
)

// files writes files into a new folder, and returns its path.
func files(t *testing.T, content map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range content {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o750), os.WriteFile(file, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// data has schemas with different verdicts, among them a schema that no value satisfies.
var data = map[string]string{
	"a.json": `{"schema":{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]},"tests":[{"valid":true,"data":{"a": 1}},{"valid":false,"data":{"a":"x"}},{"valid":false,"data":{}}]}`,
	"b.json": `{"schema":{"unevaluatedProperties":false},"tests":[{"valid":true,"data":{}}]}`,
	"c.json": `{"schema":{"type":"object","properties":{"a":{},"b":{}}},"tests":[{"description":"wrong order","valid":true,"data":{"b":1,"a":1}}]}`,
	"d.json": `{"schema":{"type":"string"},"tests":[]}`,
	"e.json": `{"schema":{"not":{}},"tests":[{"valid":false,"data":1}]}`,
	"f.json": `{"schema":{"type":"string","maxLength":3},"tests":[{"valid":true,"data":"é\u0041"},{"valid":false,"data":"abcd"},{"valid":false,"data":"\ud800"}]}`,
}

var suite = map[string]string{
	"draft2020-12/type.json":                `[{"description":"x","schema":{"type":"integer"},"tests":[{"description":"y","valid":true,"data":1},{"description":"z","valid":false,"data":"a"},{"description":"1.0","valid":true,"data":1.0}]}]`,
	"draft2020-12/optional/format/ip.json":  `[{"description":"ip","schema":{"format":"ipv4"},"tests":[{"description":"y","valid":true,"data":"1.2.3.4"}]}]`,
	"draft2020-12/unevaluatedProperty.json": `[{"description":"u","schema":{"unevaluatedItems":false},"tests":[{"description":"y","valid":true,"data":[]},{"description":"n","valid":false,"data":[1]}]}]`,
}

// A run without a vocabulary judges byte by byte, and counts each verdict in its column.
func TestCounts(t *testing.T) {
	var out bytes.Buffer
	report := filepath.Join(t.TempDir(), "report.json")
	err := run(t.Context(), []string{"--maskbench", files(t, data), "--suite", files(t, suite), "--bytes", "--list", "--slow", "1", "--out", report}, &out)
	if err != nil {
		t.Fatal(err)
	}
	var r readReport
	text, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	if want := (row{All: 6, Right: 4, Refused: 1, GoodRejected: 1}); r.MaskBench["inferd"] != want {
		t.Errorf("all: %+v, want %+v", r.MaskBench["inferd"], want)
	}
	if want := (row{All: 5, Right: 3, Refused: 1, GoodRejected: 1}); r.Instances["inferd"] != want {
		t.Errorf("with an instance: %+v, want %+v", r.Instances["inferd"], want)
	}
	if want := (row{All: 6, Right: 3, Refused: 2, GoodRejected: 1}); r.Suite != want {
		t.Errorf("suite: %+v, want %+v", r.Suite, want)
	}
	if r.Refused["unevaluatedProperties"] != 1 || r.Start.N != 6 || r.Memory.N != 4 || r.Memory.Max <= 0 {
		t.Errorf("%+v", r)
	}
	for _, want := range []string{
		"refused b.json: /unevaluatedProperties: this keyword cannot be enforced",
		`good rejected c.json: wrong order: stopped at "\":1}" behind "{\"b\":1,\"a"`,
		"\ncompile ", "inferd, measured", "llguidance 2026-08, published", "llama.cpp, published", "6 tests: right 3",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
}

// readReport has the members of a report that the tests read.
type readReport struct {
	MaskBench map[string]row `json:"maskbench"`
	Instances map[string]row `json:"maskbench_with_instances"`
	Suite     row            `json:"suite"`
	Refused   map[string]int `json:"refused"`
	Masks     spread         `json:"mask_us"`
	Start     spread         `json:"compile_ms"`
	Memory    spread         `json:"memory_kib"`
}

// With the vocabulary of a model, each token is checked with a mask, and the time of the mask is
// measured. The verdicts are the same as without a vocabulary.
func TestMasks(t *testing.T) {
	if _, err := os.Stat(paths.Default().EngineDir()); err != nil {
		t.Skip("no llama.cpp is here: make engine fetches it:", err)
	}
	model := filepath.Join(t.TempDir(), "script.gguf")
	f, err := os.Create(model)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(builtin.Script(f, `{"`, `":`, `"}`, `ab`, `"a"`), f.Close()); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := run(t.Context(), []string{"--maskbench", files(t, data), "--vocab", model, "--json", "--llguidance=false", "--every", "1"}, &out); err != nil {
		t.Fatal(err)
	}
	var r readReport
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	if want := (row{All: 6, Right: 4, Refused: 1, GoodRejected: 1}); r.MaskBench["inferd"] != want {
		t.Errorf("%+v, want %+v", r.MaskBench["inferd"], want)
	}
	if r.Masks.N < 20 || r.Masks.Mean <= 0 || r.Masks.Max < r.Masks.P99 || r.Masks.P99 < r.Masks.P50 {
		t.Errorf("masks: %+v", r.Masks)
	}
}

func TestEveryAndMost(t *testing.T) {
	o := options{maskbench: files(t, data), every: 2}
	all, err := o.problems()
	if err != nil || len(all) != 3 || all[1].name != "c.json" {
		t.Errorf("every second: %v, %v", all, err)
	}
	o.every, o.most = 1, 4
	if all, err = o.problems(); err != nil || len(all) != 4 {
		t.Errorf("most 4: %d, %v", len(all), err)
	}
}

func TestWrongArguments(t *testing.T) {
	for want, args := range map[string][]string{
		"nothing to measure":    {},
		"unexpected argument":   {"--bytes", "--suite", "x", "y"},
		"masks need":            {"--suite", "x"},
		"at least 1":            {"--suite", "x", "--bytes", "--every", "0"},
		"no *.json in it":       {"--maskbench", t.TempDir(), "--bytes"},
		"no draft2020-12/*.js":  {"--suite", t.TempDir(), "--bytes"},
		"bad.json: ":            {"--maskbench", files(t, map[string]string{"bad.json": "{"}), "--bytes"},
		"flag provided but not": {"--nonsense"},
	} {
		if err := run(t.Context(), args, &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", args, err, want)
		}
	}
}

func TestSpread(t *testing.T) {
	all := make([]time.Duration, 1000)
	for i := range all {
		all[len(all)-1-i] = time.Duration(i+1) * time.Microsecond
	}
	if got, want := spreadOf(all, micro), (spread{1000, 500.5, 501, 991, 1000}); got.N != want.N || got.P50 != want.P50 || got.P99 != want.P99 || got.Max != want.Max || got.Mean < 500 || got.Mean > 501 {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := spreadOf([]int(nil), kib); got != (spread{}) {
		t.Errorf("of nothing: %+v", got)
	}
}

// If llguidance is also measured, the report has a row for it, and the ratio of the mean times of
// masks.
func TestReportWithPeer(t *testing.T) {
	r := &report{Tokens: 10}
	p := &problem{name: "x", instances: []instance{{text: "1", valid: true}}}
	r.add(p, outcome{Verdict: right, Masks: []time.Duration{10, 30}, Bytes: 2048, Start: time.Millisecond}, outcome{Verdict: refused, Start: time.Millisecond})
	r.add(p, outcome{Verdict: right, Masks: []time.Duration{1000, 3000}, Bytes: 1024}, outcome{Verdict: badTaken, Masks: []time.Duration{4000}})
	r.add(p, outcome{Verdict: crashed}, outcome{Verdict: goodRejected})
	var out bytes.Buffer
	if err := r.write(&out, options{}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"llguidance 1.9.1, measured", "0.50 ×", "mask over 10 tokens"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	if got, want := r.MaskBench[rowPeer], (row{All: 3, Refused: 1, GoodRejected: 1, BadTaken: 1}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got, want := r.MaskBench[rowOurs], (row{All: 3, Right: 2, Crashed: 1}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// A token that is in only one of the two masks gets its class from its bytes and its place in the
// JSON text.
func TestClasses(t *testing.T) {
	s, err := schema.Compile([]byte(`{"type":"object","properties":{"a":{"type":"number"},"b":{"type":"string"},"c":{"enum":["x","y"]}}}`), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		text, token string
		ours        bool
		want        string
	}{
		{`{`, "\t", false, "white space"},
		{`{"a":1`, " ,", false, "white space"},
		{`{"a":`, "\n1", false, "white space"},
		{`{"a":`, " 1", true, "white space"},
		{`{"b":"`, `\/`, false, "escapes in strings"},
		{`{"b":"`, `\u0041`, false, "escapes in strings"},
		{`{"b":"`, "\x7f", true, "characters in strings"},
		{`{"a":1`, "e9", true, "numbers with an exponent"},
		{`{"a":1`, "e9999", false, "numbers with an exponent"},
		{`{"a":`, "-", true, "minus zero"},
		{`{"c":"`, "z", false, "strings"},
		{`{"`, `c":"z`, false, "strings"},
		{`{"b":"","`, `a`, false, "names of members"},
		{`{"a":1`, `]`, false, "numbers"},
		{`{"b":""`, `]`, false, "the next token"},
	} {
		c := automaton.New(s.Grammar).Open()
		if !c.Feed([]byte(x.text)) {
			t.Fatalf("%s does not fit", x.text)
		}
		if got := classify(c, x.text, []byte(x.token), x.ours); got != x.want {
			t.Errorf("%q behind %s: %s, want %s", x.token, x.text, got, x.want)
		}
	}
}

// Differences are counted by class. End tokens and markers are not compared.
func TestCompare(t *testing.T) {
	words := []vocab.Token{{Bytes: []byte("<end>"), Control: true}, {Bytes: []byte(`"`)}, {Bytes: []byte("a")}, {Bytes: []byte("\x7f")}, {Bytes: []byte(" ")}}
	j := newJudge(words)
	d := newDifferences(j.vocab)
	p := &problem{name: "p.json", schema: json.RawMessage(`{"type":"string","maxLength":1}`), instances: []instance{{text: `"a"`, valid: true}}}
	// Their masks have, in turn, the quote; all tokens but U+007F; the quote and the space.
	d.compare(p, j, [][]byte{{0b00010}, {0b10111}, {0b10010}})
	if d.schemas != 1 || d.masks != 3 || d.equal != 1 || len(d.classes) != 2 {
		t.Fatalf("%+v", d)
	}
	file := filepath.Join(t.TempDir(), "d.md")
	if err := d.write(file); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	for _, want := range []string{"Masks: 3, of which alike: 1", "| inferd | characters in strings | 1 | 1 | 1 |", "| llguidance |"} {
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%q is not in %s (%v)", want, text, err)
		}
	}
}
