// Package constraint keeps answers within a response format: JSON that satisfies a schema, any JSON object,
// or text that fits a GBNF grammar. A [Compiler] compiles a format into a [Constraint], or refuses it with
// an error that names the unsupported keyword, and caches the result for the owner's next requests. An
// [Answer] follows one answer token by token: it masks the tokens that do not fit, and forces a complete
// answer within the token limit.
//
// The package does not know models, batches or samplers.
package constraint
