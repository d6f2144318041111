package schema_test

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/inferd-go/inferd/internal/automaton"
	"github.com/inferd-go/inferd/internal/schema"
)

// hostile returns schemas that are expensive to compile. The keys are the reasons.
func hostile() map[string]string {
	words := make([]string, 100_000)
	for i := range words {
		words[i] = fmt.Sprintf(`"w%d-%x"`, i, i*2654435761)
	}
	many := func(n int, format string) string {
		var s []string
		for i := range n {
			s = append(s, fmt.Sprintf(format, i, (i+1)%n))
		}
		return strings.Join(s, ",")
	}
	return map[string]string{
		"an enum of 100,000":        `{"enum":[` + strings.Join(words, ",") + `]}`,
		"numbers, 100,000":          `{"enum":[1.25,` + many(100_000, `%d.%d`) + `]}`,
		"1 MB of properties":        `{"type":"object","properties":{` + many(20_000, `"property%d":{"type":"string","description":"of %d"}`) + `}}`,
		"1 MB of required":          `{"type":"object","required":[` + many(50_000, `"property%d-%d"`) + `]}`,
		"a cycle of references":     `{"$ref":"#/$defs/a0","$defs":{` + many(1000, `"a%d":{"$ref":"#/$defs/a%d"}`) + `}}`,
		"a chain of references":     `{"$ref":"#/$defs/b0","$defs":{` + many(1000, `"b%d":{"items":{"$ref":"#/$defs/b%d"}}`) + `}}`,
		"a star of a star":          `{"type":"string","pattern":"^(a*)*b$"}`,
		"depth 1,000":               strings.Repeat(`{"not":`, 1000) + `{}` + strings.Repeat(`}`, 1000),
		"unique beside others":      `{"anyOf":[` + many(40, `{"type":"array","uniqueItems":true,"items":{"enum":[%d,%d]}}`) + `,{"type":"array","items":{"type":"integer"}}]}`,
		"overlapping oneOf":         `{"type":"object","required":["k"],"oneOf":[` + many(14, `{"properties":{"k":{"enum":["k%d"]},"v%d":{"type":"integer"},"w":{"type":"integer"}}}`) + `]}`,
		"depth 500":                 strings.Repeat(`{"items":`, 500) + `{}` + strings.Repeat(`}`, 500),
		"an exploding pattern":      `{"type":"string","pattern":"(a|b)*a(a|b){40}"}`,
		"exploding repetitions":     `{"type":"string","pattern":"((a{900}){900}){900}"}`,
		"an exploding intersection": `{"allOf":[` + many(12, `{"pattern":"(a|b)*a(a|b){%d}c{%d}$"}`) + `]}`,
		"exploding remainders":      `{"allOf":[` + many(25, `{"pattern":"^(.{1%d})*$","$comment":"%d"}`) + `]}`,
		"exploding cases":           `{"allOf":[` + many(12, `{"anyOf":[{"required":["a%d"]},{"required":["b%d"]}]}`) + `]}`,
		"exploding oneOf":           `{"oneOf":[` + many(40, `{"properties":{"a%d":{"type":"integer"}},"required":["b%d"]}`) + `]}`,
		"exploding names":           `{"patternProperties":{` + many(30, `"%d.*%d":{"type":"integer"}`) + `}}`,
		"huge counts":               `{"minItems":99999999999,"maxLength":99999999999,"minProperties":100000,"maxProperties":200000}`,
		"huge bounds":               `{"minimum":1e300,"maximum":1e308,"multipleOf":7}`,
		"mutual recursion":          `{"allOf":[{"$ref":"#/$defs/c0"},{"$ref":"#/$defs/c1"}],"$defs":{` + many(30, `"c%d":{"type":"object","properties":{"x":{"$ref":"#/$defs/c%d"},"y":{"$ref":"#"}}}`) + `}}`,
		"contains that counts":      `{"type":"array","contains":{"const":1},"minContains":500,"maxContains":1000,"maxItems":100000}`,
		"many alternatives":         `{"anyOf":[` + many(5000, `{"type":"object","properties":{"a%d":{"const":%d}},"required":["z"]}`) + `]}`,
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

// Hostile schemas compile, or are refused, within the bounds of a budget; a schema that compiles has a
// shortest text. The budget allows one second; the test allows two, because a step that is running when
// the budget ends is finished.
func TestHostile(t *testing.T) {
	costly := []string{"an enum of 100,000", "numbers, 100,000", "1 MB of properties", "1 MB of required", "exploding names", "an exploding pattern", "exploding remainders"}
	for name, source := range hostile() {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && slices.Contains(costly, name) {
				t.Skip("takes half a second")
			}
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			b := &automaton.Budget{}
			begin := threadTime(t)
			s, err := schema.Compile([]byte(source), b)
			took := threadTime(t) - begin
			if took > 2*automaton.DefaultTime {
				t.Errorf("took %v", took)
			}
			if err != nil {
				t.Logf("%v, %d bytes: %.150v", took.Round(time.Millisecond), b.Used(), err)
				return
			}
			if b.Used() > automaton.DefaultBytes {
				t.Errorf("used %d bytes", b.Used())
			}
			t.Logf("%v, %d bytes: compiled, %d bytes", took.Round(time.Millisecond), b.Used(), s.Grammar.Size())
			if end, ok := automaton.New(s.Grammar).Open().Shortest(1 << 20); !ok {
				t.Errorf("no end: %v", end)
			}
		})
	}
}
