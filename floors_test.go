package inferd_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/inferd-go/inferd/"

// floors lists the packages from the ground up. A package may import only packages of the floors
// below its own. docs/ARCHITECTURE.md describes the purpose of each package.
var floors = [][]string{
	{"internal/shortdir", "internal/hubtest"}, // for tests only
	{ // types and rules: they import only the standard library, and start and open nothing
		"internal/infer", "internal/frame", "internal/gguf", "internal/sched", "internal/breaker", "internal/redact", "internal/jinja", "internal/watchdog", "internal/usage",
		"internal/printable", "client/stats", "internal/automaton",
	},
	{ // rules about callers, files, admission, names of models, patterns and vocabularies
		"internal/quota", "internal/trust", "internal/gate", "internal/modelname", "internal/regex", "internal/vocab",
	},
	{"internal/schema", "internal/gbnf"}, // front ends of the automaton
	{ // the system: files, processes, sockets, locks; and what all dialects share
		"internal/task", "internal/status", "internal/wire", "internal/listen", "internal/proc",
		"internal/filelock", "internal/paths", "internal/builtin", "internal/sdnotify",
		"internal/libraries", "internal/settings", "internal/sockdiag", "internal/lease", "internal/reclaim",
	},
	{"internal/store", "internal/caches", "internal/launch", "internal/exchange"}, // models, the start of their engines; the course of a request
	{"internal/backend"},          // backends
	{"internal/backend/llamacpp"}, // settings of engines
	{"internal/wire/web"},         // common parts of the dialects of HTTP
	{ // dialects
		"internal/wire/v1", "internal/wire/v2", "internal/wire/embed", "internal/wire/rerank", "internal/wire/admin", "internal/wire/control", "internal/wire/openai", "internal/wire/ollama", "internal/wire/llama", "internal/wire/anthropic", "internal/link", "internal/corpus",
	},
	{"internal/wire/responses"}, // a dialect with the errors of another
	{ // parts of the daemon: none imports another
		"internal/server", "internal/admit", "internal/route", "internal/backend/engine", "internal/backend/mock",
		"internal/broadcast", "internal/control", "internal/activity", "internal/pull", "internal/count", "internal/bridge", "internal/page",
	},
	{"internal/models"}, // joins the store and the pull
	{"internal/config", "client"},
	{"internal/daemon", "internal/wire/refhttp", "bench/load"},
	{ // types and rules of the engine
		"cmd/inferd-engine/internal/progress", "cmd/inferd-engine/internal/budget", "cmd/inferd-engine/internal/constraint",
		"cmd/inferd-engine/internal/dialect", "cmd/inferd-engine/internal/inbox", "cmd/inferd-engine/internal/computelock", "cmd/inferd-engine/internal/kv", "cmd/inferd-engine/internal/schedule",
	},
	{"cmd/inferd-engine/internal/dialecttest"}, // for tests only
	{"cmd/inferd-engine/internal/speech"},      // answers, in the dialect of a family
	{ // parts of the engine
		"cmd/inferd-engine/internal/llama", "cmd/inferd-engine/internal/chat", "cmd/inferd-engine/internal/encode",
		"cmd/inferd-engine/internal/prefill",
	},
	{"cmd/inferd-engine/internal/batch"},
	{"cmd/inferd-engine/internal/engine"},
	{"cmd/inferd-engine/internal/assemble"},
	{"cmd/inferdctl/internal/top", "cmd/inferdctl/internal/overhttp", "cmd/inferdctl/internal/setup"}, // parts of the operator's command
	{ // programs, which no package can import
		"cmd/inferd", "cmd/inferdctl", "cmd/inferd-http", "cmd/inferd-engine", "cmd/inferd-engine/bareloop", "cmd/inferd-engine/maskbench", "bench", "test",
	},
}

// A pkg is a package as go list reports it.
type pkg struct {
	ImportPath string
	Name       string
	Doc        string
	Dir        string
	GoFiles    []string
	Imports    []string
}

// packages returns the packages of the module, without their tests.
func packages(t *testing.T) []pkg {
	t.Helper()
	all, err := list()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	return all
}

// list runs go list once.
var list = sync.OnceValues(func() (all []pkg, err error) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Name,Doc,Dir,GoFiles,Imports", "./...").Output()
	if err != nil {
		return nil, err
	}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
})

func TestFloors(t *testing.T) {
	floor := make(map[string]int)
	for i, names := range floors {
		for _, n := range names {
			floor[n] = i
		}
	}
	for _, p := range packages(t) {
		from, inside := strings.CutPrefix(p.ImportPath, module)
		if !inside {
			continue // the root has only these tests
		}
		f, ok := floor[from]
		if !ok {
			t.Errorf("%s has no floor: add the package to the table floors", from)
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
