package schema

import "github.com/inferd-go/inferd/internal/regex"

func equalStrs(x, y *strs) bool { return *x == *y }

func (c *compiler) intersectStrs(x, y strs) strs {
	s := strs{lang: x.lang, least: max(x.least, y.least), most: lowerMax(x.most, y.most), narrow: x.narrow || y.narrow}
	switch {
	case x.lang == nil:
		s.lang = y.lang
	case y.lang != nil && x.lang != y.lang:
		s.lang = c.langs.and(x.lang, y.lang)
	}
	return s
}

// addStrs adds case x to a union of cases. Cases without bounds on their length become one case.
func (c *compiler) addStrs(cases []strs, x strs) []strs {
	free := func(s strs) bool { return s.least == 0 && s.most < 0 }
	if free(x) {
		if x.lang == nil {
			return []strs{x}
		}
		for i, s := range cases {
			if free(s) {
				if s.lang != nil && s.lang != x.lang {
					cases[i].lang = regex.Or(c.budget, s.lang, x.lang)
					cases[i].narrow = s.narrow || x.narrow
				}
				return cases
			}
		}
	} else if len(cases) == 1 && cases[0] == anyStrs {
		return cases
	}
	return addCase(cases, x, equalStrs)
}

// emptyStrs reports whether a case certainly has no string.
func (c *compiler) emptyStrs(x strs) bool {
	if x.most >= 0 && x.least > x.most {
		return true
	}
	if x.lang == nil || x.lang.Empty() || x.least == 0 && x.most < 0 {
		return x.lang != nil && x.lang.Empty()
	}
	d, err := c.cutStrs(x)
	return err == nil && d.Empty()
}

// maxProduct bounds the number of states of a language times the length at which it is cut.
const maxProduct = 1 << 17

// cutStrs returns the strings of a case, within its bounds on their length, as one language.
func (c *compiler) cutStrs(x strs) (*regex.DFA, error) {
	lang := x.lang
	if lang == nil {
		lang = constants().any
	}
	if x.least == 0 && x.most < 0 {
		return lang, nil
	}
	if d, ok := c.cuts[x]; ok {
		return d, nil
	}
	if longest := lang.Longest(); longest >= 0 && longest <= x.most {
		x.most = -1 // the maximum has no effect
		return c.cutStrs(x)
	}
	if lang.States()*(max(x.least, x.most)+1) > maxProduct {
		return nil, errLengths
	}
	d := regex.Cut(c.budget, lang, x.least, x.most)
	if c.cuts == nil {
		c.cuts = make(map[strs]*regex.DFA)
	}
	c.cuts[x] = d
	return d, nil
}

// stringLanguage returns the strings of a set as one language.
func (c *compiler) stringLanguage(s *set) (*regex.DFA, error) {
	d := regex.None()
	for _, x := range s.strs {
		e, err := c.cutStrs(x)
		if err != nil {
			return nil, err
		}
		d = regex.Or(c.budget, d, e)
	}
	return d, c.budget.Err()
}
