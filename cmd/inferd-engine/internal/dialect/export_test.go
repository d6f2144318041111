package dialect

// Names returns all possible names of a dialect: families, generic and shapes.
func Names() (all []string) {
	for _, r := range rows {
		all = append(all, r.name)
	}
	for _, s := range declareOnly {
		all = append(all, s.make().Name)
	}
	all = append(all, Generic().Name)
	for _, s := range []Shape{Object, Array, Named, Params, Python, Literal} {
		d := Dialect{Shape: s, Calls: Calls{Call: []Piece{{Kind: Name}}}}
		d.family()
		all = append(all, d.Name)
	}
	return all
}
