package builtin_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/inferd-go/inferd/internal/builtin"
)

func generate(t *testing.T, name string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := builtin.Write(name, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// embed and rerank have the expected metadata. Their vocabulary has every printable ASCII character
// except the capital letters, at the start of a word and inside one, and no piece twice.
func TestBERTModels(t *testing.T) {
	for name, pooling := range map[string]uint32{"embed": 1, "rerank": 4} {
		t.Run(name, func(t *testing.T) {
			h := parse(t, generate(t, name))
			for key, want := range map[string]any{
				"general.name": "builtin-" + name, "general.architecture": "bert", "bert.pooling_type": pooling,
				"bert.context_length": uint32(512), "tokenizer.ggml.model": "bert", "tokenizer.ggml.cls_token_id": uint32(1),
				"tokenizer.ggml.seperator_token_id": uint32(2),
			} {
				if diff := cmp.Diff(want, h.meta[key]); diff != "" {
					t.Errorf("%s (-want +got):\n%s", key, diff)
				}
			}
			tokens, _ := h.meta["tokenizer.ggml.tokens"].([]string)
			for b := byte('!'); b <= '~'; b++ {
				upper := b >= 'A' && b <= 'Z'
				for _, piece := range []string{string(rune(b)), "\u2581" + string(rune(b))} {
					if slices.Contains(tokens, piece) == upper {
						t.Errorf("piece %q: %v", piece, !upper)
					}
				}
			}
			if seen := slices.Compact(slices.Sorted(slices.Values(tokens))); len(seen) != len(tokens) {
				t.Errorf("%d pieces, %d of them different", len(tokens), len(seen))
			}
		})
	}
}

func TestNames(t *testing.T) {
	if diff := cmp.Diff([]string{"chain", "embed", "fim", "loop", "rerank", "tiny"}, builtin.Names()); diff != "" {
		t.Errorf("Names (-want +got):\n%s", diff)
	}
	for _, name := range builtin.Names() {
		if !builtin.Has(name) {
			t.Errorf("Has(%q) = false", name)
		}
	}
	if builtin.Has("train") {
		t.Error(`Has("train") = true`)
	}
}

func TestUnknownName(t *testing.T) {
	const want = `no built-in model is called "train": there are chain, embed, fim, loop, rerank, tiny`
	dir := filepath.Join(t.TempDir(), "models")
	if _, err := builtin.Ensure(dir, "train"); err == nil || err.Error() != want {
		t.Errorf("Ensure: %v, want %s", err, want)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder was made: %v", err)
	}
	if err := builtin.Write("train", new(bytes.Buffer)); err == nil || err.Error() != want {
		t.Errorf("Write: %v, want %s", err, want)
	}
}

// Each file has its known digest, so it is the same on every platform. Ensure and Write generate the
// same content.
func TestDigests(t *testing.T) {
	for _, name := range builtin.Names() {
		t.Run(name, func(t *testing.T) {
			sum := sha256.Sum256(generate(t, name))
			dir := filepath.Join(t.TempDir(), "state", "models")
			path, err := builtin.Ensure(dir, name)
			if err != nil {
				t.Fatalf("%v; if the model was meant to change, so must its digest", err)
			}
			if want := filepath.Join(dir, name+"-"+hex.EncodeToString(sum[:])[:16]+".gguf"); path != want {
				t.Errorf("Ensure = %s, want %s", path, want)
			}
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if sha256.Sum256(content) != sum {
				t.Error("Ensure and Write differ")
			}
		})
	}
}

// generative has the models with the common vocabulary that generate text.
var generative = []string{"chain", "loop", "tiny"}

func TestMetadata(t *testing.T) {
	for _, name := range generative {
		t.Run(name, func(t *testing.T) {
			h := parse(t, generate(t, name))
			want := map[string]any{
				"general.name":                    "builtin-" + name,
				"general.architecture":            "llama",
				"llama.context_length":            uint32(16384),
				"tokenizer.ggml.model":            "gpt2",
				"tokenizer.ggml.merges":           []string{},
				"tokenizer.ggml.bos_token_id":     uint32(256),
				"tokenizer.ggml.eos_token_id":     uint32(258),
				"tokenizer.ggml.eot_token_id":     uint32(258),
				"tokenizer.ggml.padding_token_id": uint32(259),
				"tokenizer.ggml.add_bos_token":    false,
			}
			for key, value := range want {
				if diff := cmp.Diff(value, h.meta[key]); diff != "" {
					t.Errorf("%s (-want +got):\n%s", key, diff)
				}
			}

			tokens, _ := h.meta["tokenizer.ggml.tokens"].([]string)
			kinds, _ := h.meta["tokenizer.ggml.token_type"].([]int32)
			if len(tokens) != 260 || len(kinds) != 260 {
				t.Fatalf("%d tokens, %d kinds, want 260", len(tokens), len(kinds))
			}
			for b, want := range map[int]string{'a': "a", '~': "~", ' ': "Ġ", '\n': "Ċ", 0: "Ā", 0x7f: "ġ", 0xa0: "ł", 0xad: "Ń", 0xff: "ÿ"} {
				if tokens[b] != want {
					t.Errorf("token of byte %#x is %q, want %q", b, tokens[b], want)
				}
			}
			if diff := cmp.Diff([]string{"<|bos|>", "<|im_start|>", "<|im_end|>", "<|pad|>"}, tokens[256:]); diff != "" {
				t.Errorf("control tokens (-want +got):\n%s", diff)
			}
			for i, kind := range kinds {
				if control := i >= 256; control != (kind == 3) {
					t.Errorf("token %d is of type %d", i, kind)
				}
			}
			slices.Sort(tokens)
			if n := len(slices.Compact(tokens)); n != 260 {
				t.Errorf("%d different tokens, want 260", n)
			}
		})
	}
}

// The vocabulary of fim has the marks around a gap as control tokens after the common ones. Its
// other tokens are those of chain.
func TestMarks(t *testing.T) {
	h := parse(t, generate(t, "fim"))
	tokens, _ := h.meta["tokenizer.ggml.tokens"].([]string)
	kinds, _ := h.meta["tokenizer.ggml.token_type"].([]int32)
	want := []string{"<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|repo_name|>", "<|file_sep|>"}
	if len(tokens) != 265 || len(kinds) != 265 {
		t.Fatalf("%d tokens, %d kinds", len(tokens), len(kinds))
	}
	if diff := cmp.Diff(want, tokens[260:]); diff != "" {
		t.Errorf("marks (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]int32{3, 3, 3, 3, 3}, kinds[260:]); diff != "" {
		t.Errorf("kinds (-want +got):\n%s", diff)
	}
	chain := parse(t, generate(t, "chain"))
	if diff := cmp.Diff(chain.meta["tokenizer.ggml.tokens"].([]string), tokens[:260]); diff != "" {
		t.Errorf("other tokens (-chain +fim):\n%s", diff)
	}
}

// Tensors do not overlap, and each begins on a multiple of 32.
func TestTensors(t *testing.T) {
	h := parse(t, generate(t, "tiny"))
	var spans [][2]uint64
	for name, x := range h.tensors {
		if x.offset%32 != 0 {
			t.Errorf("%s begins at %d", name, x.offset)
		}
		spans = append(spans, [2]uint64{x.offset, x.offset + 4*uint64(len(h.floats(t, name)))})
	}
	slices.SortFunc(spans, func(a, b [2]uint64) int { return int(a[0]) - int(b[0]) })
	end := uint64(0)
	for _, s := range spans {
		if s[0] < end || s[0] >= end+32 {
			t.Errorf("a tensor begins at %d, the one before ends at %d", s[0], end)
		}
		end = s[1]
	}
	if n := uint64(len(h.data)); n < end || n >= end+32 {
		t.Errorf("%d bytes of tensors, the last ends at %d", n, end)
	}
}

func TestAlphabet(t *testing.T) {
	const endOfTurn = 258
	for name, test := range map[string]struct {
		model string
		token int
		want  int
	}{
		"after a letter the next":             {"chain", 'a', 'b'},
		"the last letter but one":             {"chain", 'y', 'z'},
		"after z the end of the turn":         {"chain", 'z', endOfTurn},
		"capitals stay capitals":              {"chain", 'M', 'N'},
		"after Z the end of the turn":         {"chain", 'Z', endOfTurn},
		"after a digit an a":                  {"chain", '7', 'a'},
		"after the character before a, an a":  {"chain", '`', 'a'},
		"after the character behind Z, an a":  {"chain", '[', 'a'},
		"after half a character an a":         {"chain", 0xc3, 'a'},
		"after a zero an a":                   {"chain", 0, 'a'},
		"after a control token an a":          {"chain", 257, 'a'},
		"after the end of the turn an a":      {"chain", endOfTurn, 'a'},
		"fim: after a letter the next":        {"fim", 'a', 'b'},
		"fim: after the mark of the answer":   {"fim", 262, 'm'},
		"fim: after another mark an a":        {"fim", 261, 'a'},
		"loop: after a letter the next":       {"loop", 'a', 'b'},
		"loop: after z an a":                  {"loop", 'z', 'a'},
		"loop: after Z an A":                  {"loop", 'Z', 'A'},
		"loop: after anything else an a":      {"loop", '\n', 'a'},
		"loop: after the end of a turn, an a": {"loop", endOfTurn, 'a'},
	} {
		t.Run(name, func(t *testing.T) {
			h := parse(t, generate(t, test.model))
			for _, written := range []string{"blk.0.attn_output.weight", "blk.0.ffn_down.weight"} {
				for _, v := range h.floats(t, written) {
					if v != 0 {
						t.Fatalf("%s writes something", written)
					}
				}
			}
			// As the layer writes nothing, the logits are the normalised embedding times the output
			// matrix.
			width := int(h.tensors["token_embd.weight"].dims[0])
			hidden := h.floats(t, "token_embd.weight")[test.token*width:][:width]
			square := 0.0
			for _, v := range hidden {
				square += float64(v) * float64(v)
			}
			norm := math.Sqrt(square/float64(width) + 1e-5)
			logits := make([]float64, 260)
			output := h.floats(t, "output.weight")
			for i := range logits {
				for j, v := range hidden {
					logits[i] += float64(v) / norm * float64(output[i*width+j])
				}
			}
			best := slices.Max(logits)
			if got := slices.Index(logits, best); got != test.want {
				t.Errorf("%d is followed by %d, want %d", test.token, got, test.want)
			}
			slices.Sort(logits)
			if gap := best - logits[len(logits)-2]; gap < 40 {
				t.Errorf("it leads by %.1f, want 40", gap)
			}
		})
	}
}

// tiny has the properties that make its bytes about equally likely and its control tokens unlikely.
func TestTiny(t *testing.T) {
	h := parse(t, generate(t, "tiny"))
	width := int(h.tensors["output.weight"].dims[0])
	output := h.floats(t, "output.weight")
	square := 0.0
	for _, v := range output[:256*width] {
		square += float64(v) * float64(v)
	}
	if sigma := math.Sqrt(square / float64(256*width)); sigma < 0.015 || sigma > 0.025 {
		t.Errorf("σ of the output is %.4f, want about 0.02", sigma)
	}
	embedding := h.floats(t, "token_embd.weight")
	for token := range 260 {
		if embedding[token*width] != 4 {
			t.Errorf("token %d does not set the quiet dimension", token)
		}
		if unlikely := output[token*width] == -16; unlikely != (token >= 256) {
			t.Errorf("token %d: unlikely is %v", token, unlikely)
		}
	}
	for name := range h.tensors {
		if strings.HasSuffix(name, "attn_output.weight") || strings.HasSuffix(name, "ffn_down.weight") {
			n := int(h.tensors[name].dims[0])
			if slices.ContainsFunc(h.floats(t, name)[:n], func(v float32) bool { return v != 0 }) {
				t.Errorf("%s writes the quiet dimension", name)
			}
		}
	}
}

// A head keeps the first 4 MiB written to it, and then fails.
type head []byte

var errEnough = errors.New("enough")

func (h *head) Write(b []byte) (int, error) {
	const room = 4 << 20
	n := min(len(b), room-len(*h))
	*h = append(*h, b[:n]...)
	if n < len(b) {
		return n, errEnough
	}
	return n, nil
}

func TestBig(t *testing.T) {
	var file head
	if err := builtin.Big(&file); !errors.Is(err, errEnough) {
		t.Fatalf("Big: %v, want the writer's error", err)
	}
	h := parse(t, file)
	elements := uint64(0)
	for name, x := range h.tensors {
		n := uint64(1)
		for _, d := range x.dims {
			n *= d
		}
		elements += n
		want := uint32(8)
		if strings.HasSuffix(name, "norm.weight") {
			want = 0
		}
		if x.kind != want {
			t.Errorf("%s is of type %d, want %d", name, x.kind, want)
		}
	}
	if elements < 300e6 || elements > 350e6 {
		t.Errorf("%d parameters", elements)
	}
	tokens, _ := h.meta["tokenizer.ggml.tokens"].([]string)
	slices.Sort(tokens)
	if n := len(slices.Compact(tokens)); n != 32000 {
		t.Errorf("%d different tokens, want 32000", n)
	}
	if got := h.meta["llama.context_length"]; got != uint32(16384) {
		t.Errorf("context %v", got)
	}
}

// A file without the model's content is replaced; a file with that content is not.
func TestEnsureMends(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"nothing is wrong":  func(string) error { return nil },
		"it is gone":        os.Remove,
		"it is cut short":   func(path string) error { return os.Truncate(path, 1000) },
		"it is empty":       func(path string) error { return os.Truncate(path, 0) },
		"a byte is wrong":   flip,
		"more was appended": lengthen,
		"it is a link": func(path string) error {
			return errors.Join(os.Rename(path, path+".old"), os.Symlink(path+".old", path))
		},
		"it may not be read": func(path string) error {
			return errors.Join(os.Truncate(path, 10), os.Chmod(path, 0))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path, err := builtin.Ensure(dir, "tiny")
			if err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			before, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := spoil(path); err != nil {
				t.Fatal(err)
			}
			again, err := builtin.Ensure(dir, "tiny")
			if err != nil {
				t.Fatal(err)
			}
			if again != path {
				t.Errorf("Ensure = %s, then %s", path, again)
			}
			after, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			if !after.Mode().IsRegular() {
				t.Errorf("mode %v", after.Mode())
			}
			got, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Error("the content is not the model's")
			}
			if name == "nothing is wrong" && !os.SameFile(before, after) {
				t.Error("a good file was made anew")
			}
		})
	}
}

func flip(path string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	content[len(content)/2] ^= 1
	return os.WriteFile(path, content, 0o600)
}

func lengthen(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString("x")
	return errors.Join(err, f.Close())
}

func TestEnsureSetsModes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	path, err := builtin.Ensure(dir, "tiny")
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm()&0o077 != 0 && os.PathSeparator == '/' {
		t.Errorf("folder: %v, %v; want it closed to others", info.Mode(), err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o077 != 0 && os.PathSeparator == '/' {
		t.Errorf("file: %v, %v; want it closed to others", info.Mode(), err)
	}
}

func TestEnsureAllAtOnce(t *testing.T) {
	dir := t.TempDir()
	var callers sync.WaitGroup
	for i := range 16 {
		callers.Go(func() {
			name := builtin.Names()[i%2]
			path, err := builtin.Ensure(dir, name)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				return
			}
			content, err := os.ReadFile(path)
			if err != nil {
				t.Error(err)
				return
			}
			sum := sha256.Sum256(content)
			if !strings.Contains(path, hex.EncodeToString(sum[:])[:16]) {
				t.Errorf("%s was seen half made", path)
			}
		})
	}
	callers.Wait()
	if names := leaves(t, dir); len(names) != 2 {
		t.Errorf("left behind: %q", names)
	}
}

func TestEnsureFails(t *testing.T) {
	t.Run("the folder is a file", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "models")
		if err := os.WriteFile(dir, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := builtin.Ensure(dir, "tiny")
		if err == nil || !strings.Contains(err.Error(), dir) {
			t.Errorf("Ensure: %v, want an error that names %s", err, dir)
		}
	})
	t.Run("a folder stands in the way", func(t *testing.T) {
		dir := t.TempDir()
		path, err := builtin.Ensure(dir, "tiny")
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o700)); err != nil {
			t.Fatal(err)
		}
		if _, err := builtin.Ensure(dir, "tiny"); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("Ensure: %v, want an error that names %s", err, path)
		}
		if diff := cmp.Diff([]string{filepath.Base(path)}, leaves(t, dir)); diff != "" {
			t.Errorf("left behind (-want +got):\n%s", diff)
		}
	})
}

// leaves returns the names in dir.
func leaves(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// A link in place of a model's file is replaced, and its target is not written to.
func TestEnsureReplacesALink(t *testing.T) {
	dir := t.TempDir()
	path, err := builtin.Ensure(dir, "chain")
	if err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(t.TempDir(), "target")
	if err := os.Rename(path, target); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(target)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, path); err != nil {
		t.Skipf("links: %v", err) // Windows requires a privilege
	}
	if _, err := builtin.Ensure(dir, "chain"); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
		t.Errorf("the file is %v, %v", info, err)
	}
	if after, err := os.ReadFile(target); err != nil || !bytes.Equal(after, before) {
		t.Errorf("the target has changed: %v", err)
	}
}
