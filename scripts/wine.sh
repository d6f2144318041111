#!/bin/sh
# Runs the tests of Windows code under wine (Debian: apt-get install wine64), in a temporary prefix.
set -eu

fail() { echo "wine: $*" >&2; exit 1; }

command -v wine >/dev/null || fail "wine is missing: apt-get install wine64"
dir=${XDG_CACHE_HOME:-$HOME/.cache}/inferd/wine
mkdir -p "$dir"
export WINEPREFIX="$dir/prefix" WINEDEBUG=-all
wine cmd /c exit

# Go gets random bytes from bcryptprimitives.dll. Wine 8 has none, so a library is built that passes
# the call to an older function.
system32=$WINEPREFIX/drive_c/windows/system32
if [ ! -e "$system32/bcryptprimitives.dll" ]; then
	command -v x86_64-w64-mingw32-dlltool >/dev/null || fail "this wine is old and needs a library built for it: apt-get install binutils-mingw-w64-x86-64"
	(
		cd "$dir"
		printf 'LIBRARY bcryptprimitives.dll\nEXPORTS\nProcessPrng = advapi32.SystemFunction036\n' >prng.def
		x86_64-w64-mingw32-dlltool -d prng.def -e prng.exp --dllname bcryptprimitives.dll
		x86_64-w64-mingw32-ld -shared -o "$system32/bcryptprimitives.dll" prng.exp
	)
fi

GOOS=windows GOARCH=amd64 CGO_ENABLED=0 go test -exec wine ./internal/filelock ./internal/listen ./cmd/inferd
