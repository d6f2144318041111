package dialect

// Generic returns a new dialect for templates without tools; a system message describes it to the model.
func Generic() *Dialect {
	d := &Dialect{Name: "generic", Shape: Object, Calls: Calls{
		Begin: `{"tool_calls": [`, End: `]}`, Separator: ", ", Several: true, Alone: true,
		Call: object("", "arguments", ""), Space: &pythonSpace,
	}}
	d.eitherOrder()
	return d
}

// object returns the spelling of a call as a JSON object between before and behind; arguments is the name of its second
// member.
func object(before, arguments, behind string) []Piece {
	return []Piece{
		{Fixed, before + `{"name": "`},
		{Name, ""},
		{Fixed, `", "` + arguments + `": `},
		{Arguments, ""},
		{Fixed, "}" + behind},
	}
}
