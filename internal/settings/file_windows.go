package settings

// nonBlocking is not needed: on Windows named pipes are not in folders.
const nonBlocking = 0
