package settings

import (
	"bytes"
	"errors"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// An Object is one JSON object of the document. A member is taken by its name, once; a member
// that is null counts as absent.
type Object struct {
	doc     *Document
	at      jsontext.Pointer
	names   []string                  // of all members, in order
	members map[string]jsontext.Value // not taken yet
	inner   map[string]*Object        // members that are objects, and have been read
	list    []*Object                 // elements of members that are arrays of objects
	foreign bool                      // of an unknown kind: its members are not checked
}

// object parses the object at a position of the document.
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

// Failf records an error at the member of that name, or at o if the name is empty, unless there is
// an earlier error. The text follows the position, without a space if it begins with a colon.
func (o *Object) Failf(name, format string, args ...any) {
	o.doc.failf(o.place(name), format, args...)
}

// FailElementf is Failf for an element of an array.
func (o *Object) FailElementf(name string, i int, format string, args ...any) {
	o.doc.failf(o.place(name).AppendToken(strconv.Itoa(i)), format, args...)
}

func (o *Object) place(name string) jsontext.Pointer {
	if name == "" {
		return o.at
	}
	return o.at.AppendToken(name)
}

// Key returns the position of a member, such as backends[0].model.
func (o *Object) Key(name string) string { return spell(o.place(name)) }

// Ignore keeps the members of o from being reported as unknown: o is of an unknown kind.
func (o *Object) Ignore() { o.foreign = true }

// Take returns a member, or nil if there is none or it is null.
func (o *Object) Take(name string) jsontext.Value {
	value := o.members[name]
	delete(o.members, name)
	if value.Kind() == jsontext.KindNull {
		return nil
	}
	return value
}

// mismatch refuses a value of the wrong kind.
func (o *Object) mismatch(name string, value jsontext.Value) {
	o.Failf(name, ": %s does not fit here", kindNames[value.Kind()])
}

// Text reads a string.
func (o *Object) Text(name string, to *string) {
	switch value := o.Take(name); {
	case value == nil:
	case value.Kind() != jsontext.KindString:
		o.mismatch(name, value)
	default:
		*to = unquote(value)
	}
}

// boolean reads true or false.
func (o *Object) boolean(name string, to *bool) {
	switch value := o.Take(name); {
	case value == nil:
	case value.Kind() != jsontext.KindTrue && value.Kind() != jsontext.KindFalse:
		o.mismatch(name, value)
	default:
		*to = value.Kind() == jsontext.KindTrue
	}
}

// Number reads a whole number within bounds.
func (o *Object) Number(name string, to *int, least, most int) {
	value := o.Take(name)
	if value == nil {
		return
	}
	if value.Kind() != jsontext.KindNumber {
		o.mismatch(name, value)
		return
	}
	n, err := strconv.ParseInt(string(value), 10, 64) // at a range error, n is the nearest bound
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

// Texts reads an array of strings; nil means absent.
func (o *Object) Texts(name string) (all []string) {
	value := o.Take(name)
	if value == nil {
		return nil
	}
	all = []string{}
	for i, element := range o.elements(name, value) {
		if element.Kind() != jsontext.KindString {
			o.FailElementf(name, i, ": %s does not fit here", kindNames[element.Kind()])
			continue
		}
		all = append(all, unquote(element))
	}
	return all
}

// Child reads a member that is an object; absent, it is one without members.
func (o *Object) Child(name string) *Object {
	if o.inner[name] == nil {
		value := o.Take(name)
		if value != nil && value.Kind() != jsontext.KindBeginObject {
			o.mismatch(name, value)
			value = nil
		}
		if value == nil {
			value = jsontext.Value("{}")
		}
		o.inner[name] = o.doc.object(o.at.AppendToken(name), value)
	}
	return o.inner[name]
}

// Children reads an array of objects; an element that is null counts as one without members.
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
			o.doc.failf(at, ": %s does not fit here", kindNames[element.Kind()])
			continue
		}
		all = append(all, o.doc.object(at, element))
	}
	o.list = append(o.list, all...)
	return all
}

// elements splits an array.
func (o *Object) elements(name string, value jsontext.Value) (all []jsontext.Value) {
	if value.Kind() != jsontext.KindBeginArray {
		o.mismatch(name, value)
		return nil
	}
	if err := json.Unmarshal(value, &all); err != nil {
		o.Failf(name, ": %w", err) // cannot happen: the syntax is right
	}
	return all
}

// HasText reports whether a member is a string. It does not take it.
func (o *Object) HasText(name string) bool { return o.members[name].Kind() == jsontext.KindString }

// PeekText returns a member that is a string, without taking it; empty if it is none.
func (o *Object) PeekText(name string) string {
	if !o.HasText(name) {
		return ""
	}
	return unquote(o.members[name])
}

// Has reports whether a member is there and not null. It does not take it.
func (o *Object) Has(name string) bool {
	value, there := o.members[name]
	return there && value.Kind() != jsontext.KindNull
}

// unknown appends the members that were not read, in the order of the file, including those of inner
// objects. A null counts as absent.
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

// word reads a string or a number, as it is written.
func (o *Object) word(name string, to *Word) {
	switch value := o.Take(name); {
	case value == nil:
	case value.Kind() == jsontext.KindNumber:
		*to = Word(value)
	case value.Kind() == jsontext.KindString:
		*to = Word(unquote(value))
	default:
		o.Failf(name, ": it must be a word or a number")
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
