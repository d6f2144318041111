#!/bin/sh
# Fetches public chat templates from an npm package, each under the licence of its maker, and installs a
# Python with jinja2. Then it compares the texts that the engine and jinja2 render. Everything is kept in
# bin/templates, which Git ignores.
set -eu

name=test-templates
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=scripts/npm.sh
. "$root/scripts/npm.sh"

package=3.22.1 # of node-llama-cpp
integrity=sha512-bltIipuWmc123H7tMIgDGKSsSrhmhlQYeVUC48XTjVW7XGJJiJJyCdlTMzQ/LiWoPkGDpcL4FviDpgw7qfTiDw==
jinja=3.1.6

kept=$root/bin/templates
mkdir -p "$kept"
if [ ! -d "$kept/$package" ]; then
	work=$(mktemp -d "$kept/work.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	cd "$work"
	carry node-llama-cpp "$package" "$integrity"
	git clone -q --bare package/llama/gitRelease.bundle llama.cpp || fail "the package's bundle cannot be read"
	mkdir out
	git -C llama.cpp archive HEAD models/templates | tar -x -C out || fail "the bundle has no templates"
	mv out/models/templates "$kept/$package"
	cd "$root"
fi
if [ ! -x "$kept/python/bin/python" ] || ! "$kept/python/bin/python" -c "import jinja2; assert jinja2.__version__ == '$jinja'" 2>/dev/null; then
	command -v python3 >/dev/null || fail "python3 is missing: install it with its venv module"
	rm -rf "$kept/python"
	python3 -m venv "$kept/python" || fail "python3 cannot make a virtual environment (apt-get install python3-venv)"
	"$kept/python/bin/pip" install -q "jinja2==$jinja" || fail "pip could not get jinja2 $jinja"
fi
cd "$root"
INFERD_TEST_TEMPLATES=$kept/$package INFERD_TEST_PYTHON=$kept/python/bin/python \
	go test -count=1 -run 'TestPublic' "$@" ./cmd/inferd-engine/internal/chat ./cmd/inferd-engine/internal/speech
