package settings

import (
	"bytes"
	"errors"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// An Object is one JSON object of the document. Reading a member by its name takes it out of the
// object. A member that is null counts as absent.
type Object struct {
	doc     *Document
	at      jsontext.Pointer
	names   []string                  // of all members, in order
	members map[string]jsontext.Value // not taken yet
	inner   map[string]*Object        // the members that were read as objects
	list    []*Object                 // the elements of the members that were read as arrays of objects
	foreign bool                      // of an unknown kind: its members are not checked
}

// object returns the Object for value, a JSON object at the position at of the document.
func (d *Document) object(at jsontext.Pointer, value jsontext.Value) *Object {
	o := &Object{doc: d, at: at, members: make(map[string]jsontext.Value), inner: make(map[string]*Object)}
	if err := json.Unmarshal(value, &o.members); err != nil {
		d.failf(at, ": %w", err) // cannot happen: the syntax is right
	}
	dec := jsontext.NewDecoder(bytes.NewReader(value))
	for {
		token, err := dec.ReadToken()
		if err != nil {
			return o
		}
		if dec.StackDepth() != 1 {
			continue
		}
		if _, count := dec.StackIndex(1); count%2 == 1 { // a name: each member counts twice
			o.names = append(o.names, token.String())
		}
	}
}

// Failf records an error at the member of that name, or at o if the name is empty, unless the document
// has an earlier error. The text follows the position after a space, or at once if it begins with a
// colon.
func (o *Object) Failf(name, format string, args ...any) {
	o.doc.failf(o.pointer(name), format, args...)
}

// FailElementf is Failf for element i of the array that is the member of that name.
func (o *Object) FailElementf(name string, i int, format string, args ...any) {
	o.doc.failf(o.pointer(name).AppendToken(strconv.Itoa(i)), format, args...)
}

func (o *Object) pointer(name string) jsontext.Pointer {
	if name == "" {
		return o.at
	}
	return o.at.AppendToken(name)
}

// Key returns the position of a member, such as backends[0].model.
func (o *Object) Key(name string) string { return spell(o.pointer(name)) }

// Ignore prevents reports of unknown members in o. It is used for an entry of an unknown kind.
func (o *Object) Ignore() { o.foreign = true }

// Take takes a member out of o and returns it. It returns nil if the member is absent or null.
func (o *Object) Take(name string) jsontext.Value {
	value := o.members[name]
	delete(o.members, name)
	if value.Kind() == jsontext.KindNull {
		return nil
	}
	return value
}

// wrongType is the text of the error for a value of the wrong JSON type.
const wrongType = "must be %s, not %s"

// mismatch records an error for a value of the wrong JSON type. want names the right one.
func (o *Object) mismatch(name, want string, value jsontext.Value) {
	o.Failf(name, wrongType, want, kindNames[value.Kind()])
}

// Text takes a string into *to, which stays unchanged if the member is absent or not a string. A
// member that is not a string is recorded as an error.
func (o *Object) Text(name string, to *string) {
	switch value := o.Take(name); {
	case value == nil:
	case value.Kind() != jsontext.KindString:
		o.mismatch(name, "a string", value)
	default:
		*to = unquote(value)
	}
}

// boolean takes true or false into *to, which stays unchanged if the member is absent or not a
// boolean. A member that is not a boolean is recorded as an error.
func (o *Object) boolean(name string, to *bool) {
	switch value := o.Take(name); {
	case value == nil:
	case value.Kind() != jsontext.KindTrue && value.Kind() != jsontext.KindFalse:
		o.mismatch(name, "true or false", value)
	default:
		*to = value.Kind() == jsontext.KindTrue
	}
}

// Number takes a whole number from least to most into *to, which stays unchanged if the member is
// absent or has another value. Another value is recorded as an error.
func (o *Object) Number(name string, to *int, least, most int) {
	value := o.Take(name)
	if value == nil {
		return
	}
	if value.Kind() != jsontext.KindNumber {
		o.mismatch(name, "a number", value)
		return
	}
	n, err := strconv.ParseInt(string(value), 10, 64) // after a range error, n is the nearest int64
	switch {
	case errors.Is(err, strconv.ErrSyntax):
		o.Failf(name, "must be a whole number, not %.64s", string(value))
	case n < int64(least):
		o.Failf(name, "must be at least %d", least)
	case n > int64(most):
		o.Failf(name, "must be at most %d", most)
	default:
		*to = int(n)
	}
}

// Texts takes an array of strings. It returns nil if the member is absent. It records an error for a
// member that is not an array, and for each element that is not a string; it omits these elements.
func (o *Object) Texts(name string) (all []string) {
	value := o.Take(name)
	if value == nil {
		return nil
	}
	all = []string{}
	for i, element := range o.elements(name, value) {
		if element.Kind() != jsontext.KindString {
			o.FailElementf(name, i, wrongType, "a string", kindNames[element.Kind()])
			continue
		}
		all = append(all, unquote(element))
	}
	return all
}

// Child takes a member that is an object; a second call returns the same object. If the member is
// absent, Child returns an empty object. If it is not an object, Child also records an error.
func (o *Object) Child(name string) *Object {
	if o.inner[name] == nil {
		value := o.Take(name)
		if value != nil && value.Kind() != jsontext.KindBeginObject {
			o.mismatch(name, "an object", value)
			value = nil
		}
		if value == nil {
			value = jsontext.Value("{}")
		}
		o.inner[name] = o.doc.object(o.at.AppendToken(name), value)
	}
	return o.inner[name]
}

// Children takes an array of objects. An element that is null counts as an empty object. It records an
// error for each other element that is not an object, and omits the element.
func (o *Object) Children(name string) (all []*Object) {
	value := o.Take(name)
	if value == nil {
		return nil
	}
	for i, element := range o.elements(name, value) {
		at := o.at.AppendToken(name).AppendToken(strconv.Itoa(i))
		switch element.Kind() {
		case jsontext.KindBeginObject:
		case jsontext.KindNull:
			element = jsontext.Value("{}")
		default:
			o.doc.failf(at, wrongType, "an object", kindNames[element.Kind()])
			continue
		}
		all = append(all, o.doc.object(at, element))
	}
	o.list = append(o.list, all...)
	return all
}

// elements returns the elements of an array. If value is not an array, it records an error and
// returns nil.
func (o *Object) elements(name string, value jsontext.Value) (all []jsontext.Value) {
	if value.Kind() != jsontext.KindBeginArray {
		o.mismatch(name, "an array", value)
		return nil
	}
	if err := json.Unmarshal(value, &all); err != nil {
		o.Failf(name, ": %w", err) // cannot happen: the syntax is right
	}
	return all
}

// HasText reports whether a member is a string, without taking it.
func (o *Object) HasText(name string) bool { return o.members[name].Kind() == jsontext.KindString }

// PeekText returns a member that is a string, without taking it. It returns an empty string if the
// member is not a string.
func (o *Object) PeekText(name string) string {
	if !o.HasText(name) {
		return ""
	}
	return unquote(o.members[name])
}

// Has reports whether a member exists and is not null, without taking it.
func (o *Object) Has(name string) bool {
	value, there := o.members[name]
	return there && value.Kind() != jsontext.KindNull
}

// unknown appends the positions of the members that were not read to *all, in the order of the
// file, including the members of inner objects. A member that is null counts as absent.
func (o *Object) unknown(all *[]jsontext.Pointer) {
	if o.foreign {
		return
	}
	for _, name := range o.names {
		switch {
		case o.inner[name] != nil:
			o.inner[name].unknown(all)
		case o.Has(name):
			*all = append(*all, o.at.AppendToken(name))
		default:
			for _, element := range o.list {
				if element.at.Parent() == o.at.AppendToken(name) {
					element.unknown(all)
				}
			}
		}
	}
}

// word takes a string or a number into *to, which stays unchanged if the member is absent or has
// another type. A number keeps its spelling. Another type is recorded as an error.
func (o *Object) word(name string, to *Word) {
	switch value := o.Take(name); {
	case value == nil:
	case value.Kind() == jsontext.KindNumber:
		*to = Word(value)
	case value.Kind() == jsontext.KindString:
		*to = Word(unquote(value))
	default:
		o.mismatch(name, "a string or a number", value)
	}
}

// unquote returns the text of a valid JSON string.
func unquote(value jsontext.Value) string {
	text, err := jsontext.AppendUnquote(nil, value)
	if err != nil {
		panic("internal error: " + err.Error())
	}
	return string(text)
}
