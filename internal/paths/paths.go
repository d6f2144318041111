// Package paths says where things lie unless somebody says otherwise: the folder of the
// sockets and their names, the lock, the config file, and the folders of data. It only
// computes names from an environment; it looks at no disk, creates nothing, and does not
// know what is done with the names.
package paths

import (
	"cmp"
	"os"
	"path"
	"runtime"
	"strconv"
	"strings"
)

// Leaves of the files in the run folder. On Windows those of sockets stand for the
// names of pipes, see [Env.Socket].
const (
	V1Leaf      = "infer.sock"
	V2Leaf      = "infer.v2.sock"
	LPLeaf      = "inferd.sock" // the v2 generation, length-prefixed
	EmbedLeaf   = "infer.embed.sock"
	RerankLeaf  = "infer.rerank.sock"
	AdminLeaf   = "admin.sock"
	ControlLeaf = "control.sock"
	LockLeaf    = "inferd.lock"
)

// EngineVersion is the release of llama.cpp that the engine is made for.
const EngineVersion = "0.5.0"

// An Env is what the default places depend on. All its paths are absolute if those in
// the environment are, and carry the separator of GOOS, not of the running program.
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

// RunDir is the folder of the lock and, where they are files, the sockets. Clients of
// every release compute the same one, so nothing may be added to its rules, but that a
// relative XDG_RUNTIME_DIR counts as none: it would mean another folder to each program.
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
	// Where everybody may create, the name is ours alone; whoever uses the folder has
	// to see that it is ours, too.
	return "/tmp/inferd-" + strconv.Itoa(e.UID)
}

// Warnings names variables that are set and have no effect, and says why.
func (e Env) Warnings() []string {
	if dir := e.Getenv("XDG_RUNTIME_DIR"); e.GOOS == "linux" && dir != "" && !path.IsAbs(dir) {
		return []string{"XDG_RUNTIME_DIR is ignored: it is not an absolute path"}
	}
	return nil
}

// Socket is the address of the surface with that leaf: a path in the folder dir. On Windows
// it is the name of a pipe: those lie in no folder, and dir is what the names begin with. An
// empty dir is the default one.
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

// Beside tells what the address of a generation socket says of the others: the dir that
// they lie in, as [Env.Socket] takes it, and the leaf whose surface is spoken at that address. That is v1 at a path
// that is not called as the length-prefixed socket; at a pipe it is length-prefixed, unless
// its name ends as that of v1's.
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

// Lock is the file that one daemon with sockets in dir holds at a time; dir is as that of
// [Env.Socket]. On Windows only the file's name is of dir.
func (e Env) Lock(dir string) string {
	dir = cmp.Or(dir, e.socketDir())
	if e.GOOS != "windows" {
		return e.join(dir, LockLeaf)
	}
	return e.join(e.RunDir(), dir[strings.LastIndexByte(dir, '\\')+1:]+".lock")
}

// ConfigFile is where the config is looked for.
func (e Env) ConfigFile() string { return e.join(e.home(), ".inferd", "config.json") }

// DataDir is the folder for what inferd keeps.
func (e Env) DataDir() string { return e.join(e.data(), "inferd") }

// EngineDir is the folder with the libraries of llama.cpp.
func (e Env) EngineDir() string { return e.join(e.DataDir(), "engine", EngineVersion) }

// ModelsDir is the folder of models. It is meant to be shared with other programs.
func (e Env) ModelsDir() string {
	if dir := e.Getenv("MODELS_HOME"); dir != "" {
		return dir
	}
	return e.join(e.data(), "models")
}

// LogDir is the folder of the activity log; empty if nothing says where that may be.
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

// BuiltinDir is the folder of the models that inferd generates. They can be made again
// at any time, so it is in the user's cache.
func (e Env) BuiltinDir() string { return e.join(e.cacheDir(), "builtin") }

// VariantsFile is the file with the CPU variants of llama.cpp's libraries that do not run on
// this machine. It can be made again, and a service whose home is read-only has a cache.
func (e Env) VariantsFile() string { return e.join(e.cacheDir(), "cpu-variants.json") }

// cacheDir is the folder for what can be made again.
func (e Env) cacheDir() string {
	switch e.GOOS {
	case "windows":
		return e.join(e.localAppData(), "inferd", "cache")
	case "darwin":
		return e.join(e.home(), "Library", "Caches", "inferd")
	}
	return e.join(e.xdg("XDG_CACHE_HOME", ".cache"), "inferd")
}

// data is the folder where programs keep data of this user.
func (e Env) data() string {
	switch e.GOOS {
	case "windows":
		return e.localAppData()
	case "darwin":
		return e.join(e.home(), "Library", "Application Support")
	}
	return e.xdg("XDG_DATA_HOME", ".local", "share")
}

// xdg is the folder that a variable names, else one below the home. The XDG rules have
// relative values ignored; ours would else depend on where the program was started.
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

// home is the user's home. Without one it is a folder that does not exist: a relative
// path would make us read the config and load libraries from the working folder.
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
