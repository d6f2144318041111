//go:build unix && !linux

package launch_test

// sealed says that nobody can change a contract.
const sealed = false
