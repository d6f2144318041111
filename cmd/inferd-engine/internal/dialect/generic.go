package dialect

// Generic is the dialect for templates without tools: a system message describes it.
func Generic() *Dialect {
	d := &Dialect{Name: "generic", Shape: Object, Calls: Calls{
		Begin: `{"tool_calls": [`, End: `]}`, Separator: ", ", Several: true, Alone: true,
		Call: object("", "arguments", ""), Space: &common,
	}}
	d.eitherOrder()
	return d
}

// object is the spelling of a call as a JSON object.
func object(before, arguments, behind string) []Piece {
	return []Piece{
		{Fixed, before + `{"name": "`},
		{Name, ""},
		{Fixed, `", "` + arguments + `": `},
		{Arguments, ""},
		{Fixed, "}" + behind},
	}
}
