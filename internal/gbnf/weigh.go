package gbnf

import "slices"

// A beginning describes how a part of a grammar begins.
type beginning struct {
	nullable bool    // it matches the empty text
	ways     float64 // alternatives for the first character
}

// A weight is the number of alternatives after the first character of a part, over all
// alternatives for that character: work, plus perNext times the alternatives of the part
// that follows.
type weight struct{ work, perNext float64 }

// state is the progress of the analysis of a rule.
type state int

const (
	unseen state = iota
	underWay
	seen
)

// weigh refuses two kinds of grammars that llama.cpp cannot handle: left-recursive rules, which it
// does not always detect, and too many alternatives at one position, because it keeps them in a
// list and compares each new one with all others.
func (p *parser) weigh() error {
	for _, r := range p.defined {
		if err := p.begin(r, r.at); err != nil {
			return err
		}
	}
	for _, r := range p.defined {
		if err := p.check(r.body, r.at); err != nil {
			return err
		}
	}
	return p.settle()
}

// settle computes the number of alternatives that stay open at the end of every rule. In a
// rule that refers to itself, followed by something optional, it grows with the text.
func (p *parser) settle() error {
	for changed := true; changed; slices.Reverse(p.defined) { // a chain of rules then needs few rounds
		changed = false
		for _, r := range p.defined {
			open, most := p.open(r.body)
			if most > maxOpen {
				return p.errorf(r.at, "a text could go on in too many ways within this rule")
			}
			if open != r.open {
				r.open, changed = open, true
			}
		}
	}
	return nil
}

// open returns the number of alternatives within a body after its required part, and the
// maximum of that over the body and its groups.
func (p *parser) open(body []sequence) (last, most float64) {
	for _, s := range body {
		rest := beginning{nullable: true}
		for i := len(s) - 1; i >= 0; i-- {
			e := &s[i]
			b, _ := p.beginOne(e)
			var inside, within float64
			switch {
			case e.never:
			case e.rule != "":
				inside = p.rules[e.rule].open
			case e.group != nil:
				inside, within = p.open(e.group)
			}
			if e.several {
				inside += b.ways
			}
			if rest.nullable {
				last = max(last, inside+rest.ways)
			}
			most = max(most, within)
			if b.nullable {
				rest.ways += b.ways
			} else {
				rest = b
			}
		}
	}
	return last, max(last, most)
}

// begin computes the beginning of a rule, after the beginnings of the rules that it may begin
// with. A rule that recurs among these is left-recursive.
func (p *parser) begin(r *rule, at int) (err error) {
	switch r.state {
	case unseen:
	case seen:
		return nil
	case underWay:
		return p.errorf(at, "a rule begins with itself")
	}
	r.state = underWay
	r.beginning, err = p.beginAny(r.body)
	r.state = seen
	return err
}

func (p *parser) beginAny(body []sequence) (sum beginning, err error) {
	for _, s := range body {
		whole := true
		for i := range s {
			b, err := p.beginOne(&s[i])
			if err != nil {
				return sum, err
			}
			sum.ways += b.ways
			if whole = b.nullable; !whole {
				break
			}
		}
		sum.nullable = sum.nullable || whole
	}
	return sum, nil
}

func (p *parser) beginOne(e *element) (b beginning, err error) {
	switch {
	case e.never:
		return beginning{nullable: true}, nil
	case e.rule != "":
		r := p.rules[e.rule]
		err = p.begin(r, e.at)
		b = r.beginning
	case e.group != nil:
		b, err = p.beginAny(e.group)
	default:
		b.ways = 1
	}
	b.nullable = b.nullable || e.optional
	return b, err
}

// check applies the limits to every place in a body. All beginnings must be known.
func (p *parser) check(body []sequence, at int) error {
	all, _ := p.beginAny(body)
	if w := p.weighAny(body); all.ways > maxWays || w.work+w.perNext > maxWork {
		return p.errorf(at, "a text could go on in too many ways here")
	}
	for _, s := range body {
		for i := range s {
			if s[i].group != nil {
				if err := p.check(s[i].group, s[i].at); err != nil {
					return err
				}
			}
		}
		var rest rest
		for i := len(s) - 1; i >= 0; i-- {
			rest = p.before(rest, i == len(s)-1, &s[i], true)
			if rest.ways > maxWays || rest.work+rest.perNext > maxWork {
				return p.errorf(s[i].at, "a text could go on in too many ways here")
			}
		}
	}
	return nil
}

// rest describes the end of a sequence, from an element on.
type rest struct {
	beginning
	weight
}

// before prepends an element to the rest of its sequence; last reports that the rest is empty. If
// weighed is false, the weight of the element itself is left out.
func (p *parser) before(r rest, last bool, e *element, weighed bool) rest {
	if last {
		r = rest{beginning: beginning{nullable: true}}
	}
	b, _ := p.beginOne(e)
	var w weight
	if weighed {
		w = p.weighOne(e)
		w.work += w.perNext * r.ways
		if !r.nullable {
			w.perNext = 0
		}
	}
	if !b.nullable {
		return rest{b, w}
	}
	b.ways += r.ways
	b.nullable = r.nullable
	return rest{b, weight{w.work + r.work, w.perNext + r.perNext}}
}

// weighAny returns the sum of the weights of the sequences.
func (p *parser) weighAny(body []sequence) (sum weight) {
	for _, s := range body {
		first := 0 // the last element that a text can begin with
		for first < len(s)-1 {
			if b, _ := p.beginOne(&s[first]); !b.nullable {
				break
			}
			first++
		}
		var r rest
		for i := len(s) - 1; i >= 0; i-- {
			r = p.before(r, i == len(s)-1, &s[i], i <= first)
		}
		sum.work += r.work
		sum.perNext += r.perNext
	}
	return sum
}

func (p *parser) weighOne(e *element) (w weight) {
	switch {
	case e.never:
		return weight{}
	case e.rule != "":
		r := p.rules[e.rule]
		if !r.weighed { // no recursion: begin has refused it
			r.weight, r.weighed = p.weighAny(r.body), true
		}
		w = r.weight
	case e.group != nil:
		w = p.weighAny(e.group)
	case e.chars > 1:
		return p.again(e, weight{work: 1})
	default:
		w = weight{perNext: 1}
	}
	return p.again(e, w)
}

// again adds the alternatives of the next repetition.
func (p *parser) again(e *element, w weight) weight {
	if e.several {
		b, _ := p.beginOne(e)
		w.work += w.perNext * b.ways
	}
	return w
}
