package inferd_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/inferd-go/inferd/"

// floors lists the packages from the ground up. A package may import those below its
// own floor, never one beside or above it. docs/ARCHITECTURE.md says what each is for.
var floors = [][]string{
	{ // words and rules: standard library only; they start nothing and open nothing
		"internal/infer", "internal/frame", "internal/gguf", "internal/sched", "internal/breaker", "internal/redact", "internal/jinja", "internal/watchdog", "internal/usage",
		"internal/printable",
	},
	{"internal/quota", "internal/trust", "internal/gate"}, // rules about callers, files, and admission
	{ // the ground
		"internal/task", "internal/status", "internal/wire", "internal/listen", "internal/proc",
		"internal/filelock", "internal/paths", "internal/builtin", "internal/sdnotify",
		"internal/libraries", "internal/sockdiag",
	},
	{"internal/store", "internal/launch", "internal/exchange"}, // models, and the start of their engines; the course of a request
	{ // dialects
		"internal/wire/v1", "internal/wire/v2", "internal/wire/embed", "internal/wire/rerank", "internal/wire/admin", "internal/wire/control", "internal/wire/openai", "internal/link", "internal/corpus",
	},
	{ // parts: none imports another
		"internal/server", "internal/admit", "internal/route", "internal/worker", "internal/backend/mock",
		"internal/broadcast", "internal/control", "internal/activity", "internal/count", "internal/bridge",
	},
	{"internal/config", "client"},
	{"internal/daemon", "bench/load"},
	{ // words and rules again, of the engine's own house
		"cmd/inferd-engine/internal/gbnf", "cmd/inferd-engine/internal/progress", "cmd/inferd-engine/internal/budget",
		"cmd/inferd-engine/internal/inbox", "cmd/inferd-engine/internal/computelock", "cmd/inferd-engine/internal/kv", "cmd/inferd-engine/internal/schedule",
	},
	{ // inside it
		"cmd/inferd-engine/internal/llama", "cmd/inferd-engine/internal/chat", "cmd/inferd-engine/internal/encode",
		"cmd/inferd-engine/internal/prefill",
	},
	{"cmd/inferd-engine/internal/batch"},
	{"cmd/inferd-engine/internal/engine"},
	{"cmd/inferd-engine/internal/assemble"},
	{"cmd/inferdctl/internal/top"}, // inside the operator's command
	{ // programs; nobody can import them
		"cmd/inferd", "cmd/inferdctl", "cmd/inferd-engine", "cmd/inferd-engine/bareloop", "bench", "test",
	},
}

// A pkg is what go list says of a package.
type pkg struct {
	ImportPath string
	Name       string
	Doc        string
	Dir        string
	GoFiles    []string
	Imports    []string
}

// list returns the packages of the module that match, tests aside.
func list(t *testing.T, patterns ...string) []pkg {
	t.Helper()
	args := append([]string{"list", "-json=ImportPath,Name,Doc,Dir,GoFiles,Imports"}, patterns...)
	out, err := exec.Command("go", args...).Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func TestFloors(t *testing.T) {
	floor := make(map[string]int)
	for i, names := range floors {
		for _, n := range names {
			floor[n] = i
		}
	}
	for _, p := range list(t, "./...") {
		from, inside := strings.CutPrefix(p.ImportPath, module)
		if !inside {
			continue // the root: these tests
		}
		f, ok := floor[from]
		if !ok {
			t.Errorf("%s stands on no floor: add it to the table", from)
			continue
		}
		for _, imp := range p.Imports {
			to, ours := strings.CutPrefix(imp, module)
			if ours && floor[to] >= f {
				t.Errorf("%s (floor %d) imports %s (floor %d)", from, f, to, floor[to])
			}
		}
	}
}
