package anthropic_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/inferd-go/inferd/internal/infer"
)

// Faults that were reported for other servers do not occur. Each case is named after its report.
func TestThreads(t *testing.T) {
	t.Run("ggml-org/llama.cpp#21793, waybarrios/vllm-mlx#277: a billing header does not change the prompt", func(t *testing.T) {
		const billed = `[{"type":"text","text":"x-anthropic-billing-header: cc_version=2.1; cch=%d;"},{"type":"text","text":"You are Claude Code."},{"type":"text","text":"a","cache_control":{"type":"ephemeral"}}]`
		var prompts []*infer.Generate
		for i := range 2 {
			prompts = append(prompts, read(t, ask(`,"system":`+fmt.Sprintf(billed, i))).Generate)
		}
		if diff := cmp.Diff(prompts[0], prompts[1]); diff != "" {
			t.Errorf("-first +second\n%s", diff)
		}
		if got := prompts[0].Messages[0].Text(); got != "You are Claude Code.\n\na" {
			t.Errorf("the system message is %q", got)
		}
		for _, system := range []string{`"x-anthropic-billing-header: cch=5;\nbe brief"`, `[{"type":"text","text":"be brief"}]`} {
			if got := read(t, ask(`,"system":`+system)).Generate.Messages[0].Text(); got != "be brief" {
				t.Errorf("%s: the system message is %q", system, got)
			}
		}
		r := read(t, talk(`{"role":"system","content":[{"type":"text","text":"x-anthropic-billing-header: cch=5;"}]},{"role":"user","content":"hi"},{"role":"system","content":"x-anthropic-billing-header: cch=6;"}`))
		if len(r.Generate.Messages) != 1 {
			t.Errorf("as a message: %+v", r.Generate.Messages)
		}
		if got := read(t, ask(`,"system":"about x-anthropic-billing-header:"`)).Generate.Messages[0].Text(); got != "about x-anthropic-billing-header:" {
			t.Errorf("in the middle: %q", got)
		}
	})
	t.Run("anthropics/claude-code#77698: a system message behind the first turn keeps its place", func(t *testing.T) {
		r := read(t, `{"model":"gen","system":"a","messages":[{"role":"user","content":"hi"},{"role":"system","content":[{"type":"text","text":"b"}]},{"role":"user","content":"go"}]}`)
		var roles []infer.Role
		for _, m := range r.Generate.Messages {
			roles = append(roles, m.Role)
		}
		if diff := cmp.Diff([]infer.Role{infer.System, infer.User, infer.System, infer.User}, roles); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
	})
	t.Run("BerriAI/litellm#33224: a piece has the kind of its block", func(t *testing.T) {
		got := assemble(t, split(t, stream(t, answer(read(t, ask(""))), thinking("h"), toolCall("1", "{}"), text("a"), thinking("m"), text("b"), done(infer.EndOfTurn))))
		if want := "thinking(h signed) tool_use(f{}) text(a) thinking(m signed) text(b)"; got.Blocks != want {
			t.Errorf("got %q, want %q", got.Blocks, want)
		}
	})
	t.Run("ggml-org/llama.cpp#18551: thinking is signed once, and accepted back", func(t *testing.T) {
		all := split(t, stream(t, answer(read(t, ask(""))), thinking("h"), thinking("m"), text("a"), done(infer.EndOfTurn)))
		starts, signature := 0, ""
		for _, ev := range all {
			if ev.Type == "content_block_start" && ev.Block.Type == "thinking" {
				starts++
			}
			signature += ev.Delta.Signature
		}
		if starts != 1 || signature == "" {
			t.Errorf("%d starts, the signature is %q", starts, signature)
		}
		for _, sent := range []string{signature, "of another server", ""} {
			r := read(t, talk(`{"role":"user","content":"hi"},{"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"`+sent+`"},{"type":"text","text":"a"}]},{"role":"user","content":"go"}`))
			if part, ok := r.Generate.Messages[1].Content[0].(*infer.ThinkingPart); !ok || part.Text != "hm" {
				t.Errorf("%q: %+v", sent, r.Generate.Messages[1])
			}
		}
	})
}
