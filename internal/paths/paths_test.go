package paths_test

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/inferd-go/inferd/internal/paths"
)

func env(goos string, vars map[string]string) paths.Env {
	return paths.Env{GOOS: goos, Getenv: func(name string) string { return vars[name] }, UID: 1000}
}

func TestRunDir(t *testing.T) {
	for name, test := range map[string]struct {
		env  paths.Env
		want string
	}{
		"linux: the runtime folder of the session": {
			env("linux", map[string]string{"XDG_RUNTIME_DIR": "/run/user/1000", "HOME": "/home/u"}),
			"/run/user/1000/inferd",
		},
		"linux: an empty variable counts as unset": {
			env("linux", map[string]string{"XDG_RUNTIME_DIR": "", "HOME": "/home/u"}), "/home/u/.inferd/run",
		},
		"linux: a relative variable counts as unset": {
			env("linux", map[string]string{"XDG_RUNTIME_DIR": "run", "HOME": "/home/u"}), "/home/u/.inferd/run",
		},
		"linux: without a home": {env("linux", nil), "/tmp/inferd-1000"},
		"mac: the temporary folder of the user, which ends in a slash": {
			env("darwin", map[string]string{"TMPDIR": "/var/folders/ab/T/", "HOME": "/Users/u"}), "/var/folders/ab/T/inferd",
		},
		"mac: without one": {env("darwin", map[string]string{"HOME": "/Users/u"}), "/tmp/inferd-1000"},
		"another Unix":     {env("freebsd", map[string]string{"HOME": "/home/u"}), "/tmp/inferd-1000"},
		"windows": {
			env("windows", map[string]string{"LOCALAPPDATA": `C:\Users\u\AppData\Local`}), `C:\Users\u\AppData\Local\inferd`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := test.env.RunDir(); got != test.want {
				t.Errorf("RunDir = %q, want %q", got, test.want)
			}
		})
	}
}

func TestWarnings(t *testing.T) {
	for name, test := range map[string]struct {
		env  paths.Env
		want int
	}{
		"none":               {env("linux", nil), 0},
		"an absolute folder": {env("linux", map[string]string{"XDG_RUNTIME_DIR": "/run"}), 0},
		"a relative folder":  {env("linux", map[string]string{"XDG_RUNTIME_DIR": "run"}), 1},
		"on another system":  {env("darwin", map[string]string{"XDG_RUNTIME_DIR": "run"}), 0},
		"an empty variable":  {env("linux", map[string]string{"XDG_RUNTIME_DIR": ""}), 0},
	} {
		t.Run(name, func(t *testing.T) {
			if got := test.env.Warnings(); len(got) != test.want {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestSocket(t *testing.T) {
	unix := env("linux", map[string]string{"XDG_RUNTIME_DIR": "/run/user/1000"})
	windows := env("windows", nil)
	for leaf, pipe := range map[string]string{
		paths.V1Leaf:      `\\.\pipe\inferd-infer`,
		paths.V2Leaf:      `\\.\pipe\inferd-infer-v2`,
		paths.LPLeaf:      `\\.\pipe\inferd`,
		paths.EmbedLeaf:   `\\.\pipe\inferd-infer-embed`,
		paths.RerankLeaf:  `\\.\pipe\inferd-infer-rerank`,
		paths.AdminLeaf:   `\\.\pipe\inferd-admin`,
		paths.ControlLeaf: `\\.\pipe\inferd-control`,
	} {
		if got, want := unix.Socket("", leaf), "/run/user/1000/inferd/"+leaf; got != want {
			t.Errorf("Socket(%q) = %q, want %q", leaf, got, want)
		}
		if got := windows.Socket("", leaf); got != pipe {
			t.Errorf("Socket(%q) on Windows = %q, want %q", leaf, got, pipe)
		}
	}
}

func TestBeside(t *testing.T) {
	type beside struct{ Dir, Leaf, Embed, Lock string }
	for name, test := range map[string]struct {
		goos, socket string
		want         beside
	}{
		"v1":               {"linux", "/x/infer.sock", beside{"/x", paths.V1Leaf, "/x/infer.embed.sock", "/x/inferd.lock"}},
		"any other name":   {"darwin", "/x/my.sock", beside{"/x", paths.V1Leaf, "/x/infer.embed.sock", "/x/inferd.lock"}},
		"length-prefixed":  {"linux", "/x/inferd.sock", beside{"/x", paths.LPLeaf, "/x/infer.embed.sock", "/x/inferd.lock"}},
		"relative":         {"linux", "my.sock", beside{".", paths.V1Leaf, "infer.embed.sock", "inferd.lock"}},
		"a pipe":           {"windows", `\\.\pipe\mine`, beside{`\\.\pipe\mine`, paths.LPLeaf, `\\.\pipe\mine-infer-embed`, `C:\L\inferd\mine.lock`}},
		"v1's pipe":        {"windows", `\\.\pipe\mine-infer`, beside{`\\.\pipe\mine`, paths.V1Leaf, `\\.\pipe\mine-infer-embed`, `C:\L\inferd\mine.lock`}},
		"the default pipe": {"windows", `\\.\pipe\inferd`, beside{`\\.\pipe\inferd`, paths.LPLeaf, `\\.\pipe\inferd-infer-embed`, `C:\L\inferd\inferd.lock`}},
	} {
		t.Run(name, func(t *testing.T) {
			e := env(test.goos, map[string]string{"LOCALAPPDATA": `C:\L`})
			dir, leaf := e.Beside(test.socket)
			got := beside{dir, leaf, e.Socket(dir, paths.EmbedLeaf), e.Lock(dir)}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("beside %s (-want +got):\n%s", test.socket, diff)
			}
			if leaf == paths.LPLeaf && e.Socket(dir, leaf) != test.socket {
				t.Errorf("the socket itself is %s", e.Socket(dir, leaf))
			}
		})
	}
}

func TestDefaults(t *testing.T) {
	type defaults struct{ Lock, Config, Data, Engine, Models, Builtin, Variants, Verified string }
	for name, test := range map[string]struct {
		env  paths.Env
		want defaults
	}{
		"linux": {
			env("linux", map[string]string{"HOME": "/home/u"}),
			defaults{
				Lock: "/home/u/.inferd/run/inferd.lock", Config: "/home/u/.inferd/config.json",
				Data: "/home/u/.local/share/inferd", Engine: "/home/u/.local/share/inferd/engine/0.5.0",
				Models: "/home/u/.local/share/models", Builtin: "/home/u/.cache/inferd/builtin", Variants: "/home/u/.cache/inferd/cpu-variants.json",
				Verified: "/home/u/.local/state/inferd/verified.json",
			},
		},
		"linux: every folder from a variable": {
			env("linux", map[string]string{
				"HOME": "/home/u", "XDG_RUNTIME_DIR": "/run/user/1000", "XDG_DATA_HOME": "/data", "XDG_CACHE_HOME": "/cache",
				"MODELS_HOME": "/models", "XDG_STATE_HOME": "/state",
			}),
			defaults{
				Lock: "/run/user/1000/inferd/inferd.lock", Config: "/home/u/.inferd/config.json",
				Data: "/data/inferd", Engine: "/data/inferd/engine/0.5.0",
				Models: "/models", Builtin: "/cache/inferd/builtin", Variants: "/cache/inferd/cpu-variants.json",
				Verified: "/state/inferd/verified.json",
			},
		},
		"linux: relative folders are ignored, without a home nothing exists": {
			env("linux", map[string]string{"XDG_DATA_HOME": "data", "XDG_CACHE_HOME": "cache"}),
			defaults{
				Lock: "/tmp/inferd-1000/inferd.lock", Config: "/nonexistent/.inferd/config.json",
				Data: "/nonexistent/.local/share/inferd", Engine: "/nonexistent/.local/share/inferd/engine/0.5.0",
				Models: "/nonexistent/.local/share/models", Builtin: "/nonexistent/.cache/inferd/builtin", Variants: "/nonexistent/.cache/inferd/cpu-variants.json",
				Verified: "/nonexistent/.local/state/inferd/verified.json",
			},
		},
		"mac": {
			env("darwin", map[string]string{"HOME": "/Users/u", "TMPDIR": "/var/folders/ab/T/"}),
			defaults{
				Lock: "/var/folders/ab/T/inferd/inferd.lock", Config: "/Users/u/.inferd/config.json",
				Data:   "/Users/u/Library/Application Support/inferd",
				Engine: "/Users/u/Library/Application Support/inferd/engine/0.5.0",
				Models: "/Users/u/Library/Application Support/models", Builtin: "/Users/u/Library/Caches/inferd/builtin", Variants: "/Users/u/Library/Caches/inferd/cpu-variants.json",
				Verified: "/Users/u/Library/Application Support/inferd/state/verified.json",
			},
		},
		"windows": {
			env("windows", map[string]string{"USERPROFILE": `C:\Users\u`}),
			defaults{
				Lock: `C:\Users\u\AppData\Local\inferd\inferd.lock`, Config: `C:\Users\u\.inferd\config.json`,
				Data: `C:\Users\u\AppData\Local\inferd`, Engine: `C:\Users\u\AppData\Local\inferd\engine\0.5.0`,
				Models: `C:\Users\u\AppData\Local\models`, Builtin: `C:\Users\u\AppData\Local\inferd\cache\builtin`, Variants: `C:\Users\u\AppData\Local\inferd\cache\cpu-variants.json`,
				Verified: `C:\Users\u\AppData\Local\inferd\state\verified.json`,
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := test.env
			got := defaults{e.Lock(""), e.ConfigFile(), e.DataDir(), e.EngineDir(), e.ModelsDir(), e.BuiltinDir(), e.VariantsFile(), e.VerifiedFile()}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("paths (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDefaultIsThisProcess(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	t.Setenv("TMPDIR", os.Getenv("XDG_RUNTIME_DIR"))
	t.Setenv("LOCALAPPDATA", os.Getenv("XDG_RUNTIME_DIR"))
	e := paths.Default()
	if got, want := e.RunDir(), filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), "inferd"); got != want {
		t.Errorf("RunDir = %q, want %q", got, want)
	}
	if e.GOOS != runtime.GOOS || e.UID != os.Getuid() {
		t.Errorf("Default is for %s and user %d", e.GOOS, e.UID)
	}
	if _, err := os.Stat(e.RunDir()); !os.IsNotExist(err) {
		t.Errorf("the folder was created: %v", err)
	}
}
