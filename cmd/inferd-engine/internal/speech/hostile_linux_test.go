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

// Hostile tools are compiled or refused within two seconds of CPU time.
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
	for name, list := range map[string][]infer.Tool{
		"10,000 tools":           many,
		"a name of 64 KiB":       {tool(strings.Repeat("n", 64<<10))},
		"2,000 names that begin": alike,
		"arguments of 1 MB":      {large},
	} {
		t.Run(name, func(t *testing.T) {
			for _, m := range modelsOf(hermes()) {
				runtime.LockOSThread()
				begin := threadTime(t)
				_, err := compile(t, m, speech.Options{Dialect: hermes(), Tools: list})
				took := threadTime(t) - begin
				runtime.UnlockOSThread()
				t.Logf("%d markers: %v, %v", len(m.markers), took, err)
				if took > 2*time.Second {
					t.Errorf("%d markers: took %v (%v)", len(m.markers), took, err)
				}
			}
		})
	}
}
