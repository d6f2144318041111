package chat

import "strings"

// words are the keywords and type names of JSON Schema that count as such at one place in a schema. They get no marks,
// because templates compare them and clients cannot choose them. A nil value has no words.
type words struct {
	known   map[string]bool
	members map[string]*words // by member
	// otherwise has the words of all other members; nil means none.
	otherwise *words
}

// plain reports whether text is a word.
func (w *words) plain(text string) bool { return w != nil && w.known[text] }

// of returns the words that count within a member.
func (w *words) of(member string) *words {
	if w == nil {
		return nil
	}
	if next, ok := w.members[member]; ok {
		return next
	}
	return w.otherwise
}

// vocabulary has the words of a schema: its keywords and the names of types. Names of properties, and all
// texts elsewhere, are the client's.
var vocabulary = func() words {
	types := &words{known: set("string number integer object array boolean null any")}
	schema := words{known: set(`$schema $id $ref $defs $anchor $comment definitions type title description default examples enum const
		properties required additionalProperties patternProperties propertyNames minProperties maxProperties
		items prefixItems additionalItems contains minItems maxItems uniqueItems minLength maxLength pattern format nullable
		minimum maximum exclusiveMinimum exclusiveMaximum multipleOf allOf anyOf oneOf not if then else
		dependentRequired dependentSchemas dependencies strict`)}
	inside := schema // the words in a schema; the value of a keyword that is not listed below has none
	inside.members = map[string]*words{"type": types}
	names := &words{otherwise: &inside}
	for keyword := range strings.FieldsSeq("properties patternProperties $defs definitions dependentSchemas") {
		inside.members[keyword] = names
	}
	for keyword := range strings.FieldsSeq(`additionalProperties propertyNames items prefixItems additionalItems contains
		allOf anyOf oneOf not if then else`) {
		inside.members[keyword] = &inside
	}
	return inside
}()

func set(text string) map[string]bool {
	all := make(map[string]bool)
	for word := range strings.FieldsSeq(text) {
		all[word] = true
	}
	return all
}
