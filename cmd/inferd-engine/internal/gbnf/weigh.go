package gbnf

import "slices"

// A beginning is how a piece of a grammar begins.
type beginning struct {
	nullable bool    // it may be nothing
	ways     float64 // in which a text can go on where it stands
}

// A weight is how many ways are open behind the first character of a piece, over all the
// ways in which it begins: a number, and as many times those of what follows the piece.
type weight struct{ work, perNext float64 }

// state is how far the look at a rule is.
type state int

const (
	unseen state = iota
	underWay
	seen
)

// weigh refuses a grammar that llama.cpp cannot follow: one whose rules begin with
// themselves, which it does not always notice, or one with too many ways to go on, for it
// keeps them in a list and compares each new one with all others.
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

// settle finds out how many ways stay open at the end of every rule. In one that refers to
// itself, with something optional behind, they grow with the text.
func (p *parser) settle() error {
	for changed := true; changed; slices.Reverse(p.defined) { // so that a chain of rules is done soon
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

// open returns in how many ways a text can go on within a body when all that must come has
// come, and the most of that of the body and the groups in it.
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

// begin finds out how a rule begins. It follows the rules that the rule may begin with: an
// ever deeper one begins with itself.
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

// check looks at every place where a text may stand. By now it is known how all rules begin.
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

// rest is what is left of a sequence.
type rest struct {
	beginning
	weight
}

// before puts an element in front of the rest of its sequence; last is that there is none.
// Without weighed the rest counts only as what follows e.
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

// weighAny adds up alternatives.
func (p *parser) weighAny(body []sequence) (sum weight) {
	for _, s := range body {
		first := 0 // behind it no text begins
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
		if !r.weighed { // it begins with no rule that is being weighed: see begin
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

// again adds the ways into the next repetition.
func (p *parser) again(e *element, w weight) weight {
	if e.several {
		b, _ := p.beginOne(e)
		w.work += w.perNext * b.ways
	}
	return w
}
