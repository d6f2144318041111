package schema

import (
	"errors"
	"net/url"
	"strconv"
	"strings"
)

// references finds the schemas of a document by address.
type references struct {
	bases   map[*value]*url.URL // of schemas with an id, and of the root
	roots   map[string]*value   // by address
	anchors map[string]*value   // by address and fragment
	exprs   map[*value]expr
	hides   bool // $ref hides its siblings: draft 7 and before
	err     *fault
}

var (
	errDialect   = errors.New("an unknown dialect: drafts 4 to 2020-12 are understood")
	errElsewhere = errors.New("it does not point to a schema of this document: other documents are not loaded")
	errAddress   = errors.New("it must be a URI reference, such as #/$defs/NAME")
)

// drafts are the known dialects. The value is true if $ref hides its siblings.
var drafts = map[string]bool{
	"http://json-schema.org/draft-04/schema": true, "http://json-schema.org/draft-06/schema": true, "http://json-schema.org/draft-07/schema": true,
	"https://json-schema.org/draft/2019-09/schema": false, "https://json-schema.org/draft/2020-12/schema": false,
	"http://json-schema.org/schema": false,
}

func newReferences(root *value) *references {
	r := &references{bases: make(map[*value]*url.URL), roots: make(map[string]*value), anchors: make(map[string]*value), exprs: make(map[*value]expr)}
	if s := root.member("$schema"); s != nil {
		hides, ok := drafts[strings.TrimSuffix(s.text, "#")]
		if r.hides = hides; !ok {
			r.err = &fault{origin{s, "$schema"}, errDialect}
		}
	}
	base := &url.URL{Scheme: "schema", Path: "/"}
	r.bases[root] = base
	r.roots[address(base)] = root
	r.visit(root, base)
	return r
}

// address returns a URL without its fragment.
func address(u *url.URL) string {
	v := *u
	v.Fragment, v.RawFragment = "", ""
	return v.String()
}

// Keywords with a schema, a list of schemas, or an object of schemas as their value.
var (
	schemaKeywords = map[string]bool{
		"additionalItems": true, "additionalProperties": true, "contains": true, "contentSchema": true, "else": true, "if": true, "items": true, "not": true,
		"propertyNames": true, "then": true, "unevaluatedItems": true, "unevaluatedProperties": true,
	}
	schemaLists = map[string]bool{"allOf": true, "anyOf": true, "oneOf": true, "prefixItems": true, "items": true}
	schemaMaps  = map[string]bool{"$defs": true, "definitions": true, "properties": true, "patternProperties": true, "dependentSchemas": true, "dependencies": true}
)

// visit records the ids and anchors of a schema and of the schemas in it.
func (r *references) visit(v *value, base *url.URL) {
	if v.kind != jsonObject {
		return
	}
	id := v.member("$id")
	if id == nil {
		id = v.member("id")
	}
	if id != nil && id.kind == jsonString && (v.member("$ref") == nil || !r.hides) {
		if u, err := base.Parse(id.text); err == nil {
			if strings.HasPrefix(id.text, "#") { // an anchor of old drafts
				r.anchors[u.String()] = v
			} else {
				base = u
				r.bases[v] = u
				if _, taken := r.roots[address(u)]; !taken {
					r.roots[address(u)] = v
				}
			}
		}
	}
	for _, name := range []string{"$anchor", "$dynamicAnchor"} {
		if a := v.member(name); a != nil && a.kind == jsonString {
			key := address(base) + "#" + a.text
			if _, taken := r.anchors[key]; !taken {
				r.anchors[key] = v
			}
		}
	}
	for i, name := range v.names {
		item := v.items[i]
		switch {
		case schemaLists[name] && item.kind == jsonArray, schemaMaps[name] && item.kind == jsonObject:
			for _, s := range item.items {
				r.visit(s, base)
			}
		case schemaKeywords[name]:
			r.visit(item, base)
		}
	}
}

// base returns the base address of a value.
func (r *references) base(v *value) *url.URL {
	for ; ; v = v.parent {
		if u, ok := r.bases[v]; ok {
			return u
		}
	}
}

// resolve returns the schema to which a reference refers.
func (r *references) resolve(ref *value) (*value, error) {
	if ref.kind != jsonString {
		return nil, errAddress
	}
	u, err := r.base(ref).Parse(ref.text)
	if err != nil {
		return nil, errAddress
	}
	root, ok := r.roots[address(u)]
	if !ok {
		return nil, errElsewhere
	}
	if u.Fragment == "" {
		return root, nil
	}
	if !strings.HasPrefix(u.Fragment, "/") {
		if v, ok := r.anchors[address(u)+"#"+u.Fragment]; ok {
			return v, nil
		}
		return nil, errElsewhere
	}
	v := root
	for step := range strings.SplitSeq(u.Fragment[1:], "/") {
		step = fromPointer.Replace(step)
		var next *value
		if v.kind == jsonArray {
			if i, err := strconv.Atoi(step); err == nil && i >= 0 && i < len(v.items) {
				next = v.items[i]
			}
		} else {
			next = v.member(step)
		}
		if next == nil {
			return nil, errElsewhere
		}
		v = next
	}
	return v, nil
}
