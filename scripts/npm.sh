# Sourced by scripts that download npm packages; $name is the script's name for messages.

fail() { echo "$name: $*" >&2; exit 1; }

# carry PACKAGE VERSION INTEGRITY: unpacks the package into the folder package/ of the working
# folder, if it has this digest.
carry() {
	command -v node >/dev/null || fail "node is missing: install Node.js with npm, which carries $1 (apt-get install npm)"
	command -v npm >/dev/null || fail "npm is missing: install it, it carries $1 (apt-get install npm)"
	mkdir carried
	(cd carried && npm pack --ignore-scripts "$1@$2" >../npm.out 2>../npm.err </dev/null) ||
		fail "npm could not get $1: $(grep -v -i warn npm.err | head -n 2 | tr '\n' ' ')"
	set -- "$3" carried/*.tgz
	[ $# -eq 2 ] && [ -f "$2" ] || fail "npm left no package behind"
	got=sha512-$(node -e 'const {createHash} = require("crypto"), {readFileSync} = require("fs");
		console.log(createHash("sha512").update(readFileSync(process.argv[1])).digest("base64"))' "$2") || fail "cannot take the package's digest"
	[ "$got" = "$1" ] || fail "the package's digest is $got, not $1: it is not the one we know, nothing was installed"
	tar --no-same-owner -xzf "$2" || fail "cannot unpack the package"
	rm -rf carried npm.out npm.err
}
