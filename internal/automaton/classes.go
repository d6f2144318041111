package automaton

// classify divides the bytes into classes that every set and every state of a DFA treats
// alike.
func (b *Builder) classify() {
	g := &b.g
	classes, sizes := 1, g.sizes()
	split := func(key func(b int) int32) {
		if classes < 256 {
			classes = g.split(key)
			sizes = g.sizes()
		}
	}
	for i := range g.sets {
		split(func(b int) int32 { return int32(g.sets[i][b>>6] >> (b & 63) & 1) })
	}
	for i := range g.nodes {
		if g.nodes[i].kind == kindText {
			for state := range int32(refused) {
				split(func(b int) int32 { return textNext(state, byte(b)) })
			}
			break
		}
	}
	for _, d := range g.dfas {
		for s := range d.Accept {
			if edges := d.Edges[d.First[s]:d.First[s+1]]; len(edges) > 0 && !b.uniform(edges, &sizes) {
				if !b.Spend(0) {
					return
				}
				split(func(b int) int32 { return target(edges, byte(b)) })
			}
		}
	}
	g.bytes, g.members = make([]byte, classes), make([]Set, classes)
	for i := range 256 {
		b := byte(255 - i)
		g.bytes[g.class[b]] = b
		g.members[g.class[b]].Add(b, b)
	}
}

// split divides each class by the keys of its bytes. It returns the new number of classes.
func (g *Grammar) split(key func(b int) int32) (classes int) {
	// The parts of a class are a linked list, usually of one entry. first and next hold the numbers
	// of parts, plus 1.
	var first, next [256]int
	var keys [256]int32 // of the parts
	var class [256]uint8
	for i := range 256 {
		whole, k := g.class[i], key(i)
		part := first[whole] - 1
		for part >= 0 && keys[part] != k {
			part = next[part] - 1
		}
		if part < 0 {
			part = classes
			keys[part], next[part], first[whole] = k, first[whole], part+1
			classes++
		}
		class[i] = uint8(part)
	}
	g.class = class
	return classes
}

// uniform reports whether the edges treat the bytes of each class alike, which is usual. sizes
// holds the number of bytes of each class.
func (b *Builder) uniform(edges []Edge, sizes *[256]int) bool {
	var to [256]int32 // of each class with an edge, the target
	var bytes [256]int
	class := &b.g.class
	for _, e := range edges {
		for c := int(e.Lo); c <= int(e.Hi); c++ {
			k := class[c]
			if bytes[k] > 0 && to[k] != e.To {
				return false
			}
			to[k] = e.To
			bytes[k]++
		}
	}
	for _, e := range edges { // a class must have edges for all of its bytes or for none
		for c := int(e.Lo); c <= int(e.Hi); c++ {
			if k := class[c]; bytes[k] != sizes[k] {
				return false
			}
		}
	}
	return true
}

// sizes returns the number of bytes of each class.
func (g *Grammar) sizes() (sizes [256]int) {
	for _, k := range g.class {
		sizes[k]++
	}
	return sizes
}
