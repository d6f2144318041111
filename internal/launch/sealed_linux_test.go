package launch_test

// sealed reports whether an engine cannot change its contract.
const sealed = true
