// Package sdk is a module of its own for the stock Go clients of OpenAI and Anthropic, so that the
// daemon's module does not require them. It has only tests: TestStockGoClients in the folder above
// starts a daemon, and runs them against it.
package sdk
