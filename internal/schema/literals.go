package schema

import "github.com/inferd-go/inferd/internal/regex"

func (c *compiler) literalKeyword(name string, item *value) (expr, error) {
	switch name {
	case "type":
		names := []*value{item}
		if item.kind == jsonArray {
			names = item.items
		}
		s := c.none()
		for _, n := range names {
			if !c.addType(s, n.text) {
				return nothing, wrong("the name of a type, or a list of them")
			}
		}
		return c.fromSet(s), nil
	case "const":
		return c.literals([]*value{item})
	}
	if item.kind != jsonArray {
		return nothing, wrong("a list")
	}
	return c.literals(item.items)
}

func (c *compiler) addType(s *set, name string) bool {
	switch name {
	case "null":
		s.null = true
	case "boolean":
		s.bools = [2]bool{true, true}
	case "integer":
		if s.nums != c.decimals {
			s.nums = c.integers
		}
	case "number":
		s.nums = c.decimals
	case "string":
		s.strs = []strs{anyStrs}
	case "array":
		s.arrs = []arrs{anyArrs}
	case "object":
		s.objs = []objs{anyObjs}
	default:
		return false
	}
	return true
}

// literals returns the expression for the given values.
func (c *compiler) literals(values []*value) (expr, error) {
	s := c.none()
	var words []string
	var numbers []*regex.DFA
	for _, v := range values {
		if !c.budget.Spend(0) {
			return nothing, c.budget.Err()
		}
		switch v.kind {
		case jsonNull:
			s.null = true
		case jsonBool:
			s.bools[0], s.bools[1] = s.bools[0] || !v.truth, s.bools[1] || v.truth
		case jsonNumber:
			d, err := regex.ParseDecimal(v.text)
			if err != nil {
				return nothing, err
			}
			numbers = append(numbers, regex.Equals(c.budget, d))
		case jsonString:
			words = append(words, v.text)
		case jsonArray, jsonObject:
			if err := c.literalParts(s, v); err != nil {
				return nothing, err
			}
		}
	}
	if len(s.arrs) > maxCases || len(s.objs) > maxCases {
		return nothing, errCases
	}
	if len(words) > 0 {
		s.strs = []strs{{lang: regex.Words(c.budget, words), most: -1}}
	}
	s.nums = c.union(numbers)
	return c.fromSet(s), nil
}

// literalParts adds the array or object v to s.
func (c *compiler) literalParts(s *set, v *value) error {
	parts := make([]expr, len(v.items))
	for i, item := range v.items {
		var err error
		if parts[i], err = c.literals([]*value{item}); err != nil {
			return err
		}
	}
	if v.kind == jsonArray {
		s.arrs = append(s.arrs, arrs{prefix: parts, least: len(parts), most: len(parts), rest: nothing})
		return nil
	}
	o := objs{most: -1, classes: []class{{value: nothing}}}
	for i, e := range parts {
		o.props = append(o.props, prop{name: v.names[i], value: e, required: true})
	}
	s.objs = append(s.objs, o)
	return nil
}

// union returns the union of the DFAs in numbers. It overwrites the elements of the slice.
func (c *compiler) union(numbers []*regex.DFA) *regex.DFA {
	if len(numbers) == 0 {
		return regex.None()
	}
	for len(numbers) > 1 { // in pairs, so no DFA is copied often
		for i := 0; i+1 < len(numbers); i += 2 {
			numbers[i/2] = regex.Or(c.budget, numbers[i], numbers[i+1])
		}
		if half := len(numbers) / 2; len(numbers)%2 == 1 {
			numbers[half] = numbers[len(numbers)-1]
			numbers = numbers[:half+1]
		} else {
			numbers = numbers[:half]
		}
	}
	return numbers[0]
}
