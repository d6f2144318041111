//go:build unix && !linux

package launch_test

// sealed reports whether an engine cannot change its contract.
const sealed = false
