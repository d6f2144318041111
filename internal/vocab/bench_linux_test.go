package vocab_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/inferd-go/inferd/internal/automaton"
	"github.com/inferd-go/inferd/internal/schema"
	"github.com/inferd-go/inferd/internal/vocab"
)

// gemma returns the 262,144 tokens of a Gemma model. It skips the test if the model is not on this
// machine.
func gemma(tb testing.TB) []vocab.Token {
	tb.Helper()
	home, err := os.UserHomeDir()
	if err != nil {
		tb.Skip(err)
	}
	f, err := os.Open(filepath.Join(home, ".local/share/inferd/models/gemma-3-270m-q4_k_m.gguf"))
	if err != nil {
		tb.Skip("no model with a large vocabulary is here: make demo fetches one")
	}
	defer f.Close()
	tokens, err := readVocab(bufio.NewReaderSize(f, 1<<20))
	if err != nil {
		tb.Fatal(err)
	}
	return tokens
}

// readVocab reads the tokens and their types from the metadata of a GGUF file with a SentencePiece
// vocabulary.
func readVocab(r io.Reader) (tokens []vocab.Token, err error) {
	read := func(n uint64) []byte {
		p := make([]byte, min(n, 1<<24))
		if _, e := io.ReadFull(r, p); e != nil && err == nil {
			err = e
		}
		return p
	}
	u32 := func() uint32 { return binary.LittleEndian.Uint32(read(4)) }
	u64 := func() uint64 { return binary.LittleEndian.Uint64(read(8)) }
	text := func() string { return string(read(u64())) }
	sizes := map[uint32]uint64{0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
	read(8) // magic, version
	u64()   // tensors
	var types []uint32
	for n := u64(); n > 0 && err == nil; n-- {
		key, kind := text(), u32()
		if kind == 8 {
			text()
			continue
		}
		if kind != 9 {
			read(sizes[kind])
			continue
		}
		kind = u32()
		for i := u64(); i > 0 && err == nil; i-- {
			switch {
			case key == "tokenizer.ggml.tokens":
				tokens = append(tokens, vocab.Token{Bytes: []byte(strings.ReplaceAll(text(), "▁", " "))})
			case key == "tokenizer.ggml.token_type":
				types = append(types, u32())
			case kind == 8:
				text()
			default:
				read(sizes[kind])
			}
		}
	}
	if err == nil && (len(tokens) == 0 || len(types) != len(tokens)) {
		err = errors.New("no vocabulary")
	}
	for i, t := range types {
		switch t {
		case 2, 3, 5: // unknown, control, unused
			tokens[i].Control = true
		case 6: // <0xC3>
			b, e := strconv.ParseUint(strings.Trim(string(tokens[i].Bytes), "<>"), 0, 8)
			if e != nil {
				return nil, e
			}
			tokens[i].Bytes = []byte{byte(b)}
		}
	}
	return tokens, err
}

// samples holds schemas, each with a text that satisfies it.
var samples = map[string][2]string{
	"json":  {`{"type":"object"}`, "{\n  \"name\": \"Ada Lovelace\",\n  \"born\": 1815,\n  \"fields\": [\"mathematics\", \"computing\"],\n  \"notes\": {\"first\": true, \"text\": \"The Analytical Engine weaves algebraic patterns, just as the Jacquard loom weaves flowers and leaves.\"}\n}"},
	"call":  {`{"type":"object","properties":{"city":{"type":"string","maxLength":80},"unit":{"enum":["celsius","fahrenheit"]},"days":{"type":"integer","minimum":1,"maximum":14},"include":{"type":"array","items":{"enum":["wind","rain","uv"]},"uniqueItems":true}},"required":["city","unit"],"additionalProperties":false}`, `{"city": "Frankfurt am Main", "unit": "celsius", "days": 7, "include": ["wind", "uv", "rain"]}`},
	"short": {`{"type":"object","properties":{"code":{"type":"string","minLength":2,"maxLength":6},"list":{"type":"array","items":{"type":"string","maxLength":12}}},"required":["code","list"],"additionalProperties":false}`, `{"code": "abcd", "list": ["alpha", "beta gamma", "delta"]}`},
	"match": {`{"type":"object","properties":{"id":{"type":"string","pattern":"^[A-Z]{3}-[0-9]{4,8}$"},"slug":{"type":"string","pattern":"^[a-z0-9]+(-[a-z0-9]+)*$"},"when":{"type":"string","format":"date-time"},"mail":{"type":"string","format":"email"}},"required":["id","slug","when","mail"],"additionalProperties":false}`, `{"id":"ABC-12345","slug":"some-words-in-a-row","when":"2024-02-29T12:30:00Z","mail":"ada.lovelace@example.com"}`},
}

// tokenise divides a text into tokens, by the longest match at each position.
func tokenise(tokens []vocab.Token, text string) (ids []int32) {
	index := make(map[string]int32, len(tokens))
	for i, t := range tokens {
		if !t.Control {
			index[string(t.Bytes)] = int32(i)
		}
	}
	for len(text) > 0 {
		for n := min(len(text), 64); n > 0; n-- {
			if id, ok := index[text[:n]]; ok {
				ids = append(ids, id)
				text = text[n:]
				break
			}
		}
	}
	return ids
}

// With the vocabulary of a real model, masks agree with the check of single tokens, and with the
// masks that Plainly computes.
func TestRealVocabulary(t *testing.T) {
	if testing.Short() {
		t.Skip("reads a model")
	}
	tokens := gemma(t)
	v := vocab.New(tokens, nil)
	for name, sample := range samples {
		a := automaton.New(compile(t, sample[0]))
		quick, plainly, c := vocab.NewMasks(v, a), vocab.NewMasks(v, a), a.Open()
		plainly.Plainly = true
		x, y := make([]uint64, v.Words()), make([]uint64, v.Words())
		for _, id := range tokenise(tokens, sample[1]) {
			if err := errors.Join(quick.Mask(c, x), plainly.Mask(c, y)); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(x, y) {
				t.Fatalf("%s: masks differ", name)
			}
			for id := int32(0); id < int32(v.Len()); id += 97 {
				if want := !v.Control(id) && len(v.Bytes(id)) > 0 && c.Try(v.Bytes(id)); vocab.Has(x, id) != want {
					t.Fatalf("%s: token %q: %v, want %v", name, v.Bytes(id), !want, want)
				}
			}
			if !vocab.Has(x, id) || !quick.Next(c, id) {
				t.Fatalf("%s: token %q does not fit", name, v.Bytes(id))
			}
		}
		if !c.MayEnd() {
			t.Errorf("%s: the sample has no end", name)
		}
	}
}

// BenchmarkMask measures the CPU time of masks along a text: on a new automaton, and with all
// transitions known but without masks kept from other runs.
func BenchmarkMask(b *testing.B) {
	for _, from := range []string{"synthetic", "gemma"} {
		b.Run(from, func(b *testing.B) {
			var tokens []vocab.Token
			if from == "gemma" {
				tokens = gemma(b)
			} else {
				tokens = synthetic(262_144)
			}
			v := vocab.New(tokens, nil)
			for name, sample := range samples {
				ids := tokenise(tokens, sample[1])
				g := compile(b, sample[0])
				for _, first := range []bool{true, false} {
					b.Run(fmt.Sprintf("%s/first=%v", name, first), func(b *testing.B) { benchmarkMask(b, v, g, ids, first) })
				}
			}
		})
	}
}

// threadTime returns the CPU time of the thread, which does not include the time of other programs.
func threadTime(tb testing.TB) time.Duration {
	tb.Helper()
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(t.Nano())
}

func benchmarkMask(b *testing.B, v *vocab.Vocab, g *automaton.Grammar, ids []int32, first bool) {
	b.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var times []time.Duration
	mask := make([]uint64, v.Words())
	a := automaton.New(g)
	for b.Loop() {
		if first {
			a = automaton.New(g)
		}
		m, c := vocab.NewMasks(v, a), a.Open()
		for _, id := range ids {
			begin := threadTime(b)
			if err := m.Mask(c, mask); err != nil {
				b.Fatal(err)
			}
			times = append(times, threadTime(b)-begin)
			if !m.Next(c, id) {
				b.Fatal("a token does not fit")
			}
		}
		c.Close()
	}
	if !first && len(times) > len(ids) {
		times = times[len(ids):]
	}
	slices.Sort(times)
	var sum time.Duration
	for _, t := range times {
		sum += t
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(sum.Nanoseconds())/float64(len(times)), "ns/mask")
	b.ReportMetric(float64(times[len(times)*99/100].Nanoseconds()), "p99-ns")
	b.ReportMetric(float64(times[len(times)-1].Nanoseconds()), "max-ns")
}

func BenchmarkNew(b *testing.B) {
	tokens := synthetic(262_144)
	for b.Loop() {
		vocab.New(tokens, nil)
	}
}

func BenchmarkCompile(b *testing.B) {
	for name, sample := range samples {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := schema.Compile([]byte(sample[0]), nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestReadVocabRefuses(t *testing.T) {
	if _, err := readVocab(bytes.NewReader([]byte("GGUF"))); err == nil {
		t.Error("a file without a vocabulary is taken")
	}
}

// BenchmarkEnds measures the CPU time of Ends along the text of an object with required members and an additional one:
// for each token with many tokens left, and with few.
func BenchmarkEnds(b *testing.B) {
	names := func(n int) (properties, required, text string) {
		for i := range n {
			name := fmt.Sprintf(`"a_rather_long_name_of_a_member_%02d"`, i)
			properties += `,` + name + `:{"type":"string"}`
			required += `,` + name
			text += `, ` + name + `: "some words"`
		}
		return properties[1:], required[1:], text[2:]
	}
	v := vocab.New(synthetic(32_768), nil)
	for _, n := range []int{1, 5, 12} {
		properties, required, text := names(n)
		g := compile(b, `{"type":"object","properties":{`+properties+`},"required":[`+required+`]}`)
		ids := tokenise(synthetic(32_768), "{"+text+`, "more": [1, 2, {"x": "y"}]}`)
		b.Run(fmt.Sprintf("members=%d", n), func(b *testing.B) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			a := automaton.New(g)
			m, spent, checks := vocab.NewMasks(v, a), time.Duration(0), 0
			for b.Loop() {
				c := a.Open()
				for i, id := range ids {
					begin := threadTime(b)
					ok := m.Ends(c, id, len(ids)) && m.Ends(c, id, len(ids)-i)
					spent += threadTime(b) - begin
					checks += 2
					if !ok || !m.Next(c, id) {
						b.Fatalf("token %d of %d is refused", i, len(ids))
					}
				}
				c.Close()
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(spent.Nanoseconds())/float64(checks), "ns/check")
		})
	}
}
