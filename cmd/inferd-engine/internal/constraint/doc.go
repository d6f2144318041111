// Package constraint keeps answers within a [Source]: a response format (a JSON Schema, any JSON object, or a
// GBNF grammar), or the tools of package speech. A [Compiler] compiles a source into a [Constraint], or
// refuses it with an error that names the keyword, or the position in the source, that cannot be enforced. It
// caches constraints and refusals for later requests of the same owner. An [Answer] follows one answer token
// by token: it masks the tokens that do not fit, and forces a complete answer within the token limit.
//
// The package does not know models, batches or samplers.
package constraint
