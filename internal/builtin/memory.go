package builtin

import (
	"fmt"
	"io"
	"math/rand/v2"

	"github.com/inferd-go/inferd/internal/gguf"
)

// Models for tests of other kinds of KV cache than a llama's. They are small, their weights
// are random, and their text depends on all of the context in the cache.

// Window is the size of the sliding window of [Sliding], in tokens.
const Window = 64

// Recurrent writes a mamba: its memory of a text is one state of fixed size, which can be
// copied but not rewound.
func Recurrent(w io.Writer) error {
	const embd, layers, inner, state, kernel, rank = 64, 2, 2 * 64, 16, 4, 4
	random := babble(rand.NewPCG(5, 6))
	f := new(gguf.File)
	f.String("general.architecture", "mamba")
	f.String("general.name", "builtin-recurrent")
	f.Uint32("mamba.context_length", contextLength)
	f.Uint32("mamba.embedding_length", embd)
	f.Uint32("mamba.block_count", layers)
	f.Uint32("mamba.feed_forward_length", 0)
	f.Uint32("mamba.attention.head_count", 0)
	f.Float32("mamba.attention.layer_norm_rms_epsilon", 1e-5)
	f.Uint32("mamba.ssm.conv_kernel", kernel)
	f.Uint32("mamba.ssm.inner_size", inner)
	f.Uint32("mamba.ssm.state_size", state)
	f.Uint32("mamba.ssm.time_step_rank", rank)
	(&lexicon{template: chatML}).add(f)

	random.embedding(f, "token_embd.weight", embd, vocabulary)
	for l := range layers {
		block := fmt.Sprintf("blk.%d.", l)
		f.F32(block+"attn_norm.weight", always(1), embd)
		random.read(f, block+"ssm_in.weight", embd, 2*inner)
		random.read(f, block+"ssm_conv1d.weight", kernel, inner)
		f.F32(block+"ssm_conv1d.bias", always(0), inner)
		random.read(f, block+"ssm_x.weight", inner, rank+2*state)
		random.read(f, block+"ssm_dt.weight", rank, inner)
		f.F32(block+"ssm_dt.bias", always(-4), inner) // small steps: slow decay
		f.F32(block+"ssm_a", always(-1), state, inner)
		f.F32(block+"ssm_d", always(1), inner)
		random.write(f, block+"ssm_out.weight", inner, embd)
	}
	f.F32("output_norm.weight", always(1), embd)
	random.output(f, "output.weight", embd, vocabulary)
	if _, err := f.WriteTo(w); err != nil {
		return fmt.Errorf("write recurrent model: %w", err)
	}
	return nil
}

// Sliding writes a gemma in which every second layer attends to the last [Window] tokens
// only, so that llama.cpp keeps two caches for it.
func Sliding(w io.Writer) error {
	const embd, layers, ff, heads, kvHeads = 64, 3, 128, 4, 2
	const head, kv = embd / heads, embd / heads * kvHeads
	random := babble(rand.NewPCG(7, 8))
	f := new(gguf.File)
	f.String("general.architecture", "gemma3")
	f.String("general.name", "builtin-sliding")
	f.Uint32("gemma3.context_length", contextLength)
	f.Uint32("gemma3.embedding_length", embd)
	f.Uint32("gemma3.block_count", layers)
	f.Uint32("gemma3.feed_forward_length", ff)
	f.Uint32("gemma3.attention.head_count", heads)
	f.Uint32("gemma3.attention.head_count_kv", kvHeads)
	f.Uint32("gemma3.attention.key_length", head)
	f.Uint32("gemma3.attention.value_length", head)
	f.Float32("gemma3.attention.layer_norm_rms_epsilon", 1e-5)
	f.Uint32("gemma3.attention.sliding_window", Window)
	f.Uint32("gemma3.attention.sliding_window_pattern", 2)
	(&lexicon{template: chatML}).add(f)

	random.embedding(f, "token_embd.weight", embd, vocabulary)
	for l := range layers {
		block := fmt.Sprintf("blk.%d.", l)
		f.F32(block+"attn_norm.weight", always(1), embd)
		random.read(f, block+"attn_q.weight", embd, embd)
		random.read(f, block+"attn_k.weight", embd, kv)
		random.read(f, block+"attn_v.weight", embd, kv)
		f.F32(block+"attn_q_norm.weight", always(2), head) // for uneven attention
		f.F32(block+"attn_k_norm.weight", always(2), head)
		random.write(f, block+"attn_output.weight", embd, embd)
		f.F32(block+"post_attention_norm.weight", always(8), embd)
		f.F32(block+"ffn_norm.weight", always(1), embd)
		random.read(f, block+"ffn_gate.weight", embd, ff)
		random.read(f, block+"ffn_up.weight", embd, ff)
		random.write(f, block+"ffn_down.weight", ff, embd)
		f.F32(block+"post_ffw_norm.weight", always(8), embd)
	}
	f.F32("output_norm.weight", always(1), embd)
	random.output(f, "output.weight", embd, vocabulary)
	if _, err := f.WriteTo(w); err != nil {
		return fmt.Errorf("write sliding model: %w", err)
	}
	return nil
}
