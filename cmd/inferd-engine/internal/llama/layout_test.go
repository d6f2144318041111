package llama_test

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	yzma "github.com/hybridgroup/yzma/pkg/llama"
)

// layouts are the layouts of the structs in include/llama.h of llama.cpp v0.5.0 on a 64-bit machine:
// sizeof, then offsetof of every member in order. The header is from the release's source (the git
// bundle in the npm package node-llama-cpp 3.22.1). The numbers are from a C program with one printf
// per member. Structs are passed by value, so a missing or additional member causes no error, but
// shifts all members behind it.
var layouts = map[reflect.Type]struct {
	size    uintptr
	offsets []uintptr
}{
	reflect.TypeFor[yzma.ModelParams](): {80, []uintptr{
		0, 8, 16, 20, 24, 28, 32, 40, 48, 56, 64, // devices … kv_overrides
		72, 73, 74, 75, 76, 77, // vocab_only … load_mtp
	}},
	reflect.TypeFor[yzma.ContextParams](): {160, []uintptr{
		0, 4, 8, 12, 16, 20, 24, 28, 32, // n_ctx … n_threads_batch
		36, 40, 44, 48, 52, // ctx_type … flash_attn_type
		56, 60, 64, 68, 72, 76, 80, 84, // rope_freq_base … defrag_thold
		88, 96, 104, 108, 112, 120, // cb_eval … abort_callback_data
		128, 129, 130, 131, 132, 133, // embeddings … kv_unified
		136, 144, 152, // samplers, n_samplers, ctx_other
	}},
	reflect.TypeFor[yzma.BatchData](): {56, []uintptr{0, 8, 16, 24, 32, 40, 48}},
	reflect.TypeFor[yzma.ModelQuantizeParams](): {64, []uintptr{
		0, 4, 8, 12, // nthread … token_embedding_type
		16, 17, 18, 19, 20, 21, // allow_requantize … dry_run
		24, 32, 40, 48, 56, // imatrix … max_buf_size
	}},
	reflect.TypeFor[yzma.SamplerChainParams](): {1, []uintptr{0}},
}

func TestLayout(t *testing.T) {
	for typ, want := range layouts {
		if typ.Size() != want.size {
			t.Errorf("%s has %d bytes, the library's has %d", typ, typ.Size(), want.size)
		}
		if typ.NumField() != len(want.offsets) {
			t.Errorf("%s has %d members, the library's has %d", typ, typ.NumField(), len(want.offsets))
			continue
		}
		for i, offset := range want.offsets {
			if f := typ.Field(i); f.Offset != offset {
				t.Errorf("%s.%s is at %d, the library's at %d", typ, f.Name, f.Offset, offset)
			}
		}
	}
}

// No product file calls the functions of the binding that must not be called: one has the signature
// of another release, the others make the next decode crash.
func TestForbiddenCalls(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) < 5 {
		t.Fatalf("%q, %v", files, err)
	}
	forbidden := regexp.MustCompile(`yzma\.(SetWarmup|Warmup|SetAbortCallback)\b`)
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if call := forbidden.Find(content); call != nil {
			t.Errorf("%s calls %s", name, call)
		}
	}
}
