// Package sdk is a module of its own for the stock Go clients of OpenAI and of Anthropic, so that
// the daemon's module does not require them. It has tests only: TestStockClients in the folder
// above starts a daemon, and runs them against it.
package sdk
