//go:build linux

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/internal/launch"
	"github.com/inferd-go/inferd/internal/link"
	"github.com/inferd-go/inferd/internal/paths"
	"github.com/inferd-go/inferd/internal/proc"
	"github.com/inferd-go/inferd/internal/store"
)

// asEngine is the environment variable that makes the test binary run as the program.
const asEngine = "ENGINE_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(asEngine) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func program(t *testing.T) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exe
}

// startTest starts the test binary as an engine with a built-in model, as inferd does. env has
// additional environment variables of the engine.
func startTest(t *testing.T, model string, env ...string) *proc.Child {
	t.Helper()
	lib := os.Getenv("INFERD_ENGINE_LIB")
	if lib == "" {
		lib = paths.Default().EngineDir()
	}
	models := store.Store{BuiltinDir: t.TempDir()}
	m, err := models.Ensure(t.Context(), store.Ref{Builtin: model}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	child, err := launch.Start(program(t), launch.Contract{
		LibDir: lib, Model: launch.Model{Path: m.Path},
		NCtx: 4096, EmbedNCtx: 2048, RerankNCtx: 2048, Slots: 4, Threads: 2,
	}, m.Files, append(env, asEngine+"=1", "LD_LIBRARY_PATH="+lib))
	if err != nil {
		t.Fatal(err)
	}
	return child
}

func TestStartedByInferd(t *testing.T) {
	child := startTest(t, "chain")
	defer func() {
		child.Kill()
		<-child.Done()
	}()
	client := link.NewClient(child.Conn())
	var last link.Report
	err := client.Run(func(r link.Report) {
		if last = r; r.State == link.Ready || r.State == link.Failed {
			client.Close()
		}
	})
	if last.State != link.Ready || last.Slots != 4 || last.NCtx != 4096 || !last.Abilities.Generate {
		t.Errorf("reported %+v, then %v", last, err)
	}
	<-child.Done()
	if exit := child.Exit(); exit.Code != 0 {
		t.Errorf("ended with %v", exit)
	}
}

// An invalid launch contract is reported to the daemon as a failed start, with the reason.
func TestInvalidContract(t *testing.T) {
	path := filepath.Join(t.TempDir(), "contract")
	if err := os.WriteFile(path, []byte(`{}`), 0o600); err != nil {
		t.Fatal(err)
	}
	contract, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer contract.Close()
	child, err := proc.Start(proc.Command{Path: program(t), Env: []string{asEngine + "=1"}, Files: []*os.File{contract}})
	if err != nil {
		t.Fatal(err)
	}
	var last link.Report
	err = link.NewClient(child.Conn()).Run(func(r link.Report) { last = r })
	if last.State != link.Failed || last.Problem != "launch contract: n_ctx is 0: want 1 or more" {
		t.Errorf("reported %+v, then %v", last, err)
	}
	<-child.Done()
	if exit := child.Exit(); exit.Code != 1 {
		t.Errorf("ended with %v", exit)
	}
}

func TestStartedByHand(t *testing.T) {
	for name, test := range map[string]struct {
		args   []string
		code   int
		stdout string
		stderr string
	}{
		"nothing":  {nil, 1, "", "inferd-engine: this program is started by inferd"},
		"help":     {[]string{"--help"}, 0, "this program is started by inferd", ""},
		"version":  {[]string{"--version"}, 0, "inferd-engine " + version + "\n", ""},
		"old flag": {[]string{"--model", "x"}, 1, "", `unknown argument "--model": this program is started by inferd`},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), program(t), test.args...)
			cmd.Env = []string{asEngine + "=1"}
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			_ = cmd.Run() // the exit code is checked
			if code := cmd.ProcessState.ExitCode(); code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			for _, stream := range [][2]string{{stdout.String(), test.stdout}, {stderr.String(), test.stderr}} {
				if got, want := stream[0], stream[1]; !strings.Contains(got, want) || want == "" && got != "" {
					t.Errorf("printed %q, want %q", got, want)
				}
			}
		})
	}
}
