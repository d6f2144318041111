package constraint_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/constraint"
	"github.com/inferd-go/inferd/internal/infer"
	"github.com/inferd-go/inferd/internal/vocab"
)

// bytesOnly is a model with a token for each byte, and an end token.
type bytesOnly struct{}

func (bytesOnly) Vocabulary(func()) (tokens []vocab.Token, ends []int32) {
	for b := range 256 {
		tokens = append(tokens, vocab.Token{Bytes: []byte{byte(b)}})
	}
	return append(tokens, vocab.Token{Control: true}), []int32{256}
}

func (bytesOnly) ByName(string) (int32, bool) { return 0, false }

// refusal returns the error of a schema that is refused.
func refusal(t *testing.T, c *constraint.Compiler, owner, source string) error {
	t.Helper()
	k, _, err := c.Compile(t.Context(), owner, constraint.Format{Format: &infer.Format{Schema: []byte(source)}})
	if err == nil {
		k.Release()
		t.Fatalf("%s is taken", source)
	}
	return err
}

func refused(i int) string { return fmt.Sprintf(`{"description":"%d","unevaluatedItems":false}`, i) }

// A refusal is cached for its owner: the same error is returned again, without a compile. It is not
// shared with other owners.
func TestRefusalsAreKept(t *testing.T) {
	c := &constraint.Compiler{Model: bytesOnly{}, Time: time.Minute}
	first := refusal(t, c, "a", refused(0))
	if again := refusal(t, c, "a", refused(0)); again != first { //nolint:errorlint // is it the very same?
		t.Error("it was compiled again for the same owner")
	}
	if other := refusal(t, c, "b", refused(0)); other == first { //nolint:errorlint // likewise
		t.Error("owners share it")
	}
	if nobody := refusal(t, c, "", refused(0)); nobody == refusal(t, c, "", refused(0)) { //nolint:errorlint // likewise
		t.Error("without an owner it is kept")
	}
	g := &infer.Format{Grammar: "start ::= 1"}
	_, _, one := c.Compile(t.Context(), "a", constraint.Format{Format: g})
	_, _, two := c.Compile(t.Context(), "a", constraint.Format{Format: g})
	if one == nil || one != two { //nolint:errorlint // likewise
		t.Errorf("grammar: %v, %v", one, two)
	}
}

// The refusals of an owner beyond its limit evict only that owner's. The refusals of all owners
// together are bounded, too.
func TestRefusalsAreBounded(t *testing.T) {
	c := &constraint.Compiler{Model: bytesOnly{}, Time: time.Minute}
	quiet := refusal(t, c, "quiet", refused(0))
	first := refusal(t, c, "busy", refused(0))
	for i := range 40 {
		refusal(t, c, "busy", refused(i+1))
	}
	if refusal(t, c, "quiet", refused(0)) != quiet { //nolint:errorlint // is it the very same?
		t.Error("another owner pushed it out")
	}
	if refusal(t, c, "busy", refused(0)) == first { //nolint:errorlint // likewise
		t.Error("an owner keeps more than its part")
	}
	for i := range 300 {
		refusal(t, c, fmt.Sprint(i), refused(0))
	}
	if refusal(t, c, "quiet", refused(0)) == quiet { //nolint:errorlint // likewise
		t.Error("300 refusals are kept")
	}
}

// A compile that ran out of time is tried again.
func TestSlowCompilesAreTriedAgain(t *testing.T) {
	c := &constraint.Compiler{Model: bytesOnly{}, Time: time.Nanosecond}
	first := refusal(t, c, "a", `{"type":"object"}`)
	if again := refusal(t, c, "a", `{"type":"object"}`); again == first { //nolint:errorlint // is it the very same?
		t.Error("it is kept")
	}
	c.Time = time.Minute
	k, _, err := c.Compile(t.Context(), "a", constraint.Format{Format: &infer.Format{Schema: []byte(`{"type":"object"}`)}})
	if err != nil {
		t.Fatal(err)
	}
	k.Release()
}
