package speech_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/inferd-go/inferd/cmd/inferd-engine/internal/speech"
	"github.com/inferd-go/inferd/internal/infer"
)

// threadTime returns the CPU time of the calling thread, which does not depend on other programs.
func threadTime(t *testing.T) time.Duration {
	t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now); err != nil {
		t.Fatal(err)
	}
	return time.Duration(now.Nano())
}

// Hostile tools are compiled within two seconds of CPU time, and an answer can call the last of them; or they are
// refused within that time, with an error that names the exceeded limit.
func TestHostileTools(t *testing.T) {
	const schema = `{"type":"object","properties":{"a":{"type":"string"}},"required":["a"]}`
	tool := func(name string) infer.Tool { return infer.Tool{Name: name, Schema: []byte(schema)} }
	part := 1
	if testing.Short() {
		part = 50
	}
	var many, alike []infer.Tool
	for i := range 10_000 / part {
		many = append(many, tool(fmt.Sprintf("tool_%d", i)))
	}
	for i := range 2_000 / part {
		alike = append(alike, tool(strings.Repeat("a", i+1)))
	}
	var properties []string
	for i := range 20_000 / part {
		properties = append(properties, fmt.Sprintf(`"a_member_of_an_object_%05d":{"type":"string"}`, i))
	}
	large := infer.Tool{Name: "large", Schema: []byte(`{"type":"object","properties":{` + strings.Join(properties, ",") + `}}`)}
	const tooCostly = "tools: compiling takes more"
	for name, test := range map[string]struct {
		list    []infer.Tool
		refused string // a part of the refusal, if there is one
	}{
		"10,000 tools":           {many, tooCostly},
		"a name of 4096 bytes":   {[]infer.Tool{tool(strings.Repeat("n", 4096))}, ""},
		"a name of 64 KiB":       {[]infer.Tool{tool(strings.Repeat("n", 64<<10))}, "nn\" has more than 4096 bytes"},
		"2,000 names that begin": {alike, ""},
		"arguments of 1 MB":      {[]infer.Tool{large}, tooCostly},
	} {
		t.Run(name, func(t *testing.T) {
			for _, m := range modelsOf(hermes()) {
				runtime.LockOSThread()
				begin := threadTime(t)
				k, err := compile(t, m, speech.Options{Dialect: hermes(), Tools: test.list})
				took := threadTime(t) - begin
				runtime.UnlockOSThread()
				t.Logf("%d markers: %v, %v", len(m.markers), took, err)
				if took > 2*time.Second {
					t.Errorf("%d markers: took %v (%v)", len(m.markers), took, err)
				}
				if err != nil {
					if infer.CodeOf(err) != infer.Invalid || test.refused == "" || !strings.Contains(err.Error(), test.refused) {
						t.Errorf("%d markers: refused with %v", len(m.markers), err)
					}
					continue
				}
				r, err := open(t, m, k)
				if err != nil {
					t.Fatal(err)
				}
				last := test.list[len(test.list)-1].Name
				if rest := r.feed(`<tool_call>{"name": "`+last+`", "arguments": {`, nil); rest != "" {
					t.Errorf("%d markers: the call is refused from %.40q on", len(m.markers), rest)
				}
			}
		})
	}
}
