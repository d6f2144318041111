//go:build unix

package launch_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/inferd-go/inferd/internal/launch"
	"github.com/inferd-go/inferd/internal/proc"
)

const asEngine = "LAUNCH_TEST_ENGINE"

func TestMain(m *testing.M) {
	if os.Getenv(asEngine) != "" {
		os.Exit(engine())
	}
	os.Exit(m.Run())
}

// A reception is the report of a test engine on its start.
type reception struct {
	Contract *launch.Contract
	Err      string
	Gone     bool     // by proc.ParentGone
	Files    []string // content of each model file, and the error of its read
	Cwd      string
	Written  string // the error of an attempt to change the contract
}

// engine is the program of a test engine: it sends a reception over its connection.
func engine() int {
	conn, c, err := launch.Receive()
	if conn == nil {
		fmt.Println(err)
		return 1
	}
	r := reception{Contract: c}
	if err != nil {
		r.Err = err.Error()
	} else {
		r.Gone = proc.ParentGone(c.Parent)
		for _, path := range c.Model.Files {
			text, err := os.ReadFile(path)
			r.Files = append(r.Files, fmt.Sprintf("%s %v", text, err))
		}
		_, err := os.NewFile(proc.FirstFile, "contract").WriteAt([]byte("x"), 0)
		r.Written = fmt.Sprint(err)
	}
	r.Cwd, _ = os.Getwd()
	if err := json.NewEncoder(conn).Encode(r); err != nil {
		return 1
	}
	return 0
}

func contract() launch.Contract {
	return launch.Contract{
		LibDir: "/lib", Model: launch.Model{Path: "/models/m.gguf"}, Tasks: launch.Tasks{NoGenerate: true, Embed: true},
		NCtx: 1, EmbedNCtx: 2, RerankNCtx: 3, Slots: 4, Threads: 5, GPULayers: -1,
		Backends: []string{"libggml-cpu-x64.so"}, Pooling: "cls", MaxStallMS: 7, Exact: true, ComputeLock: "/run/compute.lock", SharedPrefixes: []string{"a\nb", "é\x00"},
	}
}

func self(t *testing.T) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exe
}

func file(t *testing.T, text string) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// receive returns the report of a test engine. It kills the engine at the end of the test.
func receive(t *testing.T, child *proc.Child) (r reception) {
	t.Helper()
	t.Cleanup(func() {
		child.Kill()
		<-child.Done()
		child.Conn().Close()
	})
	if err := child.Conn().SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(child.Conn())
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil {
		<-child.Done()
		t.Fatalf("%q, %v; %v", text, err, child.Exit())
	}
	return r
}

func TestContractArrives(t *testing.T) {
	c := contract()
	files := []*os.File{file(t, "one"), file(t, "two")}
	if _, err := files[0].Seek(2, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	child, err := launch.Start(self(t), c, files, []string{asEngine + "=1"})
	if err != nil {
		t.Fatal(err)
	}
	r := receive(t, child)
	if want := []string{"one <nil>", "two <nil>"}; r.Err != "" || r.Gone || r.Cwd != "/" || !reflect.DeepEqual(r.Files, want) {
		t.Errorf("%+v", r)
	}
	if r.Contract == nil || len(r.Contract.Model.Files) != 2 {
		t.Fatalf("%+v", r.Contract)
	}
	c.Parent, c.Model.Files = os.Getpid(), r.Contract.Model.Files
	if !reflect.DeepEqual(*r.Contract, c) {
		t.Errorf("got  %+v\nwant %+v", *r.Contract, c)
	}
	if sealed && !strings.Contains(r.Written, "operation not permitted") {
		t.Errorf("writing to the contract: %s", r.Written)
	}
}

// Receive refuses a contract that another build has written, or that has an invalid value. Its error
// distinguishes the two, and names the value.
func TestInvalidContract(t *testing.T) {
	whole, err := json.Marshal(contract())
	if err != nil {
		t.Fatal(err)
	}
	replaced := func(from, to string) string {
		text := strings.Replace(string(whole), from, to, 1)
		if text == string(whole) {
			t.Fatalf("no %s in %s", from, whole)
		}
		return strings.Replace(text, `"files":null`, `"files":["/m"]`, 1)
	}
	const builds = "launch contract: inferd and inferd-engine are not of the same build"
	for name, test := range map[string]struct{ text, want string }{
		"empty":              {"", builds},
		"cut":                {string(whole[:len(whole)/2]), builds},
		"no JSON":            {"\x00\x01", builds},
		"an unknown member":  {replaced(`"slots"`, `"x":1,"slots"`), builds},
		"a member twice":     {replaced(`"slots"`, `"slots":1,"slots"`), builds},
		"another case":       {replaced(`"slots"`, `"Slots"`), builds},
		"a text for a count": {replaced(`"slots":4`, `"slots":"4"`), builds},
		"no slots":           {replaced(`"slots":4`, `"slots":0`), "launch contract: slots is 0: want 1 or more"},
		"a missing member":   {replaced(`"threads":5,`, ""), "launch contract: threads is 0: want 1 or more"},
		"a negative stall":   {replaced(`"max_stall_ms":7`, `"max_stall_ms":-7`), "launch contract: max_stall_ms is -7: want 0 or more"},
		"a relative folder":  {replaced(`"/lib"`, `"lib"`), `launch contract: path "lib" is not absolute`},
		"a relative lock":    {replaced(`"/run/compute.lock"`, `"compute.lock"`), `launch contract: path "compute.lock" is not absolute`},
		"no model":           {strings.Replace(string(whole), `"files":null`, `"files":[]`, 1), "launch contract: no model file"},
		"too large":          {strings.Repeat(" ", 9<<20), "launch contract: it has 9437184 bytes, at most 8388608 are read"},
	} {
		t.Run(name, func(t *testing.T) {
			child, err := proc.Start(proc.Command{Path: self(t), Env: []string{asEngine + "=1"}, Files: []*os.File{file(t, test.text)}})
			if err != nil {
				t.Fatal(err)
			}
			if r := receive(t, child); !strings.HasPrefix(r.Err, test.want) {
				t.Errorf("%q, want %q", r.Err, test.want)
			}
		})
	}
	t.Run("not there", func(t *testing.T) {
		child, err := proc.Start(proc.Command{Path: self(t), Env: []string{asEngine + "=1"}})
		if err != nil {
			t.Fatal(err)
		}
		if r := receive(t, child); !strings.HasPrefix(r.Err, builds) {
			t.Errorf("%q", r.Err)
		}
	})
}

// Start starts no engine with a contract that every engine would refuse.
func TestStartRefuses(t *testing.T) {
	c := contract()
	c.Slots = 0
	if _, err := launch.Start(self(t), c, []*os.File{file(t, "m")}, nil); err == nil || !strings.Contains(err.Error(), "slots is 0") {
		t.Errorf("%v", err)
	}
	if _, err := launch.Start(self(t), contract(), nil, nil); err == nil || !strings.Contains(err.Error(), "no model file") {
		t.Errorf("%v", err)
	}
}

func TestReceiveByHand(t *testing.T) {
	if _, _, err := launch.Receive(); !errors.Is(err, launch.ErrByHand) {
		t.Errorf("%v", err)
	}
}
