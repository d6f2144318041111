// Package constraint keeps answers within a response format: JSON of a schema, any JSON object, or
// text of a GBNF grammar. A [Compiler] makes formats into a [Constraint], or refuses them by name,
// and keeps it for the next request of the same owner. An [Answer] follows one answer token by
// token: before each it says which tokens may come, and it sees to it that the answer ends as a
// whole within its tokens.
//
// The package does not know models, batches nor samplers.
package constraint
