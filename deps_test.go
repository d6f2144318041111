package inferd_test

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

var update = flag.Bool("update", false, "write deps/*.txt anew")

// dependencies returns all packages that a program links on Linux.
func dependencies(t *testing.T, program string) []string {
	t.Helper()
	if known, ok := listed.Load(program); ok {
		return known.([]string)
	}
	cmd := exec.Command("go", "list", "-deps", "./"+program)
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list -deps %s: %v", program, err)
	}
	all := strings.Fields(string(out))
	listed.Store(program, all)
	return all
}

// listed caches the dependencies of programs.
var listed sync.Map

// The packages that programs must not link, with the reasons.
var bans = []struct {
	programs []string
	banned   []string // import paths; paths below them are banned, too
	reason   string
}{
	{
		[]string{"cmd/inferd", "cmd/inferdctl", "cmd/inferd-http", "client"},
		[]string{"github.com/ebitengine/purego", "github.com/jupiterrider/ffi", "github.com/hybridgroup/yzma", module + "cmd/inferd-engine/internal"},
		"only the engine's process loads native code: a crash there must not be ours, and a machine without libffi must be told so",
	},
	{
		[]string{"cmd/inferd", "cmd/inferdctl", "cmd/inferd-http", "client"},
		[]string{module + "internal/jinja"},
		"templates come from strangers: only the engine's process renders them",
	},
	{
		[]string{"cmd/inferd", "cmd/inferdctl", "cmd/inferd-http", "cmd/inferd-engine", "client"},
		[]string{"testing"},
		"test code does not ship",
	},
	{
		[]string{"cmd/inferd-engine"},
		[]string{"net/http"},
		"the engine reads everybody's prompts and hostile models: it has no business with the network",
	},
	{
		[]string{"cmd/inferd", "cmd/inferd-http", "cmd/inferd-engine", "client"},
		[]string{"charm.land", "github.com/charmbracelet"},
		"only the operator's command draws on a terminal (docs/adr/0011)",
	},
	{
		[]string{"cmd/inferdctl", "cmd/inferd-http", "client"},
		[]string{
			module + "internal/daemon", module + "internal/server", module + "internal/admit", module + "internal/route",
			module + "internal/backend/engine", module + "internal/broadcast", module + "internal/proc",
		},
		"a client knows the wire and nothing of what stands behind it; the operator's command is one like any other",
	},
}

func TestBans(t *testing.T) {
	for _, ban := range bans {
		for _, program := range ban.programs {
			for _, dep := range dependencies(t, program) {
				for _, banned := range ban.banned {
					if dep == banned || strings.HasPrefix(dep, banned+"/") {
						t.Errorf("%s links %s: %s", program, dep, ban.reason)
					}
				}
			}
		}
	}
}

// Only the engine's package llama may import unsafe.
func TestUnsafe(t *testing.T) {
	for _, p := range packages(t) {
		allowed := p.ImportPath == module+"cmd/inferd-engine/internal/llama"
		if slices.Contains(p.Imports, "unsafe") && !allowed {
			t.Errorf("%s imports unsafe", p.ImportPath)
		}
	}
}

// The files in deps/ list the dependencies outside the standard library. A new one is therefore
// visible in a review, and needs a record in docs/adr.
func TestDependencies(t *testing.T) {
	for _, program := range []string{"inferd", "inferdctl", "inferd-http", "inferd-engine"} {
		var outside []string
		for _, dep := range dependencies(t, "cmd/"+program) {
			if strings.Contains(strings.Split(dep, "/")[0], ".") && !strings.HasPrefix(dep, module) {
				outside = append(outside, dep)
			}
		}
		slices.Sort(outside)
		got := strings.Join(outside, "\n") + "\n"
		golden := filepath.Join("deps", program+".txt")
		if *update {
			if err := os.MkdirAll("deps", 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s links\n%s, written down is\n%s (go test . -run Dependencies -update)", program, got, want)
		}
	}
}
