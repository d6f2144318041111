//go:build unix && !linux

package launch_test

// sealed is true if the platform prevents an engine from changing its contract.
const sealed = false
