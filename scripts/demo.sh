#!/bin/sh
# Demonstrates inferd: starts a daemon of its own with a model, asks a question, prints the answer,
# and stops the daemon. make demo calls it after the build.
set -eu
cd "$(dirname "$0")/.."

sh scripts/engine.sh
# The model is imported into the model store, and runs by its name there. The downloaded file, which
# benchmarks use, becomes a link to the store's copy: the disk keeps one.
model=gemma-3-270m-q4_k_m
question="What is the capital of France?"
if ! bin/inferdctl show "$model" >/dev/null 2>&1; then
	if file=$(sh scripts/model.sh) && blob=$(bin/inferdctl import --name "$model" "$file"); then
		echo "$blob"
		ln -f "$blob" "$file" 2>/dev/null || rm -f "$file" # the store may be on another disk
	else
		echo "demo: no real model, so builtin:chain answers: it knows the alphabet and nothing else"
		model=builtin:chain
		question=a
	fi
fi

dir=$(mktemp -d)
daemon=
watch=
stop() { # stops the watcher and the daemon; returns the exit status of the daemon
	[ -z "$watch" ] || kill "$watch" 2>/dev/null || true
	watch=
	if [ -n "$daemon" ]; then
		pid=$daemon
		daemon=
		kill -TERM "$pid" 2>/dev/null || true
		wait "$pid"
	fi
}
trap 'stop || true; rm -rf "$dir"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

fail() {
	echo "demo: $*; the end of the daemon's log:" >&2
	tail -n 20 "$dir/log" >&2
	exit 1
}

echo
echo "\$ inferd --model $model"
bin/inferd --model "$model" --uds "$dir/infer.sock" --lock "$dir/inferd.lock" >"$dir/log" 2>&1 &
daemon=$!

# The admin socket exists within milliseconds, long before the model is loaded.
until [ -S "$dir/admin.sock" ]; do
	kill -0 "$daemon" 2>/dev/null || fail "inferd did not start"
	sleep 0.02
done
echo "\$ inferdctl watch"
mkfifo "$dir/events"
bin/inferdctl --admin-addr "$dir/admin.sock" watch >"$dir/events" 2>>"$dir/log" &
watch=$!
ready=
while read -r event; do
	printf '%s\n' "$event"
	case $event in
	*'"status":"ready"'*)
		ready=yes
		break ;;
	esac
done <"$dir/events"
[ -n "$ready" ] || fail "inferd did not become ready"
kill "$watch" 2>/dev/null || true
watch=

echo
# A model this small, which is not trained for conversations, is best in its first sentence, so the
# answer is short.
echo "\$ inferdctl chat --temperature 0 --max-tokens 48 -m \"$question\""
bin/inferdctl --admin-addr "$dir/admin.sock" --addr "$dir/infer.sock" \
	chat --temperature 0 --max-tokens 48 -m "$question" || fail "no answer"

echo
echo "\$ kill -TERM inferd"
status=0
stop || status=$?
echo "inferd ended with exit status $status"
exit "$status"
