package settings

// nonBlocking is not needed: a named pipe is no file of a folder here.
const nonBlocking = 0
