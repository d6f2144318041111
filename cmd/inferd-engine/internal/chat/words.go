package chat

import "strings"

// keywords are the keywords and type names of JSON Schema that count as such at one place in a schema. They get no
// marks, because templates compare them and clients cannot choose them. A nil value has no words.
type keywords struct {
	known   map[string]bool
	members map[string]*keywords // by member
	// others has the words of all other members; nil means none.
	others *keywords
}

// has reports whether text is one of the words.
func (w *keywords) has(text string) bool { return w != nil && w.known[text] }

// forMember returns the words that count within a member.
func (w *keywords) forMember(member string) *keywords {
	if w == nil {
		return nil
	}
	if next, ok := w.members[member]; ok {
		return next
	}
	return w.others
}

// vocabulary has the words of a schema: its keywords and the names of types. Names of properties, and all
// texts elsewhere, are the client's.
var vocabulary = func() *keywords {
	types := &keywords{known: wordSet("string number integer object array boolean null any")}
	schema := &keywords{known: wordSet(`$schema $id $ref $defs $anchor $comment definitions type title description default examples enum const
		properties required additionalProperties patternProperties propertyNames minProperties maxProperties
		items prefixItems additionalItems contains minItems maxItems uniqueItems minLength maxLength pattern format nullable
		minimum maximum exclusiveMinimum exclusiveMaximum multipleOf allOf anyOf oneOf not if then else
		dependentRequired dependentSchemas dependencies strict`)}
	// The value of a keyword that is not listed below has no words.
	schema.members = map[string]*keywords{"type": types}
	names := &keywords{others: schema}
	for keyword := range strings.FieldsSeq("properties patternProperties $defs definitions dependentSchemas") {
		schema.members[keyword] = names
	}
	for keyword := range strings.FieldsSeq(`additionalProperties propertyNames items prefixItems additionalItems contains
		allOf anyOf oneOf not if then else`) {
		schema.members[keyword] = schema
	}
	return schema
}()

func wordSet(text string) map[string]bool {
	all := make(map[string]bool)
	for word := range strings.FieldsSeq(text) {
		all[word] = true
	}
	return all
}
