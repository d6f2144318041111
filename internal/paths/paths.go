// Package paths has the default paths: of the sockets, the lock, the config file, and the
// folders for data. It only computes names from an environment. It reads no disk, creates
// nothing, and does not know the use of the files.
package paths

import (
	"cmp"
	"os"
	"path"
	"runtime"
	"strconv"
	"strings"
)

// Names of the files in the run folder. On Windows the names of sockets translate to names of
// pipes, see [Env.Socket].
const (
	V1Leaf      = "infer.sock"
	V2Leaf      = "infer.v2.sock"
	LPLeaf      = "inferd.sock" // the v2 generation, length-prefixed
	EmbedLeaf   = "infer.embed.sock"
	RerankLeaf  = "infer.rerank.sock"
	HTTPLeaf    = "http.sock"
	AdminLeaf   = "admin.sock"
	ControlLeaf = "control.sock"
	LockLeaf    = "inferd.lock"
)

// EngineVersion is the release of llama.cpp that the engine needs.
const EngineVersion = "0.5.0"

// An Env is the environment that the default paths depend on. The paths are absolute if the
// variables are, and use the separator of GOOS, not of the running program.
type Env struct {
	GOOS   string // as runtime.GOOS
	Getenv func(string) string
	// Environ lists all variables, as os.Environ; nil lists none.
	Environ func() []string
	UID     int // of the user; unused on Windows
}

// Default is the environment of this process.
func Default() Env {
	return Env{GOOS: runtime.GOOS, Getenv: os.Getenv, Environ: os.Environ, UID: os.Getuid()}
}

// RunDir is the folder of the lock and, except on Windows, of the sockets. Clients of every
// release compute the same folder, so the rules must not change. One rule was added: a relative
// XDG_RUNTIME_DIR is ignored, since it would mean a different folder to each program.
func (e Env) RunDir() string {
	switch e.GOOS {
	case "windows":
		return e.join(e.localAppData(), "inferd")
	case "darwin":
		if dir := e.Getenv("TMPDIR"); dir != "" {
			return e.join(dir, "inferd")
		}
	case "linux":
		if dir := e.Getenv("XDG_RUNTIME_DIR"); path.IsAbs(dir) {
			return e.join(dir, "inferd")
		}
		if home := e.Getenv("HOME"); home != "" {
			return e.join(home, ".inferd", "run")
		}
	}
	// Any user may create files in /tmp. The name contains the uid, but users of the folder
	// must check its owner, too.
	return "/tmp/inferd-" + strconv.Itoa(e.UID)
}

// Warnings names variables that are set but ignored, with the reason.
func (e Env) Warnings() []string {
	if dir := e.Getenv("XDG_RUNTIME_DIR"); e.GOOS == "linux" && dir != "" && !path.IsAbs(dir) {
		return []string{"XDG_RUNTIME_DIR is ignored: it is not an absolute path"}
	}
	return nil
}

// Socket is the address of the surface with that leaf: a path in the folder dir. On Windows it
// is the name of a pipe, which is in no folder: dir is the prefix of the name. An empty dir
// means the default.
func (e Env) Socket(dir, leaf string) string {
	dir = cmp.Or(dir, e.socketDir())
	switch {
	case e.GOOS != "windows":
		return e.join(dir, leaf)
	case leaf == LPLeaf:
		return dir
	}
	return dir + "-" + strings.ReplaceAll(strings.TrimSuffix(leaf, ".sock"), ".", "-")
}

func (e Env) socketDir() string {
	if e.GOOS == "windows" {
		return `\\.\pipe\inferd`
	}
	return e.RunDir()
}

// Beside derives two things from the address of a generation socket: dir, for the addresses of
// the other sockets by [Env.Socket], and leaf, the surface at the address itself. A path is a
// v1 socket unless it has the name of the length-prefixed socket; a pipe is length-prefixed
// unless its name ends like the name of the v1 pipe.
func (e Env) Beside(socket string) (dir, leaf string) {
	if e.GOOS == "windows" {
		if dir, ok := strings.CutSuffix(socket, "-infer"); ok {
			return dir, V1Leaf
		}
		return socket, LPLeaf
	}
	if dir, leaf = path.Split(socket); leaf != LPLeaf {
		leaf = V1Leaf
	}
	return path.Clean(dir), leaf
}

// Lock is the lock file of daemons with sockets in dir, which is as in [Env.Socket]. On Windows
// dir determines only the name of the file.
func (e Env) Lock(dir string) string {
	dir = cmp.Or(dir, e.socketDir())
	if e.GOOS != "windows" {
		return e.join(dir, LockLeaf)
	}
	return e.join(e.RunDir(), dir[strings.LastIndexByte(dir, '\\')+1:]+".lock")
}

// ConfigFile is the path of the config file.
func (e Env) ConfigFile() string { return e.join(e.home(), ".inferd", "config.json") }

// DataDir is the folder of inferd's data.
func (e Env) DataDir() string { return e.join(e.data(), "inferd") }

// EngineDir is the folder with the libraries of llama.cpp.
func (e Env) EngineDir() string { return e.join(e.DataDir(), "engine", EngineVersion) }

// ModelsDir is the folder of models, which other programs may share.
func (e Env) ModelsDir() string {
	if dir := e.Getenv("MODELS_HOME"); dir != "" {
		return dir
	}
	return e.join(e.data(), "models")
}

// Expand returns a path in which a leading "~/" is the user's home.
func (e Env) Expand(file string) string {
	if rest, ok := strings.CutPrefix(file, "~/"); ok {
		return e.join(e.home(), rest)
	}
	return file
}

// VerifiedFile is the file with the digests of model files that have been verified on this
// machine. It can be made again, by hashing them.
func (e Env) VerifiedFile() string { return e.join(e.stateDir(), "verified.json") }

// stateDir is the folder of inferd's state on this machine.
func (e Env) stateDir() string {
	if e.GOOS == "windows" || e.GOOS == "darwin" {
		return e.join(e.DataDir(), "state")
	}
	return e.join(e.xdg("XDG_STATE_HOME", ".local", "state"), "inferd")
}

// LogDir is the folder of the activity log; empty without a variable that determines it.
func (e Env) LogDir() string {
	if dir := e.Getenv("INFERD_LOG_DIR"); dir != "" {
		return dir
	}
	home := "HOME"
	if e.GOOS == "windows" {
		home = "USERPROFILE"
	}
	if e.Getenv(home) == "" {
		return ""
	}
	return e.join(e.home(), ".inferd", "logs")
}

// BuiltinDir is the folder of the models that inferd generates. It is in the user's cache,
// because they can be generated again at any time.
func (e Env) BuiltinDir() string { return e.join(e.cacheDir(), "builtin") }

// VariantsFile is the file with the CPU variants of llama.cpp's libraries that do not run on
// this machine. It can be made again, and a service with a read-only home has a cache.
func (e Env) VariantsFile() string { return e.join(e.cacheDir(), "cpu-variants.json") }

// cacheDir is the folder for files that can be made again.
func (e Env) cacheDir() string {
	switch e.GOOS {
	case "windows":
		return e.join(e.localAppData(), "inferd", "cache")
	case "darwin":
		return e.join(e.home(), "Library", "Caches", "inferd")
	}
	return e.join(e.xdg("XDG_CACHE_HOME", ".cache"), "inferd")
}

// data is the folder for the data of all of the user's programs.
func (e Env) data() string {
	switch e.GOOS {
	case "windows":
		return e.localAppData()
	case "darwin":
		return e.join(e.home(), "Library", "Application Support")
	}
	return e.xdg("XDG_DATA_HOME", ".local", "share")
}

// xdg is the folder in a variable, or the default below the home. A relative value is ignored,
// as the XDG rules demand: its meaning would depend on the working folder.
func (e Env) xdg(name string, below ...string) string {
	if dir := e.Getenv(name); path.IsAbs(dir) {
		return dir
	}
	return e.join(append([]string{e.home()}, below...)...)
}

func (e Env) localAppData() string {
	if dir := e.Getenv("LOCALAPPDATA"); dir != "" {
		return dir
	}
	return e.join(e.home(), "AppData", "Local")
}

// home is the user's home. Without one it is a folder that does not exist: with a relative
// path the daemon would read its config and load libraries from the working folder.
func (e Env) home() string {
	name, none := "HOME", "/nonexistent"
	if e.GOOS == "windows" {
		name, none = "USERPROFILE", `C:\nonexistent`
	}
	if home := e.Getenv(name); home != "" {
		return home
	}
	return none
}

func (e Env) join(parts ...string) string {
	if e.GOOS != "windows" {
		return path.Join(parts...)
	}
	parts[0] = strings.TrimRight(parts[0], `\/`)
	return strings.Join(parts, `\`)
}
