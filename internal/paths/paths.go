// Package paths computes the default paths of the sockets, the lock, the config file and the
// folders for data from an environment. It does not access the disk, and does not depend on the use
// of the files.
package paths

import (
	"cmp"
	"os"
	"path"
	"runtime"
	"strconv"
	"strings"
)

// Names of the files in the run folder. On Windows, [Env.Socket] translates the names of sockets to
// names of pipes.
const (
	V1Leaf      = "infer.sock"
	V2Leaf      = "infer.v2.sock"
	LPLeaf      = "inferd.sock" // v2 generation, length-prefixed
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

// Default returns the environment of this process.
func Default() Env {
	return Env{GOOS: runtime.GOOS, Getenv: os.Getenv, Environ: os.Environ, UID: os.Getuid()}
}

// RunDir returns the folder of the lock and, except on Windows, of the sockets. Clients of every
// release must compute the same folder, so the rules must not change. Only one rule was added later:
// a relative XDG_RUNTIME_DIR is ignored, because it would be a different folder for each program.
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
	// The name contains the uid, but any user may create it in /tmp, so programs that use the
	// folder must also check its owner.
	return "/tmp/inferd-" + strconv.Itoa(e.UID)
}

// Warnings returns a warning for each variable that is set but ignored, with the reason.
func (e Env) Warnings() []string {
	if dir := e.Getenv("XDG_RUNTIME_DIR"); e.GOOS == "linux" && dir != "" && !path.IsAbs(dir) {
		return []string{"XDG_RUNTIME_DIR is ignored: it is not an absolute path"}
	}
	return nil
}

// Socket returns the address of the surface that leaf names: a path in the folder dir. On Windows
// it is the name of a pipe, which is not in a folder; there dir is the beginning of the name. An
// empty dir means the default.
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

// Beside splits the address of a generation socket: dir is the argument of [Env.Socket] for the
// sockets beside it, and leaf names the surface at the address itself. A path is a v1 socket unless
// it has the name of the length-prefixed socket; a pipe is length-prefixed unless its name ends like
// the name of the v1 pipe.
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

// Lock returns the path of the lock file of a daemon that has its sockets in dir; dir is as in
// [Env.Socket]. On Windows, dir determines only the name of the file.
func (e Env) Lock(dir string) string {
	dir = cmp.Or(dir, e.socketDir())
	if e.GOOS != "windows" {
		return e.join(dir, LockLeaf)
	}
	return e.join(e.RunDir(), dir[strings.LastIndexByte(dir, '\\')+1:]+".lock")
}

// ConfigFile returns the path of the config file.
func (e Env) ConfigFile() string { return e.join(e.home(), ".inferd", "config.json") }

// DataDir returns the folder of inferd's data.
func (e Env) DataDir() string { return e.join(e.data(), "inferd") }

// EngineDir returns the folder with the libraries of llama.cpp.
func (e Env) EngineDir() string { return e.join(e.DataDir(), "engine", EngineVersion) }

// ModelsDir returns the folder of the model store, which other programs may share.
func (e Env) ModelsDir() string {
	if dir := e.Getenv("MODELS_HOME"); dir != "" {
		return dir
	}
	return e.join(e.data(), "models")
}

// Expand returns a path in which the user's home replaces a leading "~/".
func (e Env) Expand(file string) string {
	if rest, ok := strings.CutPrefix(file, "~/"); ok {
		return e.join(e.home(), rest)
	}
	return file
}

// VerifiedFile returns the path of the file with the digests of the model files that were verified
// on this machine. If it is lost, the model files are hashed again.
func (e Env) VerifiedFile() string { return e.join(e.stateDir(), "verified.json") }

// stateDir returns the folder of inferd's state on this machine.
func (e Env) stateDir() string {
	if e.GOOS == "windows" || e.GOOS == "darwin" {
		return e.join(e.DataDir(), "state")
	}
	return e.join(e.xdg("XDG_STATE_HOME", ".local", "state"), "inferd")
}

// LogDir returns the folder of the activity log. It is empty if no variable determines it.
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

// BuiltinDir returns the folder of the models that inferd generates. It is in the user's cache,
// because the models can be generated again at any time.
func (e Env) BuiltinDir() string { return e.join(e.cacheDir(), "builtin") }

// VariantsFile returns the path of the file with the CPU variants of llama.cpp's libraries that do
// not run on this machine. It is in the cache because its content can be determined again, and
// because a service with a read-only home still has a cache.
func (e Env) VariantsFile() string { return e.join(e.cacheDir(), "cpu-variants.json") }

// cacheDir returns the folder for files that can be created again.
func (e Env) cacheDir() string {
	switch e.GOOS {
	case "windows":
		return e.join(e.localAppData(), "inferd", "cache")
	case "darwin":
		return e.join(e.home(), "Library", "Caches", "inferd")
	}
	return e.join(e.xdg("XDG_CACHE_HOME", ".cache"), "inferd")
}

// data returns the folder for the data of all programs of the user.
func (e Env) data() string {
	switch e.GOOS {
	case "windows":
		return e.localAppData()
	case "darwin":
		return e.join(e.home(), "Library", "Application Support")
	}
	return e.xdg("XDG_DATA_HOME", ".local", "share")
}

// xdg returns the folder that a variable names, or the default below the home. A relative value is
// ignored, as the XDG specification demands, because its meaning would depend on the working
// folder.
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

// home returns the user's home. If there is none, it returns a folder that does not exist: with a
// relative path, the daemon would read its config and load libraries from the working folder.
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
